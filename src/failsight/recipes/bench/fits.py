"""The fits behind `failsight run bench-real`: which ones a log needs, one file of traces each, made again when their code changes.

Every file carries the digest of what decided it: the source of the modules the detector's fit reads, its dials, the
splits. Detectors can therefore be run one at a time and merged; a change to one makes only its own fits again. A blend
needs none: its traces follow from those of its members.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.evaluation.judging import (
    DataSet,
    Traces,
    blend_traces,
    judge,
    load_traces,
    made_by,
    save_traces,
    with_map,
)
from failsight.evaluation.protocols import PROTOCOLS, Split, headline_cut, splits
from failsight.predictors.ablation import ABLATION
from failsight.predictors.dataset import LabelledSequence
from failsight.predictors.detector import Detector, FitData
from failsight.predictors.detectors import DETECTORS, SLOW, blended

ROWS = {**DETECTORS, **ABLATION}
PERMUTATIONS = 2
"""Label permutations per fold in the control of every supervised detector."""
CONTROL_PERMUTATIONS = 4
"""Label permutations per split behind the row `permuted`."""
NEW_TASKS = "new_tasks"
_ALWAYS = ("folds", "leave_tasks_out")
"""Protocols of the figures at a moment; every detector runs under them."""
_DATA = "failsight.predictors.dataset"
"""Its episodes are what a fit reads; the rest of that module decides nothing."""


class Ticket(NamedTuple):
    """One fit."""

    data: str
    detector: str
    protocol: str
    number: int
    permuted: int = 0
    """0: the real labels; else the number of the permutation."""

    def path(self, root: Path) -> Path:
        """Where its traces are kept."""
        name = f"{self.detector}-permuted{self.permuted}" if self.permuted else self.detector
        return root / "scores" / self.data / name / f"{self.protocol}-{self.number}.npz"

    @property
    def is_row(self) -> bool:
        """Whether it belongs to a row of the table (the others are controls of a detector)."""
        return self.permuted == 0 or self.detector == "permuted"

    def is_made(self, root: Path, split: Split) -> bool:
        """Whether its traces are there, made by the code as it is, on this split."""
        path = self.path(root)
        return path.is_file() and made_by(path, code_of(self.detector), split)


def tickets_for(name: str, data: DataSet) -> list[Ticket]:
    """Every fit a log needs; slow detectors run under fewer protocols."""
    published = ("actprobe_seen", "actprobe_unseen") if headline_cut(data.facts) == "25" else ("safe",)
    whole = FitData(data.sequences, data.columns, 0)
    members = [ROWS["blend"].parts[m] for m in blended(whole)] if "blend" in DETECTORS else []
    tickets = []
    for detector, entry in DETECTORS.items():
        if entry.lacks(whole) or entry.parts:
            continue
        wanted = [*_ALWAYS, *published] if detector in SLOW else [p for p in PROTOCOLS if p != NEW_TASKS]
        if detector in members:
            wanted.append(NEW_TASKS)
        for protocol in wanted:
            variants = range(1, CONTROL_PERMUTATIONS + 1) if detector == "permuted" else (0,)
            count = split_count(protocol, data)
            tickets += [Ticket(name, detector, protocol, k, r) for r in variants for k in range(count)]
        if entry.supervised:
            tickets += [Ticket(name, detector, "folds", k, r) for r in range(1, PERMUTATIONS + 1) for k in range(5)]
    return tickets + [Ticket(name, loss, "folds", k) for loss in ABLATION for k in range(5)]


def split_count(protocol: str, data: DataSet) -> int:
    """Splits of a protocol; 0 where there are too few tasks to hold one out."""
    try:
        return len(splits(PROTOCOLS[protocol], data.facts))
    except EpisodeDataError:
        return 0


def make(root: Path, sets: Mapping[str, DataSet], ticket: Ticket) -> bool:
    """Fit, stream the held-out episodes, write the traces."""
    data = sets[ticket.data]
    split = splits(PROTOCOLS[ticket.protocol], data.facts)[ticket.number]
    seed = ticket.number + 100 * ticket.permuted
    shuffle = ticket.permuted > 0 and ticket.detector != "permuted"  # that row shuffles by itself
    traces = judge(data, ROWS[ticket.detector], split, seed, shuffle)
    save_traces(ticket.path(root), traces, code_of(ticket.detector))
    return True


Kept = dict[str, dict[str, list[Traces]]]
"""Detector -> protocol -> traces of its splits."""


def stored(root: Path, tickets: Iterable[Ticket], data: DataSet) -> Kept:
    """Traces of those tickets that have been made; a protocol of which one split is missing is left out.

    What is displayed follows from them anew: the probability map is no part of a fit.
    """
    found: dict[tuple[str, str], list[Ticket]] = {}
    for t in tickets:
        found.setdefault((t.detector, t.protocol), []).append(t)
    result: Kept = {}
    for (detector, protocol), group in found.items():
        if all(t.path(root).is_file() for t in group):
            rows = splits(PROTOCOLS[protocol], data.facts)
            result.setdefault(detector, {})[protocol] = [
                with_map(load_traces(t.path(root)), data, rows[t.number]) for t in group
            ]
    return result


def with_blend(kept: Kept, data: DataSet) -> Kept:
    """The traces with those of the blend first, wherever all its members ran."""
    if "blend" not in DETECTORS:
        return kept
    parts = {m: DETECTORS["blend"].parts[m] for m in blended(FitData(data.sequences, data.columns, 0))}
    if "running_mean" not in kept:  # its learned part: the running mean learns nothing
        parts.pop("running_mean", None)
    if not parts or not all(name in kept for name in parts.values()):
        return kept
    shared = set.intersection(*(set(kept[name]) for name in parts.values()))
    blend: dict[str, list[Traces]] = {}
    for protocol in (p for p in PROTOCOLS if p in shared):
        rows = splits(PROTOCOLS[protocol], data.facts)
        fits = zip(*(kept[name][protocol] for name in parts.values()), strict=True)
        blend[protocol] = [
            blend_traces(dict(zip(parts, own, strict=True)), data, _split_of(own[0], rows)) for own in fits
        ]
    return {"blend": blend, **kept}


def _split_of(traces: Traces, rows: Sequence[Split]) -> Split:
    """The split behind the traces: the one with the same validation and test episodes."""
    parts = ("validate", "seen", "unseen")
    return next(r for r in rows if all(np.array_equal(getattr(r, p), getattr(traces, p)) for p in parts))


@cache
def code_of(detector: str) -> str:
    """Digest of everything that decides a detector's traces."""
    digest = hashlib.blake2b(digest_size=8)
    entry: Detector = ROWS[detector]
    roots = set[str]()
    digest.update(inspect.getsource(LabelledSequence).encode())
    for fit in (entry.fit, entry.learned_part):
        if fit is None:
            continue
        function: Any = fit.func if isinstance(fit, partial) else fit
        dials = (
            (fit.args, fit.keywords)
            if isinstance(fit, partial)
            else [c.cell_contents for c in function.__closure__ or ()]
        )
        digest.update(f"{inspect.getsource(function)} {dials!r}".encode())
        roots |= _roots(function)
    for module in sorted(_closure(roots)):
        digest.update(_source(module).encode())
    return digest.hexdigest()


def _roots(function: Any) -> set[str]:
    """Modules of the package that a function names, by import or by the text of a lazy import."""
    code, known = function.__code__, function.__globals__
    modules = {getattr(known.get(name), "__module__", None) or "" for name in code.co_names}
    modules |= {known[n].__name__ for n in code.co_names if isinstance(known.get(n), ModuleType)}
    texts = [value for value in code.co_consts if isinstance(value, str)]
    modules |= {text.split(":")[0] for text in texts if text.startswith("failsight.")}
    return {m for m in modules if m.startswith("failsight.predictors") and not m.endswith(".detectors")}


def _closure(roots: Iterable[str]) -> set[str]:
    """Those modules and what they import of `failsight.predictors`."""
    seen, left = set[str](), list(roots)
    while left:
        module = left.pop()
        if module in seen or module == _DATA or not _source(module):
            continue
        seen.add(module)
        names = [str(n.module) for n in ast.walk(ast.parse(_source(module))) if isinstance(n, ast.ImportFrom)]
        left.extend(name for name in names if name.startswith("failsight.predictors"))
    return seen


@cache
def _source(module: str) -> str:
    found = find_spec(module)
    return "" if found is None or found.origin is None else Path(found.origin).read_text()


def unmade(root: Path, tickets: Sequence[Ticket], sets: Mapping[str, DataSet]) -> list[Ticket]:
    """Tickets whose traces are missing, or were made by other code or on other splits."""
    return [t for t in tickets if not t.is_made(root, splits(PROTOCOLS[t.protocol], sets[t.data].facts)[t.number])]
