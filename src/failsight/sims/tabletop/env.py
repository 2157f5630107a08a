"""The tabletop simulator as a Gymnasium environment.

Non-obvious behaviours: `step` returns the state without images unless `images="always"` (rendering only when a policy
looks is what makes collection fast; `observe()` renders); an episode ends at success or at a collision and is
truncated at the horizon; stepping after the end raises; gripper +1 closes; state arrays are float32 copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import mujoco
import numpy as np

from failsight.core.harm import CollisionRule
from failsight.core.rng import keyed_rng
from failsight.core.specs import ActionSpec, Dimension, ObservationSpec
from failsight.core.state import pack_state, unpack_state
from failsight.core.types import Array, EpisodeKey, Event, Perturbation, Task
from failsight.sims.base.env import EpisodeEnv, Images, step_info
from failsight.sims.base.mujoco_camera import Cameras
from failsight.sims.base.mujoco_state import event_from, key_from, load_physics, refresh_poses, save_physics
from failsight.sims.tabletop import scene
from failsight.sims.tabletop.contacts import ContactReader
from failsight.sims.tabletop.layout import make_layout
from failsight.sims.tabletop.perturbations import Disturbance, disturb
from failsight.sims.tabletop.render import add_pixel_noise
from failsight.sims.tabletop.tasks import HORIZON, TASKS, find_task
from failsight.sims.tabletop.tracker import Scene, Tracker

STEP_M, STEP_RAD = 0.012, 0.1
_LEAD = np.array([0.03, 0.03, 0.03, 0.25, 0.25, 0.25])
_ORDER = np.array([0, 1, 2, 5, 4, 3])
"""Action order (x y z roll pitch yaw) -> gantry order (x y z yaw pitch roll)."""
_SUCCESS_STEPS = 3

ACTION_SPEC = ActionSpec(
    dimensions=(
        *(Dimension(name=f"d{a}", kind="delta", unit="m", scale=STEP_M, hold=0.0) for a in "xyz"),
        *(
            Dimension(name=f"d{a}", kind="delta", unit="rad", scale=STEP_RAD, hold=0.0)
            for a in ("roll", "pitch", "yaw")
        ),
        Dimension(name="gripper", kind="binary", unit="sign", hold=None),
    ),
    frame="world",
    rate_hz=scene.RATE_HZ,
    gripper_closed_sign=1,
)
STATE_NAMES = (
    *("x_m", "y_m", "z_m", "roll_rad", "pitch_rad", "yaw_rad", "gripper_open01", "gripper_target01"),
    *("lead_x_m", "lead_y_m", "lead_z_m"),
)


class TabletopEnv(EpisodeEnv):
    """Twelve language-instructed tasks on one table; see `scene`, `tasks` and `perturbations`."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": int(scene.RATE_HZ)}  # noqa: RUF012 (the base class types it so)
    action_spec, title = ACTION_SPEC, "The tabletop"

    def __init__(
        self,
        task: str = "pick-red-cube-left",
        perturbation: str = "none",
        pixels: int = 64,
        images: Images = "always",
        render_mode: str | None = None,
        rule: CollisionRule | None = None,
        horizon: int = HORIZON,
    ) -> None:
        self._default = (find_task(task).id, Perturbation.parse(perturbation))
        self.render_mode, self.rule, self._horizon = render_mode, rule or CollisionRule(), horizon
        self.observation_spec = ObservationSpec(
            state=STATE_NAMES, cameras=(("agent", pixels, pixels), ("wrist", pixels, pixels))
        )
        self._model = scene.build_model()
        self._data = mujoco.MjData(self._model)
        self._nominal = {
            name: getattr(self._model, name).copy()
            for name in ("cam_pos", "light_diffuse", "geom_rgba", "geom_friction")
        }
        self._headlight = (
            self._model.vis.headlight.ambient.copy(),
            self._model.vis.headlight.diffuse.copy(),
        )
        self._contacts = ContactReader(self._model)
        self._cameras = Cameras(self._model, pixels, pixels)
        self._view = Cameras(self._model, 256, 256)
        self._joint = {self._model.joint(i).name: int(self._model.jnt_qposadr[i]) for i in range(self._model.njnt)}
        self._velocity = {self._model.joint(i).name: int(self._model.jnt_dofadr[i]) for i in range(self._model.njnt)}
        self._gantry_q = np.array([self._joint[n] for n in scene.GANTRY])
        self._limits = np.array([self._model.joint(n).range for n in scene.GANTRY])
        self._object_geoms = [self._model.geom(n).id for n in scene.OBJECTS]
        self._prepare(images, state_bound=4.0)

    # ------------------------------------------------------------------ episode

    @property
    def task(self) -> Task:
        """The task of the running episode, its instruction reworded when the episode says so."""
        return replace(find_task(self.key.task).as_task(self._disturbance.paraphrase), horizon=self._horizon)

    def tasks(self) -> Sequence[Task]:
        """All twelve tasks."""
        return [replace(task.as_task(), horizon=self._horizon) for task in TASKS.values()]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """Start the episode of `options["key"]`, else episode 0 of `seed` with the task given at construction."""
        super().reset(seed=seed)
        self._configure(self._asked(seed, options, *self._default))
        self._place()
        self._step, self._success_steps = 0, 0
        self._pending = []
        self._lifted_step, self._done = -1, False
        self._tracker = Tracker(target=self._target.target)
        return self._observation(), {"task": self.task.instruction}

    def _configure(self, key: EpisodeKey) -> None:
        """Edit the model for the episode; these edits are not part of MuJoCo's state."""
        self._key, self._target = key, find_task(key.task)
        amounts: Disturbance = disturb(key)
        self._disturbance = amounts
        model = self._model
        for name, value in self._nominal.items():
            getattr(model, name)[:] = value
        for i, camera in enumerate(("agent", "wrist")):
            model.cam_pos[model.camera(camera).id] += amounts.camera_offset_m[i]
        model.light_diffuse[:] *= amounts.light_gain
        model.vis.headlight.ambient[:] = np.clip(self._headlight[0] * amounts.light_gain, 0, 1)
        model.vis.headlight.diffuse[:] = np.clip(self._headlight[1] * amounts.light_gain, 0, 1)
        for i, geom in enumerate(("table", "ground")):
            rgb = model.geom_rgba[model.geom(geom).id, :3]
            rgb[:] = (1 - amounts.background_mix) * rgb + amounts.background_mix * amounts.background[i]
        model.geom_friction[self._object_geoms, 0] *= amounts.friction

    def _place(self) -> None:
        data, model = self._data, self._model
        mujoco.mj_resetData(model, data)
        layout = make_layout(self._target, self.key, self._disturbance)
        for name, (x, y, yaw) in layout.objects.items():
            at = self._joint[name]
            data.qpos[at : at + 7] = [x, y, scene.OBJECT_HALF, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
        if layout.post is not None:
            at = self._joint["post"]
            data.qpos[at : at + 3] = [*layout.post, scene.POST_HALF_HEIGHT]
        if layout.wall_side is not None:
            side = np.sign(scene.BIN_Y[layout.wall_side])
            data.mocap_pos[0] = [0.0, side * scene.WALL_Y, scene.WALL_TOP / 2]
        data.qpos[self._gantry_q] += self._disturbance.start_offset
        data.ctrl[:6] = data.qpos[self._gantry_q]
        mujoco.mj_forward(model, data)
        self._start = {name: data.body(name).xpos[:2].copy() for name in layout.objects}

    def step(self, action: Array) -> tuple[dict[str, Array], float, bool, bool, dict[str, Any]]:
        """One control tick of 50 ms: `action` (7,), shares of `STEP_M`, `STEP_RAD`, and the gripper, cut to [-1, 1].

        Raises EpisodeDataError for an action that is not finite or of another length, FailsightError after the end.
        """
        action = self._checked(action, np.float64)
        noise = self._disturbance.action_noise
        if noise:
            action[:6] += noise * keyed_rng(*self.key.parts, "action_noise", self._step).standard_normal(6)
        self._command(np.clip(action, -1, 1))
        self._contacts.start_step()
        for _ in range(scene.SUBSTEPS):
            mujoco.mj_step(self._model, self._data)
            self._contacts.read(self._model, self._data, self._target.target)
        events = self._tracker.update(self._scene(), self._contacts.peaks) + self._transients()
        self._pending += events
        self._step += 1
        success = self._update_success()
        collided = any(self.rule.matches(event) for event in events)
        terminated = success or collided
        truncated = not terminated and self._step >= self.task.horizon
        self._done = terminated or truncated
        info = step_info(success, collided)
        return self._observation(), float(success), terminated, truncated, info

    def _command(self, action: Array) -> None:
        ctrl, actual = self._data.ctrl, self._data.qpos[self._gantry_q]
        delta = action[:6][_ORDER] * np.array([STEP_M] * 3 + [STEP_RAD] * 3)
        target = np.clip(ctrl[:6] + delta, actual - _LEAD, actual + _LEAD)
        ctrl[:6] = np.clip(target, self._limits[:, 0], self._limits[:, 1])
        fault = 0 <= self._step - self._lifted_step - self._disturbance.fault_delay < self._disturbance.fault_steps
        closed = action[6] > 0 and not (fault and self._lifted_step >= 0)
        ctrl[6] = scene.FINGER_TRAVEL if closed else 0.0

    def _transients(self) -> list[Event]:
        """The knock and the gripper fault, both counted from the first lift of the target."""
        target = self._target.target
        lifted = self._tracker.held == target and self._height(target) > 0.015
        events = []
        if lifted and self._lifted_step < 0:
            self._lifted_step = self._step
            if self._disturbance.push_m_s.any():
                at = self._velocity[target]
                self._data.qvel[at : at + 3] += self._disturbance.push_m_s
                events.append(Event(step=self._step, kind="pushed", subject=target))
        fault_at = self._lifted_step + self._disturbance.fault_delay
        if self._disturbance.fault_steps and self._lifted_step >= 0 and self._step == fault_at:
            events.append(Event(step=self._step, kind="gripper_fault", subject="gripper"))
        return events

    # ------------------------------------------------------------------ reading the scene

    def position(self, name: str) -> Array:
        """(3,) world position of an object, m."""
        return np.array(self._data.body(name).xpos)

    def yaw(self, name: str) -> float:
        """Rotation of an object about the vertical, rad."""
        w, x, y, z = self._data.body(name).xquat
        return float(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))

    def axes(self, name: str) -> Array:
        """(3, 3) the three axes of an object in the world, one a column."""
        return np.array(self._data.body(name).xmat).reshape(3, 3)

    @property
    def steps(self) -> int:
        """Control ticks since the reset."""
        return self._step

    @property
    def held(self) -> str | None:
        """The object held now."""
        return self._tracker.held

    @property
    def objects(self) -> Sequence[str]:
        """Objects on the table in this episode."""
        return list(self._start)

    def post_position(self) -> Array | None:
        """(3,) world position of the post, m; None when there is none on the table."""
        position = np.array(self._data.body("post").xpos)
        return position if abs(position[0]) < 1.0 else None

    def wall_y(self) -> float | None:
        """Where the wall stands, m; None when there is none on the table."""
        x, y = (float(v) for v in self._data.mocap_pos[0][:2])
        return y if abs(x) < 1.0 else None

    def _height(self, name: str) -> float:
        return float(self._data.body(name).xpos[2]) - scene.OBJECT_HALF

    def goal_position(self) -> Array:
        """(3,) where the target's centre should come to rest, m."""
        goal = self._target.goal
        if goal in scene.BIN_Y:
            return np.array([0.0, scene.BIN_Y[goal], 0.023])
        return np.asarray(self.position(goal) + np.array([0, 0, 2 * scene.OBJECT_HALF]))

    def _over_goal(self) -> bool:
        offset = np.abs(self.position(self._target.target) - self.goal_position())
        half = scene.BIN_HALF if self._target.goal in scene.BIN_Y else 0.02
        return bool((offset[:2] < half).all())

    def goal_reached(self) -> bool:
        """The target lies where it belongs (a bin may already hold another object, so height allows for one)."""
        z = float(self.position(self._target.target)[2] - self.goal_position()[2])
        tolerance = (-0.02, 0.062) if self._target.goal in scene.BIN_Y else (-0.008, 0.008)
        return self._over_goal() and tolerance[0] < z < tolerance[1]

    def _update_success(self) -> bool:
        target = self._target.target
        at = self._velocity[target]
        resting = float(np.abs(self._data.qvel[at : at + 3]).max()) < 0.05
        good = self.goal_reached() and resting and not self._contacts.touched(self._data, target)
        self._success_steps = self._success_steps + 1 if good else 0
        return self._success_steps >= _SUCCESS_STEPS

    def _scene(self) -> Scene:
        heights = {name: self._height(name) for name in self._start}
        moved = {n: float(np.hypot(*(self._data.body(n).xpos[:2] - at))) for n, at in self._start.items()}
        axis = self._data.body("post").xmat[8]
        return Scene(
            step=self._step,
            gripped=self._contacts.gripped(self._data),
            commanded_closed=self._data.ctrl[6] > 0,
            opening01=self._opening01(),
            heights_m=heights,
            moved_m=moved,
            post_tilt_deg=float(np.degrees(np.arccos(np.clip(axis, -1, 1)))),
            over_goal=self._over_goal(),
        )

    def _opening01(self) -> float:
        return 1.0 - float(self._data.qpos[self._joint["finger_left"]]) / scene.FINGER_TRAVEL

    def state(self) -> Array:
        """(11,) float32 proprioception, order `STATE_NAMES`; z is the height of the tool centre point above the table."""
        q = self._data.qpos[self._gantry_q]
        lead = self._data.ctrl[:3] - q[:3]
        target = 1.0 - self._data.ctrl[6] / scene.FINGER_TRAVEL
        rest = [q[5], q[4], q[3], self._opening01(), target, *lead]
        return np.array([q[0], q[1], q[2] + 0.22, *rest], np.float32)

    def observe(self) -> dict[str, Array]:
        """State and both camera images of the present moment."""
        refresh_poses(self._model, self._data)
        observation = {"observation.state": self.state()}
        for name, _, _ in self.observation_spec.cameras:
            image = self._cameras.image(self._data, name)
            if self._disturbance.pixel_noise:
                rng = keyed_rng(*self.key.parts, "pixels", name, self._step)
                image = add_pixel_noise(image, self._disturbance.pixel_noise, rng)
            observation[f"observation.images.{name}"] = image
        return observation

    def render(self) -> Array:
        """(256, 256, 3) uint8 picture for people."""
        refresh_poses(self._model, self._data)
        return self._view.image(self._data, "agent")

    # ------------------------------------------------------------------ save and load

    def save_state(self) -> bytes:
        """Simulator, controller, tracker and episode key; loading in another process goes on bit-exactly."""
        values = {
            "key": asdict(self.key),
            "tracker": self._tracker.as_dict(),
            "counters": [self._step, self._success_steps, self._lifted_step, self._done],
            "pending": [asdict(event) for event in self._pending],
            "start": {name: list(at) for name, at in self._start.items()},
        }
        return pack_state(values, {"physics": save_physics(self._model, self._data)})

    def load_state(self, state: bytes) -> None:
        """Inverse of `save_state`, in any environment of this class."""
        values, arrays = unpack_state(state)
        if self._key != (saved := key_from(values["key"])):
            self._configure(saved)
        load_physics(self._model, self._data, arrays["physics"])
        self._tracker = Tracker(**values["tracker"])
        self._step, self._success_steps, self._lifted_step, self._done = values["counters"]
        self._pending = [event_from(item) for item in values["pending"]]
        self._start = {name: np.array(at) for name, at in values["start"].items()}

    def close(self) -> None:
        """Free the renderers."""
        self._cameras.close()
        self._view.close()
