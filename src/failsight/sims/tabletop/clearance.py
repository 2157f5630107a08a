"""Room for the open gripper among what stands on the table: which way to grasp, and how high to travel."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from failsight.core.types import Array
from failsight.sims.tabletop.env import TabletopEnv
from failsight.sims.tabletop.scene import BIN_HALF, BIN_Y, OBJECT_HALF, POST_HALF_HEIGHT, WALL_TOP

TIP_BELOW_TCP_M = 0.010
"""The finger tips reach this far below the tool centre point."""
_PALM_ABOVE_TCP_M = 0.048
_PALM_HALF, _FINGER_HALF, _FINGER_OUT_M = np.array([0.025, 0.050]), np.array([0.010, 0.011]), 0.033
"""A finger's room is its way of closing: from outside down to the object's face."""
_POST_RADIUS_M, _POST_TOP_M = 0.012, 2 * POST_HALF_HEIGHT
_WALL_HALF, _BIN_THICK_M, _BIN_TOP_M = (0.09, 0.006), 0.008, 0.036
_ENOUGH_M = 0.012
"""More room than this makes no grasp better."""
_OFFSETS = tuple(product((0.0, 0.006, -0.006, 0.011, -0.011), (0.0, 0.005, -0.005, 0.010, -0.010)))
"""Offsets of the grasp from the object's centre, m: along the fingers' flat side, and along their way of closing."""
_YAW_COST_M, _OFFSET_COST = 0.002, 0.25
"""What a radian of turning and a metre off the centre are worth in room."""
_NEAR_M = 0.12


class Grasp(NamedTuple):
    """Where to close the fingers (tool centre point, m), their yaw (rad) and the room around them (m; below 0: blocked)."""

    point: Array
    yaw: float
    room: float


def obstacles(sim: TabletopEnv, *without: str) -> Array:
    """(N, 3) x, y, top (m) of points on the outlines of all that stands on the table, but for the objects named."""
    parts = [
        _outline(sim.position(name), sim.yaw(name), (OBJECT_HALF, OBJECT_HALF), sim.position(name)[2] + OBJECT_HALF)
        for name in sim.objects
        if name not in without
    ]
    if (post := sim.post_position()) is not None:
        parts.append(_circle(post, _POST_RADIUS_M, _POST_TOP_M))
    if (wall_y := sim.wall_y()) is not None:
        parts.append(_outline(np.array([0.0, wall_y]), 0.0, _WALL_HALF, WALL_TOP))
    for y in BIN_Y.values():
        parts += [_outline(np.array([0.0, y]), 0.0, (h, h), _BIN_TOP_M) for h in (BIN_HALF, BIN_HALF + _BIN_THICK_M)]
    return np.concatenate(parts)


def best_grasp(around: Array, place: Array, yaws: Sequence[float]) -> Grasp:
    """The grasp of an object at `place` (3,) with most room among the points `around` (n, 3); close calls go to the least turned one."""
    near = around[np.hypot(*(around[:, :2] - place[:2]).T) < _NEAR_M]
    grasps = [_grasp(near, place, yaw, offset) for yaw in yaws for offset in _OFFSETS]
    return max(grasps, key=lambda grasp: _worth(grasp, place))


def highest_between(around: Array, start: Array, end: Array, reach_m: float) -> float:
    """Top (m) of the highest of the points `around` (n, 3) within `reach_m` of the straight way between two points (3,).

    0 where there is none.
    """
    way = end[:2] - start[:2]
    offset = around[:, :2] - start[:2]
    share = np.clip(offset @ way / max(float(way @ way), 1e-9), 0, 1)
    near = np.hypot(*(offset - share[:, None] * way).T) < reach_m
    return float(around[near, 2].max(initial=0.0))


def _worth(grasp: Grasp, place: Array) -> float:
    off = float(np.hypot(*(grasp.point[:2] - place[:2])))
    return min(grasp.room, _ENOUGH_M) - _YAW_COST_M * abs(grasp.yaw) - _OFFSET_COST * off


def _grasp(around: Array, place: Array, yaw: float, offset: tuple[float, float]) -> Grasp:
    turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    point = place.copy()
    point[:2] += turn @ offset
    return Grasp(point, yaw, _room(around, point, turn))


def _room(around: Array, point: Array, turn: Array) -> float:
    """Distance (m) of the open gripper from the nearest obstacle that reaches up to it, negative inside one."""
    local = np.abs((around[:, :2] - point[:2]) @ turn)
    tall = around[:, 2] > point[2] + _PALM_ABOVE_TCP_M - 0.005
    low = around[:, 2] > point[2] - TIP_BELOW_TCP_M
    palm = _distance(local[tall], _PALM_HALF)
    fingers = _distance(np.stack([local[low, 0], np.abs(local[low, 1] - _FINGER_OUT_M)], 1), _FINGER_HALF)
    return float(np.concatenate([palm, fingers]).min(initial=1.0))


def _distance(local: Array, half: Array) -> Array:
    """(N,) signed distance of points, given as absolute offsets (N, 2), from a rectangle of these half sizes."""
    beyond = local - half
    outside = np.hypot(*np.maximum(beyond, 0).T)
    distance: Array = np.where((beyond < 0).all(1), beyond.max(1, initial=-1.0), outside)
    return distance


def _outline(centre: Array, yaw: float, half: tuple[float, float], top: float) -> Array:
    side = np.linspace(-1, 1, 9)
    edge = np.ones_like(side)
    unit = np.concatenate([np.stack(p, 1) for p in ((side, edge), (side, -edge), (edge, side), (-edge, side))])
    turn = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
    return np.column_stack([centre[:2] + unit * half @ turn, np.full(len(unit), top)])


def _circle(centre: Array, radius: float, top: float) -> Array:
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    ring = centre[:2] + radius * np.stack([np.cos(angle), np.sin(angle)], 1)
    return np.column_stack([ring, np.full(16, top)])
