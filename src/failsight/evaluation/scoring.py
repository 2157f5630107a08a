"""Replaying predictors and monitors over recorded episodes: the same streaming code as online, labels revealed late."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from failsight.core.contracts import Predictor
from failsight.core.types import Task, Verdict
from failsight.episodes.run import Episode
from failsight.evaluation.detection import Scored
from failsight.monitor.monitor import RiskMonitor
from failsight.monitor.trigger import Trigger, TriggerRule
from failsight.predictors.dataset import LabelledSequence
from failsight.predictors.words import begin


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
    return Scored(
        ticket=sequence.ticket,
        task=sequence.task,
        condition=sequence.condition,
        failed=sequence.failed,
        kind=sequence.kind,
        onset=sequence.onset,
        p_fail=np.array([r.p_fail for r in risks]),
        alarm=np.array([rule.score(r) for r in risks]),
        types=np.array([r.type for r in risks]),
        time_to_failure=np.array([r.time_to_failure for r in risks]),
        dimension=np.array([r.dimension for r in risks]),
        dimension_labels=sequence.dimension,
        trigger=fired,
    )


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
