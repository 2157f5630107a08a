"""A point in the plane that has to come home, in wind; no physics library."""

from types import MappingProxyType

import numpy as np

from failsight.core.contracts import Labels, Shown
from failsight.core.errors import FailsightError
from failsight.core.rng import keyed_rng
from failsight.core.sim_entry import SimEntry
from failsight.core.specs import ActionSpec, Dimension, ObservationSpec
from failsight.core.state import pack_state, unpack_state
from failsight.core.types import EpisodeKey, Event, Task

HOME_M, STEP_M, HORIZON = 0.08, 0.08, 24
ACTIONS = ActionSpec(
    dimensions=tuple(Dimension(name=n, kind="delta", unit="m", scale=STEP_M, hold=0.0) for n in ("dx", "dy")),
    frame="world",
    rate_hz=10.0,
    gripper_closed_sign=1,
)
OBSERVATIONS = ObservationSpec(state=("x_m", "y_m"), cameras=(("above", 8, 8),))
INSTRUCTIONS = {"home": "go home", "back": "come back"}


class PointWorld:
    """Two tasks that differ in how far away the point starts."""

    action_spec, observation_spec = ACTIONS, OBSERVATIONS

    def __init__(self, images="always"):
        self._key, self._at, self._step, self._pending = None, np.zeros(2), 0, []

    @property
    def task(self):
        if self._key is None:
            raise FailsightError("The point has no episode yet; call reset() first.")
        return next(task for task in self.tasks() if task.id == self._key.task)

    def tasks(self):
        return [Task(id=i, suite="pointworld", instruction=text, horizon=HORIZON) for i, text in INSTRUCTIONS.items()]

    def reset(self, *, seed=None, options=None):
        self._key = (options or {}).get("key") or EpisodeKey(seed=seed or 0, task="home", episode=0)
        angle = keyed_rng(*self._key.parts, "start").uniform(0, 2 * np.pi)
        self._at = (0.8 if self._key.task == "home" else 1.0) * np.array([np.cos(angle), np.sin(angle)])
        self._step, self._pending = 0, []
        return {"observation.state": self._state()}, {}

    def step(self, action):
        level = sum(p.level for p in self._key.perturbations)
        gust = 0.03 * level * keyed_rng(*self._key.parts, "wind").standard_normal(2)
        self._at = self._at + STEP_M * np.clip(np.asarray(action, np.float64), -1, 1) + gust
        if level and self._step == 0:
            self._pending.append(Event(step=0, kind="pushed", subject="point", value=float(np.hypot(*gust))))
        self._step += 1
        success = bool(np.hypot(*self._at) < HOME_M)
        truncated = not success and self._step >= HORIZON
        info = {"success": success, "is_success": success}
        return {"observation.state": self._state()}, float(success), success, truncated, info

    def _state(self):
        return self._at.astype(np.float32)

    def observe(self):
        shade = np.uint8(np.clip(200 * np.hypot(*self._at), 0, 255))
        return {"observation.state": self._state(), "observation.images.above": np.full((8, 8, 3), shade, np.uint8)}

    def events(self):
        pending, self._pending = self._pending, []
        return pending

    def save_state(self):
        pending = [[event.step, event.value] for event in self._pending]
        return pack_state({"key": self._key.as_dict(), "step": self._step, "pending": pending}, {"at": self._at})

    def load_state(self, state):
        values, arrays = unpack_state(state)
        self._key, self._at, self._step = EpisodeKey.from_dict(values["key"]), arrays["at"], values["step"]
        self._pending = [Event(step=s, kind="pushed", subject="point", value=v) for s, v in values["pending"]]

    def close(self):
        pass


class Person:
    """Straight home."""

    def act(self, sim):
        at = sim.observe()["observation.state"]
        return (-at / STEP_M).clip(-1, 1)


class Guide:
    """A person who is blown about; the very first try is not worth showing."""

    steps_per_frame = 2
    phrasings = MappingProxyType({"go home": ("off you go",)})

    def key(self, seed, index, tasks):
        return EpisodeKey(seed=seed, task=tasks[index % len(tasks)], episode=index)

    def show(self, sim, key):
        if key.episode == 0 and key.seed < 1000:
            return None
        sim.reset(options={"key": key})
        rng, rows, done = keyed_rng(*key.parts, "guide"), [], False
        while not done:
            rows.append((sim.observe(), self.chunk(sim)))
            for _ in range(self.steps_per_frame):
                _, _, done, truncated, _ = sim.step(self.chunk(sim)[0] + 0.3 * rng.standard_normal(2))
                done |= truncated
                if done:
                    break
        looks, chunks = zip(*rows, strict=True)
        images = {"above": np.stack([look["observation.images.above"] for look in looks])}
        return Shown(images=images, states=np.stack([o["observation.state"] for o in looks]), chunks=np.stack(chunks))

    def chunk(self, sim):
        return np.float32([Person().act(sim)] * 3)


class WindLabeler:
    """A failure was lost when the wind rose, the first event; without wind at the last step."""

    name = "wind"

    def __init__(self, targets, actions):
        self._targets, self._size = targets, len(actions.dimensions)

    def label(self, task, states, actions, events, success):
        assert self._targets[task] == "hut"
        steps = len(states)
        onset = None if success else events[0].step if events else steps - 1
        time = np.full(steps, np.inf) if onset is None else np.maximum(onset - np.arange(steps), 0).astype(float)
        risk = np.zeros((steps, self._size), bool)
        kind = None if success else "timeout"
        return Labels(success=success, failure_type=kind, onset=onset, time_to_failure=time, dimension=risk)


ENTRY = SimEntry(
    make="pointworld.sim:PointWorld",
    operator="pointworld.sim:Person",
    demonstrator="pointworld.sim:Guide",
    kinds=("wind",),
    mixes={"default": {"none": 1.0, "wind:2": 1.0, "wind:5": 1.0}},
    labeler="pointworld.sim:WindLabeler",
    targets=dict.fromkeys(INSTRUCTIONS, "hut"),
)
