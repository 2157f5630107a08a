"""Who judges the test episodes: the predictor that acts, and the controls beside it; fitted here, or given as a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from failsight.core.contracts import Predictor
from failsight.core.errors import CalibrationError
from failsight.core.types import Outcome
from failsight.episodes.run import Run
from failsight.evaluation.detection import Scored
from failsight.evaluation.scoring import Truth, judged_by_monitor, replay, score_all
from failsight.monitor.bundle import load_monitor
from failsight.monitor.calibration import Calibration
from failsight.monitor.trigger import TriggerRule
from failsight.predictors.baselines import ClockPredictor, GroupRates, TaskPriorPredictor, group_rates
from failsight.predictors.dataset import LabelledSequence
from failsight.workflows.fit import DEFAULT, Fitted
from failsight.workflows.forks import ForkRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Judges:
    """The default predictor under `DEFAULT`, controls under their own names."""

    bundle: Path
    calibration: Calibration
    """Of the default predictor."""
    rule: TriggerRule
    rates: GroupRates
    """Failure rate per perturbation among the episodes the controls know."""
    trigger_steps: tuple[int | None, ...]
    """First alarm of development episodes: the placebo draws its moments from them."""
    predictors: Mapping[str, Predictor]
    """All that score the test episodes by themselves; a given bundle judges as it would live, and is not among them."""
    rules: Mapping[str, TriggerRule]
    thresholds: Mapping[str, float]
    permuted: Sequence[Any] = field(default_factory=tuple)

    def score(self, run: Run, sequences: Sequence[LabelledSequence]) -> dict[str, list[Scored]]:
        """Every predictor over every test episode, the default first."""
        scored = {
            name: score_all(sequences, predictor, self.rules[name], self.thresholds[name])
            for name, predictor in self.predictors.items()
        }
        return scored if DEFAULT in scored else {DEFAULT: replay_all(self.bundle, run, sequences), **scored}


def judges_of_fit(fitted: Fitted, bundle: Path) -> Judges:
    """The predictor that was just fitted and its controls."""
    train = fitted.split.train
    return Judges(
        bundle=bundle,
        calibration=fitted.calibrations[DEFAULT],
        rule=fitted.rules[DEFAULT],
        rates=group_rates(np.array([s.condition for s in train]), np.array([s.failed for s in train])),
        trigger_steps=tuple(fitted.trigger_steps),
        predictors=fitted.predictors,
        rules=fitted.rules,
        thresholds={name: calibration.threshold for name, calibration in fitted.calibrations.items()},
        permuted=fitted.permuted,
    )


def judges_of_bundle(bundle: Path, gate: Sequence[ForkRecord]) -> Judges:
    """A given bundle; clock and priors come from doing nothing on the development episodes.

    Raises CalibrationError when none of those ended as a success or failure.
    """
    monitor = load_monitor(bundle)
    known = [r for r in gate if r.none.outcome in (Outcome.SUCCESS, Outcome.FAILURE)]
    if not known:
        raise CalibrationError(
            "No development episode ended as a success or failure; there is nothing to compare with."
        )
    failed = [r.none.outcome == Outcome.FAILURE for r in known]
    controls: dict[str, Predictor] = {
        "clock": ClockPredictor.fit([r.none.steps for r in known], failed),
        "task_prior": TaskPriorPredictor.fit([r.key.task for r in known], failed),
    }
    return Judges(
        bundle=bundle,
        calibration=monitor.thresholds.pooled,
        rule=monitor.rule,
        rates=group_rates(np.array([r.key.condition for r in known]), np.array(failed)),
        trigger_steps=tuple(r.trigger_step for r in gate),
        predictors=controls,
        rules=dict.fromkeys(controls, monitor.rule),
        thresholds=dict.fromkeys(controls, float("inf")),
    )


def replay_all(bundle: Path, run: Run, sequences: Sequence[LabelledSequence]) -> list[Scored]:
    """The verdicts of a bundle on every labelled episode, as it would have given them live."""
    monitor = load_monitor(bundle, learns=False)
    episodes = run.read([s.ticket for s in sequences])
    return [
        judged_by_monitor(Truth.of_sequence(s), replay(monitor, e), monitor.rule)
        for s, e in zip(sequences, episodes, strict=True)
    ]
