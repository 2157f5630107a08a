"""Every registered simulator, policy, signal group, labeler, predictor, monitor and intervention keeps its contract."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import LOG_COLUMNS, log_sequences, recurrent_arrays

from failsight.core.contracts import Context
from failsight.core.registry import load, resolve
from failsight.core.types import EpisodeKey, Event, Perturbation, Task
from failsight.interventions.arms import ARMS
from failsight.interventions.gate import GateEntry
from failsight.labels import LABELERS
from failsight.monitor.trigger import TriggerRule
from failsight.policies import POLICIES
from failsight.policies.vla.streaming import VLAPolicy
from failsight.predictors import PREDICTORS
from failsight.predictors.detector import FitData
from failsight.predictors.detectors import DETECTORS
from failsight.signals.bank import SIGNAL_NAMES
from failsight.sims import SIMS
from failsight.sims.tabletop.entry import ENTRY
from failsight.sims.tabletop.env import ACTION_SPEC, TabletopEnv
from failsight.testing import checks, fakes
from failsight.workflows.closed_loop import CHANGES, Altered
from failsight.workflows.plans import tasks_of
from failsight.workflows.wiring import find_demonstrator, find_operator, find_sim, make_policy, make_sim

TABLES = {
    "simulator": SIMS,
    "policy": POLICIES,
    "labeler": LABELERS,
    "predictor": PREDICTORS,
}
KEY = EpisodeKey(seed=5, task="stack-red-cube-blue-cube", episode=2, perturbations=Perturbation.parse("sensor_noise:2"))
OTHER = EpisodeKey(seed=6, task="obstacle-yellow-cylinder-left", episode=0)


@pytest.mark.sim
@pytest.mark.parametrize("name", [name for name in SIMS if find_sim(name).demonstrator])
def test_demonstrators(name):
    checks.check_demonstrator(find_demonstrator(name), make_sim(name), tasks_of(name)[:2], seed=3)


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k, table in TABLES.items() for n in table])
def test_every_registered_name_resolves(kind, name):
    assert resolve(kind, name, TABLES[kind]) is load(TABLES[kind][name])


DRIVE = EpisodeKey(seed=5, task="2box_hori_left", episode=2, perturbations=Perturbation.parse("wheel_slip:3+push:2"))
OTHER_DRIVE = EpisodeKey(seed=6, task="1box_vert_right", episode=0, perturbations=Perturbation.parse("light:5"))
SIM_KEYS = {
    "tabletop": (KEY, OTHER, 30),
    "navigation": (DRIVE, OTHER_DRIVE, 8),
    "navigation-2d": (DRIVE, OTHER_DRIVE, 8),
    "metaworld": (
        EpisodeKey(seed=1, task="drawer-open-v3", episode=3),
        EpisodeKey(seed=1, task="reach-v3", episode=0),
        20,
    ),
    "libero": (
        EpisodeKey(seed=0, task="libero_object-1", episode=3),
        EpisodeKey(seed=0, task="libero_object-0", episode=0),
        10,
    ),
}
"""Two different episodes of a simulator, and for how many steps its operator may act before the first ends."""


def keys_of(name):
    """The same for a simulator that nobody chose any for, from its entry."""
    kinds, tasks = find_sim(name).kinds, tasks_of(name)
    every = tuple(Perturbation(kind, 2) for kind in sorted(kinds))
    key = EpisodeKey(seed=5, task=tasks[-1], episode=2, perturbations=every)
    return key, EpisodeKey(seed=6, task=tasks[0], episode=0), 6


@pytest.mark.sim
@pytest.mark.parametrize("name", SIMS)
def test_simulators(name):
    if name in ("metaworld", "libero"):
        pytest.importorskip(name, reason=f"{name} is installed separately")
    key, other, steps = SIM_KEYS.get(name) or keys_of(name)
    sim = make_sim(name)
    sim.reset(options={"key": key})
    actions, operator = [], find_operator(name)
    for step in range(steps):
        wave = 0.5 * np.sin(step + np.arange(len(sim.action_spec.dimensions)))
        actions.append(wave if operator is None else operator.act(sim))
        sim.step(actions[-1])
    sim.close()
    checks.check_sim(lambda: make_sim(name), key, other, actions)


def test_fake_simulator():
    keys = [EpisodeKey(seed=s, task="home", episode=0, perturbations=Perturbation.parse("wind:2")) for s in (1, 2)]
    action = np.array([0.1, 0.2, 0.3, -1.0], np.float32)
    checks.check_sim(fakes.PointSim, keys[0], keys[1], [action] * 8)


@pytest.mark.sim
@pytest.mark.parametrize("name", POLICIES)
def test_policies(name):
    sim = make_sim("tabletop")
    checks.check_policy(make_policy(name), sim, KEY)
    sim.close()


TASK = Task(id="remote", suite="s", instruction=checks.WORDINGS[0], horizon=100)
SESSIONS = [
    (replace(TASK, instruction=text), replace(KEY, episode=i, task=f"t{i}")) for i, text in enumerate(checks.WORDINGS)
]


@pytest.mark.parametrize("name", POLICIES)
def test_policies_keep_sessions_apart_and_heed_a_new_instruction(name):
    policy = make_policy(name)
    checks.check_policy_sessions(policy, SESSIONS)
    checks.check_reinstruct(policy, TASK, KEY, checks.WORDINGS[1])


@pytest.mark.parametrize("name", POLICIES)
def test_policies_do_not_depend_on_the_process(name):
    checks.check_policy_process("failsight.workflows.wiring:make_policy", name)


def test_fake_policy(key):
    checks.check_policy(fakes.PointPolicy(), fakes.PointSim(), key)
    checks.check_reinstruct(fakes.PointPolicy(), TASK, key, checks.WORDINGS[1], heeds=False)
    checks.check_policy_process("failsight.testing.fakes:PointPolicy")


@pytest.mark.parametrize("change", CHANGES)
def test_altered_policies_keep_sessions_apart(change):
    policy = Altered(make_policy("tabletop-strong"), change, lambda task: f"{task.instruction} please")
    checks.check_policy_sessions(policy, SESSIONS)


@pytest.mark.parametrize("mistake", ["forgets the key", "forgets the instruction", "hashes"])
def test_the_checks_find_a_policy_that_mixes_sessions(mistake, monkeypatch):
    policy, full = make_policy("tabletop-strong"), VLAPolicy.load_state

    def load_state(self, state):
        key, instruction = self._key, self._instruction
        full(self, state)
        if mistake == "forgets the key":
            self._key = key
        else:
            self.reinstruct(instruction)

    if mistake == "hashes":
        monkeypatch.setattr(EpisodeKey, "parts", property(lambda key: (hash(key.task),)))
        with pytest.raises(AssertionError, match="must not depend on the process"):
            checks.check_policy_process("failsight.workflows.wiring:make_policy", "tabletop-strong")
        return
    monkeypatch.setattr(VLAPolicy, "load_state", load_state)
    with pytest.raises(AssertionError, match="must keep instruction, random key and memory"):
        checks.check_policy_sessions(policy, SESSIONS)


SIGNALS = {
    "uncertainty": "failsight.signals.uncertainty:UncertaintySignals",
    "patterns": "failsight.signals.patterns:PatternSignals",
    "sampling": "failsight.signals.sampling:SamplingSignals",
}


@pytest.mark.parametrize("name", SIGNALS)
def test_signals(name):
    observations = TabletopEnv(images="on_demand").observation_spec
    arguments = {
        "uncertainty": (ACTION_SPEC.scalable,),
        "patterns": (ACTION_SPEC, observations),
        "sampling": (ACTION_SPEC,),
    }
    steps = checks.make_steps(40, 7, len(observations.state))
    checks.check_signal(resolve("signal", name, SIGNALS)(*arguments[name]), steps)


@pytest.mark.parametrize("name", LABELERS)
def test_labelers(name):
    arguments = {"events": (ENTRY.targets, ACTION_SPEC), "outcome": (), "driving": (ACTION_SPEC,)}
    labeler = resolve("labeler", name, LABELERS)(*arguments[name])
    events = [Event(step=4, kind="missed_close", subject="gripper")]
    if name == "driving":
        events = [Event(step=4, kind="contact", subject="robot", other="box0", value=9.0)]
    checks.check_labeler(labeler, "pick-red-cube-left", np.zeros((30, 11)), np.zeros((30, 7)), events)


def own_arrays(name):
    rng = np.random.default_rng(1)
    mlp = {"mean": np.zeros(6, np.float32), "scale": np.ones(6, np.float32)}
    for layer, (rows, columns) in enumerate(((64, 6), (64, 64), (4, 64))):
        mlp[f"w{layer}"] = rng.standard_normal((rows, columns)).astype(np.float32)
        mlp[f"b{layer}"] = np.zeros(rows, np.float32)
    return {
        "recurrent": recurrent_arrays(),
        "salus-mlp": mlp,
        "clock": {"rate": np.linspace(0.1, 0.9, 20, dtype=np.float32)},
        "task-prior": {"base": np.array(0.3, np.float32), "task.home": np.array(0.6, np.float32)},
    }


OWN = ("recurrent", "salus-mlp", "clock", "task-prior")
FITTED = {
    "blend": "blend",
    "ledger": "ledger",
    "gru-td": "gru_td",
    "gru-td-hidden": "gru_td_hidden",
    "signal-mlp": "signal_mlp",
    "mist-mlp": "mist_mlp",
    "safe-mlp": "safe_mlp",
    "safe-lstm": "safe_lstm",
    "actprobe": "actprobe",
    "mahalanobis": "mahalanobis",
    "euclidean-knn": "euclidean_knn",
    "cosine-knn": "cosine_knn",
    "pca-kmeans": "pca_kmeans",
    "rnd": "rnd",
    "logpzo": "logpzo",
    "fiper": "fiper",
    "scalar": "running_mean",
    "task-clock": "task_clock",
    "random": "random",
}


@pytest.mark.parametrize("name", PREDICTORS)
def test_predictors(name):
    rng = np.random.default_rng(0)
    if name in OWN:
        predictor = resolve("predictor", name, PREDICTORS)(own_arrays(name)[name])
        checks.check_predictor(predictor, rng.random((30, len(SIGNAL_NAMES))), rng.standard_normal((30, 6)), "home")
        return
    train = log_sequences(count=24)
    fitted = DETECTORS[FITTED[name]].fit(FitData(train, LOG_COLUMNS, 0))
    again = resolve("predictor", name, PREDICTORS)(fitted.arrays)
    assert again.name == name
    for task in ("task_0", "unknown"):
        checks.check_predictor(again, train[1].signals[:14], train[1].hidden[:14], task)


def test_monitor():
    predictor = resolve("predictor", "recurrent", PREDICTORS)(recurrent_arrays())
    monitor = fakes.make_monitor(predictor, TriggerRule(), 0.4)
    task = Task(id="home", suite="point", instruction="go home", horizon=30)
    checks.check_monitor(monitor, checks.make_steps(30, 4, 4), task)


@pytest.mark.parametrize("name", [name for name, arm in ARMS.items() if not (arm.random or arm.from_start)])
def test_interventions(name):
    context = Context(
        step=10,
        horizon=30,
        state=np.array([0.3, 0.1, 0.2, 1.0], np.float32),
        path=[np.array([0.3 + 0.01 * i, 0.1, 0.2, 1.0], np.float32) for i in range(10)],
        last_action=np.array([0.0, 0.0, 0.0, -1.0], np.float32),
        action_spec=fakes.ACTIONS,
        observation_spec=fakes.OBSERVATIONS,
    )
    gate = tuple(GateEntry(rung=r, triggers=50, rescues=30, harms=1) for r in ("slow", "retry"))
    checks.check_intervention(ARMS[name].make(gate), context)
