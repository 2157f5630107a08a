"""Camera images of any MuJoCo scene, with the flags that make primitive scenes render at about 1000 frames/s on a CPU."""

from __future__ import annotations

import atexit
from collections.abc import Sequence

import mujoco
import numpy as np

from failsight.core.types import Array
from failsight.sims.base.headless import explained


class Cameras:
    """Renders named cameras at one size; one GL context per instance, made on first use."""

    def __init__(self, model: mujoco.MjModel, height: int, width: int, hidden: Sequence[int] = ()) -> None:
        """`hidden`: geom groups not to draw (collision shapes)."""
        self._model, self._size = model, (height, width)
        self._option = mujoco.MjvOption()
        for group in hidden:
            self._option.geomgroup[group] = 0
        self._renderer: mujoco.Renderer | None = None

    def image(self, data: mujoco.MjData, camera: str) -> Array:
        """(H, W, 3) uint8. Body poses must be fresh (`mj_kinematics`): after a step they lag one substep.

        Raises RenderingError where no context can be made.
        """
        if self._renderer is None:
            with explained():
                self._renderer = mujoco.Renderer(self._model, *self._size)
            atexit.register(self.close)  # before MuJoCo terminates EGL, else its destructor complains
            self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
            self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._renderer.update_scene(data, camera, self._option)
        return np.asarray(self._renderer.render())

    def close(self) -> None:
        """Free the GL context."""
        if self._renderer is not None:
            atexit.unregister(self.close)
            self._renderer.close()
            self._renderer = None
