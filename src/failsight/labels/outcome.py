"""Labels of logs that know nothing but how an episode ended: no type, no onset, no dimension risk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from failsight.core.contracts import Labels
from failsight.core.types import Array, Event


class OutcomeLabeler:
    """Success or failure, and that the rest is not known."""

    name = "outcome"

    def label(self, task: str, states: Array, actions: Array, events: Sequence[Event], success: bool) -> Labels:
        """Labels of one episode; time to failure is +inf on a success and NaN on a failure."""
        steps = len(states)
        return Labels(
            success=success,
            failure_type=None,
            onset=None,
            time_to_failure=np.full(steps, np.inf if success else np.nan),
            dimension=np.zeros((steps, actions.shape[1]), bool),
        )
