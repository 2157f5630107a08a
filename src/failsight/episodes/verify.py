"""Is a run still what was sealed? Every file against its SHA-256, every table against its own checks, all against all."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from failsight.core.errors import EpisodeDataError
from failsight.episodes.run import Run, is_sealed
from failsight.storage.checksums import PLACE, digest_of, read_checksums
from failsight.storage.disk import reason
from failsight.storage.parquet import damaged_rows, read_frame, read_table

_VIDEO = re.compile(r"videos/[^/]+/chunk-(\d+)/file-(\d+)\.mp4")
_DATA = re.compile(r"data/chunk-\d+/file-(\d+)\.parquet")
_DERIVED = ("labels", "verdicts")
_OURS = ("data/**/*.parquet", "meta/**/*.parquet", "videos/**/*.mp4")
"""What other tools find by its ending alone: a file too many would be read as part of the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """One file that is not what was sealed."""

    file: str
    problem: str
    episodes: tuple[int, ...] = ()
    """Tickets of the episodes it touches; empty: none in particular."""

    def __str__(self) -> str:
        episodes = f" (episode {_listed(self.episodes)})" if self.episodes else ""
        return f"{self.file}{episodes}: {self.problem}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was looked at and what is wrong."""

    files: int
    has_checksums: bool
    """False: sealed by an older version; tables were read and compared with each other, videos were not."""
    damages: tuple[Damage, ...]


def verify_run(root: Path) -> Verification:
    """Compare a sealed run with its checksums; changes nothing. Raises EpisodeDataError when `root` is not a sealed run."""
    if not (root / "meta/failsight/run.json").is_file() or not is_sealed(root):
        Run(root)  # says what it is not
    damages: list[Damage] = []
    try:
        known = read_checksums(root)
    except EpisodeDataError as error:
        known, damages = None, [Damage(file=PLACE, problem=str(error))]
    if known is None:
        files = [p.relative_to(root).as_posix() for pattern in _OURS for p in _visible(root, pattern)]
        damages += _unreadable(root, files)
    else:
        files = list(known.files)
        damages += _changed(root, known.files)
    derived = [p.relative_to(root).as_posix() for name in _DERIVED for p in _visible(root, f"{name}/*.parquet")]
    damages += _unreadable(root, derived)
    if not damages:
        damages += _contradiction(root)
    listed = known is not None or (root / PLACE).exists()
    return Verification(files=len(files) + len(derived), has_checksums=listed, damages=tuple(damages))


def _visible(root: Path, pattern: str) -> list[Path]:
    return sorted(path for path in root.glob(pattern) if path.is_file() and not path.name.startswith("."))


def _changed(root: Path, known: Mapping[str, str]) -> Iterator[Damage]:
    for name, digest in known.items():
        try:
            if digest_of(root / name) != digest:
                yield Damage(file=name, problem="its SHA-256 differs", episodes=_touched(root, name))
        except OSError as error:
            yield Damage(file=name, problem=f"cannot be read ({reason(error)})", episodes=_touched(root, name))
    for pattern in _OURS:
        for path in _visible(root, pattern):
            name = path.relative_to(root).as_posix()
            if name not in known:
                yield Damage(file=name, problem="does not belong to the run; move it elsewhere")


def _unreadable(root: Path, names: list[str]) -> Iterator[Damage]:
    for name in names:
        if name.endswith(".parquet"):
            try:
                read_table(root / name)
            except EpisodeDataError as error:
                yield Damage(file=name, problem=str(error), episodes=_touched(root, name))


def _contradiction(root: Path) -> list[Damage]:
    """The checks of every reader: tables, plan and rows tell the same story."""
    try:
        for _ in Run(root).read():
            pass
    except EpisodeDataError as error:
        return [Damage(file="meta/failsight", problem=str(error))]
    return []


def _touched(root: Path, name: str) -> tuple[int, ...]:
    """Episodes with rows or pictures in a file, as far as the tables still tell."""
    if video := _VIDEO.fullmatch(name):
        return (int(video[1]) * 1000 + int(video[2]),)
    data = _DATA.fullmatch(name)
    if data is None:
        return ()
    try:
        frame = read_frame(root / "meta/episodes/chunk-000/file-000.parquet")
        metas = read_frame(root / "meta/failsight/episodes.parquet")
        tickets = metas.loc[metas["length"] > 0, "ticket"].to_numpy()
        inside = frame[frame["data/file_index"] == int(data[1])]
        rows = damaged_rows(root / name)
        first = 0 if inside.empty else int(inside["dataset_from_index"].iloc[0])
        spans = [range(r.start + first, r.stop + first) for r in rows or []]
        ends = inside[["dataset_from_index", "dataset_to_index"]].itertuples(index=False)
        hit = inside[[_overlaps(start, stop, spans) for start, stop in ends]]
        return tuple(int(tickets[i]) for i in (hit if spans else inside)["episode_index"])
    except (EpisodeDataError, KeyError, IndexError, ValueError):
        return ()


def _overlaps(start: int, stop: int, spans: list[range]) -> bool:
    return any(start < span.stop and span.start < stop for span in spans)


def _listed(episodes: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, episodes[:8]))
    return shown if len(episodes) <= 8 else f"{shown} and {len(episodes) - 8} more"
