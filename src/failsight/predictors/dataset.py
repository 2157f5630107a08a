"""Training sequences from labelled runs, and the split that every fit demands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from failsight.core.contracts import Labels
from failsight.core.errors import CalibrationError
from failsight.core.rng import keyed_rng
from failsight.core.types import FAILURE_TYPES, Array
from failsight.episodes.run import Run
from failsight.predictors.hazard import SURVIVES, bin_labels
from failsight.signals.bank import replay_signals


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSequence:
    """One labelled episode of T steps, ready for fitting."""

    ticket: int
    task: str
    condition: str
    signals: Array
    """(T, S) float32."""
    hidden: Array | None
    """(T, D) float16."""
    bins: Array
    """(T,) int64 hazard bin, `SURVIVES` on a success."""
    kind: int
    """Index into FAILURE_TYPES, -1 on a success."""
    dimension: Array
    """(T, A) bool."""
    onset: int | None

    @property
    def failed(self) -> bool:
        """Whether the episode failed."""
        return self.kind >= 0


def build_sequences(run: Run, labels: Mapping[int, Labels]) -> list[LabelledSequence]:
    """Sequences of all scored episodes; signals are computed by the code that runs online."""
    sequences = []
    for episode in run.read(sorted(labels)):
        label = labels[episode.meta.ticket]
        sequences.append(
            LabelledSequence(
                ticket=episode.meta.ticket,
                task=episode.meta.task,
                condition=episode.meta.condition,
                signals=replay_signals(episode.steps(), run.meta.action_spec, run.meta.observation_spec),
                hidden=episode.hidden,
                bins=bin_labels(label.time_to_failure),
                kind=-1 if label.failure_type is None else FAILURE_TYPES.index(label.failure_type),
                dimension=label.dimension,
                onset=label.onset,
            )
        )
    return sequences


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
            bins, onset = np.full(steps, SURVIVES), None
        else:
            onset = round(source.onset / len(source.signals) * steps)
            bins = bin_labels(np.maximum(onset - np.arange(steps), 0).astype(float))
        rows = np.minimum(np.arange(steps) * len(source.dimension) // steps, len(source.dimension) - 1)
        result.append(replace(sequence, bins=bins, kind=source.kind, onset=onset, dimension=source.dimension[rows]))
    return tuple(result)
