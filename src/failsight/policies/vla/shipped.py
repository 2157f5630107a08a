"""The two trained checkpoints in the package; their `config.json` says which command made them."""

from __future__ import annotations

from pathlib import Path

from failsight.policies.vla.streaming import VLAPolicy

CHECKPOINTS = Path(__file__).parent / "checkpoints"


def strong() -> VLAPolicy:
    """At least 95 % success on the clean tabletop mix."""
    return VLAPolicy.load(CHECKPOINTS / "tabletop-strong")


def weak() -> VLAPolicy:
    """The same network stopped early: fails often even without perturbations."""
    return VLAPolicy.load(CHECKPOINTS / "tabletop-weak")
