"""Diagnose, then treat: one remedy per cause, and nothing where the cause is not known.

| cause | treatment |
|---|---|
| wording | the nearest known wording: the user's table or function, else the built-in matcher, which would rather not guess |
| moved CAMERA | its pictures are put back in place, for the rest of the episode |
| colours CAMERA | its pictures get their usual colours back, for the rest of the episode |
| shaking | a look at the world at every step, and never slower |
| slip, opened | half speed while the fingers are told to close, unless it shakes |
| start, grain CAMERA | none is known |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from failsight.causes.diagnosis import Diagnosis
from failsight.causes.familiar import COLOURS, MOVED, OPENED, SHAKING, SLIP, WORDING, Familiar
from failsight.causes.grip import GRIPPER
from failsight.causes.matching import match_wording
from failsight.causes.mending import put_back, recolour
from failsight.core.contracts import Context
from failsight.core.errors import SpecMismatchError
from failsight.core.lens import PREFIX, Lens
from failsight.core.types import CONTINUE, Decision, DecisionKind, Verdict

Reword = Callable[[str, Familiar], str | None]
"""An instruction and what is familiar -> the known wording to use in its place; None: ask, do not guess."""
_RATE = 0.5


class Treat:
    """Looks before anything moves and at every step; acts on what it finds, not on the alarm."""

    def __init__(
        self,
        shut: Iterable[str] = (),
        reword: Reword = match_wording,
        forced: Sequence[tuple[int, str]] | None = None,
    ) -> None:
        """Args: shut: causes that are named and not treated; reword: the user's own function in place of table and
        matcher; forced: steps and causes to treat in place of a diagnosis (the placebo).
        """
        self._shut, self._reword, self._forced = frozenset(shut), reword, forced
        self._familiar: Familiar | None = None
        self.reset()

    def learn(self, familiar: Familiar | None) -> None:
        """Take in what the policy is familiar with. Raises SpecMismatchError when nobody knows."""
        if familiar is None:
            raise SpecMismatchError(
                "Nothing is known of what this policy is familiar with, so no cause can be diagnosed; fit the bundle again "
                "with a run of ordinary days: failsight fit RUN --ordinary ORDINARY"
            )
        self._familiar = familiar

    def reset(self) -> None:
        """A new episode."""
        self._diagnosis: Diagnosis | None = None
        self._begun = -1
        self._waiting: list[Decision] = []
        self._causes: set[str] = set()
        self._lenses: dict[str, Lens] = {}

    def propose(self, verdict: Verdict, context: Context) -> Decision:
        """What was found at this step goes first, one decision at a time; then going slower while it holds something."""
        for cause in self._found(context):
            self._causes.add(cause)
            self._waiting.append(self._remedy(cause, context))
        if self._waiting:
            return self._waiting.pop(0)
        return self._gentle(context)

    def _found(self, context: Context) -> list[str]:
        familiar = self._familiar
        if familiar is None:
            return []
        if self._forced is not None:
            since = self._begun
            self._begun = context.step
            return [cause for step, cause in self._forced if since < step <= context.step]
        if self._diagnosis is None:
            self._diagnosis = Diagnosis(familiar, context.action_spec, context.observation_spec)
            findings = self._diagnosis.begin(context.instruction, context.observation or {}, context.state)
        else:
            findings = self._diagnosis.follow(context.state, context.last_action)
        return [finding.cause for finding in findings]

    def _remedy(self, cause: str, context: Context) -> Decision:
        named = Decision(kind=DecisionKind.CONTINUE, reason=f"found: {cause}", cause=cause)
        kind, _, camera = cause.partition(" ")
        if cause in self._shut or self._familiar is None:
            return named
        if cause == WORDING:
            wording = self._reword(context.instruction, self._familiar)
            if wording is None or wording == context.instruction:
                return named
            reason = f"{context.instruction!r} is no known wording, {wording!r} is"
            return Decision(kind=DecisionKind.REINSTRUCT, reason=reason, instruction=wording, cause=cause)
        if kind in (MOVED, COLOURS):
            return self._mended(cause, kind, camera, context) or named
        if cause == SHAKING:
            reason = "it does not do what it is told: look at every step"
            return Decision(kind=DecisionKind.REPLAN, reason=reason, execute=1, cause=cause)
        return named

    def _mended(self, cause: str, kind: str, camera: str, context: Context) -> Decision | None:
        assert self._familiar is not None
        view, picture = self._familiar.view(camera), (context.observation or {}).get(PREFIX + camera)
        if view is None or picture is None:
            return None
        self._lenses[camera] = put_back(picture, view) if kind == MOVED else recolour(picture, view)
        return Decision(kind=DecisionKind.MEND_VIEW, reason=f"mended: {cause}", lenses=dict(self._lenses), cause=cause)

    def _gentle(self, context: Context) -> Decision:
        sick = [cause for cause in (SLIP, OPENED) if cause in self._causes and cause not in self._shut]
        if not sick or SHAKING in self._causes:
            return CONTINUE
        spec = context.action_spec
        closed = float(context.last_action[spec.names.index(GRIPPER)]) * spec.gripper_closed_sign > 0
        if not closed:
            return CONTINUE
        return Decision(kind=DecisionKind.SLOW, reason=f"half speed while it holds: {', '.join(sick)}", rate=_RATE)
