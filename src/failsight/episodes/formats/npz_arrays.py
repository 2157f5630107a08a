"""npz with names of their own: a file is one episode, or its arrays have one row per step of many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.types import Array
from failsight.episodes.formats.fields import SCALARS, Fields
from failsight.episodes.formats.format import Format, LogFormat
from failsight.episodes.formats.mapped import Source
from failsight.episodes.formats.rows import Column, Sheet, sheets_of
from failsight.storage.npz_members import MEMBER_LIMIT, member_names, read_members


def _names(path: Path) -> tuple[str, ...]:
    """Names of the arrays; none for ActProbe's layout."""
    names = member_names(path)
    return () if "signals10" in names else names


def _sheets(path: Path, fields: Fields) -> Iterator[Sheet]:
    return sheets_of_arrays(str(path), read_members(path, dict.fromkeys(fields.wanted, MEMBER_LIMIT), {}), fields)


def sheets_of_arrays(where: str, arrays: Mapping[str, Array], fields: Fields) -> Iterator[Sheet]:
    """One episode where its success is one value, () or (1,); else rows of steps, (N,) or (N, ...) with one N for all.

    Raises EpisodeDataError when the arrays differ in length.
    """
    success = fields.one("success")
    if not success or np.size(arrays[success]) == 1:
        yield Sheet(where, arrays, not fields["episode"])
        return
    lengths = {name: len(array) if array.ndim else -1 for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length if length >= 0 else 'one value'}" for name, length in lengths.items())
        raise EpisodeDataError(
            f"{where}: arrays differ in length ({told}); a file is one episode with one success, or has a row per step."
        )
    scalars = {fields.one(role) for role in SCALARS}
    columns: dict[str, Column] = {name: a.tolist() if name in scalars else a for name, a in arrays.items()}
    yield from sheets_of(where, columns, fields)


_SOURCE = Source(kind="npz", suffixes=(".npz",), names=_names, sheets=_sheets)
FORMAT: LogFormat = Format(name="npz", sniff=_SOURCE.sniff, read=_SOURCE.read)
