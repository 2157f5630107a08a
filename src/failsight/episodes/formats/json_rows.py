"""JSON lines with names of their own: one line per step or one per episode."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from failsight.core.errors import EpisodeDataError
from failsight.episodes.formats.fields import SCALARS, Fields
from failsight.episodes.formats.format import Format, LogFormat
from failsight.episodes.formats.json_lines import read_records
from failsight.episodes.formats.mapped import Source, numbers
from failsight.episodes.formats.rows import Column, Sheet, sheets_of


def _names(path: Path) -> tuple[str, ...]:
    """Keys of the first line; none for ActProbe's layout, which has steps as objects."""
    first = next(iter(read_records(path)), None)
    return () if first is None or "steps" in first.data else tuple(first.data)


def _sheets(path: Path, fields: Fields) -> Iterator[Sheet]:
    columns: dict[str, list[Any]] = {name: [] for name in fields.wanted}
    for where, record in read_records(path):
        missing = [name for name in fields.wanted if name not in record]
        if missing:
            raise EpisodeDataError(f"{where} has no {', '.join(missing[:6])}, which the first line has.")
        for name, values in columns.items():
            values.append(record[name])
    if not columns or not next(iter(columns.values())):
        raise EpisodeDataError(f"{path} holds no episode.")
    scalars = {fields.one(role) for role in SCALARS}
    table = {name: values if name in scalars else _column(values) for name, values in columns.items()}
    return sheets_of(str(path), table, fields)


def _column(values: list[Any]) -> Column:
    """An array where the values are alike, else one array per row."""
    array = numbers(values)
    return array if array.ndim else [numbers(value) if isinstance(value, list) else value for value in values]


_SOURCE = Source(kind="JSON lines", suffixes=(".jsonl", ".jsonl.gz"), names=_names, sheets=_sheets)
FORMAT: LogFormat = Format(name="json-lines", sniff=_SOURCE.sniff, read=_SOURCE.read)
