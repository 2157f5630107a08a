"""Fitting a detector on one split and writing down what it says about every held-out episode, step by step.

Everything that is reported later (AUC at any cut, calibration, alarms) is computed from these traces.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from failsight.core.contracts import Predictor
from failsight.core.specs import SignalColumn
from failsight.core.types import Array
from failsight.evaluation.protocols import EpisodeFacts, Split
from failsight.monitor.probability import ProbabilityMap, Rows, TaskHistory, fit_probability, task_histories
from failsight.predictors.blend import log_odds, scale_of
from failsight.predictors.dataset import LabelledSequence, permute_labels
from failsight.predictors.detector import Detector, FitData
from failsight.predictors.words import begin

_POINTS = 28
"""Calibration steps per validation episode, from a tenth to twice the median successful length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """Episodes to compare detectors on."""

    name: str
    columns: tuple[SignalColumn, ...]
    sequences: tuple[LabelledSequence, ...]
    facts: EpisodeFacts
    rate_hz: float


class Traces(NamedTuple):
    """Evidence of held-out episodes under one fit."""

    seen: Array
    """Episode numbers of the seen test part."""
    unseen: Array
    evidence: dict[int, Array]
    """Episode number -> (T,) evidence; seen, unseen and validation episodes."""
    validate: Array
    probability: ProbabilityMap
    fit_s: float
    step_us: float


LEAST_STEPS = 4
"""Shorter episodes are not judged, as in the published protocols: they would set everybody's cut."""


def without_short(data: DataSet) -> DataSet:
    """The data set without episodes of fewer than 4 steps."""
    kept = tuple(s for s in data.sequences if len(s.signals) >= LEAST_STEPS)
    return replace(data, sequences=kept, facts=facts_of(kept, data.facts.horizon))


def facts_of(sequences: Sequence[LabelledSequence], horizon: int) -> EpisodeFacts:
    """What splits and cuts need to know."""
    length = np.array([len(s.signals) for s in sequences])
    failed = np.array([s.failed for s in sequences], bool)
    return EpisodeFacts(
        task=np.array([s.task for s in sequences]),
        failed=failed,
        length=length,
        horizon=horizon,
        timed_out=failed & (length >= horizon),
        condition=np.array([s.condition for s in sequences]),
    )


def judge(data: DataSet, detector: Detector, split: Split, seed: int, permuted: bool = False) -> Traces:
    """Fit on the split's training part, then stream every held-out episode through the detector.

    With `permuted`, training and validation labels are shuffled among episodes and only what is learned from labels is
    fitted: nothing is left to learn.
    """
    known = [replace(s, task=s.condition) for s in data.sequences] if detector.by == "condition" else data.sequences
    train = [known[i] for i in split.train]
    validate = [known[i] for i in split.validate]
    fit = detector.fit
    if permuted:
        train, validate = list(permute_labels(train, seed)), list(permute_labels(validate, seed + 1))
        fit = detector.learned_part or fit
    began = time.perf_counter()
    predictor = fit(FitData(train, data.columns, seed, validate))
    fit_s = time.perf_counter() - began
    began = time.perf_counter()
    wanted = np.concatenate([split.validate, split.seen, split.unseen])
    evidence = {int(i): trace(predictor, known[i]) for i in wanted}
    steps = sum(len(values) for values in evidence.values())
    step_us = (time.perf_counter() - began) / max(steps, 1) * 1e6
    held = [evidence[int(i)] for i in split.validate]
    return Traces(
        seen=split.seen,
        unseen=split.unseen,
        evidence=evidence,
        validate=split.validate,
        probability=map_of(train, validate, held),
        fit_s=fit_s,
        step_us=step_us,
    )


def blend_traces(parts: Mapping[str, Traces], data: DataSet, split: Split) -> Traces:
    """Traces of a blend from those of its members on the same split: what `judge` would say of it, without another fit.

    Args: parts: member of the blend -> traces of the detector that fits it.
    """
    usual = [i for i in split.validate.tolist() if not data.facts.failed[i]] or split.validate.tolist()
    wanted = np.concatenate([split.validate, split.seen, split.unseen]).tolist()
    evidence = {i: np.zeros(len(data.sequences[i].signals)) for i in wanted}
    for member, traces in parts.items():
        own = {i: _member_evidence(member, traces.evidence[i]) for i in wanted}
        mean, spread = scale_of(np.concatenate([own[i] for i in usual] or [np.zeros(0)]))
        for i in wanted:
            evidence[i] += (own[i] - mean) / spread / np.sqrt(len(parts))
    train, validate = ([data.sequences[i] for i in rows] for rows in (split.train, split.validate))
    return Traces(
        seen=split.seen,
        unseen=split.unseen,
        evidence=evidence,
        validate=split.validate,
        probability=map_of(train, validate, [evidence[int(i)] for i in split.validate]),
        fit_s=sum(t.fit_s for t in parts.values()),
        step_us=sum(t.step_us for t in parts.values()),
    )


def with_map(traces: Traces, data: DataSet, split: Split) -> Traces:
    """The same traces with the probability map that follows from them."""
    train, validate = ([data.sequences[i] for i in rows] for rows in (split.train, split.validate))
    held = [traces.evidence[int(i)] for i in split.validate]
    return traces._replace(probability=map_of(train, validate, held))


def _member_evidence(member: str, values: Array) -> Array:
    return np.array([log_odds(float(v)) for v in values]) if member == "hazard" else values


def trace(predictor: Predictor, sequence: LabelledSequence) -> Array:
    """(T,) evidence of one episode, by the streaming step; NaN where the detector could not tell."""
    begin(predictor, sequence.task, sequence.instruction)
    values = np.empty(len(sequence.signals))
    for t, signals in enumerate(sequence.signals):
        values[t] = predictor.update(signals, None if sequence.hidden is None else sequence.hidden[t]).judged
    return values


def map_of(
    train: Sequence[LabelledSequence],
    validate: Sequence[LabelledSequence],
    held: Sequence[Array],
    kind: Literal["platt", "isotonic"] = "platt",
) -> ProbabilityMap:
    """Probability map from the evidence `held` (T,) of each validation episode, with task histories of training."""
    histories = task_histories([s.task for s in train], [s.failed for s in train], [len(s.signals) for s in train])
    good = [len(s.signals) for s in train if not s.failed] or [len(s.signals) for s in train]
    usual = float(np.median(good))
    steps = np.unique(np.linspace(0.1 * usual, 2 * usual, _POINTS).astype(int))
    rows = [row for s, e in zip(validate, held, strict=True) for row in _rows(s, e, histories, steps)]
    if not rows:
        rows = [(0.0, 0.0, 0.0, False, 1.0)]
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return fit_probability(Rows(*columns), histories, kind)


def _rows(
    sequence: LabelledSequence, evidence: Array, histories: dict[str, TaskHistory], steps: Array
) -> list[tuple[float, float, float, bool, float]]:
    history = histories.get(sequence.task)
    if history is None:
        return []
    mine = [int(t) for t in steps if t < len(evidence) and np.isfinite(evidence[t])]
    return [(float(evidence[t]), history.prior, history.overdue(t), sequence.failed, 1 / len(mine)) for t in mine]


def save_traces(path: Path, traces: Traces, code: str = "") -> None:
    """Write as one npz file, atomically; `code` is the digest of what made them."""
    order = sorted(traces.evidence)
    partial = path.with_name(path.name + ".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("wb") as file:
        np.savez(
            file,
            seen=traces.seen,
            unseen=traces.unseen,
            validate=traces.validate,
            number=np.array(order),
            length=np.array([len(traces.evidence[i]) for i in order]),
            evidence=np.concatenate([traces.evidence[i] for i in order]),
            cost=np.array([traces.fit_s, traces.step_us]),
            probability=np.array(json.dumps(traces.probability.as_dict())),
            code=np.array(code),
        )
    os.replace(partial, path)


def made_by(path: Path, code: str, split: Split) -> bool:
    """Whether a file of traces was made by that code on that split."""
    with np.load(path, allow_pickle=False) as file:
        parts = ((file["seen"], split.seen), (file["unseen"], split.unseen), (file["validate"], split.validate))
        same = all(np.array_equal(found, wanted) for found, wanted in parts)
        return same and "code" in file and str(file["code"]) == code


def load_traces(path: Path) -> Traces:
    """Inverse of `save_traces`."""
    with np.load(path, allow_pickle=False) as file:
        parts = np.split(file["evidence"], np.cumsum(file["length"])[:-1])
        return Traces(
            seen=file["seen"],
            unseen=file["unseen"],
            evidence=dict(zip(file["number"].tolist(), parts, strict=True)),
            validate=file["validate"],
            probability=ProbabilityMap.from_dict(json.loads(str(file["probability"]))),
            fit_s=float(file["cost"][0]),
            step_us=float(file["cost"][1]),
        )
