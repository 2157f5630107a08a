"""Going on with another chunk of those the policy drew for the same observation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from failsight.core.contracts import Context
from failsight.core.errors import SpecMismatchError
from failsight.core.types import CONTINUE, Array, Decision, DecisionKind, PolicyOutput, Verdict
from failsight.interventions.rungs.dwell import Dwell

Verifier = Callable[[Array, Context], int]
"""Which of the samples (K, H, A) to go on with."""


def medoid(samples: Array) -> int:
    """Which of the samples (K, H, A) is nearest to all others: the least sum of distances, the first on a tie.

    >>> medoid(np.array([[[0.0]], [[1.0]], [[5.0]]]))
    1
    """
    flat = np.asarray(samples, np.float64).reshape(len(samples), -1)
    apart = np.sqrt(((flat[:, None] - flat[None]) ** 2).sum(2))
    return int(apart.sum(1).argmin())


class Resample:
    """While the trigger is on and for `dwell_s` seconds after it: the medoid of the policy's samples, or a verifier's choice.

    Drawing again does not help by itself (see LOG.md): a verifier has to know better than the policy does.
    """

    def __init__(self, choose: Verifier | None = None, dwell_s: float = 1.0) -> None:
        """Args: choose: the verifier; None: the medoid."""
        self._choose, self._dwell = choose or (lambda samples, context: medoid(samples)), Dwell(dwell_s)
        self.reset()

    def reset(self) -> None:
        """Nothing chosen yet."""
        self._dwell.reset()
        self._output: PolicyOutput | None = None
        self._chunk: Array | None = None

    def propose(self, verdict: Verdict, context: Context) -> Decision:
        """Choose once per inference. Raises SpecMismatchError at the first tick of a policy that draws no samples."""
        output = context.output
        if output is not None and output.samples is None:
            raise SpecMismatchError(
                "Resampling chooses among the policy's samples, and this policy draws none. Leave the rung out."
            )
        if not self._dwell.goes_on(verdict, context) or output is None or output.samples is None:
            return CONTINUE
        if output is not self._output:
            chosen = output.samples[self._choose(output.samples, context)].astype(np.float32)
            low, high = context.action_spec.low, context.action_spec.high
            self._output, self._chunk = output, np.clip(chosen, low, high)
        return Decision(kind=DecisionKind.RESAMPLE, reason=f"another sample: {verdict.why}", chunk=self._chunk)
