"""`failsight run failure-head`: a failure head beside the action head, against a predictor fitted afterwards.

On the same data and seed: a policy without a failure head, two with one trained jointly (its gradient kept from the
policy, or let through), and the first with a head trained alone on it, frozen. The data are expert demonstrations and a trained policy's own failing and succeeding
episodes with the expert's corrections. Asked is whether joint training costs success, and whether the head sees
failures coming as well as the separate predictor does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from failsight.core.contracts import Predictor
from failsight.core.errors import CalibrationError
from failsight.core.types import Array, EpisodeKey, Outcome
from failsight.episodes.meta import EpisodeMeta
from failsight.episodes.run import Run
from failsight.evaluation import detection
from failsight.evaluation.detection import Scored
from failsight.evaluation.intervals import Estimate, bootstrap, proportion, text_of
from failsight.evaluation.paired import mcnemar
from failsight.evaluation.scoring import score_all
from failsight.labels.table import read_labels
from failsight.policies.vla.design import BackboneConfig, FailureConfig, HeadConfig, HistoryConfig
from failsight.predictors.dataset import build_sequences
from failsight.recipes.demonstrate.data_set import Curriculum, demonstration_data
from failsight.recipes.shipped_policy import GRASP_AUGMENT
from failsight.recipes.studies.study import Study
from failsight.training.config import TrainConfig
from failsight.training.options import FitConfig
from failsight.workflows.collect import CollectOptions, collect_run
from failsight.workflows.fit import DEFAULT, fit_run
from failsight.workflows.fit_ensemble import FitOptions
from failsight.workflows.plans import make_plan
from failsight.workflows.progress import Reporter, ticking
from failsight.workflows.train import note_success
from failsight.workflows.train_many import Job, train_many

ROWS = {
    "joint": "failure head, trained jointly, its gradient kept from the policy",
    "through": "failure head, trained jointly, its gradient through the policy",
    "alone": "failure head, trained alone on the frozen policy",
    "separate": "separate predictor (recurrent hazard ensemble), on the first row's policy",
    "clock": "elapsed time only",
    "task_prior": "failure rate of the task only",
}


SHARES = (("25", 0.25), ("50", 0.5))


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureHeadStudy:
    """Sizes of the study."""

    demonstrations: int = 150
    own_trials: int = 20
    """Episodes per task of the policy's own, for training."""
    fit_trials: int = 25
    """Episodes per task the separate predictor is fitted on."""
    test_trials: int = 20
    seed: int = 61
    own_seed: int = 9200
    fit_seed: int = 9401
    test_seed: int = 9402
    sim: str = "tabletop"
    policy: str = "tabletop-strong"
    mix: str = "default"
    fit: FitOptions = field(default_factory=FitOptions)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            backbone=BackboneConfig(family="tiny", source="tabletop-strong"),
            head=HeadConfig(kind="lstm", width=256, depth=1),
            history=HistoryConfig(kind="policy-head", window=4, stride=4),
            chunk=10,
            scheme="identity",
            arm_loss="l1",
            gripper_ratio=0.15,
            augment=GRASP_AUGMENT,
            fit=FitConfig(
                steps=3000, batch=32, precision="bf16", learning_rate=5e-4, evaluate_every=500, save_every=500
            ),
        )
    )
    failure: FailureConfig = field(default_factory=lambda: FailureConfig(alpha=0.03, width=128))

    def curriculum(self, own: Sequence[EpisodeKey]) -> Curriculum:
        """What the policies are trained on."""
        return Curriculum(
            sim=self.sim, demonstrations=self.demonstrations, seed=self.seed, policy=self.policy, own=tuple(own)
        )


def smoke() -> FailureHeadStudy:
    """As small as it gets with every stage real; for tests."""
    full = FailureHeadStudy()
    fit = replace(full.train.fit, steps=4, batch=4, evaluate_every=2, save_every=2, warmup=1)
    predictor = replace(full.fit, alpha=0.4, recurrent=replace(full.fit.recurrent, members=1, epochs=2))
    return replace(
        full,
        demonstrations=4,
        own_trials=1,
        fit_trials=3,
        test_trials=1,
        fit=predictor,
        train=replace(full.train, fit=fit),
    )


def run_failure_head(folder: Path, workers: int, reporter: Reporter, options: FailureHeadStudy | None = None) -> Path:
    """Everything, or the rest of an interrupted run; returns the report's path."""
    options = options or FailureHeadStudy()
    study = Study(
        name="failure-head",
        question="Does a failure head trained with the policy see failures coming, and does it cost anything?",
        seeds={"data": options.seed, "own": options.own_seed, "fit": options.fit_seed, "test": options.test_seed},
    )
    reporter.stage("1/5  demonstrations, and a policy's own episodes with corrections")
    own = make_plan(options.sim, (), [options.own_seed], options.own_trials, options.mix)
    progress = ticking(reporter.count(options.demonstrations + len(own)), "")
    demonstration_data(options.curriculum(own), folder / "data", workers, progress)
    reporter.stage("2/5  train: without, and with a failure head")
    joint = replace(options.train, failure_head=True, failure=options.failure)
    through = replace(joint, failure=replace(options.failure, gradient=1.0))
    jobs = [
        Job("plain", folder / "data", options.train, folder / "plain"),
        Job("joint", folder / "data", joint, folder / "joint"),
        Job("through", folder / "data", through, folder / "through"),
    ]
    fitted = train_many(jobs, workers, reporter)
    fit = replace(joint.fit, train="failure", steps=max(1, joint.fit.steps // 3))
    alone = replace(joint, start=fitted["plain"].last, fit=fit)
    fitted |= train_many([Job("alone", folder / "data", alone, folder / "alone")], 1, reporter)
    reporter.stage("3/5  episodes for the separate predictor")
    fit_episodes = _collect(
        folder / "fit", fitted["joint"].last, options.fit_seed, options.fit_trials, options, workers, reporter
    )
    predictors = _fit_separate(study, fit_episodes, folder / "bundle", options.fit, reporter, workers)
    reporter.stage("4/5  test episodes nobody has seen")
    tests = {
        name: _collect(
            folder / f"test-{name}",
            fitted[name].last,
            options.test_seed,
            options.test_trials,
            options,
            workers,
            reporter,
        )
        for name in ("joint", "through", "alone")
    }
    reporter.stage("5/5  figures")
    scored = {name: spoken(run) for name, run in tests.items()}
    sequences = build_sequences(tests["joint"], read_labels(tests["joint"]))
    for name, predictor in predictors.items():
        scored[name] = score_all(sequences, predictor, options.fit.rule, np.inf)
    _foresight(study, scored, tests["joint"].episodes[0].horizon)
    _success(study, folder, tests)
    return study.write(folder)


def _fit_separate(
    study: Study, run: Run, bundle: Path, options: FitOptions, reporter: Reporter, workers: int
) -> dict[str, Predictor]:
    """The separate predictor and the controls; none, and a remark, where the episodes are one-sided."""
    try:
        fitted = fit_run(run, bundle, options, reporter.note, workers)
    except CalibrationError as error:
        study.remarks.append(f"No separate predictor: {error}")
        return {}
    return {"separate": fitted.predictors[DEFAULT], **{n: fitted.predictors[n] for n in ("clock", "task_prior")}}


def _collect(
    root: Path, checkpoint: Path, seed: int, trials: int, options: FailureHeadStudy, workers: int, reporter: Reporter
) -> Run:
    keys: Sequence[EpisodeKey] = make_plan(options.sim, (), [seed], trials, options.mix)
    tick = reporter.count(len(keys))

    def progress(meta: EpisodeMeta, old: bool) -> None:
        tick(root.name)

    return collect_run(
        root, keys, CollectOptions(sim=options.sim, policy=str(checkpoint), workers=workers, resume=True), progress
    )


def spoken(run: Run) -> list[Scored]:
    """What the policy's failure head said while it drove, as a detector's scores."""
    labels = read_labels(run)
    found = []
    for episode in run.read():
        label = labels.get(episode.meta.ticket)
        if label is None or episode.failure is None:
            continue
        p_fail, left = episode.failure[:, 0], episode.failure[:, 1]
        found.append(
            Scored(
                ticket=episode.meta.ticket,
                task=episode.meta.task,
                condition=episode.meta.condition,
                failed=not label.success,
                kind=-1,
                onset=label.onset,
                p_fail=p_fail,
                alarm=p_fail,
                types=np.full((len(p_fail), 4), np.nan),
                time_to_failure=left,
                dimension=np.zeros((len(p_fail), 0)),
                dimension_labels=np.zeros((len(p_fail), 0), bool),
                trigger=None,
            )
        )
    return found


def _foresight(study: Study, scored: dict[str, list[Scored]], horizon: int) -> None:
    """AUC at a quarter and half of the horizon, pooled and within task."""
    rows = []
    for name, episodes in scored.items():
        tables = {label: detection.auc_table(episodes, int(share * horizon), name) for label, share in SHARES}
        cells = [
            text_of(study.figure(f"{name}_{metric}_{label}", table[metric]))
            for label, table in tables.items()
            for metric in ("auc", "within_task_auc")
        ]
        rows.append([ROWS[name], *cells])
    columns = ("AUC, 25 %", "within task", "AUC, 50 %", "within task")
    study.table("Seen coming, at a share of the horizon", ("who says it", *columns), rows)
    if "separate" not in scored:
        return
    difference = _auc_difference(scored["joint"], scored["separate"], horizon // 2)
    study.figure("joint_minus_separate_within_50", difference)
    study.remarks.append(
        f"Joint head (first row) minus separate predictor, within task at half the horizon, paired: {text_of(difference)}."
    )


def _auc_difference(first: Sequence[Scored], second: Sequence[Scored], step: int) -> Estimate:
    """Within-task AUC of the first minus the second on the same episodes."""
    by_ticket = {e.ticket: e for e in second}
    pairs = [(e, by_ticket[e.ticket]) for e in first if e.ticket in by_ticket and len(e.p_fail) > step]
    failed = np.array([a.failed for a, _ in pairs], bool)
    tasks = np.array([a.task for a, _ in pairs])
    scores = [np.array([pair[i].p_fail[step] for pair in pairs]) for i in (0, 1)]

    def statistic(rows: Array) -> float:
        return detection.within_auc(scores[0][rows], failed[rows], tasks[rows]) - detection.within_auc(
            scores[1][rows], failed[rows], tasks[rows]
        )

    strata = [f"{task}|{bad}" for task, bad in zip(tasks, failed, strict=True)]
    return bootstrap(statistic, strata, ("failure-head", "difference", step))


def _success(study: Study, folder: Path, tests: dict[str, Run]) -> None:
    """Success with each head minus success without one, same episodes; the head trained alone changes no action."""
    good = {name: np.array([m.outcome == Outcome.SUCCESS for m in run.episodes]) for name, run in tests.items()}
    sim, plain, tasks = tests["alone"].meta.sim, good.pop("alone"), [m.task for m in tests["alone"].episodes]
    figure = study.figure("success_plain", proportion(int(plain.sum()), len(plain)))
    study.bar("without a failure head", figure)
    note_success(folder / "plain", {"success": figure.as_dict(), "simulator": sim})
    rows = [["without a failure head", text_of(figure), "", ""]]
    for name, values in good.items():
        figure = study.figure(f"success_{name}", proportion(int(values.sum()), len(values)))
        note_success(folder / name, {"success": figure.as_dict(), "simulator": sim})
        difference = values.astype(float) - plain.astype(float)
        estimate = bootstrap(_mean_of(difference), tasks, ("failure-head", "success", name))
        study.figure(f"success_{name}_minus_plain", estimate)
        p = mcnemar(int((difference > 0).sum()), int((difference < 0).sum()))
        rows.append([ROWS[name], text_of(figure), text_of(estimate), f"{p:.3f}"])
        study.bar(ROWS[name].removeprefix("failure head, trained "), figure)
        title = f"Success is not lower beyond the interval ({ROWS[name].removeprefix('failure head, trained ')})"
        study.claim(title, estimate.high >= 0, f"difference to the policy without a head {text_of(estimate)}")
    study.table("Success on the test episodes", ("policy", "success", "difference, paired", "McNemar p"), rows)
    for name in ("plain", "joint", "through", "alone"):
        study.curve(name, folder / name)


def _mean_of(values: Array) -> Callable[[Array], float]:
    return lambda rows: float(values[rows].mean())
