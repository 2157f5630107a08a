"""Meta-World as a `Sim`.

Non-obvious behaviours: an episode is one of the 50 parametric goals Meta-World draws for (task, run seed), numbered by
the episode, because `reset(seed=...)` does not pick a goal reproducibly there; saving keeps the key and the actions and
loading replays them, which is exact and needs none of the benchmark's private state; the action is the hand's
displacement command and the gripper effort (+1 closes); there are no instructions in the benchmark, ours follow the task
names; there are no events, so failures have no type. Source: Yu et al. 2019, arXiv 1910.10897; package metaworld 3.1.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

from failsight.core.errors import EpisodeDataError, FailsightError, UnknownNameError
from failsight.core.specs import ActionSpec, Dimension, ObservationSpec
from failsight.core.state import pack_state, unpack_state
from failsight.core.types import Array, EpisodeKey, Event, Task
from failsight.sims.info import step_info
from failsight.sims.mujoco_camera import Cameras

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


class MetaWorldEnv(gymnasium.Env[dict[str, Array], Array]):
    """Fifty tasks of a Sawyer arm; see the module docstring."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 80}  # noqa: RUF012 (the base class types it so)
    action_spec = ACTION_SPEC

    def __init__(
        self, task: str = "reach-v3", pixels: int = 64, images: Literal["always", "on_demand"] = "always"
    ) -> None:
        import metaworld
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS

        self._metaworld, self._names = metaworld, tuple(ALL_V3_ENVIRONMENTS)
        self._images, self._pixels = images, pixels
        self.observation_spec = ObservationSpec(state=STATE_NAMES, cameras=((CAMERA, pixels, pixels),))
        self.action_space = spaces.Box(-1.0, 1.0, (4,), np.float32)
        entries: dict[str, spaces.Space[Any]] = {"observation.state": spaces.Box(-9.0, 9.0, (4,), np.float32)}
        if images == "always":
            entries[f"observation.images.{CAMERA}"] = spaces.Box(0, 255, (pixels, pixels, 3), np.uint8)
        space: spaces.Space[Any] = spaces.Dict(entries)
        self.observation_space = space
        self._default = self._known(task)
        self._benchmarks: dict[tuple[str, int], Any] = {}
        self._envs: dict[str, tuple[Any, Cameras, Cameras]] = {}
        self._key: EpisodeKey | None = None
        self._actions: list[Array] = []
        self._done = True

    def _known(self, name: str) -> str:
        if name not in self._names:
            raise UnknownNameError("Meta-World task", name, self._names)
        return name

    @property
    def key(self) -> EpisodeKey:
        """The key of the running episode. Raises FailsightError before the first reset."""
        if self._key is None:
            raise FailsightError("Meta-World has no episode yet; call reset() first.")
        return self._key

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
        key = (options or {}).get("key")
        if key is None:
            drawn = int(self.np_random.integers(2**31)) if seed is None else seed
            key = EpisodeKey(seed=drawn, task=self._default, episode=0)
        if key.perturbations:
            raise UnknownNameError("Meta-World perturbation", key.perturbations[0].kind, ())
        self._key = key
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

    def step(self, action: Array) -> tuple[dict[str, Array], float, bool, bool, dict[str, Any]]:
        """One control tick of 12.5 ms. Raises EpisodeDataError for a non-finite action or after the end."""
        action = np.asarray(action, np.float32)
        if action.shape != (4,) or not np.isfinite(action).all():
            raise EpisodeDataError(f"Meta-World needs 4 finite action values; it got {action}.")
        if self._done:
            raise FailsightError("This episode has ended; call reset() before the next step.")
        self._advance(np.clip(action, -1, 1))
        truncated = not self._success and len(self._actions) >= HORIZON
        self._done = self._success or truncated
        info = step_info(self._success)
        return self._observation(), float(self._success), self._success, truncated, info

    def _advance(self, action: Array) -> None:
        self._seen, _, _, _, info = self._env(self.key.task)[0].step(action)
        self._success = bool(info["success"] > 0)
        self._actions.append(action)

    def state(self) -> Array:
        """(4,) float32: the hand's position and the opening of the gripper."""
        return np.asarray(self._seen[:4], np.float32)

    def _observation(self) -> dict[str, Array]:
        return self.observe() if self._images == "always" else {"observation.state": self.state()}

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

    def events(self) -> list[Event]:
        """None: the benchmark reports none."""
        return []

    def save_state(self) -> bytes:
        """Key and actions so far."""
        return pack_state(
            {"key": asdict(self.key), "done": self._done}, {"actions": np.array(self._actions, np.float32)}
        )

    def load_state(self, state: bytes) -> None:
        """Start over and act the same."""
        values, arrays = unpack_state(state)
        self.reset(options={"key": EpisodeKey(**{**values["key"], "perturbations": ()})})
        for action in arrays["actions"]:
            self._advance(action)
        self._done = values["done"]

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
