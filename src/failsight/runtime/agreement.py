"""What must be agreed before the first tick: monitor, specs, access, and what a policy's answer is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from failsight.core.contracts import Monitor
from failsight.core.errors import BundleError, SpecMismatchError
from failsight.core.foreign import read_array
from failsight.core.registry import require_members
from failsight.core.specs import Access, ActionSpec, ObservationSpec, require_equal
from failsight.core.types import Array, PolicyOutput
from failsight.monitor.bundle import load_monitor
from failsight.monitor.made_for import MadeFor


def output_of(value: PolicyOutput | Array) -> PolicyOutput:
    """What a policy answered: as it is, or from a chunk (H, A) or one action (A,).

    Raises EpisodeDataError for what is no array of numbers.
    """
    if isinstance(value, PolicyOutput):
        return value
    array = np.asarray(value)
    array = array[None] if array.ndim == 1 else array
    return PolicyOutput(chunk=read_array(array, "the policy's output", (None, None), finite=False))


def offered(output: PolicyOutput, observations: ObservationSpec) -> frozenset[Access]:
    """The levels of access that an output and a state give."""
    has = {
        Access.ACTIONS: True,
        Access.PROPRIOCEPTION: bool(observations.state),
        Access.SAMPLES: output.samples is not None,
        Access.HIDDEN: output.hidden is not None,
    }
    return frozenset(level for level, there in has.items() if there)


def monitor_of(bundle: str | Path | Monitor | None) -> tuple[Monitor | None, MadeFor | None]:
    """The monitor of a bundle's folder (or the one given) and whom it was made for. Raises BundleError for one that reads
    what nobody can compute while a robot moves.
    """
    if not isinstance(bundle, str | Path):
        if bundle is not None:
            require_members(bundle, Monitor, "The bundle")
        return bundle, getattr(bundle, "made_for", None)
    monitor = load_monitor(bundle, learns=False)
    made = monitor.made_for
    if made is not None and made.logged:
        raise BundleError(
            f"{bundle} reads the signals of a log, which nobody computes while the robot moves. Fit a bundle on "
            "recordings of watch(policy, record=RUN), or on a log of actions alone."
        )
    return monitor, made


def agreed_specs(
    made: MadeFor | None, actions: ActionSpec | None, observations: ObservationSpec | None, policy: str
) -> tuple[ActionSpec, ObservationSpec]:
    """What actions and state mean, the same for everybody. Raises SpecMismatchError and BundleError where it is not."""
    if made is not None:
        require_equal("Action specs of robot and bundle", robot=actions or made.action_spec, bundle=made.action_spec)
        seen = observations or made.observation_spec
        require_equal("States of robot and bundle", robot=seen.state, bundle=made.observation_spec.state)
        actions, observations = made.action_spec, seen
        if policy not in ("", made.policy):
            raise BundleError(
                f"The bundle was fitted on policy {made.policy}, this one is {policy}. Record episodes with this policy "
                "and fit again."
            )
    if actions is None or observations is None:
        raise SpecMismatchError("Without a bundle, say what actions and state mean: actions=..., observations=...")
    if not actions.rate_hz:
        raise SpecMismatchError(
            "Nothing says how many control ticks a second has: the action spec's rate_hz is 0. A log is imported with "
            "--rate-hz, a robot says it in its ActionSpec."
        )
    return actions, observations
