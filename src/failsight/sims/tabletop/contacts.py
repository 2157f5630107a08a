"""Contacts read at every physics substep, reduced to one peak per pair and control step."""

from __future__ import annotations

from typing import NamedTuple

import mujoco
import numpy as np

from failsight.core.types import Array
from failsight.sims.tabletop.scene import OBJECTS

_ROBOT = {"finger_left": "gripper", "finger_right": "gripper", "palm": "gripper"}
_OBSTACLES = ("wall", "post")
_FIXTURES = ("table", "bin_left", "bin_right")


class Peak(NamedTuple):
    """The strongest contact of a pair within one control step."""

    force_n: float
    position: tuple[float, float, float]
    normal: tuple[float, float, float]
    """From subject into other."""


def _entity(geom: str) -> str:
    if geom in _ROBOT:
        return _ROBOT[geom]
    return "_".join(geom.split("_")[:2]) if geom.startswith("bin_") else geom


class ContactReader:
    """Collects peak forces of the pairs that can do harm, and which fingers touch which object.

    Pairs: gripper with obstacle, fixture or object, and object with obstacle.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        names = [model.geom(i).name for i in range(model.ngeom)]
        self._entities = [_entity(name) for name in names]
        self._left, self._right = names.index("finger_left"), names.index("finger_right")
        self._watched = np.zeros((model.ngeom, model.ngeom), bool)
        self._touching = np.zeros((model.ngeom, model.ngeom), bool)
        for i, a in enumerate(self._entities):
            for j, b in enumerate(self._entities):
                self._watched[i, j] = self._is_watched(a, b) or self._is_watched(b, a)
                self._touching[i, j] = "gripper" in (a, b) and (a in OBJECTS or b in OBJECTS)
        self._force = np.zeros(6)
        self.peaks: dict[tuple[str, str], Peak] = {}

    @staticmethod
    def _is_watched(a: str, b: str) -> bool:
        if a == "gripper":
            return b in _OBSTACLES or b in _FIXTURES or b in OBJECTS
        return a in OBJECTS and b in _OBSTACLES

    def start_step(self) -> None:
        """Forget the peaks of the last control step."""
        self.peaks = {}

    def read(self, model: mujoco.MjModel, data: mujoco.MjData, target: str) -> None:
        """Take in one substep. The forces of the fingers on the target are not collected: gripping is no harm."""
        if not data.ncon:
            return
        geoms: Array = data.contact.geom
        for k in np.nonzero(self._watched[geoms[:, 0], geoms[:, 1]])[0]:
            first, second = geoms[k]
            a, b = self._entities[first], self._entities[second]
            sign = 1.0
            if not self._is_watched(a, b):
                a, b, sign = b, a, -1.0
            if b == target and a == "gripper":
                continue
            self._collect(model, data, int(k), (a, b), sign)

    def _collect(self, model: mujoco.MjModel, data: mujoco.MjData, k: int, pair: tuple[str, str], sign: float) -> None:
        mujoco.mj_contactForce(model, data, k, self._force)
        force = abs(float(self._force[0]))
        if force > 0.1 and (pair not in self.peaks or force > self.peaks[pair].force_n):
            contact = data.contact[k]
            x, y, z = (float(v) for v in contact.pos)
            nx, ny, nz = (sign * float(v) for v in contact.frame[:3])
            self.peaks[pair] = Peak(force, (x, y, z), (nx, ny, nz))

    def gripped(self, data: mujoco.MjData) -> str | None:
        """The object that both fingers touch now, or None."""
        if not data.ncon:
            return None
        geoms: Array = data.contact.geom
        touching: dict[str, int] = {}
        for first, second in geoms[self._touching[geoms[:, 0], geoms[:, 1]]]:
            finger, other = (first, second) if self._entities[first] == "gripper" else (second, first)
            bit = 1 if finger == self._left else 2 if finger == self._right else 0
            name = self._entities[other]
            touching[name] = touching.get(name, 0) | bit
        return next((name for name, bits in touching.items() if bits == 3), None)

    def touched(self, data: mujoco.MjData, name: str) -> bool:
        """Whether any part of the gripper touches that object now."""
        if not data.ncon:
            return False
        geoms: Array = data.contact.geom
        rows = geoms[self._touching[geoms[:, 0], geoms[:, 1]]]
        return any(name in (self._entities[a], self._entities[b]) for a, b in rows)
