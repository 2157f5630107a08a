"""A package from outside adds a simulator, a policy and a detector; no file of failsight knows of it.

`foreign_package/` is installed as pip would: its code and the entry points of its dist-info on the path.
"""

import json
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from failsight.cli.main import main
from failsight.core.errors import BundleError, EpisodeDataError, FailsightError, UnknownNameError
from failsight.core.registry import NameClash, claims, foreign
from failsight.core.types import EpisodeKey, Perturbation
from failsight.episodes.demonstrations import load_demonstrations
from failsight.episodes.meta import RunMeta
from failsight.episodes.run import Run
from failsight.episodes.verdicts import read_verdicts
from failsight.labels.table import label_run, read_labels
from failsight.monitor.bundle import load_monitor
from failsight.monitor.stored_predictor import make_predictor, require_known, stored_name
from failsight.predictors.find_detector import find_detector
from failsight.sims.tabletop.entry import ENTRY as TABLETOP
from failsight.testing import checks
from failsight.workflows import doctor
from failsight.workflows.plans import make_plan
from failsight.workflows.view import view_episode
from failsight.workflows.wiring import find_demonstrator, find_operator, find_sim, labeler_of, make_policy, make_sim

SOURCE = Path(__file__).parent / "foreign_package"


def install(site, package, entry_points, code=None):
    """What pip leaves of a package."""
    info = site / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    if code is not None:
        (site / f"{package}.py").write_text(code)


@contextmanager
def installed_at(site):
    """The package on the path, of this process and of its workers."""
    install(site, "pointworld", (SOURCE / "entry_points.txt").read_text())
    shutil.copytree(SOURCE / "pointworld", site / "pointworld", ignore=shutil.ignore_patterns("__pycache__"))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        patch.setenv("PYTHONPATH", f"{site}:{':'.join(sys.path)}")
        yield site
    for name in [name for name in sys.modules if name.partition(".")[0] == "pointworld"]:
        del sys.modules[name]


@pytest.fixture
def installed(tmp_path):
    with installed_at(tmp_path / "site") as site:
        yield site


COLLECT = ("--sim", "pointworld", "--policy", "homing", "--workers", "1")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    with installed_at(folder / "site"):
        main(["collect", "--out", str(folder / "run"), *COLLECT, "--trials", "40"])
    return folder / "run"


@pytest.fixture
def run_folder(recorded, installed, tmp_path):
    return shutil.copytree(recorded, tmp_path / "run")


def test_an_outsiders_simulator_policy_and_detector_go_all_the_way(run_folder, tmp_path, capsys):
    run = Run(run_folder)
    assert (run.meta.sim, run.meta.policy, run.meta.labeler) == ("pointworld", "homing-1", "wind")
    assert {e.task for e in run.episodes} == {"home", "back"}
    assert {e.condition for e in run.episodes} == {"none", "wind:2", "wind:5"}
    labels = read_labels(run)
    assert {label.failure_type for label in labels.values()} == {None, "timeout"}
    assert all(
        label.onset == 0 for t, label in labels.items() if not label.success and run.episodes[t].condition != "none"
    )

    bundle = tmp_path / "bundle"
    main(["fit", str(run_folder), "--detector", "still-far", "--bundle", str(bundle), "--alpha", "0.2"])
    assert json.loads((bundle / "config.json").read_text())["predictor"] == "pointworld.detector:StillFar"
    assert (
        json.loads((run_folder / "summary.json").read_text())["titles"]["still-far"]["title"] == "still far from home"
    )
    monitor = load_monitor(bundle, make_policy("homing"))
    assert type(monitor.predictor).__module__ == "pointworld.detector"
    main(["report", str(run_folder)])
    main(["evaluate", "detection", str(run_folder), "--detectors", "still-far"])
    main(["evaluate", "detection", str(run_folder), "--bundle", str(bundle)])
    shown = capsys.readouterr().out
    assert "still-" in shown
    assert "failures that trigger" in shown

    good = {}
    for arm in ("", "takeover", "homewards"):
        guarded = ["--monitor", str(bundle), "--arm", arm] if arm else []
        main(["collect", "--out", str(tmp_path / f"arm-{arm}"), *COLLECT, "--trials", "10", "--seeds", "1", *guarded])
        good[arm] = sum(e.outcome == "success" for e in Run(tmp_path / f"arm-{arm}").episodes)
    assert good["takeover"] > good[""], "the package's own person must have taken over"
    (verdicts,) = read_verdicts(tmp_path / "arm-homewards").values()
    assert verdicts["reason"].str.startswith("homewards").any(), "the package's own intervention must have acted"


def test_logs_in_its_own_format_are_recognised(installed, tmp_path, capsys):
    (tmp_path / "log").mkdir()
    for number in range(4):
        (tmp_path / f"log/{number}-{'lost' if number == 2 else 'home'}.points").write_text("0.5\n0.25\n")
    main(["import", str(tmp_path / "log"), "--out", str(tmp_path / "logs")])
    assert "4 files of the point world, 4 episodes, 1 failed, 1 signals" in capsys.readouterr().out
    assert [e.outcome for e in Run(tmp_path / "logs").episodes].count("failure") == 1
    address = ["--format", "pointworld.log_format:FORMAT"]
    main(["import", str(tmp_path / "log"), "--out", str(tmp_path / "again"), *address])
    with pytest.raises(SystemExit):
        main(["import", str(tmp_path / "log"), "--out", str(tmp_path / "no"), "--format", "pointworld.log_format:read"])
    assert "not a failsight Format" in capsys.readouterr().out


def test_its_expert_is_recorded_and_a_policy_trained_on_it(installed, tmp_path, capsys):
    """Its robot does not fit other people's files, so it becomes a data set; actions are the expert's, without noise."""
    folder = tmp_path / "shown"
    arguments = ["demonstrate", str(folder), "--sim", "pointworld", "--episodes", "3", "--workers", "1"]
    main(arguments)
    assert "1 more failed and were dropped" in " ".join(capsys.readouterr().out.split())
    data = load_demonstrations(folder)
    assert [row.scenario for row in data.episodes] == ["home", "back", "home"]
    assert (data.steps_per_frame, data.chunks.shape[1:], data.phrasings) == (2, (3, 2), {"go home": ["off you go"]})
    np.testing.assert_allclose(data.actions, (-data.states / 0.08).clip(-1, 1), rtol=1e-6)
    assert len(set(np.sign(data.states[:, 0]))) == 2
    main(arguments)
    with pytest.raises(SystemExit):
        main([*arguments, "--seed", "1"])
    assert "holds other recordings" in " ".join(capsys.readouterr().out.split())
    assert main(["audit", str(folder)]) is None


def test_its_parts_keep_the_contracts(installed):
    keys = [EpisodeKey(seed=1, task=t, episode=3, perturbations=Perturbation.parse("wind:3")) for t in ("home", "back")]
    checks.check_sim(lambda: make_sim("pointworld"), *keys, [np.array([0.1, -0.2], np.float32)] * 8)
    sim = make_sim("pointworld")
    checks.check_policy(make_policy("homing"), sim, keys[0])
    sim.reset(options={"key": keys[0]})
    assert find_operator("pointworld").act(sim).shape == (2,)
    checks.check_demonstrator(find_demonstrator("pointworld"), make_sim("pointworld"), ["home", "back"], seed=1000)
    events = [sim.step(np.zeros(2)) and event for event in sim.events()]
    checks.check_labeler(labeler_of("pointworld", sim.action_spec), "home", np.zeros((9, 2)), np.zeros((9, 2)), events)


def test_every_name_may_be_an_address(installed, tmp_path):
    assert find_sim("pointworld.sim:ENTRY") == find_sim("pointworld")
    assert find_detector("pointworld.detector:DETECTOR").title == "still far from home"
    folder = tmp_path / "run"
    command = ["collect", "--out", str(folder), "--sim", "pointworld.sim:ENTRY", "--policy", "pointworld.policy:Homing"]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from failsight.cli.main import main; main()",
            *command,
            "--trials",
            "1",
            "--mix",
            "clean",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert RunMeta.read(folder / "meta/failsight/run.json").sim == "pointworld.sim:ENTRY"
    for wrong, says in (
        ("pointworld.sim:ENTRI", "AttributeError"),
        ("pointwrld.sim:ENTRY", "needs the module 'pointwrld'"),
        ("pointworld.sim:PointWorld", "is a type, not a failsight.core.sim_entry.SimEntry"),
    ):
        with pytest.raises(FailsightError, match=says):
            find_sim(wrong)
    with pytest.raises(UnknownNameError, match="Did you mean pointworld"):
        find_sim("pointwrld")
    with pytest.raises(UnknownNameError, match="Did you mean still-far"):
        find_detector("still-fr")
    with pytest.raises(FailsightError, match=r"Policy pointworld\.sim:Person is a Person without .*infer"):
        make_policy("pointworld.sim:Person")


def test_our_names_stay_ours_and_the_clash_is_said(installed):
    with pytest.warns(NameClash, match=r"pointworld claims the name 'tabletop'.*pointworld\.sim:ENTRY"):
        assert find_sim("tabletop") == TABLETOP
    with pytest.warns(NameClash):
        assert {key.task for key in make_plan("tabletop", (), (0,), 1, "clean")} == set(TABLETOP.tasks)


def test_a_name_that_two_packages_claim_is_neither(installed):
    install(installed, "other", "[failsight.sims]\npointworld = other:ENTRY\n")
    sys.path.append(str(installed / "nothing"))  # the claims are kept per path
    try:
        with pytest.raises(
            FailsightError, match=r"claimed by other \(other:ENTRY\) and pointworld \(pointworld\.sim:E"
        ):
            find_sim("pointworld")
        assert find_sim("pointworld.sim:ENTRY").kinds == ("wind",)
    finally:
        sys.path.pop()


def test_a_policys_name_that_is_also_a_folder_is_not_guessed(installed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "homing").mkdir()
    with pytest.raises(
        FailsightError, match=r"a folder and a policy of the package pointworld: write \./homing or point"
    ):
        make_policy("homing")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import nowhere_to_be_found", "the package 'nowhere_to_be_found' is not installed"),
        ("raise RuntimeError('no weights')", "cannot be made .RuntimeError: no weights"),
    ],
)
def test_what_a_policy_raises_when_it_is_made_is_one_sentence(tmp_path, monkeypatch, code, says):
    (tmp_path / "brokenpolicy.py").write_text(f"def make():\n    {code}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "brokenpolicy", raising=False)
    with pytest.raises(FailsightError, match=says):
        make_policy("brokenpolicy:make")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise RuntimeError('no licence')", "cannot be loaded .RuntimeError: no licence"),
        ("import nowhere_to_be_found", "needs the module 'nowhere_to_be_found'"),
        ("syntax error", "SyntaxError"),
        ("x = 1", "no attribute 'ENTRY'"),
        ("ENTRY = 3", "is a int, not a"),
        (
            "from failsight.core.sim_entry import SimEntry\nENTRY = SimEntry(make='broken:make')\n"
            "def make(images): return 1 / 0",
            "cannot be made .ZeroDivisionError",
        ),
        (
            "from failsight.core.sim_entry import SimEntry\nENTRY = SimEntry(make='broken:make')\n"
            "def make(images): return object()",
            "without action_spec, close, events",
        ),
        (
            "from failsight.core.sim_entry import SimEntry\n"
            "ENTRY = SimEntry(make='broken:make', mixes={'default': {'wind:2': 1.0}})",
            "Unknown perturbation 'wind'",
        ),
        (
            "from failsight.core.sim_entry import SimEntry\n"
            "ENTRY = SimEntry(make='broken:make', install='pip install gone')\n"
            "def make(images): import gone",
            "package 'gone' is not installed. Try: pip install gone",
        ),
    ],
)
def test_what_a_broken_package_raises_is_one_sentence(tmp_path, monkeypatch, code, says):
    install(tmp_path, "broken", "[failsight.sims]\nbroken = broken:ENTRY\n", code)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("broken", None)
    with pytest.raises(FailsightError, match=says):
        make_sim("broken")


def test_a_package_whose_entry_points_cannot_be_read_hides_no_other(installed):
    install(installed, "torn", "[failsight.sims]\nno equals sign\n")
    sys.path.append(str(installed / "elsewhere"))
    try:
        with pytest.warns(UserWarning, match="cannot be read"):
            found = claims("failsight.sims")
    finally:
        sys.path.pop()
    assert "pointworld" in {claim.name for claim in found}
    with pytest.raises(UnknownNameError):
        foreign("simulator", "torn", (), "failsight.sims")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("pointworld.sim:Person", "is not the class of a predictor"),
        ("os:system", "is not the class of a predictor"),
        ("pointworld.detector:StillFar", "cannot be made from this bundle .TypeError"),
        ("pointworld.detector:Gone", "AttributeError"),
    ],
)
def test_a_bundle_calls_nothing_but_the_class_of_a_predictor(installed, name, says):
    require_known(name)
    with pytest.raises(FailsightError, match=says):
        make_predictor(name, None)


def test_a_predictor_that_no_address_finds_again_is_not_saved(installed):
    class Local(type(make_predictor("pointworld.detector:StillFar", {"usual": np.ones(3)}))):
        pass

    with pytest.raises(BundleError, match="Local cannot be found again; define the class"):
        stored_name(Local({"usual": np.ones(3)}))
    with pytest.raises(UnknownNameError, match="Did you mean ledger"):
        require_known("ledgr")


def test_the_doctor_lists_what_packages_bring(installed):
    said = {check.name: check.result for check in doctor._packages()}
    assert said["failsight.detectors: still-far"] == "pointworld.detector:DETECTOR of pointworld"
    assert said["failsight.sims: tabletop"].endswith("the name is failsight's own and means that, use the address")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"failure_type": "blown away"}, "failure type"),
        ({"success": True}, "success"),
        ({"onset": 999}, "onset"),
        ({"dimension": np.zeros((3, 2), bool)}, "dimension"),
    ],
)
def test_a_label_its_episode_cannot_have_is_not_written(run_folder, change, says):
    run = Run(run_folder)
    labeler = labeler_of("pointworld", run.meta.action_spec)
    before = (run_folder / "labels/wind.parquet").read_bytes()
    plain = type(labeler).label
    failed = next(e.ticket for e in run.episodes if e.outcome == "failure")
    type(labeler).label = lambda *given: plain(*given) if given[-1] else replace(plain(*given), **change)
    with pytest.raises(EpisodeDataError, match=f"labeler 'wind', episode {failed}: not a label of it: {says}"):
        label_run(run, labeler)
    type(labeler).label = lambda *given: given[9]
    with pytest.raises(EpisodeDataError, match="labeler 'wind', episode 0: IndexError"):
        label_run(run, labeler)
    assert (run_folder / "labels/wind.parquet").read_bytes() == before
    assert not hasattr(make_sim("pointworld"), "render")
    with pytest.raises(FailsightError, match=r"draws nothing for people: it has no render\(\)"):
        view_episode(run_folder, 0, None, True)
