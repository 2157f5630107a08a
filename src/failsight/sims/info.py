"""What `step` tells beside the observation, the same for every simulator."""

from __future__ import annotations

from typing import Any


def step_info(success: bool, collision: bool = False) -> dict[str, Any]:
    """`success` holds the goal now; `is_success` is the same under the name Gymnasium's libraries and LeRobot look for."""
    return {"success": success, "is_success": success, "collision": collision}
