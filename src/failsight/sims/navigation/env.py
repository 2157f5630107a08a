"""The navigation simulator as a Gymnasium environment.

Non-obvious behaviours: velocities are in the robot's own frame and held for a whole step of 0.4 s; with two action
dimensions the heading is held by the servo; `step` returns the state without images unless `images="always"`; an
episode ends when the bottle is reached (0.38 m from the robot's centre, no touch needed) or anything is hit, and is
truncated after 40 steps; the state is odometry (velocities), not position, which a robot would not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import mujoco
import numpy as np

from failsight.core.errors import FailsightError
from failsight.core.rng import keyed_rng
from failsight.core.specs import ActionSpec, Dimension, ObservationSpec
from failsight.core.state import pack_state, unpack_state
from failsight.core.types import Array, EpisodeKey, Event, Perturbation, Task
from failsight.sims.base.env import EpisodeEnv, Images, step_info
from failsight.sims.base.mujoco_camera import Cameras
from failsight.sims.base.mujoco_state import event_from, key_from, load_physics, refresh_poses, save_physics
from failsight.sims.navigation import scenarios
from failsight.sims.navigation.scene import PARK_M, RATE_HZ, SUBSTEPS, build_model

REACH_M = 0.38
SPEED_M_S, TURN_RAD_S = 1.15, 1.5
_DIMENSIONS = (
    Dimension(name="linear_x", kind="velocity", unit="m/s", low=-SPEED_M_S, high=SPEED_M_S, hold=0.0),
    Dimension(name="linear_y", kind="velocity", unit="m/s", low=-SPEED_M_S, high=SPEED_M_S, hold=0.0),
    Dimension(name="angular_z", kind="velocity", unit="rad/s", low=-TURN_RAD_S, high=TURN_RAD_S, hold=0.0),
)
STATE_NAMES = ("velocity_x_m_s", "velocity_y_m_s", "turn_rad_s")


def action_spec(dimensions: int = 3) -> ActionSpec:
    """Forward and sideways velocity, and with 3 dimensions the turn rate."""
    if dimensions not in (2, 3):
        raise FailsightError(f"Navigation acts in 2 or 3 dimensions, not {dimensions}.")
    return ActionSpec(dimensions=_DIMENSIONS[:dimensions], frame="base", rate_hz=RATE_HZ, gripper_closed_sign=1)


class NavigationEnv(EpisodeEnv):
    """Eight scenarios; see `scenarios` and `scene`."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012 (the base class types it so)
    title = "Navigation"

    def __init__(
        self,
        task: str = "1box_vert_left",
        perturbation: str = "none",
        pixels: int = 64,
        images: Images = "always",
        actions: int = 3,
        render_mode: str | None = None,
    ) -> None:
        self._default = (scenarios.find_scenario(task).id, Perturbation.parse(perturbation))
        self.render_mode, self.action_spec = render_mode, action_spec(actions)
        self.observation_spec = ObservationSpec(state=STATE_NAMES, cameras=(("front", pixels, pixels),))
        self._model = build_model()
        self._data = mujoco.MjData(self._model)
        self._lamp = self._model.vis.headlight.diffuse.copy(), self._model.vis.headlight.ambient.copy()
        self._camera, self._view = Cameras(self._model, pixels, pixels), Cameras(self._model, 256, 256)
        self._robot = self._model.geom("robot").id
        self._bottle_at = int(self._model.jnt_qposadr[self._model.joint("bottle").id])
        self._prepare(images, state_bound=9.0)

    @property
    def task(self) -> Task:
        """The task of the running episode."""
        return scenarios.find_scenario(self.key.task)

    @property
    def scene(self) -> scenarios.Scene:
        """The layout of the running episode."""
        return self._scene

    def tasks(self) -> Sequence[Task]:
        """One per scenario."""
        return scenarios.tasks()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """Start the episode of `options["key"]`, else episode 0 of `seed` with the task given at construction."""
        super().reset(seed=seed)
        self._configure(self._asked(seed, options, *self._default))
        mujoco.mj_resetData(self._model, self._data)
        self._stand_boxes()
        self._data.qpos[:3] = self._scene.start
        self._data.qpos[self._bottle_at : self._bottle_at + 3] = [*self._scene.bottle, 0.091]
        mujoco.mj_forward(self._model, self._data)
        self._step, self._done, self._passed, self._pending = 0, False, False, []
        return self._observation(), {"task": self.task.instruction}

    def _configure(self, key: EpisodeKey) -> None:
        """Edit the model for the episode; these edits are not part of MuJoCo's state."""
        self._key, self._scene = key, scenarios.make_scene(key)
        light = self._model.vis.headlight
        light.diffuse[:], light.ambient[:] = (value * self._scene.light for value in self._lamp)
        for i in range(2):
            box = self._model.geom(f"box{i}")
            box.size[:], box.rbound[:] = self._scene.half, np.linalg.norm(self._scene.half)
            self._model.geom_aabb[box.id, 3:] = self._scene.half

    def _stand_boxes(self) -> None:
        for i in range(2):
            if i < len(self._scene.boxes):
                x, y, yaw = self._scene.boxes[i]
                self._data.mocap_pos[i] = [x, y, self._scene.half[2]]
                self._data.mocap_quat[i] = [np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
            else:
                self._data.mocap_pos[i] = [PARK_M, i, 0]

    def step(self, action: Array) -> tuple[dict[str, Array], float, bool, bool, dict[str, Any]]:
        """One control tick of 0.4 s: `action` (2,) or (3,), m/s forward and sideways and rad/s, clipped to its range.

        Raises EpisodeDataError for an action that is not finite or of another length, FailsightError after the end.
        """
        action = self._checked(action, np.float64)
        command = np.zeros(3)
        command[: len(action)] = np.clip(action, self.action_spec.low, self.action_spec.high)
        if self._scene.slip:
            rng = keyed_rng(*self.key.parts, "slip", self._step)
            command *= 1 - self._scene.slip * rng.uniform(-0.5, 1.5, 3)
        if self._step == self._scene.push_at:
            self._data.qpos[1] += self._scene.push_m
            self._pending.append(Event(step=self._step, kind="pushed", subject="robot", value=abs(self._scene.push_m)))
        collided = self._drive(command)
        self._note_side()
        self._step += 1
        success = not collided and self.distance() < REACH_M
        terminated = success or collided
        truncated = not terminated and self._step >= self.task.horizon
        self._done = terminated or truncated
        return self._observation(), float(success), terminated, truncated, step_info(success, collided)

    def _drive(self, command: Array) -> bool:
        """Hold a velocity of the robot's frame for a step; the first touch of anything but the floor ends it."""
        for _ in range(SUBSTEPS):
            yaw = self._data.qpos[2]
            self._data.ctrl[0] = np.cos(yaw) * command[0] - np.sin(yaw) * command[1]
            self._data.ctrl[1] = np.sin(yaw) * command[0] + np.cos(yaw) * command[1]
            self._data.ctrl[2] = command[2]
            mujoco.mj_step(self._model, self._data)
            if self._touch():
                return True
        return False

    def _note_side(self) -> None:
        """Say once on which side the first box was passed."""
        x, y, _ = self.pose()
        box_x, box_y, _ = self._scene.boxes[0]
        if not self._passed and x > box_x:
            self._passed = True
            side = "left" if y > box_y else "right"
            self._pending.append(Event(step=self._step, kind="passed", subject="robot", other=side))

    def _touch(self) -> bool:
        for i in range(self._data.ncon):
            contact = self._data.contact[i]
            if self._robot not in (contact.geom1, contact.geom2):
                continue
            other = contact.geom2 if contact.geom1 == self._robot else contact.geom1
            name = self._model.geom(other).name
            if name == "floor":
                continue
            force = np.zeros(6)
            mujoco.mj_contactForce(self._model, self._data, i, force)
            normal = contact.frame[:3] * (1 if contact.geom1 == self._robot else -1)
            self._pending.append(
                Event(
                    step=self._step,
                    kind="contact",
                    subject="robot",
                    other=name,
                    value=float(abs(force[0])),
                    position=_vector(contact.pos),
                    normal=_vector(normal),
                )
            )
            return True
        return False

    # ------------------------------------------------------------------ reading

    def pose(self) -> Array:
        """(3,) x, y, yaw of the robot, m and rad."""
        return np.array(self._data.qpos[:3])

    def bottle(self) -> Array:
        """(2,) where the bottle stands, m."""
        return np.array(self._data.body("bottle").xpos[:2])

    def distance(self) -> float:
        """From the robot's centre to the bottle, m."""
        return float(np.hypot(*(self.bottle() - self.pose()[:2])))

    def state(self) -> Array:
        """(3,) float32 odometry in the robot's frame, order `STATE_NAMES`."""
        yaw, (vx, vy, turn) = self._data.qpos[2], self._data.qvel[:3]
        return np.array([np.cos(yaw) * vx + np.sin(yaw) * vy, -np.sin(yaw) * vx + np.cos(yaw) * vy, turn], np.float32)

    def observe(self) -> dict[str, Array]:
        """State and camera image of the present moment."""
        refresh_poses(self._model, self._data)
        image = self._camera.image(self._data, "front")
        return {"observation.state": self.state(), "observation.images.front": image}

    def render(self) -> Array:
        """(256, 256, 3) uint8 picture of the room for people."""
        refresh_poses(self._model, self._data)
        return self._view.image(self._data, "room")

    # ------------------------------------------------------------------ save and load

    def save_state(self) -> bytes:
        """Simulator, counters and episode key; loading in another process goes on bit-exactly."""
        values = {
            "key": asdict(self.key),
            "counters": [self._step, self._done, self._passed],
            "pending": [asdict(event) for event in self._pending],
        }
        return pack_state(values, {"physics": save_physics(self._model, self._data)})

    def load_state(self, state: bytes) -> None:
        """Inverse of `save_state`, in any environment of this class."""
        values, arrays = unpack_state(state)
        if self._key != (saved := key_from(values["key"])):
            self._configure(saved)
        load_physics(self._model, self._data, arrays["physics"])
        self._step, self._done, self._passed = values["counters"]
        self._pending = [event_from(item) for item in values["pending"]]

    def close(self) -> None:
        """Free the renderers."""
        self._camera.close()
        self._view.close()


def _vector(values: Array) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in values)
    return x, y, z


def planar(**options: Any) -> NavigationEnv:
    """The same room with two action dimensions: the robot slides and never turns."""
    return NavigationEnv(actions=2, **options)
