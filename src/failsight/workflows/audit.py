"""`failsight audit DATASET`: what a data set can teach, and what it only lets a policy remember."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np

from failsight.core.types import Array
from failsight.episodes.demonstrations import DemonstrationSet
from failsight.policies.vla.normalise import STILL
from failsight.workflows.data_warnings import TWIN_DISTANCE, all_scale_warnings, language_warnings, paths


class DataAudit(NamedTuple):
    """Findings as table rows and warnings as sentences."""

    rows: list[tuple[str, str]]
    warnings: list[str]


def audit_data(data: DemonstrationSet, windows: tuple[int, ...] = (1, 8, 16)) -> DataAudit:
    """Diversity, spread, twins, ranges, unused dimensions and window counts of a data set."""
    rows: list[tuple[str, str]] = []
    warnings: list[str] = []
    lengths = np.array([row.length for row in data.episodes])
    rows.append(("episodes, frames", f"{len(data.episodes)}, {lengths.sum()}"))
    rows.append(("length", f"{lengths.min()} to {lengths.max()}, median {np.median(lengths):.0f}"))
    _diversity(data, rows, warnings)
    _actions(data, rows, warnings)
    warnings += all_scale_warnings(data)
    _paths(data, rows, warnings)
    whole = [int(np.maximum(lengths - size + 1, 0).sum()) for size in windows]
    rows += [(f"windows of {s}", f"{lengths.sum()} ({n} without padding)") for s, n in zip(windows, whole, strict=True)]
    if (lengths < max(windows)).mean() > 0.5:
        warnings.append(
            f"more than half of the episodes are shorter than a window of {max(windows)}; most of it is padding."
        )
    return DataAudit(rows, warnings)


def _diversity(data: DemonstrationSet, rows: list[tuple[str, str]], warnings: list[str]) -> None:
    for kind, values in (
        ("scenarios", [row.scenario for row in data.episodes]),
        ("instructions", [text for row in data.episodes for text in row.texts]),
    ):
        counts = Counter(values)
        share = np.array(list(counts.values())) / len(values)
        effective = float(np.exp(-(share * np.log(share)).sum()))
        rows.append((kind, f"{len(counts)} ({effective:.1f} effective)"))
        rare = [name for name, count in counts.items() if count < 5]
        if len(counts) == 1:
            warnings.append(f"there is one {kind[:-1]} only ({values[0]!r}): holding {kind} out is impossible.")
        elif rare:
            warnings.append(f"{len(rare)} {kind} have fewer than 5 episodes ({rare[0]!r}).")
    changing = sum(1 for row in data.episodes if row.changes)
    rows.append(("episodes whose instruction changes on the way", f"{changing} of {len(data.episodes)}"))
    texts: dict[str, set[str]] = {}
    for row in data.episodes:
        texts.setdefault(row.scenario, set()).update(row.texts)
    if len(data.instructions) == 1 and len(texts) > 1:
        warnings.append("every scenario has the same instruction; a policy can ignore language and lose nothing.")
    warnings += language_warnings(data)


def _actions(data: DemonstrationSet, rows: list[tuple[str, str]], warnings: list[str]) -> None:
    values = np.asarray(data.actions)
    for i, dimension in enumerate(data.action_spec.dimensions):
        column = values[:, i].astype(np.float64)
        rows.append(
            (
                f"action {dimension.name} ({dimension.unit or 'unit not said'})",
                f"{column.min():+.3f} to {column.max():+.3f} of [{dimension.low:g}, {dimension.high:g}], "
                f"deviation {column.std():.3f}",
            )
        )
        largest = np.abs(column).max()
        if np.ptp(column) <= STILL * largest:
            continue
        if dimension.kind != "binary" and largest < 0.05 * max(abs(dimension.low), abs(dimension.high)):
            warnings.append(f"action dimension {dimension.name} uses less than 5 % of its declared range.")
    exact = np.mean([np.isin(values[:, i], _common(values[:, i])).mean() for i in range(values.shape[1])])
    if exact > 0.95 and not all(d.kind == "binary" for d in data.action_spec.dimensions):
        warnings.append("actions take a handful of values only (key presses?); a discrete head may suit them better.")


def _common(column: Array) -> Array:
    values, counts = np.unique(column, return_counts=True)
    return np.asarray(values[np.argsort(-counts)[:8]])


def _paths(data: DemonstrationSet, rows: list[tuple[str, str]], warnings: list[str]) -> None:
    """Spread of action paths within a scenario, and pairs of episodes that are all but the same."""
    found = paths(data)
    names = np.array([row.scenario for row in data.episodes])
    spreads, twins = [], []
    for name in np.unique(names):
        at = np.flatnonzero(names == name)
        spreads.append(float(found[at].std(0).mean()))
        for i, a in enumerate(at):
            rest = at[i + 1 :]
            close = np.abs(found[rest] - found[a]).mean((1, 2)) < TWIN_DISTANCE if len(rest) else np.zeros(0, bool)
            twins += [(int(a), int(b)) for b in rest[close]]
    rows.append(("path spread within a scenario", f"{np.mean(spreads):.2f} of the actions' deviation"))
    involved = {e for pair in twins for e in pair}
    rows.append(("near-duplicate episodes", f"{len(involved)} in {len(twins)} pairs"))
    if len(involved) > 0.2 * len(data.episodes):
        warnings.append(
            f"{len(involved)} of {len(data.episodes)} episodes have a near-duplicate: a random split puts copies on both "
            "sides, so a low validation loss may be memory. Hold whole scenarios out."
        )
