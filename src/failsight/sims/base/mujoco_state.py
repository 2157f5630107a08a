"""Exact save and load of a MuJoCo simulation, and of what travels with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np

from failsight.core.types import Array, EpisodeKey, Event, Perturbation

_KIND = mujoco.mjtState.mjSTATE_INTEGRATION


def save_physics(model: mujoco.MjModel, data: mujoco.MjData) -> Array:
    """(N,) float64, everything integration depends on."""
    physics = np.zeros(mujoco.mj_stateSize(model, _KIND))
    mujoco.mj_getState(model, data, physics, _KIND)
    return physics


def load_physics(model: mujoco.MjModel, data: mujoco.MjData, physics: Array) -> None:
    """Inverse of `save_physics`, (N,): set twice, because the forward pass between changes warm starts."""
    mujoco.mj_resetData(model, data)
    mujoco.mj_setState(model, data, physics, _KIND)
    mujoco.mj_forward(model, data)
    mujoco.mj_setState(model, data, physics, _KIND)


def refresh_poses(model: mujoco.MjModel, data: mujoco.MjData) -> None:
    """Body poses lag one substep after `mj_step` but not after a restore; refreshing makes both equal."""
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_camlight(model, data)


def key_from(item: Mapping[str, Any]) -> EpisodeKey:
    """An episode key from its JSON form."""
    return EpisodeKey(**{**item, "perturbations": tuple(Perturbation(**p) for p in item["perturbations"])})


def event_from(item: Mapping[str, Any]) -> Event:
    """An event from its JSON form."""
    return Event(**{**item, "position": tuple(item["position"]), "normal": tuple(item["normal"])})
