"""What people see: stages, progress bars with rate and time left, tables, one-sentence errors."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160)
"""Nothing printed is markup: paths and names of users hold brackets. A pipe has no width of its own; 160 columns keep
tables whole."""


def say(*parts: str | tuple[str, str]) -> None:
    """One line of plain text and (text, style) pieces, never cut."""
    console.print(Text.assemble(*parts), soft_wrap=True)


class RichReporter:
    """Stages with elapsed time, and one progress bar at a time."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._progress: Progress | None = None

    def stage(self, title: str) -> None:
        """A new stage begins."""
        self.close()
        say((title, "bold"), (f"  {time.monotonic() - self._began:.0f} s", "dim"))

    def count(self, total: int) -> Callable[[str], None]:
        """A progress bar to advance once per unit."""
        self.close()
        progress = Progress(
            TextColumn("  "),
            BarColumn(bar_width=36),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=not console.is_terminal,
        )
        progress.start()
        self._progress = progress
        task, done = progress.add_task("", total=total, note=""), 0

        def tick(note: str) -> None:
            nonlocal done
            done += 1
            progress.update(task, advance=1, note=note)
            if done == total:
                self.close()
                if not console.is_terminal:
                    console.print(f"   {total} done  {note}")

        return tick

    def note(self, text: str) -> None:
        """A line under the stage."""
        say(f"   {text}")

    def close(self) -> None:
        """Stop a running bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = "", wrap: bool = False) -> None:
    """A plain table; `wrap` breaks long cells over lines where the terminal is narrow, else they are cut."""
    table = Table(title=title or None, box=None, header_style="bold", pad_edge=False)
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=not wrap)
    for row in rows:
        table.add_row(*map(str, row))
    console.print(table)
