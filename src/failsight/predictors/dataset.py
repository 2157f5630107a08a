"""Training sequences from labelled runs, and the split that every fit demands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from failsight.core.contracts import Labels
from failsight.core.errors import CalibrationError
from failsight.core.rng import keyed_rng
from failsight.core.specs import SignalColumn
from failsight.core.types import FAILURE_TYPES, Array
from failsight.episodes.meta import RunMeta
from failsight.episodes.run import Episode, Run
from failsight.predictors.hazard import EDGES, SURVIVES, UNKNOWN, bin_labels, edges_for
from failsight.predictors.missing import present
from failsight.signals.bank import bank_columns, replay_signals
from failsight.signals.sampling import SAMPLING_COLUMNS, SamplingSignals


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSequence:
    """One labelled episode of T steps, ready for fitting."""

    ticket: int
    task: str
    condition: str
    signals: Array
    """(T, S) float32, NaN where there is no finite value."""
    hidden: Array | None
    """(T, D) float16, NaN where there is no finite value."""
    failed: bool
    bins: Array
    """(T,) int64 hazard bin, `SURVIVES` on a success, `UNKNOWN` on a failure whose onset is not known."""
    kind: int
    """Index into FAILURE_TYPES, -1 on a success or when the type is not known."""
    dimension: Array
    """(T, A) bool."""
    onset: int | None
    instruction: str = ""
    edges: tuple[int, ...] = EDGES
    """Of `bins`, from the run's rate and the longest horizon of its tasks."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "signals", present(self.signals))
        if self.hidden is not None:
            object.__setattr__(self, "hidden", present(self.hidden))


def build_sequences(run: Run, labels: Mapping[int, Labels], sampling: bool = False) -> list[LabelledSequence]:
    """Sequences of all scored episodes; signals are computed by the code that runs online.

    `sampling` adds the columns of the published sampling detectors to those of the bank.
    """
    sequences = []
    edges = edges_for(run.meta.action_spec.rate_hz, max((meta.horizon for meta in run.episodes), default=0))
    for episode in run.read(sorted(labels)):
        label = labels[episode.meta.ticket]
        sequences.append(
            LabelledSequence(
                ticket=episode.meta.ticket,
                task=episode.meta.task,
                condition=episode.meta.condition,
                signals=_signals(episode, run.meta, sampling),
                hidden=episode.hidden,
                failed=not label.success,
                bins=bin_labels(label.time_to_failure, edges),
                kind=-1 if label.failure_type is None else FAILURE_TYPES.index(label.failure_type),
                dimension=label.dimension,
                onset=label.onset,
                edges=edges,
                instruction=episode.meta.instruction,
            )
        )
    return sequences


def _signals(episode: Episode, meta: RunMeta, sampling: bool) -> Array:
    if episode.signals is not None:
        return episode.signals
    steps = episode.steps()
    values = replay_signals(steps, meta.action_spec, meta.observation_spec)
    if not sampling:
        return values
    stream, extra = SamplingSignals(meta.action_spec), np.zeros((len(steps), len(SAMPLING_COLUMNS)), np.float32)
    for step, row in zip(steps, extra, strict=True):
        stream.update(step, row)
    return np.concatenate([values, extra], axis=1)


def signal_columns(run: Run, sampling: bool = False) -> tuple[SignalColumn, ...]:
    """What the columns of `LabelledSequence.signals` are."""
    meta = run.meta
    own = bank_columns(meta.action_spec, meta.observation_spec) if not meta.signals else ()
    return meta.signals or own + (SAMPLING_COLUMNS if sampling else ())


def shared_edges(sequences: Sequence[LabelledSequence]) -> tuple[int, ...]:
    """The bins that all sequences with a known onset were labelled with; without any, those of the longest horizon.

    Raises CalibrationError when they are not the same.
    """
    found = sorted({s.edges for s in sequences if s.onset is not None})
    if len(found) > 1:
        raise CalibrationError(
            f"These episodes are cut into bins of time at {found[0]} and at {found[1]} steps: their runs have other rates "
            "or horizons. Fit a hazard model on one of them."
        )
    return found[0] if found else max((s.edges for s in sequences), key=lambda edges: edges[-1])


class FailureRates(NamedTuple):
    """Failure rates of a training set."""

    base: float
    tasks: dict[str, float]
    """Shrunken by two pseudo-episodes of the base rate: (failures + 2 base) / (episodes + 2)."""


def failure_rates(sequences: Sequence[LabelledSequence]) -> FailureRates:
    """Per task and overall."""
    failed = np.array([s.failed for s in sequences], float)
    tasks = np.array([s.task for s in sequences])
    base = float(failed.mean())
    rates = {str(t): float((failed[tasks == t].sum() + 2 * base) / ((tasks == t).sum() + 2)) for t in np.unique(tasks)}
    return FailureRates(base, rates)


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSplit:
    """Disjoint episodes: to fit on, to choose the best epoch on, to calibrate on. A fit accepts nothing else."""

    train: tuple[LabelledSequence, ...]
    validate: tuple[LabelledSequence, ...]
    calibrate: tuple[LabelledSequence, ...]


def split_sequences(
    sequences: Sequence[LabelledSequence], seed: int, shares: tuple[float, float] = (0.55, 0.15)
) -> FitSplit:
    """Stratified by task and outcome, keyed; `shares` of training and validation, the rest calibrates.

    Raises CalibrationError when the training part would hold one class only.
    """
    parts: tuple[list[LabelledSequence], list[LabelledSequence], list[LabelledSequence]] = ([], [], [])
    strata: dict[tuple[str, bool], list[LabelledSequence]] = {}
    for sequence in sequences:
        strata.setdefault((sequence.task, sequence.failed), []).append(sequence)
    for key in sorted(strata):
        members = strata[key]
        rng = keyed_rng(seed, "split", *map(str, key))
        offset = float(rng.random())
        for rank, index in enumerate(rng.permutation(len(members))):
            place = (rank + offset) / len(members) % 1.0
            parts[0 if place < shares[0] else 1 if place < sum(shares) else 2].append(members[index])
    split = FitSplit(train=tuple(parts[0]), validate=tuple(parts[1]), calibrate=tuple(parts[2]))
    failed = sum(s.failed for s in split.train)
    if failed < 2 or failed > len(split.train) - 2:
        raise CalibrationError(
            f"The {len(split.train)} training episodes hold {failed} failures; at least 2 of each outcome are needed. "
            "Collect more episodes, or a mix with other perturbations."
        )
    return split


def permute_labels(sequences: Sequence[LabelledSequence], seed: int) -> tuple[LabelledSequence, ...]:
    """The control: every episode gets the labels of another one, its onset at the same share of its length."""
    order = keyed_rng(seed, "permute").permutation(len(sequences))
    result = []
    for sequence, source in zip(sequences, (sequences[i] for i in order), strict=True):
        steps = len(sequence.signals)
        if source.onset is None:
            bins, onset = np.full(steps, UNKNOWN if source.failed else SURVIVES), None
        else:
            onset = round(source.onset / len(source.signals) * steps)
            bins = bin_labels(np.maximum(onset - np.arange(steps), 0).astype(float), sequence.edges)
        rows = np.minimum(np.arange(steps) * len(source.dimension) // steps, len(source.dimension) - 1)
        result.append(
            replace(
                sequence,
                failed=source.failed,
                bins=bins,
                kind=source.kind,
                onset=onset,
                dimension=source.dimension[rows],
            )
        )
    return tuple(result)
