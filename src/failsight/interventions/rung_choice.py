"""Which rungs act for whoever protects a robot: those asked for by name, or the ladder that stands beside the bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from failsight.core.contracts import Intervention
from failsight.core.errors import FailsightError
from failsight.interventions.arms import find_arm
from failsight.interventions.ladder import Ladder
from failsight.interventions.ladder_file import load_ladder
from failsight.interventions.terms import TERMS


def choose_rungs(rungs: Sequence[str | Intervention] | None, bundle: Path | None) -> Intervention | None:
    """The intervention of these rungs, mildest first; None: nothing acts.

    Args: rungs: arms by name or address, or interventions, which act on the caller's word; None: those that forks have
    opened, from the ladder in the folder of the bundle; empty: none.

    Raises UnknownNameError; FailsightError for an arm that is no rung; BundleError for a ladder of another bundle.
    """
    if rungs is None:
        entries = load_ladder(bundle) if bundle is not None else ()
        return find_arm("ladder").make(entries) if any(entry.open for entry in entries) else None
    if isinstance(rungs, str):
        raise FailsightError(f"rungs is a list of names; write [{rungs!r}].")
    made = {
        rung if isinstance(rung, str) else f"{i} {type(rung).__name__}": _made(rung) for i, rung in enumerate(rungs)
    }
    if len(made) < 2:
        return next(iter(made.values()), None)
    return Ladder(made, list(made), None, terms=TERMS)


def _made(rung: str | Intervention) -> Intervention:
    if not isinstance(rung, str):
        if not callable(getattr(rung, "propose", None)) or not callable(getattr(rung, "reset", None)):
            raise FailsightError(f"A rung is a name or has reset and propose; a {type(rung).__name__} has not.")
        return rung
    arm = find_arm(rung)
    if arm.gated or arm.random or arm.from_start:
        raise FailsightError(
            f"{rung} is no rung by itself; leave rungs out to climb the ladder of the bundle's folder."
        )
    return arm.make(())
