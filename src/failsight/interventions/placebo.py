"""Controls: an intervention at a moment that nobody warned of, or all the time."""

from __future__ import annotations

from dataclasses import replace

from failsight.core.contracts import Context, Intervention
from failsight.core.errors import SpecMismatchError
from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.core.types import Decision, Verdict
from failsight.interventions.fitness import misfit, require_robot


class Forced:
    """Runs an intervention as if the trigger were on at its first tick only: the first of those that suit the robot."""

    def __init__(self, *choices: Intervention) -> None:
        self._choices, self._inner = choices, choices[0]
        self.reset()

    def require_robot(self, actions: ActionSpec, observations: ObservationSpec) -> None:
        """Choose what this robot can do. Raises SpecMismatchError, that of the first choice, when it can do none."""
        problems = [misfit(choice, actions, observations) for choice in self._choices]
        if all(problems):
            raise SpecMismatchError(str(problems[0]))
        self._inner = self._choices[problems.index(None)]

    def reset(self) -> None:
        """Not fired yet."""
        self._inner.reset()
        self._fired = False

    def propose(self, verdict: Verdict, context: Context) -> Decision:
        """The inner decision for a verdict without the real trigger."""
        fake = replace(verdict, trigger=not self._fired, why="random moment (placebo)")
        self._fired = True
        return self._inner.propose(fake, context)


class Always:
    """Runs an intervention as if the trigger were always on."""

    def __init__(self, inner: Intervention) -> None:
        self._inner = inner

    def require_robot(self, actions: ActionSpec, observations: ObservationSpec) -> None:
        """As the intervention itself. Raises SpecMismatchError."""
        require_robot(self._inner, actions, observations)

    def reset(self) -> None:
        """As the intervention itself."""
        self._inner.reset()

    def propose(self, verdict: Verdict, context: Context) -> Decision:
        """The inner decision for a trigger that is on."""
        return self._inner.propose(replace(verdict, trigger=True, why="always on"), context)
