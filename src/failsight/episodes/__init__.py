"""Layer `episodes`: recordings on disk. `from_arrays` takes episodes that are already in memory; importing it costs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from failsight.episodes.logged import Log


def from_arrays(episodes: Iterable[Mapping[str, Any]]) -> Log:
    """Episodes as mappings -> a log, to be stored with `failsight.workflows.import_logs.store_labelled`.

    Each has `success` and `signals` or `action`, and where known `task`, `episode` (its number), `instruction`, `seed`,
    `hidden` (T, D), `state` (T, P), `action` (T, A), `chunk` (T, H, A), `samples` (T, K, H, A). `signals`, `state` and
    `action` are (T, n) arrays, or mappings from a name to (T,) values. NaN in signals and hidden states is missing.

    >>> from_arrays([{"success": True, "signals": {"entropy": [0.1, 0.2]}}]).columns[0].name
    'entropy'

    Raises EpisodeDataError naming the episode and what is wrong with it.
    """
    from failsight.episodes.formats.arrays import log_of_arrays

    return log_of_arrays(episodes)
