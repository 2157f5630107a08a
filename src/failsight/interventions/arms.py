"""The table of arms: every way to run the same episodes, and the words a report uses of it.

Adding an intervention takes its class and a row here. The order is that of every list and figure; rungs come mildest
first. The words travel in `summary.json`, so that a report shows arms it has never heard of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from inspect import getdoc
from typing import Any, Literal

from failsight.core.contracts import Intervention
from failsight.core.errors import FailsightError
from failsight.core.registry import foreign, warn_of_claims
from failsight.interventions.gate import Gate
from failsight.interventions.ladder import Ladder
from failsight.interventions.placebo import Always, Forced
from failsight.interventions.rungs import (
    Backtrack,
    Fallback,
    Limit,
    RegainView,
    Replan,
    Resample,
    Retry,
    SafeStop,
    Slow,
    Takeover,
    Watch,
    conservative,
)
from failsight.interventions.salus import TableLadder
from failsight.interventions.terms import TERMS, RungTerms
from failsight.interventions.treat import Treat

Asks = Literal["", "helps", "prevents", "harmless"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to run an episode from its trigger on."""

    key: str
    title: str
    """The claim it makes; a verdict says whether that is shown."""
    sentence: str
    """What it does."""
    asks: Asks = "helps"
    """When the claim is shown: more successes; fewer failures than without, beyond a placebo; no harm; "": no claim."""
    autonomous: bool = True
    """It needs no person; False: it is left out where nobody can take over."""
    rung: bool = False
    """Forks decide whether it may act on a ladder."""
    gated: bool = False
    """It climbs the rungs that its gate has opened."""
    random: bool = False
    """It acts at a random moment instead of the trigger."""
    from_start: bool = False
    """It acts from the first step on instead of the trigger."""
    by_default: bool = True
    """It is tried where no arms are named; every arm costs a future per trigger."""
    make: Callable[[Gate], Intervention]
    """A fresh intervention; only a gated arm looks at the gate."""


def _ladder(gate: Gate, autonomous: bool) -> Ladder:
    """Over the gate's rungs in their order; `autonomous`: without those that call a person."""
    names = dict.fromkeys(entry.rung for entry in gate)
    arms = [arm for name in names if (arm := find_arm(name)).autonomous or not autonomous]
    terms = {arm.key: TERMS.get(arm.key, RungTerms(autonomous=arm.autonomous)) for arm in arms}
    return Ladder({arm.key: arm.make(()) for arm in arms}, [arm.key for arm in arms], gate, terms=terms)


def _first(gate: Gate) -> Intervention:
    """The mildest rung that acts without a person and that the gate has opened; going slower where it has opened none."""
    able = _ladder(gate, autonomous=True).open
    return find_arm(able[0] if able else "slow").make(())


NONE = "none"
"""Doing nothing: what every arm is compared with."""
_ROWS = (
    Arm(
        key=NONE,
        title="Doing nothing",
        sentence="the policy alone",
        asks="",
        make=lambda gate: Watch(),
    ),
    Arm(
        key="safe_stop",
        title="Stopping at the alarm",
        sentence="stop at the trigger (never a success)",
        asks="",
        make=lambda gate: SafeStop(),
    ),
    Arm(
        key="slow",
        title="Going slower at the alarm helps",
        sentence="half speed along the policy's path",
        rung=True,
        make=lambda gate: Slow(),
    ),
    Arm(
        key="limit",
        title="Capping speed and acceleration at the alarm helps",
        sentence="at most half of the largest command, reached in two steps",
        rung=True,
        by_default=False,
        make=lambda gate: Limit(),
    ),
    Arm(
        key="conservative",
        title="Caps and looking more often at the alarm help",
        sentence="caps on speed and acceleration, two actions of a chunk before the policy looks again",
        rung=True,
        by_default=False,
        make=lambda gate: conservative(),
    ),
    Arm(
        key="replan",
        title="Planning afresh at the alarm helps",
        sentence="a fresh inference, and two actions of a chunk before the next one",
        rung=True,
        by_default=False,
        make=lambda gate: Replan(execute=2),
    ),
    Arm(
        key="resample",
        title="The medoid of the policy's samples at the alarm helps",
        sentence="the medoid of the samples in place of the chunk",
        rung=True,
        by_default=False,
        make=lambda gate: Resample(),
    ),
    Arm(
        key="backtrack",
        title="Undoing the last second at the alarm helps",
        sentence="the commands of the last second undone, then a fresh plan",
        rung=True,
        by_default=False,
        make=lambda gate: Backtrack(),
    ),
    Arm(
        key="regain_view",
        title="Looking again from where the cameras see helps",
        sentence="up and to the look pose, then a fresh plan",
        rung=True,
        by_default=False,
        make=lambda gate: RegainView(),
    ),
    Arm(
        key="retry",
        title="Backing up and trying again at the alarm helps",
        sentence="back up, keep the grip if holding, try again",
        rung=True,
        make=lambda gate: Retry(),
    ),
    Arm(
        key="fallback",
        title="Another policy at the alarm helps",
        sentence="another policy acts from the alarm on",
        rung=True,
        by_default=False,
        make=lambda gate: Fallback(),
    ),
    Arm(
        key="placebo",
        title="The same at random moments",
        sentence="the same retry (half speed, where the robot cannot back up) at random moments of equal rate",
        asks="",
        random=True,
        make=lambda gate: Forced(Retry(), Slow()),
    ),
    Arm(
        key="takeover_random",
        title="Calling a person at random moments",
        sentence="a person called at random moments of equal rate",
        asks="",
        autonomous=False,
        random=True,
        make=lambda gate: Forced(Takeover()),
    ),
    Arm(
        key="random_trigger",
        title="The ladder at random moments",
        sentence="the ladder without a person, at random moments of equal rate",
        asks="",
        gated=True,
        random=True,
        by_default=False,
        make=lambda gate: Forced(_ladder(gate, autonomous=True)),
    ),
    Arm(
        key="always_on",
        title="Acting all the time",
        sentence="the mildest open rung (half speed, where none is open) from the first step to the last",
        asks="",
        gated=True,
        from_start=True,
        by_default=False,
        make=lambda gate: Always(_first(gate)),
    ),
    Arm(
        key="treat",
        title="Treating what is diagnosed helps",
        sentence="each cause that is diagnosed gets its own treatment, from the first step on; no alarm is waited for",
        from_start=True,
        by_default=False,
        make=lambda gate: Treat(),
    ),
    Arm(
        key="takeover",
        title="Calling a person at the alarm",
        sentence="a person (here: the scripted expert) finishes the task",
        asks="",
        autonomous=False,
        rung=True,
        make=lambda gate: Takeover(),
    ),
    Arm(
        key="salus",
        title="A published table of thresholds prevents failures",
        sentence="the SALUS table: stop, slow down or try again by p_fail and type, a person after three retries",
        asks="prevents",
        autonomous=False,
        by_default=False,
        make=lambda gate: TableLadder(),
    ),
    Arm(
        key="ladder_auto",
        title="Without a person the ladder does no harm",
        sentence="rungs that earned their place, no person",
        asks="harmless",
        gated=True,
        make=lambda gate: _ladder(gate, autonomous=True),
    ),
    Arm(
        key="ladder",
        title="The ladder with a person prevents failures",
        sentence="rungs that earned their place, then a person",
        asks="prevents",
        autonomous=False,
        gated=True,
        make=lambda gate: _ladder(gate, autonomous=False),
    ),
)
ARMS: Mapping[str, Arm] = {arm.key: arm for arm in _ROWS}
DEFAULT_ARMS = tuple(arm.key for arm in _ROWS if arm.by_default)
"""What is tried where no arms are named."""
GROUP = "failsight.interventions"
"""Entry points under which other packages register arms."""
_WORDS = ("title", "sentence", "asks", "autonomous", "rung", "gated", "random")


def find_arm(name: str) -> Arm:
    """A row of the table, or what an installed package or an address `package.module:Attribute` gives: an Arm, or an
    intervention that takes no arguments.

    Raises UnknownNameError with the nearest names, FailsightError when it is neither.
    """
    if name in ARMS:
        warn_of_claims(name, GROUP)
        return ARMS[name]
    return _foreign(name, foreign("arm", name, ARMS, GROUP))


def _foreign(name: str, found: Any) -> Arm:
    if isinstance(found, Arm):
        return replace(found, key=name)
    if not callable(getattr(found, "propose", None)) or not callable(getattr(found, "reset", None)):
        raise FailsightError(f"{name} is neither an Arm nor an intervention (a class with reset and propose).")
    said = (getdoc(found) or "").split("\n")[0].rstrip(".")
    title = f"{name.rpartition(':')[2]} at the alarm helps"
    return Arm(key=name, title=title, sentence=said, rung=True, make=lambda gate: found())


def find_arms(names: Iterable[str]) -> tuple[Arm, ...]:
    """Arms by name in the order of the table, those of others last. Raises UnknownNameError."""
    places = list(ARMS)
    found = {arm.key: arm for arm in map(find_arm, names)}
    return tuple(sorted(found.values(), key=lambda arm: places.index(arm.key) if arm.key in places else len(places)))


def arm_words(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What reports say of these arms, by key, with their order. Raises UnknownNameError."""
    return {
        arm.key: {word: getattr(arm, word) for word in _WORDS} | {"order": i} for i, arm in enumerate(find_arms(names))
    }
