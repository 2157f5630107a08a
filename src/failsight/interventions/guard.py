"""The guard: small, synchronous, without learning; it may only tighten.

NaN or infinite actions become a hold; the third in a row latches a stop. Values beyond the spec's range are clipped.
This is a request to hold or stop, not a safety-rated function: the emergency stop is hardware.
"""

from __future__ import annotations

import numpy as np

from failsight.core.specs import ActionSpec
from failsight.core.types import Array

_LATCH_AFTER = 3


class Guard:
    """Checks every action before it reaches the simulator or robot."""

    def __init__(self, spec: ActionSpec) -> None:
        self._spec, self._low, self._high = spec, spec.low, spec.high
        self.reset()

    def reset(self) -> None:
        """A person releases the latch."""
        self._bad, self._bad_now, self.latched = 0, False, False

    def finite(self, action: Array, last: Array) -> Array:
        """The action, or a hold when it is not finite."""
        self._bad_now = not bool(np.isfinite(action).all())
        return self._spec.hold(last) if self._bad_now else action

    def check(self, action: Array, last: Array) -> Array:
        """The action to send: finite and within range. Sets `latched` after three bad ones in a row."""
        if not np.isfinite(action).all():
            self._bad_now, action = True, self._spec.hold(last)
        self._bad = self._bad + 1 if self._bad_now else 0
        self.latched = self.latched or self._bad >= _LATCH_AFTER
        return np.clip(action, self._low, self._high).astype(np.float32)
