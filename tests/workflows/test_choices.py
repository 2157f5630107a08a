"""Names and options that used to become something else in silence."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from failsight.core.errors import EpisodeDataError, FailsightError, SpecMismatchError, UnknownNameError
from failsight.core.sim_entry import SimEntry
from failsight.core.types import Task
from failsight.episodes.meta import RunMeta
from failsight.interventions.arms import find_arm
from failsight.labels.driving import DriveLabeler
from failsight.labels.events import EventLabeler
from failsight.labels.outcome import OutcomeLabeler
from failsight.labels.table import labeler_name
from failsight.testing.fakes import ACTIONS, OBSERVATIONS, PointSim
from failsight.workflows.closed_loop import Altered, closed_loop
from failsight.workflows.drive import require_drivable
from failsight.workflows.fit import refuse_log_options
from failsight.workflows.forks import ArmPlan, paired
from failsight.workflows.plans import make_plan
from failsight.workflows.wiring import labeler_of, make_labeler


def test_a_mistyped_arm_is_not_the_ladder():
    with pytest.raises(UnknownNameError, match="Did you mean ladder"):
        find_arm("laddr")
    with pytest.raises(UnknownNameError, match="arm 'retri'"):
        ArmPlan(arms=("slow", "retri"))
    with pytest.raises(UnknownNameError, match="arm 'takover'"):
        paired([], "takover")
    assert paired([], "none") == ([], [])


def test_a_mistyped_change_is_not_no_change(tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean frozen-history"):
        Altered(SimpleNamespace(), "frozen-histroy", lambda task: "")
    with pytest.raises(UnknownNameError, match="change of a policy 'blank'"):
        closed_loop("tabletop-strong", "tabletop", [], 1, "blank")


class Warehouse(PointSim):
    """A simulator nobody here has heard of."""

    def tasks(self):
        return [Task(id="stack", suite="warehouse", instruction="stack the boxes", horizon=99)]


WAREHOUSE = SimEntry(make=f"{__name__}:Warehouse")
HERE = f"{__name__}:WAREHOUSE"


def test_a_new_simulator_sets_its_own_tasks():
    assert {key.task for key in make_plan(HERE, (), (0,), 3, "default")} == {"stack"}
    with pytest.raises(UnknownNameError, match="task '1box_vert_left'"):
        make_plan(HERE, ("1box_vert_left",), (0,), 3, "default")
    with pytest.raises(FailsightError, match="no perturbations"):
        make_plan(HERE, (), (0,), 3, "push:3")


def test_a_new_simulators_events_mean_no_failure_type():
    run = SimpleNamespace(meta=SimpleNamespace(sim="warehouse", signals=(), labeler=""))
    assert labeler_name(run) == "outcome"
    assert isinstance(make_labeler(run), OutcomeLabeler)
    assert isinstance(labeler_of(HERE, ACTIONS), OutcomeLabeler)


def meta(sim, labeler, signals=()):
    return SimpleNamespace(
        root="runs/a", meta=SimpleNamespace(sim=sim, signals=signals, labeler=labeler, action_spec=ACTIONS)
    )


def test_a_run_says_itself_what_labels_it():
    """Runs of before that did not say so are labelled as they were: by their simulator, logs by their outcome."""
    assert labeler_name(meta("tabletop", "outcome")) == "outcome"
    assert labeler_name(meta("warehouse", "events")) == "events"
    assert labeler_name(meta("tabletop", "")) == "events"
    assert labeler_name(meta("tabletop", "", signals=("chunk_mse",))) == "outcome"
    assert isinstance(make_labeler(meta("navigation-2d", "")), DriveLabeler)
    assert isinstance(make_labeler(meta("tabletop", "events")), EventLabeler)
    with pytest.raises(FailsightError, match="is labelled by 'outcome' now"):
        make_labeler(meta(HERE, "events"))


def test_options_of_log_detectors_are_not_dropped():
    refuse_log_options("a fit", isotonic=False, band=False)
    with pytest.raises(FailsightError, match="--isotonic and --band would change nothing in the hazard model"):
        refuse_log_options("the hazard model", isotonic=True, band=True)


def test_a_policy_the_simulator_cannot_drive_is_refused_before_training():
    from failsight.sims.tabletop.env import ACTION_SPEC, TabletopEnv

    fits = SimpleNamespace(action_spec=ACTION_SPEC, observation_spec=TabletopEnv(images="never").observation_spec)
    require_drivable("", fits)
    require_drivable("tabletop", fits)
    with pytest.raises(SpecMismatchError, match="Action specs of policy and simulator differ"):
        require_drivable("navigation", fits)
    assert np.isfinite(fits.action_spec.low).all()


def run_json(tmp_path, **change):
    path = tmp_path / "meta/failsight/run.json"
    path.parent.mkdir(parents=True)
    RunMeta(
        action_spec=ACTIONS, observation_spec=OBSERVATIONS, policy="p", sim="point", plan=(), shapes={}, labeler="wind"
    ).write(path)
    data = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({name: value for name, value in data.items() if value != "gone"}))
    return path


def test_the_name_of_the_label_table_is_stored_with_the_run(tmp_path):
    assert RunMeta.read(run_json(tmp_path / "a")).labeler == "wind"
    assert RunMeta.read(run_json(tmp_path / "b", labeler="gone")).labeler == ""


@pytest.mark.parametrize("name", ["../../elsewhere", "a/b", 0, None, False, ["events"], "x" * 65])
def test_a_run_cannot_name_a_label_table_outside_its_folder(tmp_path, name):
    with pytest.raises(EpisodeDataError, match="labeler"):
        RunMeta.read(run_json(tmp_path, labeler=name))
