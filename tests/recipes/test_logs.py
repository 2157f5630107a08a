"""The user's path on logs, the comparison, and what is refused."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import LOG_COLUMNS, LOG_NAMES, Quiet, log_sequences, make_log_run, write_json_log

from failsight.cli.main import main
from failsight.core.errors import CalibrationError, EpisodeDataError, FailsightError, StorageError
from failsight.core.types import Task
from failsight.episodes.logged import Log, LoggedEpisode, LogOrigin, store_log
from failsight.episodes.run import Run
from failsight.evaluation.judging import trace
from failsight.evaluation.scoring import replay
from failsight.labels.outcome import OutcomeLabeler
from failsight.labels.table import label_run
from failsight.monitor.bundle import load_monitor
from failsight.monitor.calibrate import first_trigger
from failsight.monitor.trigger import TriggerRule
from failsight.predictors.detectors import DETECTORS
from failsight.recipes.bench import fits as bench_fits
from failsight.recipes.bench import summary as bench_summary
from failsight.recipes.bench.logs import import_logs, who
from failsight.recipes.bench.options import BenchOptions
from failsight.recipes.bench.real import find_data, run_bench_real
from failsight.reports.detectors import control_rows, table_rows
from failsight.reports.html import write_report
from failsight.workflows.evaluate import compare_detectors, evaluate_bundle, explain_episode, leak_report
from failsight.workflows.fit import LogFitOptions, fit_log, read_data, require_enough
from failsight.workflows.fit_many import fit_many, read_listing

LEDGER = LogFitOptions(detector="ledger")
"""Where the detector does not matter: the one that is fitted in a moment."""


def quiet(_):
    pass


def store(root, sequences, columns=LOG_COLUMNS):
    episodes = tuple(
        LoggedEpisode(
            task=s.task,
            instruction="",
            seed=s.ticket,
            number=s.ticket,
            success=not s.failed,
            signals=s.signals,
            hidden=s.hidden,
        )
        for s in sequences
    )
    store_log(Log(columns=columns, episodes=episodes), root, LogOrigin(policy="p", suite="s", horizon=40))
    label_run(Run(root), OutcomeLabeler())
    return Run(root)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_log_run(tmp_path_factory.mktemp("log") / "run", count=120)


@pytest.fixture(scope="module")
def bundle(run):
    fit_log(run, run.root / "bundle", LEDGER, quiet)
    return run.root / "bundle"


def test_import_fit_report_from_the_command_line(tmp_path, capsys):
    folder = write_json_log(tmp_path / "log", count=120)
    target = str(tmp_path / "run")
    main(["import", str(folder), "--out", target, "--horizon", "40"])
    main(["fit", target, "--detector", "ledger"])
    main(["report", target])
    main(["audit", target])
    main(["evaluate", "detection", target, "--detectors", "running_mean", "clock"])
    main(["evaluate", "detection", target, "--bundle", f"{target}/bundle"])
    main(["explain", target, "--bundle", f"{target}/bundle", "--episode", "1"])
    main(["episodes", target, "--failed", "--limit", "3"])
    out = capsys.readouterr().out
    for expected in ("Next: failsight fit", "alarm at evidence", "outcome readable", "running_mean", "within_task_auc"):
        assert expected in out
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["headline"]["shown"]
    assert summary["detectors"]["ledger"]["run"]["early_within_folds"]["low"] > 70
    running = summary["detectors"]["ledger"]["run"]["running"]["early"]
    assert running["seen_within"]["low"] > 70
    assert running["seen"]["auprc"]["value"] > running["seen"]["auprc"]["prevalence"]
    assert summary["headline"]["over"]["task_prior"]["low"] > 0
    assert summary["headline_within"]["over"]["clock"]["low"] > 0
    assert "headline_condition" not in summary
    prior = summary["detectors"]["task_prior"]["run"]["running"]["early"]["seen"]["value"]
    assert next(row["value"] for row in summary["leaks"]["run"] if row["name"] == "task prior") == pytest.approx(prior)
    page = (tmp_path / "run/report.html").read_text()
    assert "chunk_mse" in page
    assert "What the data gives away" in page
    assert 'src="http' not in page
    assert 'href="http' not in page


def test_offline_replay_equals_online_and_the_saved_bundle(run, bundle):
    """The bundle's monitor, stepped tick by tick, replayed, and the bare predictor agree bit for bit."""
    monitor = load_monitor(bundle)
    episode = next(run.read([3]))
    verdicts = replay(monitor, episode)
    monitor.reset(Task(id=episode.meta.task, suite="s", instruction="", horizon=40))
    online = [monitor.step(step) for step in episode.steps()]
    assert [v.risk.evidence for v in online] == [v.risk.evidence for v in verdicts]
    assert [v.trigger for v in online] == [v.trigger for v in verdicts]
    sequence = next(s for s in read_data(run).sequences if s.ticket == 3)
    assert [v.risk.judged for v in verdicts] == trace(monitor.predictor, sequence).tolist()
    assert all(0 <= v.risk.p_fail <= 1 for v in verdicts)


def test_alarms_use_evidence_only(bundle):
    """Two tasks with very different failure rates and the same evidence: p_fail differs, the margin does not."""
    monitor = load_monitor(bundle)
    histories = monitor.probability.histories
    low, high = sorted(histories, key=lambda t: histories[t].prior)[:: len(histories) - 1]
    assert monitor.probability.p_fail(0.0, low, 0) < monitor.probability.p_fail(0.0, high, 0)
    assert monitor.thresholds.choose(low).threshold != float("inf")


def test_an_unknown_task_gets_no_probability_and_a_provisional_alarm(run, bundle):
    monitor = load_monitor(bundle)
    failed = next(s.ticket for s in read_data(run).sequences if s.failed)
    monitor.reset(Task(id="never seen", suite="s", instruction="", horizon=40))
    assert monitor.basis.basis == "provisional"
    assert "10 more successes of never seen calibrate it" in monitor.basis.note
    verdicts = [monitor.step(step) for step in next(run.read([failed])).steps()]
    assert all(np.isnan(v.risk.p_fail) for v in verdicts)
    fired = [v for v in verdicts if v.trigger]
    assert "provisional threshold" in fired[0].why
    assert "no probability on an unknown task" in fired[0].why


def test_unlabelled_episodes_move_the_provisional_threshold(run, bundle):
    """From the fifth episode on, ended or given up; a successful tenth labelled one would end it."""
    monitor = load_monitor(bundle)
    before = monitor.thresholds.choose("new").threshold
    for _ in range(5):
        assert monitor.thresholds.choose("new").threshold == before
        monitor.reset(Task(id="new", suite="s", instruction="", horizon=40))
        for step in next(run.read([0])).steps():
            monitor.step(step)
    monitor.finish(False)
    found, levels = monitor.thresholds.provisional, monitor.thresholds.levels["new"]
    assert len(levels) == 5
    moved = found.corrected.threshold + 5 / 8 * (np.median(levels) - found.usual)
    assert monitor.thresholds.choose("new").threshold == pytest.approx(moved)


def test_a_run_of_two_tasks_has_no_provisional_threshold(tmp_path):
    notes = []
    two = store(tmp_path / "run", [s for s in log_sequences(count=180) if s.task != "task_2"])
    fit_log(two, tmp_path / "b", LEDGER, notes.append)
    monitor = load_monitor(tmp_path / "b")
    monitor.reset(Task(id="never seen", suite="s", instruction="", horizon=40))
    assert monitor.basis.basis == "uncalibrated"
    assert any("fewer than 3 tasks" in note for note in notes)
    rows = dict(
        evaluate_bundle(store(tmp_path / "new", _renamed(log_sequences(count=30), "other")).root, tmp_path / "b")
    )
    assert rows["false alarms"] == "no threshold exists on any of these tasks"
    assert rows["alarms on other"].startswith("no threshold exists on this task")


def _renamed(sequences, task):
    return [type(s)(**{**{f: getattr(s, f) for f in s.__slots__}, "task": task}) for s in sequences]


def test_the_default_is_the_blend_and_every_term_is_shown(run, tmp_path):
    """Fitted once: bundle, explanation and verdict say the same three terms, and they add up."""
    notes = []
    fit_log(run, tmp_path / "b", LogFitOptions(), notes.append)
    monitor = load_monitor(tmp_path / "b")
    assert monitor.predictor.name == "blend"
    failed = next(s for s in read_data(run).sequences if s.failed)
    verdicts = replay(monitor, next(run.read([failed.ticket])))
    assert [v.risk.judged for v in verdicts] == trace(monitor.predictor, failed).tolist()
    assert sum(monitor.predictor.shown.values()) == pytest.approx(verdicts[-1].risk.evidence)
    fired = next(v for v in verdicts if v.trigger)
    lines = explain_episode(run.root, tmp_path / "b", failed.ticket)
    for member in ("running mean", "ledger", "hazard"):
        assert f"{member} " in fired.why
        assert member.replace(" ", "_") in lines[1]
    assert monitor.thresholds.provisional is not None


def test_refits_are_bit_equal(run, bundle, tmp_path):
    fit_log(run, tmp_path / "again", LEDGER, quiet)
    for name in ("model.safetensors", "calibration.json"):
        assert (bundle / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_bundle_is_judged_on_another_run(bundle, tmp_path):
    other = make_log_run(tmp_path / "other", count=60, seed=5)
    rows = dict(evaluate_bundle(other.root, bundle))
    assert float(rows["within_task_auc at 25 % of the horizon"].split()[0]) > 0.7
    assert rows["episodes"] == "60"


def test_any_detector_fits_into_a_bundle(run, tmp_path):
    fit_log(run, tmp_path / "b", LogFitOptions(detector="cosine_knn"), quiet)
    assert load_monitor(tmp_path / "b").predictor.name == "cosine-knn"
    failed = next(meta for meta in run.episodes if meta.outcome == "failure")
    lines = explain_episode(run.root, tmp_path / "b", failed.ticket)
    assert "with one part as in a success: hidden state" in lines[1]
    assert sum(line.startswith("nearest: episode ") for line in lines) == 3
    with pytest.raises(EpisodeDataError, match="needs stac"):
        fit_log(run, tmp_path / "c", LogFitOptions(detector="stac"), quiet)


def test_a_band_and_isotonic_probabilities_are_options(run, tmp_path):
    options = LogFitOptions(detector="ledger", band=True, probability="isotonic")
    fitted = fit_log(run, tmp_path / "b", options, quiet)
    monitor = load_monitor(tmp_path / "b")
    episode = next(run.read([3]))
    verdicts = replay(monitor, episode)
    sequence = next(s for s in read_data(run).sequences if s.ticket == 3)
    deviations = fitted.calibrated.band.apply(trace(fitted.predictor, sequence))
    assert [v.risk.evidence for v in verdicts] == pytest.approx(deviations, abs=1e-4)
    assert monitor.probability.knots
    good = [s for s in read_data(run).sequences if not s.failed]
    fired = [
        max(fitted.calibrated.band.apply(trace(fitted.predictor, s))) >= fitted.thresholds.pooled.threshold
        for s in good
    ]
    assert np.mean(fired) < 0.25


@pytest.mark.parametrize("detector", ["clock", "hazard_ensemble"])
def test_a_detector_that_says_p_fail_only_is_deployed_as_judged(run, tmp_path, detector):
    fitted = fit_log(run, tmp_path / "b", LogFitOptions(detector=detector), quiet)
    verdicts = replay(load_monitor(tmp_path / "b"), next(run.read([3])))
    sequence = next(s for s in read_data(run).sequences if s.ticket == 3)
    assert [v.risk.evidence for v in verdicts] == pytest.approx(trace(fitted.predictor, sequence), abs=1e-6)
    assert all(0 <= v.risk.p_fail <= 1 for v in verdicts)


def test_explanations_name_the_signal(run, bundle):
    failed = next(s for s in read_data(run).sequences if s.failed)
    lines = explain_episode(run.root, bundle, failed.ticket)
    assert "chunk_mse" in lines[1]
    assert any(line.startswith("nearest: episode") for line in lines)
    with pytest.raises(EpisodeDataError, match="no scored episode 999"):
        explain_episode(run.root, bundle, 999)


def test_the_leak_report_reads_a_run(run):
    assert leak_report(run.root)[0].name.startswith("clock")


def test_comparing_notes_what_cannot_run(run):
    notes = []
    columns, rows = compare_detectors(run.root, ("ledger", "token_entropy", "clock"), notes.append)
    assert [row[0] for row in rows] == ["ledger", "clock"]
    assert len(columns) == len(rows[0])
    assert any("token_entropy needs token_entropy" in note for note in notes)


# --- bad input ---------------------------------------------------------------------------------------------------------


def test_five_episodes_say_how_many_more(tmp_path):
    tiny = store(tmp_path / "run", log_sequences(count=5))
    with pytest.raises(
        CalibrationError, match=r"too few\. Record .* more successes \(30 for a false-alarm rate of 0.1\)"
    ):
        fit_log(tiny, tmp_path / "b", LEDGER, quiet)
    assert not (tmp_path / "b").exists()
    with pytest.raises(CalibrationError, match="at least 5 of each"):
        compare_detectors(tiny.root, (), quiet)


@pytest.mark.parametrize("failed", [True, False])
def test_one_outcome_only(tmp_path, failed):
    same = [s for s in log_sequences(count=240) if s.failed == failed]
    lone = store(tmp_path / "run", same)
    with pytest.raises(CalibrationError, match="more successes" if failed else "4 more failures"):
        fit_log(lone, tmp_path / "b", LEDGER, quiet)


def test_a_looser_alpha_needs_fewer():
    require_enough(log_sequences(count=40), 0.3)
    with pytest.raises(CalibrationError, match=r"for a false-alarm rate of 0\.05"):
        require_enough(log_sequences(count=40), 0.05)


def test_a_task_without_success_nan_columns_and_constants_are_said(tmp_path):
    sequences = log_sequences(count=120)
    for s in sequences:
        s.signals[::2, 0] = np.nan
        s.signals[:, 2] = 7.0
    sequences = [s for s in sequences if s.task != "task_2" or s.failed]
    notes = []
    fitted = fit_log(store(tmp_path / "run", sequences), tmp_path / "b", LEDGER, notes.append)
    text = " ".join(notes)
    assert "action_norm is missing on 5" in text
    assert "eef_z never changes" in text
    assert "task_2 has no success" in text
    assert fitted.thresholds.choose("task_2").basis == "pooled"


def test_all_constant_signals_are_refused(tmp_path):
    sequences = log_sequences(count=120, hidden=0)
    for s in sequences:
        s.signals[:] = 1.0
    constant = store(tmp_path / "run", sequences)
    with pytest.raises(EpisodeDataError, match="nothing to learn from"):
        fit_log(constant, tmp_path / "b", LEDGER, quiet)


def test_episodes_of_length_one_are_survived(tmp_path):
    sequences = log_sequences(count=120)
    short = [
        type(s)(**{**{f: getattr(s, f) for f in s.__slots__}, "signals": s.signals[:1], "hidden": s.hidden[:1]})
        for s in sequences[:3]
    ]
    notes = []
    mixed = store(tmp_path / "run", [*short, *sequences[3:]])
    fit_log(mixed, tmp_path / "b", LEDGER, quiet)
    compare_detectors(mixed.root, ("ledger",), notes.append)
    assert any("3 episodes of fewer than 4 steps" in note for note in notes)


def test_lists_of_runs(tmp_path, run):
    bad = tmp_path / "bad.json"
    for text in ("{", '[{"runs": 1}]', "3"):
        bad.write_text(text)
        with pytest.raises(FailsightError, match="not a JSON list"):
            read_listing(bad)
    bad.write_text('["one"]')
    with pytest.raises(FailsightError, match="at least two"):
        read_listing(bad)


def test_several_policies_share_what_they_have_in_common(tmp_path, run):
    """Other signals, other hidden size, other scale: standardised on itself, the shared signals' weights carry over."""
    sequences = log_sequences(count=120, hidden=5, seed=8)
    for s in sequences:
        s.signals[:] = s.signals * 100
    columns = (LOG_COLUMNS[1], LOG_COLUMNS[0], *LOG_COLUMNS[2:3])
    swapped = [
        type(s)(**{**{f: getattr(s, f) for f in s.__slots__}, "signals": s.signals[:, [1, 0, 2]]}) for s in sequences
    ]
    other = store(tmp_path / "other", swapped, columns)
    listing = tmp_path / "both.json"
    listing.write_text(json.dumps([{"run": str(run.root)}, str(other.root)]))
    notes = []
    rows = fit_many(listing, tmp_path / "bundles", 0.1, 0, notes.append)
    assert "3 signals in common: action_norm, chunk_mse, eef_z" in notes[0]
    assert [row[0] for row in rows] == ["run", "other"]
    assert all(float(row[3].split()[0]) > 70 for row in rows)
    assert load_monitor(tmp_path / "bundles" / "other").predictor.hidden_size == 5
    alone = store(
        tmp_path / "alone",
        log_sequences(count=60),
        tuple(type(c)(name=f"x_{c.name}", unit="1", access=c.access) for c in LOG_COLUMNS),
    )
    listing.write_text(json.dumps([str(run.root), str(alone.root)]))
    with pytest.raises(EpisodeDataError, match="no signal in common"):
        fit_many(listing, tmp_path / "c", 0.1, 0, quiet)


def only(monkeypatch, *names):
    """Compare these detectors and no losses."""
    for module in (bench_fits, bench_summary):
        monkeypatch.setattr(module, "DETECTORS", {n: DETECTORS[n] for n in names})
        monkeypatch.setattr(module, "ABLATION", {})


# --- the comparison ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.xdist_group("bench")
def test_the_comparison_on_a_small_log_and_resuming_it(tmp_path, monkeypatch):
    only(monkeypatch, "ledger", "running_mean", "clock", "task_prior", "permuted")
    write_json_log(tmp_path / "data" / "small", count=120, tasks=4)
    write_json_log(tmp_path / "data" / "twin", count=120, tasks=4, seed=7)
    report = run_bench_real(tmp_path / "out", 1, Quiet(), tmp_path / "data")
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    row = summary["detectors"]["ledger"]["small"]
    for metric in (
        "early_seen",
        "early_unseen",
        "early_within_seen",
        "ece",
        "fpr_alpha10",
        "recall_half",
        "fit_s",
        "step_us",
    ):
        assert {"value", "low", "high"} <= set(row[metric]), metric
    assert row["early_within_seen"]["low"] > 70
    assert summary["detectors"]["clock"]["small"]["early_within_seen"]["value"] == 50
    assert summary["default"] == "ledger"
    assert row["shown"]
    assert row["over_task_prior"]["low"] > 0
    assert row["claims"]["seen"]["over"]["task_prior"]["low"] > 0
    gap = summary["running_against_default"]["logs"]["small"]["running_mean"]["seen_within"]["early"]
    assert {"low", "high", "low_tasks", "high_tasks", "decides", "p"} <= set(gap)
    assert summary["running_against_default"]["mean"]["running_mean"]["seen_within"]["cells"] >= 2
    assert "shown" not in summary["detectors"]["clock"]["small"]
    assert control_rows(summary)
    assert summary["selected"]["small"]["early_within_seen"]["value"] > 70
    assert summary["leave_policy_out"]["small"]["others"]["value"] > 60
    assert "evidence ledger" in report.read_text()
    assert table_rows(summary)[0][2][0][0] == "evidence ledger"
    files = sorted((tmp_path / "out/scores").rglob("*.npz"))
    times = [f.stat().st_mtime_ns for f in files]
    files[0].unlink()
    run_bench_real(tmp_path / "out", 1, Quiet(), tmp_path / "data")
    assert json.loads((tmp_path / "out/summary.json").read_text())["resumed"]
    assert [f.stat().st_mtime_ns for f in files[1:]] == times[1:]


@pytest.mark.slow
@pytest.mark.xdist_group("bench")
def test_few_tasks_and_one_sided_logs_are_left_out_by_name(tmp_path, monkeypatch):
    only(monkeypatch, "ledger", "clock", "task_prior")
    notes = []
    reporter = Quiet()
    reporter.note = notes.append
    write_json_log(tmp_path / "data" / "calm", count=4)
    with pytest.raises(CalibrationError, match="nothing to judge"):
        run_bench_real(tmp_path / "none", 1, reporter, tmp_path / "data")
    write_json_log(tmp_path / "data" / "two", count=80, tasks=2)
    run_bench_real(tmp_path / "out", 1, reporter, tmp_path / "data")
    assert any("calm" in note and "left out" in note for note in notes)
    row = json.loads((tmp_path / "out/summary.json").read_text())["detectors"]["ledger"]
    assert set(row) == {"two"}
    assert "early_unseen" not in row["two"]
    assert row["two"]["early_within_folds"]["value"] > 70


@pytest.mark.slow
@pytest.mark.xdist_group("bench")
def test_one_bad_folder_does_not_end_the_comparison(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_fits, "ABLATION", {})
    write_json_log(tmp_path / "data/good", count=80, tasks=2)
    (write_json_log(tmp_path / "data/bad", count=9) / "task_1.jsonl").write_text("[" * 100_000)
    (tmp_path / "data/odd/task.jsonl").mkdir(parents=True)
    calm = [json.loads(line) for line in (tmp_path / "data/good/task_0.jsonl").read_text().splitlines()]
    for record in calm:
        record["steps"] = [{"t": t, "a": 1.0} for t in range(record["length"])]
    (tmp_path / "data/calm").mkdir()
    (tmp_path / "data/calm/task.jsonl").write_text("\n".join(map(json.dumps, calm)))
    options = BenchOptions(detectors=("running_mean",), protocols=("folds",), splits=2)
    report = run_bench_real(tmp_path / "out", 1, Quiet(), tmp_path / "data", options)
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert set(summary["datasets"]) == {"good"}
    assert "task_1.jsonl:1 is nested too deeply" in summary["left_out"]["bad"]
    assert "task.jsonl is not a file" in summary["left_out"]["odd"]
    assert "no signal varies" in summary["left_out"]["calm"]
    assert summary["default"] == next(iter(DETECTORS))
    assert "bad is left out" in report.read_text()
    rate = summary["datasets"]["good"]["failures"] / 80
    assert table_rows(summary)[0][0].startswith(f"good: 80 episodes, {round(80 * rate)} failures ({rate:.0%}), 2 tasks")
    assert summary["command"].endswith("--detectors running_mean --protocols folds --splits 2")
    scores = {str(p.relative_to(tmp_path / "out/scores/good")) for p in (tmp_path / "out/scores").rglob("*.npz")}
    assert {f"running_mean/folds-{k}.npz" for k in (0, 1)} <= scores
    assert not any("gru" in name or "folds-2" in name or "safe" in name for name in scores)
    for name in ("good", "calm"):
        shutil.rmtree(tmp_path / "data" / name)
    with pytest.raises(EpisodeDataError, match=r"No log in .* can be read"):
        run_bench_real(tmp_path / "none", 1, Quiet(), tmp_path / "data")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"detectors": ("leger",)}, "Unknown detector 'leger'. Did you mean ledger"),
        ({"protocols": ("fold",)}, "Unknown protocol 'fold'. Did you mean folds"),
        ({"splits": 0}, "--splits is 0"),
    ],
)
def test_parts_of_a_comparison_are_named_exactly(tmp_path, options, message):
    with pytest.raises(FailsightError, match=message):
        run_bench_real(tmp_path / "out", 1, Quiet(), tmp_path, BenchOptions(**options))
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_a_comparison_keeps_its_data(tmp_path):
    write_json_log(tmp_path / "logs/small", count=20)
    (tmp_path / "out/data/mine").mkdir(parents=True)
    (tmp_path / "out/data/mine/precious.txt").write_text("precious")
    with pytest.raises(StorageError, match="not of a comparison"):
        run_bench_real(tmp_path / "out", 1, Quiet(), tmp_path / "logs")
    assert (tmp_path / "out/data/mine/precious.txt").read_text() == "precious"


def test_a_released_log_is_known_by_what_is_in_it_and_not_by_its_folder(tmp_path):
    write_json_log(tmp_path / "logs/pi0_libero", count=9)  # somebody's own log in a folder of that name
    steps = [{"t": t, "is_replan": True, "chunk_mse": 0.1 * t} for t in range(3)]
    for name in ("OpenDrawer", "TurnOnStove"):
        lines = [json.dumps({"episode_id": k, "success": k > 0, "steps": steps}) for k in range(2)]
        (tmp_path / "logs/mine").mkdir(exist_ok=True)
        (tmp_path / f"logs/mine/{name}_PandaOmron_Env.jsonl").write_text("\n".join(lines))
    import_logs(tmp_path / "logs", tmp_path / "out", quiet)
    assert who(tmp_path / "out", "pi0_libero") == {"policy": "pi0_libero", "suite": "pi0_libero", "release": ""}
    assert who(tmp_path / "out", "mine") == {"policy": "GR00T", "suite": "RoboCasa", "release": "groot_robocasa"}


def test_only_a_changed_log_is_imported_again(tmp_path):
    for name in ("a", "b"):
        write_json_log(tmp_path / "logs" / name, count=9)
    import_logs(tmp_path / "logs", tmp_path / "out", quiet)
    times = {name: (tmp_path / "out/data" / name).stat().st_ctime_ns for name in ("a", "b")}
    path = tmp_path / "logs/a/task_1.jsonl"
    path.write_text(path.read_text().replace('"success": true', '"success": 1   ', 1))  # same size
    import_logs(tmp_path / "logs", tmp_path / "out", quiet)
    again = {name: (tmp_path / "out/data" / name).stat().st_ctime_ns for name in ("a", "b")}
    assert again["a"] != times["a"]
    assert again["b"] == times["b"]


def test_where_logs_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FAILSIGHT_DATA", raising=False)
    with pytest.raises(EpisodeDataError, match="Say where they are with --data"):
        find_data(None)
    write_json_log(tmp_path / "data/vla_rollouts/small", count=4)
    assert find_data(None).name == "vla_rollouts"
    with pytest.raises(EpisodeDataError, match=r"no summary\.json"):
        write_report(tmp_path)
    assert set(LOG_NAMES) == {c.name for c in LOG_COLUMNS}


def test_the_rule_of_a_log_is_one_step_and_the_trigger_says_when(run, bundle):
    monitor = load_monitor(bundle)
    assert (monitor.rule.needed, monitor.rule.window) == (1, 1)
    assert first_trigger(np.array([0.0, 2.0, 0.0]), monitor.rule, 1.0) == 1
    assert first_trigger(np.array([0.0, 2.0, 0.0]), TriggerRule(), 1.0) is None


def test_fitting_a_ledger_needs_no_torch(run, tmp_path):
    code = (
        "import sys; from pathlib import Path; from failsight.episodes.run import Run;"
        "from failsight.workflows.fit import LogFitOptions, fit_log;"
        f"fit_log(Run({str(run.root)!r}), Path({str(tmp_path / 'b')!r}), LogFitOptions(detector='ledger'), lambda note: None);"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
