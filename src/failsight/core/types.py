"""The values that travel between the stages: tasks, episode keys, steps, events, risks, verdicts, decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from failsight.core.errors import EpisodeDataError, FailsightError

Array = npt.NDArray[Any]
Observation = Mapping[str, Array]
"""LeRobot keys: `observation.state` (S,) float32 and `observation.images.<camera>` (H, W, 3) uint8."""

Lenses = Mapping[str, Callable[[Array], Array]]
"""Camera -> what is done to every picture (H, W, 3) uint8 of it before the policy sees it; others are seen as they are."""

FAILURE_TYPES = ("collision", "drop", "miss", "timeout")
"""Order of every per-type array; on a tie the earlier type wins."""

FAILURE_HEAD = ("p_fail", "time_to_failure", "replan")
"""What a policy's failure head says, in the order of `PolicyOutput.failure`."""


class Outcome(StrEnum):
    """How an episode ended."""

    SUCCESS = "success"
    FAILURE = "failure"
    STOPPED = "stopped"
    """An intervention ended it; neither success nor failure."""
    ERRORED = "errored"
    """Our code or the simulator broke; excluded from rates, and counted."""
    UNKNOWN = "unknown"
    """Nobody said how it ended; left out of fits and rates, and counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task a simulator can set."""

    id: str
    suite: str
    instruction: str
    horizon: int
    """Control steps after which an unfinished episode is a timeout; known before the run."""


@dataclass(frozen=True, slots=True, order=True)
class Perturbation:
    """One disturbance and its strength: level 0 changes nothing, level 5 is the strongest."""

    kind: str
    level: int

    def __post_init__(self) -> None:
        if not 0 <= self.level <= 5:
            raise FailsightError(f"Perturbation {self.kind!r} has level {self.level}; levels go from 0 to 5.")

    def __str__(self) -> str:
        return f"{self.kind}:{self.level}"

    @staticmethod
    def parse(text: str) -> tuple[Perturbation, ...]:
        """`"push:3+light:2"` -> two perturbations; `"none"` or `""` -> none.

        >>> Perturbation.parse("push:3")
        (Perturbation(kind='push', level=3),)
        """
        if text in ("", "none"):
            return ()
        try:
            pairs = [part.rsplit(":", 1) for part in text.split("+")]
            return tuple(sorted(Perturbation(kind, int(level)) for kind, level in pairs))
        except ValueError as error:
            raise FailsightError(f"Cannot read perturbation {text!r}; write kind:level, for example push:3.") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeKey:
    """Everything that decides an episode before the first action; equal keys give equal episodes."""

    seed: int
    task: str
    episode: int
    perturbations: tuple[Perturbation, ...] = ()

    @property
    def condition(self) -> str:
        """The perturbations as text, `"none"` for a clean episode."""
        return "+".join(str(p) for p in self.perturbations) or "none"

    @property
    def parts(self) -> tuple[int, str, int]:
        """The prefix of every random key of this episode."""
        return (self.seed, self.task, self.episode)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"seed": self.seed, "task": self.task, "episode": self.episode, "condition": self.condition}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> EpisodeKey:
        """Inverse of `as_dict`."""
        perturbations = Perturbation.parse(data["condition"])
        return EpisodeKey(seed=data["seed"], task=data["task"], episode=data["episode"], perturbations=perturbations)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something a simulator knows happened; kept raw, so that label thresholds can change later."""

    step: int
    kind: str
    """contact, grasp (`other` says "wrong object" when it is one), release (`other` says "goal" above the goal),
    missed_close, displaced, toppled, fell, pushed, gripper_fault; navigation: passed (`other` says on which side)."""
    subject: str
    """What it happened to or what did it: `gripper`, an object, `post`."""
    other: str = ""
    """The other party of a contact."""
    value: float = 0.0
    """contact: peak force of the step in N; grasp, release: height of the object's underside above the table in m
    (a release that is neither low nor above the goal is a drop); displaced: m; toppled: degrees."""
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """World position, m (contacts)."""
    normal: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Unit vector from `subject` into `other`, world frame (contacts)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyOutput:
    """What one inference of a policy returns.

    Hidden state, samples and members are kept as float16, as they are recorded; an entry that is not finite, or beyond
    float16 (65,504), becomes NaN, which everywhere means that it is missing.
    """

    chunk: Array
    """(H, A) float32 actions, first one first."""
    hidden: Array | None = None
    """(D,) float16 hidden state, or None when the policy exposes none."""
    samples: Array | None = None
    """(K, H, A) float16 chunks drawn for the same observation, or None."""
    members: Array | None = None
    """(M, H, A) float16 chunks of the ensemble members, or None."""
    failure: Array | None = None
    """(3,) float32 of a policy that has a failure head: p_fail, time to failure in steps, chance that a re-plan is
    due; None when it has none."""
    log_prob: float | None = None
    latency_ms: float = 0.0

    def __post_init__(self) -> None:
        if self.chunk.ndim != 2:
            raise EpisodeDataError(f"A chunk must be (H, A); this one has shape {self.chunk.shape}.")
        for name in ("hidden", "samples", "members"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, to_half(value))


def to_half(values: Array) -> Array:
    """float16 of the same shape (...), NaN where a value is not finite or beyond float16.

    >>> to_half(np.array([1.0, 1e5, -np.inf])).tolist()
    [1.0, nan, nan]
    """
    with np.errstate(over="ignore"):
        half = np.asarray(values).astype(np.float16, copy=False)
    finite = np.isfinite(half)
    return half if finite.all() else np.where(finite, half, np.float16(np.nan))


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One control tick as signals and monitors see it: nothing in it lies in the future."""

    index: int
    state: Array
    """(S,) float32 proprioception before the action."""
    action: Array
    """(A,) float32 action about to be executed."""
    output: PolicyOutput
    """The policy output in force."""
    cursor: int
    """Position of `action` inside `output.chunk`."""
    replan: bool
    """True when `output` is new at this tick."""
    signals: Array | None = None
    """(S,) signals that were computed elsewhere (a log without actions); None: failsight computes them."""
    time_s: float = float("nan")
    """When the state was measured, seconds; NaN: not known."""
    executed: Array | None = None
    """(A,) what was executed at the step before, by whomever; None: not known, or there was none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """What a predictor says at one tick."""

    p_fail: float
    """P(the episode fails | seen so far), 0 to 1; NaN when the predictor cannot tell."""
    time_to_failure: float = float("nan")
    """Expected control steps until it is lost, given that it fails."""
    type: Array = field(default_factory=lambda: np.full(len(FAILURE_TYPES), np.nan))
    """(4,) probability of each failure type, order `FAILURE_TYPES`."""
    dimension: Array = field(default_factory=lambda: np.zeros(0))
    """(A,) risk of harm through each action dimension within the next second."""
    imminent: float = float("nan")
    """Probability of a collision within the next second; NaN when the predictor has no such output."""
    spread: float = float("nan")
    """Standard deviation of p_fail over the ensemble, when there is one."""
    evidence: float = float("nan")
    """What the trigger judges: evidence of this episode alone, without its task's failure rate, on any increasing
    scale; NaN: p_fail is the evidence."""

    @property
    def judged(self) -> float:
        """What a trigger judges: the evidence, or p_fail where a predictor keeps none apart."""
        return self.p_fail if self.evidence != self.evidence else self.evidence  # NaN is the one value unlike itself

    @property
    def likely_type(self) -> str:
        """The most probable failure type, the earlier one on a tie; empty when none is known."""
        if len(self.type) != len(FAILURE_TYPES) or not np.isfinite(self.type).all():
            return ""
        return FAILURE_TYPES[int(self.type.argmax())]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a monitor says at one tick."""

    risk: Risk
    threshold: float
    margin: float
    """Trigger statistic minus threshold; at or above 0 the trigger is on."""
    trigger: bool
    why: str
    blind: str = ""
    """Why the monitor cannot judge at this tick; empty when it can."""


class DecisionKind(StrEnum):
    """What an intervention can ask for; the rungs of the ladder."""

    CONTINUE = "continue"
    LIMIT = "limit"
    SLOW = "slow"
    REPLAN = "replan"
    RESAMPLE = "resample"
    BACKTRACK = "backtrack"
    REGAIN_VIEW = "regain_view"
    REINSTRUCT = "reinstruct"
    FALLBACK = "fallback"
    MEND_VIEW = "mend_view"
    HUMAN = "human"
    STOP = "stop"


Driver = Literal["policy", "intervention", "fallback", "operator", "hold"]
"""Who made an action; fallback: another policy; hold: a person was called and there is none, or the policy was just told another instruction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What no command may exceed, per action dimension, in units of the action; inf: no cap.

    Velocity of a delta or velocity is its value; of an absolute target, its change since the last command. Grippers and
    torques are never capped.
    """

    velocity: Array
    """(A,) above 0, per step."""
    acceleration: Array
    """(A,) above 0: the most a velocity may change from one step to the next."""

    def __post_init__(self) -> None:
        """Raises FailsightError for a cap that is not above 0, or lengths that differ."""
        if np.shape(self.velocity) != np.shape(self.acceleration) or np.ndim(self.velocity) != 1:
            shapes = f"{np.shape(self.velocity)} and {np.shape(self.acceleration)}"
            raise FailsightError(f"Limits are one velocity and one acceleration per action dimension, not {shapes}.")
        for name in ("velocity", "acceleration"):
            if not (np.asarray(getattr(self, name)) > 0).all():
                raise FailsightError(f"A cap on {name} is above 0, not {np.min(getattr(self, name))}; inf is no cap.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do at this tick instead of just going on, and why."""

    kind: DecisionKind
    reason: str
    action: Array | None = None
    """(A,) the action to execute in place of the policy's (backtrack, regain_view)."""
    rate: float = 1.0
    """Speed along the policy's own path (slow); 1 is full speed. At this tick."""
    chunk: Array | None = None
    """(H, A) what is executed of the plan in place of the policy's chunk, from the same action on and until the next
    inference (resample)."""
    limits: Limits | None = None
    """Caps on what policy or intervention send (limit); None: none. At this tick."""
    execute: int | None = None
    """How many actions of a chunk are executed before the next inference, from now on (replan, limit); 0: as many as
    the policy does by itself again, None: as before. No more than a chunk has are executed."""
    instruction: str = ""
    """What the policy is told in the middle of the episode, from now on (reinstruct): it plans anew at the next step and
    holds until then. Nothing happens when it was the last it was told; empty: as before."""
    lenses: Lenses | None = None
    """Through what the policy sees the cameras from now on (mend_view), all of them; it plans anew at the next step and
    holds until then. None: as before."""
    cause: str = ""
    """What was found to be unusual at this tick, whether or not something is done about it; empty: nothing new."""

    def __post_init__(self) -> None:
        """Raises FailsightError for what nobody could carry out."""
        if not 0 < self.rate <= 1:
            raise FailsightError(
                f"Decision {self.kind}: rate is {self.rate}; write a share of full speed, 0 < rate <= 1."
            )
        if self.execute is not None and (self.execute < 0 or self.execute != int(self.execute)):
            raise FailsightError(f"Decision {self.kind}: execute is {self.execute}; write a number of actions, or 0.")
        if self.kind == DecisionKind.MEND_VIEW and self.lenses is None:
            raise FailsightError(
                "Decision mend_view: lenses are missing; write camera -> lens, or {} to take them off."
            )
        if self.kind == DecisionKind.REINSTRUCT and not self.instruction.strip():
            raise FailsightError("Decision reinstruct: instruction is empty; write what the policy is told.")


CONTINUE = Decision(kind=DecisionKind.CONTINUE, reason="")
"""What is decided where nobody intervenes."""
SILENT = Verdict(risk=Risk(p_fail=float("nan")), threshold=float("nan"), margin=float("nan"), trigger=False, why="")
"""What is said where nobody judges."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """One turn of the loop as observers are told of it, after it: seen, judged, decided, done.

    A tick in which something broke holds what was known by then, and in `guard` what was done about it. A release of
    the latch between episodes is told as a tick in which nothing was seen.
    """

    index: int
    """Control step of the episode."""
    time_s: float
    """When the state was measured, seconds since the episode began."""
    step: Step | None = None
    """What was seen; None: nothing."""
    verdict: Verdict | None = None
    """What the monitor said; `SILENT` where there is none; None: the tick did not come that far."""
    decision: Decision | None = None
    """What was decided; `CONTINUE` where nobody decides; None: the tick did not come that far."""
    driver: Driver | None = None
    """Whose action it was; None: the tick did not come that far."""
    action: Array | None = None
    """(A,) float32 what was sent; None: the tick did not come that far, or ended in a stop or a hold with a latch."""
    guard: str = ""
    """What the guard did: a bad action replaced, a clip, a latch and by whom it was released; empty: nothing."""
    success: bool = False
    """Whether the goal held after the action."""
    over: bool = False
    """Whether the action was the last of the episode."""
    events: tuple[Event, ...] = ()
    """What the simulator knows happened during the action."""
    images: Mapping[str, Array] = field(default_factory=dict)
    """Observation before the action, images included; empty unless an observer wants it."""
