import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import point_bundle, recurrent_arrays

from failsight.causes.familiar import Familiar
from failsight.core.errors import BundleError, CalibrationError, EpisodeDataError
from failsight.core.types import PolicyOutput, Risk, Step, Task
from failsight.monitor import bundle
from failsight.monitor.bundle import load_monitor, save_adapted, save_bundle
from failsight.monitor.calibration import conformal_threshold
from failsight.monitor.thresholds import Thresholds
from failsight.monitor.trigger import Trigger, TriggerRule, episode_statistic
from failsight.predictors.recurrent import RecurrentPredictor
from failsight.testing.checks import make_steps
from failsight.testing.fakes import OBSERVATIONS, PointPolicy

TASK = Task(id="home", suite="point", instruction="go home", horizon=30)


def make_bundle(folder, hidden=8, policy="point"):
    predictor = RecurrentPredictor(recurrent_arrays(hidden=hidden))
    calibration = conformal_threshold(np.linspace(0, 0.5, 40), 0.1)
    save_bundle(folder, point_bundle(predictor, calibration, policy=policy))
    return folder


def test_the_monitor_never_imports_torch(tmp_path):
    folder = make_bundle(tmp_path / "bundle")
    code = (
        "import sys; from failsight.monitor.bundle import load_monitor;"
        f"load_monitor({str(folder)!r});"
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
    folder = make_bundle(tmp_path / "bundle", policy="somebody else")
    with pytest.raises(BundleError, match="fitted on policy somebody else"):
        load_monitor(folder, PointPolicy())


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("model.safetensors", lambda b: b[:-3], "not the file"),
        ("config.json", lambda b: b[:-5], "damaged"),
        ("config.json", lambda b: b.replace(b'"bundle_version": 2', b'"bundle_version": 9'), "bundle version 9"),
        ("config.json", lambda b: b.replace(b'"recurrent"', b'"recurent"'), "Did you mean recurrent"),
    ],
)
def test_damaged_bundles_are_explained(tmp_path, name, damage, message):
    path = make_bundle(tmp_path / "bundle") / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(Exception, match=message):
        load_monitor(tmp_path / "bundle")


def edit(folder, name, key, value):
    """Change one value, as a person would, and sign the bundle again, so that only the field checks can refuse it."""
    data = json.loads((folder / name).read_text())
    at = data
    for part in key[:-1]:
        at = at[part]
    at[key[-1]] = value
    (folder / name).write_text(json.dumps(data))
    marks = json.loads((folder / "fingerprint.json").read_text())
    marks["files"][name] = bundle._digest((folder / name).read_bytes())
    marks["bundle"] = bundle._digest_of(marks)
    (folder / "fingerprint.json").write_text(json.dumps(marks))


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("calibration.json", ("threshold",), float("nan")),
        ("calibration.json", ("threshold",), "0.5"),
        ("calibration.json", ("threshold",), float("inf")),
        ("calibration.json", ("alpha",), 0),
        ("calibration.json", ("alpha",), 1),
        ("calibration.json", ("successes",), -3),
        ("calibration.json", ("alpha_upper",), 1.5),
        ("config.json", ("trigger", "needed"), 0),
        ("config.json", ("trigger", "needed"), 6),
        ("config.json", ("trigger", "window"), -1),
        ("config.json", ("trigger", "release_ratio"), float("nan")),
        ("config.json", ("trigger", "imminent_gain"), -1.0),
        ("config.json", ("trigger", "blind_steps"), 0),
        ("config.json", ("trigger", "surprise"), 1),
        ("specs.json", ("action", "rate_hz"), float("nan")),
        ("specs.json", ("action", "gripper_closed_sign"), 0),
        ("specs.json", ("observation", "state"), ["x_m", "x_m", "z_m", "gripper_open01"]),
    ],
)
def test_fields_no_fit_writes_are_refused_by_file_and_name(tmp_path, name, key, value):
    folder = make_bundle(tmp_path / "bundle")
    edit(folder, name, key, value)
    with pytest.raises(BundleError) as refusal:
        load_monitor(folder)
    assert name in str(refusal.value)
    assert key[-1].rstrip("s").split("_")[0] in str(refusal.value)


@pytest.mark.parametrize("name", ["config.json", "calibration.json", "specs.json", "model.safetensors"])
def test_the_digest_covers_every_file(tmp_path, name):
    path = make_bundle(tmp_path / "bundle") / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(BundleError, match=name):
        load_monitor(tmp_path / "bundle")


def test_the_digest_covers_whom_it_belongs_to(tmp_path):
    path = make_bundle(tmp_path / "bundle", policy="somebody else") / "fingerprint.json"
    path.write_text(path.read_text().replace("somebody else", "point"))
    with pytest.raises(BundleError, match=r"fingerprint\.json is not the file"):
        load_monitor(tmp_path / "bundle", PointPolicy())


def test_a_bundle_refuses_another_order_of_the_state(tmp_path):
    policy = PointPolicy()
    policy.observation_spec = replace(OBSERVATIONS, state=tuple(reversed(OBSERVATIONS.state)))
    with pytest.raises(BundleError, match="made for the state"):
        load_monitor(make_bundle(tmp_path / "bundle"), policy)


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    predictor = RecurrentPredictor(recurrent_arrays(hidden=8))
    predictor.arrays["head_b"][0, 0] = np.nan
    calibration = Thresholds.fixed(0.5)
    with pytest.raises(BundleError, match="head_b"):
        save_bundle(tmp_path / "b", point_bundle(predictor, calibration))
    assert not (tmp_path / "b").exists()


def test_no_threshold_is_said_not_hidden(tmp_path):
    folder = make_bundle(tmp_path / "bundle")
    edit(folder, "calibration.json", ("threshold",), None)
    assert load_monitor(folder).thresholds.pooled.threshold == float("inf")


def test_what_is_learned_in_use_lives_beside_the_bundle_that_it_belongs_to(tmp_path):
    first, second = make_bundle(tmp_path / "a"), make_bundle(tmp_path / "b", policy="other")
    monitor = load_monitor(first)
    monitor.thresholds.known = {"home": 30}
    for i in range(10):
        monitor.thresholds.watch("new", i / 10)
    save_adapted(first, monitor)
    again = load_monitor(first)
    assert again.thresholds.learned["new"].threshold == pytest.approx(0.9)
    shutil.copy(first / "adapted.json", second / "adapted.json")
    with pytest.raises(BundleError, match="belongs to another bundle"):
        load_monitor(second)
    make_bundle(first)
    assert not (first / "adapted.json").exists(), "a new fit starts learning afresh"


def test_an_incomplete_bundle_names_what_is_missing(tmp_path):
    (make_bundle(tmp_path / "bundle") / "specs.json").unlink()
    with pytest.raises(BundleError, match=r"lacks specs\.json"):
        load_monitor(tmp_path / "bundle")


def test_trigger_needs_k_of_n_and_releases_with_hysteresis():
    trigger = Trigger(TriggerRule(needed=2, window=3, release_steps=2, release_ratio=0.5), 0.6)
    pattern = [0.7, 0.1, 0.7, 0.5, 0.5, 0.2, 0.2]
    assert [trigger.update(p) for p in pattern] == [False, False, True, True, True, True, False]
    assert trigger.update(float("nan"), hazard=True)


def test_strict_ticks_in_a_row_start_again_after_one_in_between():
    """Three in a row at 0.5 or above switch on, three in a row at 0.4 or below off; 3 of 5 is on one tick earlier."""
    scores = [0.9, 0.9, 0.1, 0.9, 0.9, 0.9, 0.3, 0.3, 0.45, 0.3, 0.3, 0.3]
    strict = Trigger(TriggerRule.strict(3), 0.5)
    assert [strict.update(score) for score in scores] == [False] * 5 + [True] * 6 + [False]
    loose = Trigger(TriggerRule(), 0.5)
    assert [loose.update(score) for score in scores].index(True) == 3
    with pytest.raises(EpisodeDataError, match="trigger, window"):
        TriggerRule.strict(0)


def test_the_statistic_fires_exactly_when_the_trigger_does():
    rng, rule = np.random.default_rng(0), TriggerRule()
    for _ in range(200):
        p = rng.random(30)
        threshold = rng.uniform(0.4, 1.0)
        trigger = Trigger(rule, threshold)
        fired = sum(trigger.update(v) for v in p) > 0
        assert fired == (episode_statistic(p, rule) >= threshold)


def test_the_statistic_by_hand():
    """The second largest of the last three scores; a score that is not finite counts as none."""
    trigger = Trigger(TriggerRule(needed=2, window=3), 2.0)
    found = []
    for score in (0.7, 0.1, 0.7, 0.5, 0.2, 0.9, float("nan")):
        trigger.update(score)
        found.append(trigger.statistic)
    assert found == [-np.inf, 0.1, 0.7, 0.5, 0.5, 0.5, 0.2]
    rule = TriggerRule(needed=2, window=3)
    assert episode_statistic(np.array([0.2, 0.9, 0.5, 0.8, 0.1]), rule) == 0.8
    assert episode_statistic(np.array([0.3, 0.6]), rule) == 0.3
    assert episode_statistic(np.array([0.9]), rule) == -np.inf


def test_an_alarm_begins_at_the_threshold_and_ends_after_ticks_in_a_row_at_the_release():
    """Threshold 1, ratio 0.5: two ticks in a row at 0.5 end it, one at 0.75 between them begins the count anew."""
    rule = TriggerRule(needed=1, window=1, release_steps=2, release_ratio=0.5)
    trigger = Trigger(rule, 1.0)
    assert [trigger.update(p) for p in (0.9, 1.0, 0.5, 0.75, 0.5, 0.5)] == [False, True, True, True, True, False]
    hazard = Trigger(TriggerRule(needed=1, window=1, release_steps=3), 1.0)
    assert [hazard.update(0.2, hazard=i == 0) for i in range(3)] == [True, True, False]


def test_a_reset_trigger_remembers_nothing():
    trigger = Trigger(TriggerRule(needed=2, window=3, release_steps=3), 0.8)
    for score in (0.9, 0.9, 0.1, 0.1):
        trigger.update(score)
    assert trigger.on
    trigger.reset()
    assert (trigger.on, trigger.statistic, trigger.threshold) == (False, -np.inf, 0.8)
    assert not trigger.update(0.9), "one of two"
    trigger.reset()
    assert [trigger.update(0.1, hazard=i == 0) for i in range(3)] == [True, True, False]


def test_a_trigger_goes_on_from_its_saved_state():
    """Saved on, one tick below the release, three scores 0.5, 1, 0.75; the next tick replaces the 1 and ends the alarm."""
    rule = TriggerRule(needed=2, window=3, release_steps=2, release_ratio=0.5)
    saved, loaded = Trigger(rule, 1.0), Trigger(rule, 1.0)
    for score in (1.0, 1.0, 0.75, 0.5):
        saved.update(score)
    loaded.load_state(saved.save_state())
    assert (loaded.on, loaded.statistic) == (True, 0.75)
    assert not loaded.update(0.25)
    assert loaded.statistic == 0.5
    other = Trigger(rule, 1.0)
    other.load_state(saved.save_state())
    assert other.update(1.0)
    assert other.statistic == 0.75, "0.5, 1, 0.75"
    assert saved.statistic == 0.75, "a state is a copy"


@pytest.mark.parametrize(
    ("rate_hz", "expected"),
    [(80.0, (20, 12, 32, 40)), (10.0, (3, 2, 4, 5)), (2.5, (1, 1, 1, 2)), (20.0, (5, 3, 8, 10)), (0.0, (5, 3, 8, 10))],
)
def test_a_rule_lasts_as_long_at_another_rate(rate_hz, expected):
    """A tick is 50 ms: five are 0.25 s, 20 steps at 80 Hz; at least 1 step, and 2 blind ones."""
    rule = TriggerRule(release_ratio=0.7, imminent_gain=2.0).at(rate_hz)
    assert (rule.window, rule.needed, rule.release_steps, rule.blind_steps) == expected
    assert (rule.release_ratio, rule.imminent_gain) == (0.7, 2.0)
    assert TriggerRule(blind_steps=1).at(2.5).blind_steps == 1


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("window", 0, "whole number from 1 to 10000"),
        ("needed", 6, "whole number from 1 to 5"),
        ("needed", 0, "whole number from 1 to 5"),
        ("release_steps", 0, "whole number from 1 to 10000"),
        ("blind_steps", 10_001, "whole number from 1 to 10000"),
        ("release_ratio", 1.1, "finite number from 0 to 1"),
        ("release_ratio", -0.1, "finite number from 0 to 1"),
        ("imminent_gain", -0.1, "finite number from 0 to inf"),
    ],
)
def test_a_rule_that_cannot_work_names_its_field_and_range(field, value, expected):
    with pytest.raises(EpisodeDataError, match=rf"^trigger, {field}: expected a {expected}, found {value}"):
        TriggerRule(**{field: value})
    TriggerRule(window=1, needed=1, release_steps=1, blind_steps=1, release_ratio=0.0)
    TriggerRule(window=10_000, needed=10_000, release_ratio=1.0)


def test_evidence_is_the_score_where_a_predictor_keeps_it_apart():
    assert TriggerRule(imminent_gain=5.0).score(Risk(p_fail=0.2, imminent=0.9, evidence=-3.0)) == -3.0
    assert TriggerRule(imminent_gain=0.5).score(Risk(p_fail=0.8, imminent=0.9)) == 0.8


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
    assert "not finite" in verdict.blind
    assert np.isnan(verdict.risk.p_fail)


def test_calibration_file_says_what_it_promises(tmp_path):
    data = json.loads((make_bundle(tmp_path / "bundle") / "calibration.json").read_text())
    assert data["alpha"] == 0.1
    assert data["successes"] == 40
    assert data["alpha_upper"] > 0.1


def test_a_tick_without_a_score_counts_as_none_and_leaves_the_others_in_order():
    """Two of three at the threshold: the tick in between has no score and hides neither of its neighbours."""
    trigger = Trigger(TriggerRule(needed=2, window=3), 0.5)
    assert [trigger.update(score) for score in (0.9, float("nan"), 0.9)] == [False, False, True]
    assert trigger.statistic == 0.9


def test_what_is_familiar_is_kept_in_the_bundle_and_missed_when_it_is_gone(tmp_path):
    folder, known = tmp_path / "bundle", Familiar.from_dict(FAMILIAR, 4, 4)
    calibration = conformal_threshold(np.linspace(0, 1, 50), 0.1)
    predictor = RecurrentPredictor(recurrent_arrays())
    save_bundle(folder, point_bundle(predictor, Thresholds(pooled=calibration), familiar=known))
    assert load_monitor(folder).familiar == known
    (folder / "familiar.json").unlink()
    with pytest.raises(BundleError, match=r"lacks familiar\.json"):
        load_monitor(folder)
    save_bundle(folder, point_bundle(predictor, Thresholds(pooled=calibration)))
    assert load_monitor(folder).familiar is None


FAMILIAR = {
    "wordings": [{"text": "go home", "task": "home", "episodes": 9}],
    "fixed": True,
    "views": [],
    "start": None,
    "response": None,
    "limits": {"slip": 0.1},
    "alpha": 0.02,
    "episodes": 50,
    "table": {},
}
