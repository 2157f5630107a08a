"""Meta-World as a `Sim`.

Non-obvious behaviours: an episode is one of the 50 parametric goals Meta-World draws for (task, run seed), numbered by
the episode, because `reset(seed=...)` does not pick a goal reproducibly there; saving keeps the key and the actions and
loading replays them, which is exact and needs none of the benchmark's private state; the action is the hand's
displacement command and the gripper effort (+1 closes); there are no instructions in the benchmark, ours follow the task
names; there are no events, so failures have no type. Source: Yu et al. 2019, arXiv 1910.10897; package metaworld 3.1.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from failsight.core.errors import UnknownNameError
from failsight.core.specs import ActionSpec, Dimension, ObservationSpec
from failsight.core.types import Array, Task
from failsight.sims.base.env import Images, ReplayedEnv
from failsight.sims.base.mujoco_camera import Cameras

HORIZON = 200
CAMERA = "corner2"
STATE_NAMES = ("x_m", "y_m", "z_m", "gripper_open01")
ACTION_SPEC = ActionSpec(
    dimensions=(
        *(Dimension(name=f"d{a}", kind="delta", unit="m", scale=0.01, hold=0.0) for a in "xyz"),
        Dimension(name="gripper", kind="absolute", unit="effort", hold=None),
    ),
    frame="world",
    rate_hz=80.0,
    gripper_closed_sign=1,
)


def instruction_of(name: str) -> str:
    """`drawer-open-v3` -> "drawer open"."""
    return name.rsplit("-v", 1)[0].replace("-", " ")


class MetaWorldEnv(ReplayedEnv):
    """Fifty tasks of a Sawyer arm; see the module docstring."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 80}  # noqa: RUF012 (the base class types it so)
    action_spec, title = ACTION_SPEC, "Meta-World"

    def __init__(self, task: str = "reach-v3", pixels: int = 64, images: Images = "always") -> None:
        import metaworld
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS

        self._metaworld, self._names = metaworld, tuple(ALL_V3_ENVIRONMENTS)
        self._pixels = pixels
        self.observation_spec = ObservationSpec(state=STATE_NAMES, cameras=((CAMERA, pixels, pixels),))
        self._prepare(images, state_bound=9.0)
        self._default = self._known(task)
        self._benchmarks: dict[tuple[str, int], Any] = {}
        self._envs: dict[str, tuple[Any, Cameras, Cameras]] = {}

    def _known(self, name: str) -> str:
        if name not in self._names:
            raise UnknownNameError("Meta-World task", name, self._names)
        return name

    @property
    def task(self) -> Task:
        """The task of the running episode."""
        return self._task(self.key.task)

    @staticmethod
    def _task(name: str) -> Task:
        return Task(id=name, suite="metaworld", instruction=instruction_of(name), horizon=HORIZON)

    def tasks(self) -> Sequence[Task]:
        """All fifty."""
        return [self._task(name) for name in self._names]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """Start the episode of `options["key"]`, else episode 0 of `seed` with the task given at construction."""
        super().reset(seed=seed)
        key = self._asked(seed, options, self._default)
        self._begin(key)
        goals = self._benchmark(self._known(key.task), key.seed).train_tasks
        env, _, _ = self._env(key.task)
        env.set_task(goals[key.episode % len(goals)])
        self._seen, _ = env.reset()
        self._actions, self._done, self._success = [], False, False
        return self._observation(), {"task": self.task.instruction}

    def _benchmark(self, name: str, seed: int) -> Any:
        if (name, seed) not in self._benchmarks:
            self._benchmarks[name, seed] = self._metaworld.MT1(name, seed=seed)
        return self._benchmarks[name, seed]

    def _env(self, name: str) -> tuple[Any, Cameras, Cameras]:
        if name not in self._envs:
            env = self._benchmark(name, 0).train_classes[name]()
            env.model.vis.quality.offsamples = 0
            small = Cameras(env.model, self._pixels, self._pixels)
            self._envs[name] = (env, small, Cameras(env.model, 256, 256))
        return self._envs[name]

    def _advance(self, action: Array) -> None:
        self._seen, _, _, _, info = self._env(self.key.task)[0].step(action)
        self._success = bool(info["success"] > 0)
        self._actions.append(action)

    def state(self) -> Array:
        """(4,) float32: the hand's position and the opening of the gripper."""
        return np.asarray(self._seen[:4], np.float32)

    def observe(self) -> dict[str, Array]:
        """State and camera image of the present moment."""
        env, camera, _ = self._env(self.key.task)
        return {
            "observation.state": self.state(),
            f"observation.images.{CAMERA}": camera.image(env.data, CAMERA).copy(),
        }

    def full_state(self) -> Array:
        """(39,) the benchmark's own observation, for its scripted policies."""
        return np.asarray(self._seen)

    def render(self) -> Array:
        """(256, 256, 3) uint8 picture for people."""
        env, _, view = self._env(self.key.task)
        return view.image(env.data, CAMERA).copy()

    def close(self) -> None:
        """Free the renderers."""
        for _, small, big in self._envs.values():
            small.close()
            big.close()


class MetaWorldExpert:
    """The benchmark's own scripted policies."""

    def __init__(self) -> None:
        from metaworld.policies import ENV_POLICY_MAP

        self._policies = ENV_POLICY_MAP

    def act(self, env: MetaWorldEnv) -> Array:
        """(4,) the action for the present state."""
        action = self._policies[env.key.task]().get_action(env.full_state())
        return np.clip(np.asarray(action, np.float32), -1, 1)
