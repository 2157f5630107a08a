"""Whom a bundle was made for, and how far into a policy its monitor must see."""

from __future__ import annotations

from dataclasses import dataclass

from failsight.core.errors import BundleError
from failsight.core.specs import Access, ActionSpec, ObservationSpec

_GIVES = {
    Access.PROPRIOCEPTION: "the measured state (observation.state)",
    Access.SAMPLES: "several chunks drawn for the same observation (samples)",
    Access.HIDDEN: "the policy's hidden state (hidden)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeFor:
    """What stands in a bundle about policy, robot and access."""

    policy: str
    """Fingerprint of the policy it was fitted on."""
    action_spec: ActionSpec
    observation_spec: ObservationSpec
    hidden_size: int
    """Length of the hidden states it reads; 0: none."""
    levels: frozenset[Access]
    """What its signals and its predictor cannot do without."""
    logged: bool
    """It reads signals that came with a log, which nobody computes online."""

    def require(self, offered: frozenset[Access], hidden_size: int | None = None) -> None:
        """Refuse to start without what the monitor needs; `hidden_size`: of the policy's hidden states, once it is known.

        Raises BundleError naming the level that is missing.
        """
        missing = sorted(self.levels - offered)
        if missing:
            names = " and ".join(f"level {level.name.lower()}: {_GIVES[level]}" for level in missing)
            have = ", ".join(level.name.lower() for level in sorted(offered)) or "none"
            raise BundleError(
                f"This bundle needs more access than it is given; missing is {names}. Given: {have}. "
                "Give it, or fit a bundle on recordings without it."
            )
        if hidden_size is not None and self.hidden_size and hidden_size != self.hidden_size:
            raise BundleError(f"This bundle reads hidden states of {self.hidden_size}, the policy's has {hidden_size}.")
