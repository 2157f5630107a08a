"""How the episodes of a policy server ended: one JSON line each, written when it ended, read with every field checked."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from failsight.core.errors import EpisodeDataError, StorageError
from failsight.core.foreign import read_count, read_text, require_distinct
from failsight.core.textfiles import read_text_file


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeEnd:
    """One episode that was served."""

    run: str
    """The start of the server; sessions are numbered anew in each. Empty in files of an older version."""
    session: int
    episode: int
    """Within its session, from 0."""
    prompt: str
    steps: int
    steps_from: Literal["client", "assumed"]
    outcome: str
    """success, failure or unknown."""


@dataclass(slots=True)
class OutcomeFile:
    """Appends to one file; None writes nothing."""

    path: Path | None
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    def open(self) -> None:
        """Create folder and file. Raises StorageError where nothing can be written, before the first episode."""
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab+") as file:
                file.seek(max(0, file.seek(0, 2) - 1))
                last = file.read(1)
        except OSError as error:
            raise StorageError(
                f"{self.path} cannot be written ({error.strerror}); choose another --outcomes."
            ) from error
        if last not in (b"", b"\n"):
            raise StorageError(
                f"{self.path} ends in the middle of a line, as a killed server leaves it; delete that line, or choose "
                "another --outcomes."
            )

    def write(self, end: EpisodeEnd) -> None:
        """Append one line. Raises StorageError when the disk refuses."""
        if self.path is None:
            return
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(end)) + "\n")
        except OSError as error:
            raise StorageError(f"{self.path} cannot be written ({error.strerror}).") from error


def read_ends(path: Path) -> list[EpisodeEnd]:
    """Every episode, in the order in which they ended.

    Raises EpisodeDataError naming file and line when the file is missing or damaged, or an episode occurs twice.
    """
    try:
        lines = read_text_file(path).splitlines()
    except EpisodeDataError as error:
        raise EpisodeDataError(f"{path} is not an outcome file of failsight serve ({error}).") from error
    ends = [_read_end(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    require_distinct([(e.run, e.session, e.episode) for e in ends if e.run], str(path), "(run, session, episode)")
    return ends


def _read_end(line: str, where: str) -> EpisodeEnd:
    try:
        row: Any = json.loads(line)
        fields = {name: row[name] for name in ("session", "episode", "prompt", "steps", "outcome")}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise EpisodeDataError(f"{where}: this is not an outcome file of failsight serve ({error!r}).") from error
    return EpisodeEnd(
        run=read_text(row["run"], f"{where} run", 64) if "run" in row else "",
        session=read_count(fields["session"], f"{where} session"),
        episode=read_count(fields["episode"], f"{where} episode"),
        prompt=read_text(fields["prompt"], f"{where} prompt"),
        steps=read_count(fields["steps"], f"{where} steps"),
        steps_from="client" if row.get("steps_from") == "client" else "assumed",
        outcome=_choice(fields["outcome"], f"{where} outcome", ("success", "failure", "unknown")),
    )


def _choice(value: Any, where: str, known: Sequence[str]) -> str:
    if value not in known:
        raise EpisodeDataError(f"{where} is {value!r}; expected one of {', '.join(known)}.")
    return str(value)
