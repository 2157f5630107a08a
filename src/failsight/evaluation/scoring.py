"""Replaying predictors and monitors over recorded episodes: the same streaming code as online, labels revealed late."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from failsight.core.contracts import Labels, Predictor
from failsight.core.types import FAILURE_TYPES, Array, Risk, Task, Verdict
from failsight.episodes.meta import EpisodeMeta
from failsight.episodes.run import Episode
from failsight.evaluation.detection import Scored
from failsight.monitor.monitor import RiskMonitor
from failsight.monitor.trigger import Trigger, TriggerRule
from failsight.predictors.dataset import LabelledSequence
from failsight.predictors.words import begin


class Truth(NamedTuple):
    """What is known of an episode that was judged."""

    ticket: int
    task: str
    condition: str
    failed: bool
    kind: int
    """Index into FAILURE_TYPES, -1 on a success and where it is not known."""
    onset: int | None
    dimension: Array
    """(T, A) bool."""

    @staticmethod
    def of_sequence(sequence: LabelledSequence) -> Truth:
        """Of an episode whose signals were read with its labels."""
        s = sequence
        return Truth(s.ticket, s.task, s.condition, s.failed, s.kind, s.onset, s.dimension)

    @staticmethod
    def of_label(meta: EpisodeMeta, label: Labels) -> Truth:
        """Of a recorded episode and its labels."""
        kind = -1 if label.failure_type is None else FAILURE_TYPES.index(label.failure_type)
        return Truth(
            meta.ticket, meta.task, meta.condition, not label.success, kind, label.onset, np.asarray(label.dimension)
        )


def scored_of(truth: Truth, risks: Sequence[Risk], p_fail: Array, alarm: Array, trigger: int | None) -> Scored:
    """An episode of T steps as its risks tell it; `p_fail` (T,), `alarm` (T,) what is compared with the threshold.

    Dimension risk is NaN of a predictor that has none.
    """
    unknown = np.full(truth.dimension.shape[1], np.nan)
    return Scored(
        ticket=truth.ticket,
        task=truth.task,
        condition=truth.condition,
        failed=truth.failed,
        kind=truth.kind,
        onset=truth.onset,
        p_fail=p_fail,
        alarm=alarm,
        types=np.array([r.type for r in risks]),
        time_to_failure=np.array([r.time_to_failure for r in risks]),
        dimension=np.array([r.dimension if len(r.dimension) == len(unknown) else unknown for r in risks]),
        dimension_labels=truth.dimension,
        trigger=trigger,
    )


def judged_by_monitor(truth: Truth, verdicts: Sequence[Verdict], rule: TriggerRule) -> Scored:
    """An episode as a monitor's verdicts tell it; `alarm` is the score behind them."""
    risks = [v.risk for v in verdicts]
    fired = [t for t, v in enumerate(verdicts) if v.trigger]
    alarm = np.array([rule.score(r) for r in risks])
    return scored_of(truth, risks, shown_scores(risks), alarm, fired[0] if fired else None)


def shown_scores(risks: Sequence[Risk]) -> Array:
    """(T,) p_fail; the evidence on a task so new that it has no probability. A blind step keeps the score before it."""
    p_fail = np.array([r.p_fail for r in risks])
    scores = p_fail if np.isfinite(p_fail).any() else np.array([r.evidence for r in risks])
    seen = np.isfinite(scores)
    if not seen.any():
        return scores
    last = np.maximum.accumulate(np.where(seen, np.arange(len(scores)), -1))
    return np.asarray(scores[np.where(last < 0, int(np.argmax(seen)), last)])


def score_sequence(sequence: LabelledSequence, predictor: Predictor, rule: TriggerRule, threshold: float) -> Scored:
    """One episode through a predictor and the trigger."""
    begin(predictor, sequence.task, sequence.instruction)
    trigger = Trigger(rule, threshold)
    risks, fired, hidden, seen = [], None, None, -1
    for t, signals in enumerate(sequence.signals):
        if sequence.hidden is not None and (seen < 0 or not _same(sequence.hidden, seen, t)):
            hidden, seen = sequence.hidden[t], t
        risk = predictor.update(signals, hidden)
        risks.append(risk)
        if trigger.update(rule.score(risk)) and fired is None:
            fired = t
    truth = Truth.of_sequence(sequence)
    alarm = np.array([rule.score(r) for r in risks])
    return scored_of(truth, risks, np.array([r.p_fail for r in risks]), alarm, fired)


def _same(hidden: np.ndarray, a: int, b: int) -> bool:
    """Whether two steps carry the same policy output (the hidden state repeats until the next inference)."""
    return bool(np.array_equal(hidden[a], hidden[b], equal_nan=True))


def score_all(
    sequences: Sequence[LabelledSequence], predictor: Predictor, rule: TriggerRule, threshold: float
) -> list[Scored]:
    """Every episode, in order."""
    return [score_sequence(s, predictor, rule, threshold) for s in sequences]


def replay(monitor: RiskMonitor, episode: Episode) -> list[Verdict]:
    """The verdicts an online monitor would have given, bit for bit."""
    meta = episode.meta
    suite = "recorded"
    monitor.reset(Task(id=meta.task, suite=suite, instruction=meta.instruction, horizon=meta.horizon))
    return [monitor.step(step) for step in episode.steps()]
