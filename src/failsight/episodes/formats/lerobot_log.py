"""LeRobot data sets of rollouts, versions 2.x and 3.0, as logs: actions, states and `next.success`; pictures are not read.

Rows are believed: an episode is what has its `episode_index`, in the order of `frame_index`, in one file. `--map` names
another column for the outcome, or columns of signals and hidden states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from failsight.core.errors import EpisodeDataError
from failsight.core.foreign import read_count, read_number, read_text, require_distinct
from failsight.core.textfiles import read_json_object
from failsight.episodes.formats.fields import choose
from failsight.episodes.formats.format import Format, LogFormat, ReadOptions
from failsight.episodes.formats.json_lines import read_records
from failsight.episodes.formats.mapped import dimension_of, log_of, with_note
from failsight.episodes.formats.parquet_rows import parquet_names, parquet_sheets
from failsight.episodes.logged import Log
from failsight.storage.parquet import read_frame

_FIELDS = {"success": "next.success", "episode": "episode_index", "step": "frame_index", "task": "task_index"}
_OPTIONAL = {"action": "action", "state": "observation.state"}


def _sniff(path: Path) -> str:
    info = path / "meta/info.json"
    if not info.is_file():
        return ""
    if (path / "meta/failsight/run.json").is_file():
        raise EpisodeDataError(f"{path} is a run of failsight already. Next: failsight fit {path}")
    return f"a LeRobot data set of version {read_text(read_json_object(info).get('codebase_version'), str(info))}"


def _read(path: Path, options: ReadOptions) -> Log:
    info = read_json_object(path / "meta/info.json")
    files = sorted((path / "data").glob("chunk-*/*.parquet"))
    if not files:
        raise EpisodeDataError(f"{path}/data holds no chunk-*/*.parquet.")
    available = parquet_names(files[0])
    usual = {role: (name,) for role, name in (_FIELDS | _OPTIONAL).items() if name in available}
    if "success" not in usual and "success" not in options.fields:
        raise EpisodeDataError(
            f"{path} has no next.success; a log says how its episodes ended. Name the column with --map success=NAME; "
            f"there are {', '.join(available)}."
        )
    fields = choose({**usual, **options.fields}, available, str(files[0]))
    log = log_of(chain.from_iterable(((f, s) for s in parquet_sheets(f, fields)) for f in files), fields, path)
    named = _told(_named(log, info.get("features"), fields.one("action"), fields.one("state")), _tasks(path))
    rate = read_number(info.get("fps"), f"{path}/meta/info.json, fps", 0.0)
    return with_note(named, f"recorded at {rate:g} steps per second; say so with --rate-hz {rate:g}")


def _named(log: Log, features: Any, action: str, state: str) -> Log:
    """The entries of actions and states by the names in `info.json`, where it has as many."""
    actions, states = _entries(features, action), _entries(features, state)
    if len(actions) == len(log.actions):
        log = replace(log, actions=tuple(map(dimension_of, actions)))
    return replace(log, states=states) if len(states) == len(log.states) else log


def _entries(features: Any, name: str) -> tuple[str, ...]:
    feature = features.get(name) if isinstance(features, dict) else None
    names = feature.get("names") if isinstance(feature, dict) else None
    if isinstance(names, dict):
        names = next(iter(names.values()), None)
    if not isinstance(names, list):
        return ()
    entries = tuple(read_text(entry, f"info.json: a name of {name}") for entry in names)
    require_distinct(entries, "info.json", f"the name in {name}")
    return entries


def _told(log: Log, tasks: Mapping[int, str]) -> Log:
    """Instructions instead of their numbers."""
    episodes = []
    for e in log.episodes:
        text = tasks.get(int(e.task)) if e.task.isdecimal() else None
        episodes.append(e if text is None else replace(e, task=text, instruction=text))
    return replace(log, episodes=tuple(episodes))


def _tasks(path: Path) -> dict[int, str]:
    """`task_index` -> text, from the table of version 3 or the lines of version 2; empty without either."""
    table, lines = path / "meta/tasks.parquet", path / "meta/tasks.jsonl"
    pairs: Sequence[tuple[Any, Any]] = []
    if table.is_file():
        frame = read_frame(table)
        texts = frame.get("task", frame.index)
        pairs = list(zip(frame.get("task_index", ()), texts, strict=False))
    elif lines.is_file():
        pairs = [(record.data.get("task_index"), record.data.get("task")) for record in read_records(lines)]
    where = f"{path}/meta/tasks"
    return {read_count(number, where): read_text(text, where) for number, text in pairs}


FORMAT: LogFormat = Format(name="lerobot", sniff=_sniff, read=_read)
