"""Reading a sealed run: episodes as validated values, steps as the monitor saw them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from failsight.core.errors import EpisodeDataError
from failsight.core.foreign import read_count, read_number
from failsight.core.types import Array, Event, PolicyOutput, Step
from failsight.episodes.consistency import columns_fit, index_fits, plan_fits, rows_fit
from failsight.episodes.layout import empty_steps
from failsight.episodes.meta import WATCHED, EpisodeMeta, RunMeta
from failsight.episodes.seal import column_values
from failsight.storage.checksums import not_sealed, read_checksums
from failsight.storage.parquet import footer_digest, read_frame, read_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One recorded episode of T steps."""

    meta: EpisodeMeta
    states: Array
    """(T, S) float32 proprioception before each action."""
    actions: Array
    """(T, A) float32 executed actions."""
    chunks: Array
    """(T, H, A) float32 chunk in force."""
    cursors: Array
    """(T,) position in that chunk."""
    replans: Array
    """(T,) bool."""
    hidden: Array | None
    """(T, D) float16."""
    samples: Array | None
    """(T, K, H, A) float16."""
    members: Array | None
    """(T, M, H, A) float16."""
    events: tuple[Event, ...]
    failure: Array | None = None
    """(T, 3) float32 of a policy with a failure head: p_fail, time to failure (steps), re-plan request."""
    signals: Array | None = None
    """(T, S) float32 signals computed elsewhere; states, actions and chunks may then have no columns."""

    def __post_init__(self) -> None:
        if len(self.states) != self.meta.length:
            raise EpisodeDataError(
                f"Episode {self.meta.ticket} should have {self.meta.length} steps but its data has {len(self.states)}; "
                "the file was truncated. Collect the run again."
            )
        if not (np.isfinite(self.states).all() and np.isfinite(self.actions).all()):
            raise EpisodeDataError(f"Episode {self.meta.ticket} has states or actions that are not finite.")

    def steps(self) -> list[Step]:
        """The steps as a monitor sees them online, one policy output object per inference."""
        if self.signals is not None and not self.actions.shape[1]:
            return [self._logged_step(t, self.signals[t]) for t in range(len(self.signals))]
        steps: list[Step] = []
        output: PolicyOutput | None = None
        for t in range(len(self.states)):
            if output is None or self.replans[t]:
                output = PolicyOutput(
                    chunk=self.chunks[t],
                    hidden=None if self.hidden is None else self.hidden[t],
                    samples=None if self.samples is None else self.samples[t],
                    members=None if self.members is None else self.members[t],
                    failure=None if self.failure is None else self.failure[t],
                )
            cursor = int(self.cursors[t])
            steps.append(
                Step(
                    index=t,
                    state=self.states[t],
                    action=output.chunk[cursor],
                    output=output,
                    cursor=cursor,
                    replan=bool(self.replans[t]),
                    executed=self.actions[t - 1] if t else None,
                    signals=None if self.signals is None else self.signals[t],
                )
            )
        return steps

    def _logged_step(self, t: int, signals: Array) -> Step:
        hidden = None if self.hidden is None else self.hidden[t]
        output = PolicyOutput(chunk=self.chunks[t], hidden=hidden)
        return Step(
            index=t, state=self.states[t], action=self.actions[t], output=output, cursor=0, replan=True, signals=signals
        )


class Run:
    """A sealed run folder."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.meta = RunMeta.read(self.root / "meta/failsight/run.json")
        if not is_sealed(self.root):
            how = f"go on with: failsight collect --out {self.root} --resume"
            if self.meta.sim == WATCHED:
                how = f"record into it again with watch(policy, record={str(self.root)!r}), and close() it"
            raise EpisodeDataError(f"{self.root} is not finished; {how}")

    @cached_property
    def episodes(self) -> tuple[EpisodeMeta, ...]:
        """All episodes in order. Raises EpisodeDataError when the table is damaged or says other than `run.json`."""
        path = self.root / "meta/failsight/episodes.parquet"
        rows = self._frame(path).to_dict("records")
        metas = tuple(EpisodeMeta.from_dict(row, f"{path} row {i}") for i, row in enumerate(rows))
        plan_fits(path, metas, self.meta)
        return metas

    @cached_property
    def _events(self) -> dict[int, tuple[Event, ...]]:
        path = self.root / "meta/failsight/events.parquet"
        events: dict[int, list[Event]] = {}
        for i, row in enumerate(self._frame(path).to_dict("records")):
            ticket, event = _event(row, f"{path} row {i}")
            events.setdefault(ticket, []).append(event)
        return {ticket: tuple(items) for ticket, items in events.items()}

    @cached_property
    def _index(self) -> pd.DataFrame:
        paths = sorted((self.root / "meta/episodes").glob("chunk-*/file-*.parquet"))
        if not paths:
            raise EpisodeDataError(f"{self.root}/meta/episodes holds no table of episodes; restore it from a copy.")
        frame = pd.concat([self._frame(path) for path in paths])
        return index_fits(paths[0], frame, self.episodes)

    def read(self, tickets: Sequence[int] | None = None) -> Iterator[Episode]:
        """Episodes by ticket (all by default), each data file read once.

        Raises EpisodeDataError naming the file when one cannot be read, or holds other rows than the tables say.
        """
        wanted = [meta.ticket for meta in self.episodes] if tickets is None else list(tickets)
        table, open_file = None, -1
        for ticket in wanted:
            if not 0 <= ticket < len(self.episodes):
                raise EpisodeDataError(f"{self.root} has no episode {ticket}; it has {len(self.episodes)}.")
            meta = self.episodes[ticket]
            if not meta.length:
                yield self._episode(meta, empty_steps(self.meta))
                continue
            row = self._index.loc[ticket]
            if table is None or row["data/file_index"] != open_file:
                open_file = int(row["data/file_index"])
                table = self._read_file(open_file)
                first = int(table.column("index")[0].as_py()) if table.num_rows else 0
            part = table.slice(max(0, int(row["dataset_from_index"]) - first), meta.length)
            rows_fit(self._file(open_file), part, meta, row)
            yield self._episode(meta, part)

    def _file(self, index: int) -> Path:
        return self.root / f"data/chunk-000/file-{index:03d}.parquet"

    def _frame(self, path: Path) -> pd.DataFrame:
        frame = read_frame(path)
        self._require_sealed(path)
        return frame

    @cached_property
    def _footers(self) -> Mapping[str, str]:
        known = read_checksums(self.root)
        return {} if known is None else known.footers

    def _require_sealed(self, path: Path) -> None:
        name = path.relative_to(self.root).as_posix()
        if name in self._footers and footer_digest(path) != self._footers[name]:
            raise not_sealed(self.root, name)

    def _read_file(self, index: int) -> pa.Table:
        table = read_table(self._file(index))
        self._require_sealed(self._file(index))
        columns_fit(self._file(index), table, self.meta)
        return table

    def _episode(self, meta: EpisodeMeta, table: pa.Table) -> Episode:
        def tensor(name: str) -> Array | None:
            if name not in table.column_names:
                return None
            values = column_values(table, name)
            return values.reshape(len(values), *self.meta.shapes[name]) if name in self.meta.shapes else values

        if not self.meta.has_actions:
            return self._logged_episode(meta, column_values(table, "signal"), tensor("policy.hidden"))
        chunks = tensor("policy.chunk")
        assert chunks is not None
        return Episode(
            meta=meta,
            states=_states(table, self.meta),
            actions=column_values(table, "action"),
            chunks=chunks,
            cursors=column_values(table, "policy.cursor"),
            replans=column_values(table, "policy.replan"),
            hidden=tensor("policy.hidden"),
            samples=tensor("policy.samples"),
            members=tensor("policy.members"),
            failure=tensor("policy.failure"),
            signals=column_values(table, "signal") if self.meta.signals else None,
            events=self._events.get(meta.ticket, ()),
        )

    @staticmethod
    def _logged_episode(meta: EpisodeMeta, signals: Array, hidden: Array | None) -> Episode:
        nothing = np.zeros((len(signals), 0), np.float32)
        return Episode(
            meta=meta,
            states=nothing,
            actions=nothing,
            chunks=nothing[..., None],
            cursors=np.zeros(len(signals), np.int64),
            replans=np.ones(len(signals), bool),
            hidden=hidden,
            samples=None,
            members=None,
            events=(),
            signals=signals,
        )

    def video(self, ticket: int, camera: str) -> Path | None:
        """The episode's video, or None when it was not filmed."""
        chunk, file = divmod(ticket, 1000)
        path = self.root / f"videos/observation.images.{camera}/chunk-{chunk:03d}/file-{file:03d}.mp4"
        return path if path.is_file() else None


def _states(table: pa.Table, meta: RunMeta) -> Array:
    """(T, P); a log may have none."""
    if not meta.observation_spec.state:
        return np.zeros((table.num_rows, 0), np.float32)
    return column_values(table, "observation.state")


def is_sealed(root: Path) -> bool:
    """Whether a run is finished. Raises EpisodeDataError when it was and has lost the file that says so."""
    if (root / "meta/info.json").is_file():
        return True
    if (root / "meta/failsight/episodes.parquet").is_file() and not (root / "recording").is_dir():
        raise EpisodeDataError(f"{root} is a sealed run without its meta/info.json; restore it from a copy.")
    return False


def _event(row: dict[str, Any], where: str) -> tuple[int, Event]:
    try:
        fields: dict[str, Any] = {
            "step": read_count(row["step"], f"{where}: step"),
            "value": read_number(row["value"], f"{where}: value"),
            **{name: str(row[name]) for name in ("kind", "subject", "other")},
            **{name: _vector(row[name], f"{where}: {name}") for name in ("position", "normal")},
        }
        return read_count(row["ticket"], f"{where}: ticket"), Event(**fields)
    except KeyError as error:
        raise EpisodeDataError(f"{where} has no {error}; it is not a table of events.") from error


def _vector(values: Any, where: str) -> tuple[float, ...]:
    numbers = tuple(read_number(value, where) for value in np.ravel(values).tolist())
    if len(numbers) != 3:
        raise EpisodeDataError(f"{where} has {len(numbers)} numbers, not 3.")
    return numbers
