import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import recurrent_arrays

from failsight.core.errors import BundleError, CalibrationError
from failsight.core.types import PolicyOutput, Risk, Step, Task
from failsight.monitor.bundle import load_monitor, save_bundle
from failsight.monitor.calibration import conformal_threshold
from failsight.monitor.trigger import Trigger, TriggerRule, episode_statistic
from failsight.predictors.recurrent import RecurrentPredictor
from failsight.testing.checks import make_steps
from failsight.testing.fakes import ACTIONS, OBSERVATIONS, PointPolicy

TASK = Task(id="home", suite="point", instruction="go home", horizon=30)


def make_bundle(folder, hidden=8, policy="point"):
    predictor = RecurrentPredictor(recurrent_arrays(hidden=hidden))
    calibration = conformal_threshold(np.linspace(0, 0.5, 40), 0.1)
    save_bundle(folder, predictor, TriggerRule(), calibration, (ACTIONS, OBSERVATIONS), policy, {"run": "test"})
    return folder


def test_the_monitor_never_imports_torch(tmp_path):
    bundle = make_bundle(tmp_path / "bundle")
    code = (
        "import sys; from failsight.monitor.bundle import load_monitor;"
        f"load_monitor({str(bundle)!r});"
        "assert not {'torch', 'numba', 'onnxruntime', 'mujoco'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_bundle_round_trips(tmp_path):
    monitor = load_monitor(make_bundle(tmp_path / "bundle"), PointPolicy())
    monitor.reset(TASK)
    verdicts = [monitor.step(s) for s in make_steps(12, 4, 4, hidden=8)]
    assert all(0 <= v.risk.p_fail <= 1 for v in verdicts)
    assert verdicts[0].threshold == pytest.approx(0.45, abs=0.03)


def test_a_bundle_refuses_another_policy(tmp_path):
    bundle = make_bundle(tmp_path / "bundle", policy="somebody else")
    with pytest.raises(BundleError, match="fitted on policy somebody else"):
        load_monitor(bundle, PointPolicy())


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("model.safetensors", lambda b: b[:-3], "not the file"),
        ("config.json", lambda b: b[:-5], "damaged"),
        ("config.json", lambda b: b.replace(b'"bundle_version": 1', b'"bundle_version": 9'), "bundle version 9"),
        ("config.json", lambda b: b.replace(b'"recurrent"', b'"recurent"'), "Did you mean recurrent"),
    ],
)
def test_damaged_bundles_are_explained(tmp_path, name, damage, message):
    path = make_bundle(tmp_path / "bundle") / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(Exception, match=message):
        load_monitor(tmp_path / "bundle")


def test_an_incomplete_bundle_names_what_is_missing(tmp_path):
    (make_bundle(tmp_path / "bundle") / "specs.json").unlink()
    with pytest.raises(BundleError, match=r"lacks specs\.json"):
        load_monitor(tmp_path / "bundle")


def test_trigger_needs_k_of_n_and_releases_with_hysteresis():
    trigger = Trigger(TriggerRule(needed=2, window=3, release_steps=2, release_ratio=0.5), 0.6)
    pattern = [0.7, 0.1, 0.7, 0.5, 0.5, 0.2, 0.2]
    assert [trigger.update(p) for p in pattern] == [False, False, True, True, True, True, False]
    assert trigger.update(float("nan"), hazard=True)


def test_the_statistic_fires_exactly_when_the_trigger_does():
    rng, rule = np.random.default_rng(0), TriggerRule()
    for _ in range(200):
        p = rng.random(30)
        threshold = rng.uniform(0.4, 1.0)
        trigger = Trigger(rule, threshold)
        fired = sum(trigger.update(v) for v in p) > 0
        assert fired == (episode_statistic(p, rule) >= threshold)


def test_an_imminent_collision_counts_as_much_as_its_gain_says():
    risk = Risk(p_fail=0.2, imminent=0.1)
    assert TriggerRule().score(risk) == 0.2
    assert TriggerRule(imminent_gain=5.0).score(risk) == pytest.approx(0.5)
    assert TriggerRule(imminent_gain=5.0).score(Risk(p_fail=0.2)) == 0.2


def test_episodes_too_short_to_trigger():
    assert episode_statistic(np.array([1.0, 1.0]), TriggerRule()) == -np.inf


@pytest.mark.parametrize(("n", "alpha"), [(9, 0.1), (20, 0.1), (50, 0.05), (200, 0.1)])
def test_false_alarms_are_within_the_promise(n, alpha):
    """Theory as a test: the mean rate over calibration sets is at most alpha (and not far below)."""
    rng = np.random.default_rng(n)
    rates = []
    for _ in range(400):
        threshold = conformal_threshold(rng.standard_normal(n), alpha).threshold
        rates.append((rng.standard_normal(500) >= threshold).mean())
    assert np.mean(rates) <= alpha + 3 * np.std(rates) / 20
    assert np.mean(rates) >= alpha - 1 / (n + 1) - 0.02


def test_the_upper_bound_covers_19_of_20_thresholds():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(300):
        calibration = conformal_threshold(rng.random(60), 0.1)
        covered.append(1 - calibration.threshold <= calibration.alpha_upper)
    assert 0.90 < np.mean(covered) < 0.99


def test_too_few_successes_say_how_many_more():
    with pytest.raises(CalibrationError, match="Collect 12 more successes"):
        conformal_threshold(np.arange(7), 0.05)


def test_a_policy_output_that_is_not_finite_triggers_at_once(tmp_path):
    monitor = load_monitor(make_bundle(tmp_path / "bundle"))
    monitor.reset(TASK)
    chunk = np.zeros((5, 4), np.float32)
    output = PolicyOutput(chunk=chunk, hidden=np.full(8, np.nan, np.float16))
    verdict = monitor.step(
        Step(index=0, state=np.zeros(4, np.float32), action=chunk[0], output=output, cursor=0, replan=True)
    )
    assert verdict.trigger
    assert "not finite" in verdict.why
    assert np.isfinite(verdict.risk.p_fail)


def test_calibration_file_says_what_it_promises(tmp_path):
    data = json.loads((make_bundle(tmp_path / "bundle") / "calibration.json").read_text())
    assert data["alpha"] == 0.1
    assert data["successes"] == 40
    assert data["alpha_upper"] > 0.1
