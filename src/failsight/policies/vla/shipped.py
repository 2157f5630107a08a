"""The two trained checkpoints in the package; their `config.json` says which command made them."""

from __future__ import annotations

from pathlib import Path

from failsight.policies.vla.policy import TinyPolicy

CHECKPOINTS = Path(__file__).parent / "checkpoints"


def strong() -> TinyPolicy:
    """At least 95 % success on the clean tabletop mix."""
    return TinyPolicy.load(CHECKPOINTS / "tabletop-strong")


def weak() -> TinyPolicy:
    """The same network stopped early: fails often even without perturbations."""
    return TinyPolicy.load(CHECKPOINTS / "tabletop-weak")
