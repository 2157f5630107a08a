"""Episodes in memory -> a log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from failsight.core.errors import EpisodeDataError
from failsight.episodes.formats.fields import JOINED, ROLES, Fields
from failsight.episodes.formats.mapped import log_of
from failsight.episodes.formats.rows import Sheet
from failsight.episodes.logged import Log

_PLACE = Path("task")
"""What stands for a file; its name is the task of episodes that name none."""


def log_of_arrays(episodes: Iterable[Mapping[str, Any]]) -> Log:
    """`failsight.episodes.from_arrays`."""
    every = list(episodes)
    if not every:
        raise EpisodeDataError("There is no episode.")
    fields = Fields(names=_names(every[0]), assumed=False)
    return log_of(((_PLACE, sheet) for sheet in _sheets(every, fields)), fields, _PLACE)


def _names(episode: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Role -> names."""
    unknown = sorted(str(key) for key in episode if key not in ROLES)
    if unknown or not {"signals", "action"} & episode.keys() or "success" not in episode:
        raise EpisodeDataError(
            f"An episode has {', '.join(unknown) or 'too little'}; it needs success, and signals or action, and may have "
            f"{', '.join(ROLES)}."
        )
    names: dict[str, tuple[str, ...]] = {}
    for role, value in episode.items():
        parts = tuple(map(str, value)) if role in JOINED and isinstance(value, Mapping) else ()
        names[role] = parts or (role,)
    return names


def _sheets(episodes: Iterable[Mapping[str, Any]], fields: Fields) -> Iterator[Sheet]:
    for number, episode in enumerate(episodes):
        values: dict[str, Any] = {}
        for role, value in episode.items():
            parts = value if role in JOINED and isinstance(value, Mapping) else {role: value}
            twice = values.keys() & parts.keys()
            if twice:
                raise EpisodeDataError(f"episode {number}: two entries are called {', '.join(sorted(twice))}.")
            values |= parts
        extra = values.keys() - set(fields.wanted)
        if extra:
            raise EpisodeDataError(f"episode {number} has {', '.join(sorted(extra))}, which the first one has not.")
        yield Sheet(f"episode {number}", values)
