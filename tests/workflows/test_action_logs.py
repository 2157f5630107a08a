"""A log of actions alone, without signals, hidden states or states, goes to the hazard ensemble on what there is."""

import json

import numpy as np

from failsight.episodes import from_arrays
from failsight.episodes.logged import LogOrigin
from failsight.predictors.fit_recurrent import RecurrentOptions
from failsight.signals.bank import SIGNAL_NAMES
from failsight.workflows.fit import fit_run
from failsight.workflows.fit_ensemble import FitOptions
from failsight.workflows.import_logs import store_labelled


def test_actions_alone_are_fitted_on_and_what_is_missing_is_said(tmp_path):
    rng = np.random.default_rng(0)
    log = from_arrays(
        {"success": i % 2 == 0, "task": "reach", "episode": i, "action": rng.normal(0, 0.1 + 0.5 * (i % 2), (12, 2))}
        for i in range(60)
    )
    run = store_labelled(log, tmp_path / "run", LogOrigin(policy="theirs", suite="own"))
    notes = []
    options = FitOptions(alpha=0.3, controls=False, recurrent=RecurrentOptions(members=1, epochs=3))
    fit_run(run, tmp_path / "bundle", options, notes.append, workers=1)
    config = json.loads((tmp_path / "bundle/config.json").read_text())
    assert config["predictor"] == "recurrent"
    (said,) = [note for note in notes if note.startswith("signals this robot lacks something for are left out")]
    assert {"slip", "grip_gap", "gripper_toggles"} <= set(said.partition(": ")[2].split(", "))
    assert said.count(", ") < len(SIGNAL_NAMES) - 2, "there is something to fit on"
