"""Subcommands around failure prediction: logs in, fit, judge, audit, explain."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import tyro

from failsight.cli.console import RichReporter, console, print_table, say
from failsight.cli.settings import keep
from failsight.core.ranges import Alpha, Count, Names, Number, Rate, Seed, Share, Trials, Workers

Name = Annotated[str, tyro.conf.Positional]
Folder = Annotated[Path, tyro.conf.Positional]


def print_labels(run_folder: Path) -> None:
    """Label a run and print its table of types per task."""
    from failsight.episodes.run import Run
    from failsight.labels.table import label_run, type_counts
    from failsight.workflows.wiring import make_labeler

    store = Run(run_folder)
    table = type_counts(store, label_run(store, make_labeler(store)))
    print_table(("task", *table.columns), [(name, *row) for name, row in zip(table.index, table.values, strict=True)])


def import_log(
    source: Folder,
    out: Path,
    format: str = "",
    map: str = "",
    policy: str | None = None,
    benchmark: str | None = None,
    horizon: Count | None = None,
    rate_hz: Rate = 0.0,
) -> None:
    """Store somebody else's logs as a labelled run, for fit, evaluate, audit and report.

    Args:
        source: folder of log files, or one file; its format is recognised.
        out: run folder to make.
        format: name of the format, where a path fits several (default: as recognised).
        map: which names of the file mean what: success=ok,episode=ep,task=job,step=tick,signals=entropy+var,hidden=h (also
            instruction, seed, state, action, chunk, samples).
        policy: name of the policy that was logged (default: the folder's name).
        benchmark: what the logs were recorded in (default: the folder's name).
        horizon: steps after which an unfinished episode is a timeout (default: the longest episode).
        rate_hz: steps per second, for figures per hour (default: not known).
    """
    from failsight.episodes.formats.fields import read_map
    from failsight.episodes.formats.format import ReadOptions
    from failsight.episodes.logged import LogOrigin
    from failsight.workflows.import_logs import import_log as store

    options = ReadOptions(fields=read_map(map))
    name = Path(os.path.abspath(source)).name
    origin = LogOrigin(policy=policy or name, suite=benchmark or name, horizon=horizon, rate_hz=rate_hz)
    store(format, source, out, origin, note=RichReporter().note, options=options)
    print_labels(out)
    keep(out)
    console.print(f"run {out}. Next: failsight fit {out}")


def fit(
    run_folder: Folder,
    bundle: Path | None = None,
    alpha: Alpha = 0.1,
    seed: Seed = 0,
    detector: str | None = None,
    isotonic: bool = False,
    band: bool = False,
    consecutive: Count | None = None,
    ordinary: Folder | None = None,
    wordings: Path | None = None,
) -> None:
    """Fit the failure predictor on a labelled run, calibrate it, and write a bundle.

    Args:
        run_folder: run folder, or a JSON list of them to fit on several policies at once.
        bundle: folder of the bundle (default: RUN/bundle).
        alpha: share of successful episodes that may raise an alarm.
        seed: of split and fit.
        detector: any row of `failsight evaluate detection` (default: the recurrent ensemble on our own runs, which
            know onset and type; the blend of running mean, ledger and hazard ensemble on logs).
        isotonic: isotonic instead of Platt calibration of the displayed probability (detectors on logs).
        band: judge the evidence against a band over time instead of one level (detectors on logs).
        consecutive: ticks in a row (at 20 Hz) that switch the alarm on, and off again, instead of 3 of 5 and 8 (our own runs).
        ordinary: run of ordinary episodes of the same policy, filmed: what is unusual is told from them, for diagnoses of
            causes (default: the run itself; our own runs).
        wordings: CSV rows of another wording and the known one to use in its place (our own runs).
    """
    from failsight.episodes.run import Run
    from failsight.workflows.familiar import Ordinary
    from failsight.workflows.fit import LogFitOptions, refuse_log_options

    diagnosing = {"ordinary": ordinary is not None, "wordings": wordings is not None}
    if run_folder.suffix == ".json":
        refuse_log_options("a fit over several runs", **diagnosing)
        refuse_log_options("a fit over several runs", isotonic=isotonic, band=band, detector=detector is not None)
        _refuse_consecutive(consecutive, "a fit over several runs")
        _fit_many(run_folder, bundle or run_folder.with_suffix(""), alpha, seed)
        return
    store = Run(run_folder)
    target = bundle or run_folder / "bundle"
    if store.meta.signals or detector:
        refuse_log_options("a fit of one detector, which diagnoses no causes", **diagnosing)
        _refuse_consecutive(consecutive, "a fit of one detector, which has its own rule")
        _fit_log(
            store,
            target,
            LogFitOptions(
                detector=detector or LogFitOptions().detector,
                alpha=alpha,
                seed=seed,
                probability="isotonic" if isotonic else "platt",
                band=band,
            ),
        )
    else:
        refuse_log_options("the hazard model of our own runs", isotonic=isotonic, band=band)
        _fit_own(store, target, alpha, seed, consecutive, Ordinary(run=ordinary, wordings=wordings))


def _refuse_consecutive(consecutive: int | None, what: str) -> None:
    from failsight.core.errors import FailsightError

    if consecutive is not None:
        raise FailsightError(f"--consecutive would change nothing in {what}; leave it out.")


def _fit_own(store: Any, target: Path, alpha: float, seed: int, consecutive: int | None, ordinary: Any) -> None:
    from failsight.monitor.trigger import TriggerRule
    from failsight.workflows.fit import DEFAULT, fit_run
    from failsight.workflows.fit_ensemble import FitOptions

    rule = TriggerRule() if consecutive is None else TriggerRule.strict(consecutive)
    options = FitOptions(alpha=alpha, seed=seed, rule=rule, controls=False)
    fitted = fit_run(store, target, options, RichReporter().note, ordinary=ordinary)
    calibration = fitted.calibrations[DEFAULT]
    console.print(
        f"bundle {target}: alarm at p_fail >= {calibration.threshold:.3f}, promised false-alarm rate {alpha:g} "
        f"from {calibration.successes} successes (95 % upper bound {calibration.alpha_upper:.3f})"
    )
    console.print(f"Next: failsight evaluate detection ANOTHER_RUN --bundle {target}")


def _fit_log(store: Any, target: Path, options: Any) -> None:
    import time

    from failsight.workflows.fit import fit_log
    from failsight.workflows.fit_summary import summarise_log

    began, note = time.monotonic(), RichReporter().note
    fitted = fit_log(store, target, options, note)
    pooled = fitted.thresholds.pooled
    console.print(
        f"bundle {target}: alarm at evidence >= {pooled.threshold:.3f} where tasks are pooled, promised false-alarm rate "
        f"{options.alpha:g} from {pooled.successes} successes (95 % upper bound {pooled.alpha_upper:.3f})"
    )
    summarise_log(store, fitted, options, began, note)
    console.print(f"figures {store.root / 'summary.json'}. Next: failsight report {store.root}")


def _fit_many(listing: Path, target: Path, alpha: float, seed: int) -> None:
    from failsight.workflows.fit_many import fit_many

    rows = fit_many(listing, target, alpha, seed, RichReporter().note)
    print_table(("run", "episodes", "within-task AUC", "weights of the other policies"), rows)


def evaluate(
    what: Name,
    run_folder: Folder,
    bundle: Path | None = None,
    detectors: Names = (),
    sim: str = "navigation",
    trials: Trials = 10,
    workers: Workers = 2,
) -> None:
    """Judge failure prediction on a labelled run (`detection`), or a trained policy in a simulator (`policy`).

    Args:
        what: detection, or policy.
        run_folder: run folder; for a policy its checkpoint.
        bundle: judge this bundle on a run it has not seen; without it, detectors are fitted and judged by five folds.
        detectors: rows to compare (default: blend, its members and the controls); `all` for every one.
        sim: policy: where to drive it.
        trials: policy: episodes per task.
        workers: policy: worker processes.
    """
    from failsight.core.errors import UnknownNameError
    from failsight.workflows.evaluate import compare_detectors, evaluate_bundle

    if what == "policy":
        _evaluate_policy(run_folder, sim, trials, workers)
        return
    if what != "detection":
        raise UnknownNameError("evaluation", what, ("detection", "policy"))
    if bundle is not None:
        print_table(("figure", "value"), evaluate_bundle(run_folder, bundle))
        return
    print_table(*compare_detectors(run_folder, detectors, RichReporter().note))


def _evaluate_policy(checkpoint: Path, sim: str, trials: int, workers: int) -> None:
    from failsight.workflows.drive import change_table

    reporter = RichReporter()
    reporter.stage(f"driving {checkpoint} in {sim}")
    try:
        print_table(*change_table(checkpoint, sim, trials, workers, reporter))
    finally:
        reporter.close()


def audit(run_folder: Folder, leaks: bool = True) -> None:
    """Say what a run gives away without looking at the robot, or what a data set can teach.

    A run: clock, task, length, contradictory labels, twins. A data set for training: diversity of scenarios and
    instructions, spread of paths, near-duplicates, action ranges, unused dimensions, window counts.

    Args:
        run_folder: run folder, or folder of a data set.
        leaks: the leak report of a run.
    """
    from failsight.workflows.data_sets import is_training_data
    from failsight.workflows.evaluate import leak_report

    if is_training_data(run_folder):
        _audit_data(run_folder)
        return
    for leak in leak_report(run_folder) if leaks else []:
        tag = (leak.word, {"leaks": "red", "clean": "green"}.get(leak.word, "yellow"))
        say(tag, "  ", (leak.name, "bold"), f": {leak.sentence}")


def _audit_data(folder: Path) -> None:
    from failsight.workflows.audit import audit_data
    from failsight.workflows.data_sets import open_data

    rows, warnings = audit_data(open_data(folder))
    print_table(("", str(folder)), rows)
    for line in warnings:
        say(("careful", "yellow"), f"  {line}")
    if not warnings:
        say(("nothing stands out", "green"))


def limits(run_folder: Folder, quantile: Share = 0.999, out: Path | None = None) -> None:
    """Say what velocity, acceleration, range and workspace the successful episodes of a run stayed within.

    They are limits for the guard (`Protector(..., limits=FILE)`, `watch(..., limits=FILE)`), and answer what a safe
    max_relative_target is.

    Args:
        run_folder: run folder.
        quantile: share of all steps that lies within; 1 is the largest ever seen.
        out: file to write the limits to.
    """
    from failsight.workflows.limits import COLUMNS, find_limits, limit_rows, relative_target

    found = find_limits(run_folder, quantile)
    print_table(COLUMNS, limit_rows(found))
    for name, (low, high) in found.limits.workspace.items():
        console.print(f"workspace {name}: {low:.4g} to {high:.4g}")
    say(
        f"{quantile:.4g} of {found.steps} steps of {found.episodes} successful episodes lie within; {relative_target(found)}"
    )
    if out is not None:
        found.limits.write(out)
        console.print(f"wrote {out}")


def explain(run_folder: Folder, bundle: Path, episode: Number) -> None:
    """Say why a bundle raises an alarm in an episode: what weighs in it, nearest episodes, last safe step.

    Args:
        run_folder: run folder.
        bundle: bundle folder.
        episode: episode number.
    """
    from failsight.workflows.evaluate import explain_episode

    for line in explain_episode(run_folder, bundle, episode):
        console.print(line, soft_wrap=True)
