"""Forks keep what was judged, decided and guarded; errored ones are nobody's success or failure."""

import json

import numpy as np
from conftest import recurrent_arrays

from failsight.core.types import EpisodeKey, Outcome, PolicyOutput
from failsight.episodes.verdicts import Judge
from failsight.evaluation.paired import PairedEpisode
from failsight.monitor.trigger import TriggerRule
from failsight.predictors.recurrent import RecurrentPredictor
from failsight.recipes.interventions.fork_records import record_from, record_json
from failsight.runtime.bench import Bench
from failsight.testing import fakes
from failsight.workflows.fork_verdicts import fork_verdicts, guard_counts, keep_verdicts
from failsight.workflows.forks import ArmPlan, ForkRecord, fork_episode, gate_from, paired

KEY = EpisodeKey(seed=3, task="home", episode=1)


class Homing:
    def act(self, sim):
        at = sim.observe()["observation.state"][:3]
        return np.array([*(-at / max(np.linalg.norm(at), 1e-6)), -1.0], np.float32)


class Late(fakes.PointPolicy):
    """NaN from step 9 on, well after the trigger."""

    def infer(self, observation, step):
        output = super().infer(observation, step)
        return output if step < 9 else PolicyOutput(chunk=np.full_like(output.chunk, np.nan), hidden=output.hidden)


def fork(policy):
    predictor = RecurrentPredictor(recurrent_arrays(hidden=8))
    monitor = fakes.make_monitor(predictor, TriggerRule(needed=2, window=3), 0.0)
    bench = Bench(fakes.PointSim(), policy, monitor=monitor, operator=Homing())
    return fork_episode(ArmPlan(arms=("safe_stop", "takeover")), bench, KEY)


def test_every_arms_rows_are_kept_and_counted(tmp_path):
    record = fork(fakes.PointPolicy())
    keep_verdicts(tmp_path, 7, record, Judge(bundle="b", policy="point"))
    frame = fork_verdicts(tmp_path)
    assert set(frame["arm"]) == {"none", "safe_stop", "takeover"}
    stop = frame[frame["arm"] == "safe_stop"]
    assert stop["decision"].tolist()[-1] == "stop"
    assert stop["guard"].tolist()[-1] == "stop sent"
    assert len(stop) == record.trigger_step + 1
    counts = guard_counts(tmp_path)
    assert counts["none"] == {
        "ticks": record.none.steps,
        "blind": 0,
        "held": 0,
        "latched": 0,
        "clipped": counts["none"]["clipped"],
    }
    assert record_from(json.loads(json.dumps(record_json(record)))) == record, "rows are stored apart"


def test_a_policy_that_breaks_is_left_out_of_the_pairs_and_a_person_is_not_blamed(tmp_path):
    record = fork(Late())
    keep_verdicts(tmp_path, 0, record, Judge(bundle="b", policy="point"))
    assert record.none.outcome == record.again == Outcome.ERRORED
    assert "not finite" in record.error
    assert record.arms["takeover"].outcome == Outcome.SUCCESS
    assert guard_counts(tmp_path)["none"]["latched"] == 1
    assert guard_counts(tmp_path)["takeover"]["latched"] == 0
    assert paired([record], "takeover") == ([], [])
    assert {entry.rung: entry.triggers for entry in gate_from([record], ("takeover",))}["takeover"] == 0


def test_two_arms_are_paired_where_neither_errored():
    """Four episodes: both arms fired; only the ladder; only the placebo, which errored; neither."""

    def done(outcome, triggered=True):
        return PairedEpisode(
            task="t", outcome=outcome, collision=False, triggered=triggered, steps=9, intervened_steps=0, human_steps=0
        )

    def record(number, none, **arms):
        key = EpisodeKey(seed=0, task="t", episode=number)
        return ForkRecord(key=key, none=done(none, False), trigger_step=None, arms=arms, again=None)

    good, bad = Outcome.SUCCESS, Outcome.FAILURE
    records = [
        record(0, bad, ladder=done(good), placebo=done(bad)),
        record(1, bad, ladder=done(good)),
        record(2, good, placebo=done(Outcome.ERRORED)),
        record(3, good),
    ]
    placebo, ladder = paired(records, "ladder", against="placebo")
    assert [e.outcome for e in placebo] == [bad, bad, good]
    assert [e.outcome for e in ladder] == [good, good, good]
    assert [e.triggered for e in placebo] == [True, False, False]
