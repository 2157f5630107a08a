"""Six lines around somebody's policy: it is recorded, judged, and with rungs also helped.

    watched = failsight.watch(policy, "bundles/mine", rungs=["slow"])
    watched.reset("pick-cup", "pick up the cup")
    while running:
        robot.send(watched.select_action(observation))     # once per control tick
    watched.end(success=True)                              # False; None: nobody knows
    watched.close()

Without a bundle, or with `shadow=True`, it acts on nothing: actions are the policy's to the bit, whatever breaks on our side,
and `record=RUN` makes a run of them that `failsight fit` learns from. With a bundle it is a `Protector` around the policy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from failsight.core.contracts import Intervention
from failsight.core.foreign import read_text
from failsight.core.specs import Access, ActionSpec, ObservationSpec
from failsight.episodes.verdicts import Judge
from failsight.interventions.rung_choice import choose_rungs
from failsight.runtime.agreement import agreed_specs, monitor_of
from failsight.runtime.policy_face import PolicyFace
from failsight.runtime.protecting import Protecting
from failsight.runtime.protector import Protector
from failsight.runtime.state_reader import State
from failsight.runtime.watched import Watched

if TYPE_CHECKING:
    from failsight.runtime.recording import Recording


def watch(
    policy: Any,
    bundle: str | Path | None = None,
    *,
    record: str | Path | None = None,
    rungs: Sequence[str | Intervention] | None = None,
    shadow: bool = False,
    actions: ActionSpec | None = None,
    observations: ObservationSpec | None = None,
    state: State = "",
    hidden: Any = None,
    samples: int = 0,
    calls: str = "",
    execute: int | None = None,
    fingerprint: str = "",
    **protecting: Unpack[Protecting],
) -> Watched:
    """Put a policy under watch.

    Args:
        policy: anything in the table of `runtime.policy_face`.
        bundle: folder of the bundle that judges; None: nobody does.
        record: folder of a run to make; each episode is kept when `end` is called.
        rungs: what acts on alarms, see `Protector`; None: the ladder of the bundle's folder, if there is one.
        shadow: judge and record, and act on nothing.
        actions: what actions mean; the bundle says it where there is one, or the policy.
        observations: what the state means; likewise.
        state: key of the measured state, function of the observation, None for none, "" for the usual names.
        hidden: network whose hidden state is taken through a forward hook, or a function of the observation to (D,).
        samples: how many more chunks are drawn per inference; each is one more call of the policy.
        calls: `select_action`, `predict_action_chunk` or `infer`, where a policy has several.
        execute: actions of a chunk before the next inference (default: as the policy is configured, or all).
        fingerprint: name of these weights (default: the policy's `fingerprint`, or its class); a bundle refuses others.
        protecting: person, fallback, stop, on_alarm, log, limits, clock and more, see `Protecting`.

    Raises FailsightError: it cannot be asked, the bundle needs more access, or what `Protector` and `Recording` refuse.
    """
    face = PolicyFace(policy, hidden=hidden, samples=samples, calls=calls)
    name, folder = fingerprint or _name_of(policy), None if bundle is None else Path(bundle)
    monitor, made = monitor_of(folder)
    spec, seen = agreed_specs(made, *_said(policy, actions, observations, state), name)
    if made is not None:
        made.require(face.may_offer | ({Access.PROPRIOCEPTION} if state is not None else set()))
    onlooker = shadow or made is None
    acting = None if onlooker else choose_rungs(rungs, folder)
    judge = Judge(bundle=str(getattr(monitor, "fingerprint", "")), policy=name)
    recording = None if record is None else _recording(record, (spec, seen), judge, _arm(rungs, acting))
    count, rungs_made = face.execute if execute is None else execute, [] if acting is None else [acting]
    with _letting_go(recording):
        protector = Protector(
            monitor,
            rungs=rungs_made,
            actions=spec,
            observations=seen,
            execute=count,
            observers=[] if recording is None else [recording],
            shadow=onlooker,
            **protecting,
        )
    return Watched(face, protector, recording, state=state, shadow=onlooker)


def _recording(record: str | Path, specs: tuple[ActionSpec, ObservationSpec], judge: Judge, arm: str) -> Recording:
    from failsight.runtime.recording import Recording  # tables and films, which who only watches need not load

    return Recording(Path(read_text(str(record), "record")), *specs, judge, arm)


@contextmanager
def _letting_go(recording: Recording | None) -> Iterator[None]:
    """A recording that nothing will be told lets go of its folder."""
    try:
        yield
    except BaseException:
        if recording is not None:
            recording.close()
        raise


def _name_of(policy: Any) -> str:
    return str(getattr(policy, "fingerprint", "") or getattr(policy, "__name__", type(policy).__name__))


def _said(
    policy: Any, actions: ActionSpec | None, observations: ObservationSpec | None, state: State
) -> tuple[ActionSpec | None, ObservationSpec | None]:
    """What caller and policy say of actions and state; who says that there is no state has named it."""
    unseen = ObservationSpec(state=(), cameras=()) if state is None else None
    seen = observations or getattr(policy, "observation_spec", None) or unseen
    return actions or getattr(policy, "action_spec", None), seen


def _arm(rungs: Sequence[str | Intervention] | None, acting: Intervention | None) -> str:
    """What a recording says of who acted in it."""
    if acting is None or rungs is None:
        return "" if acting is None else "ladder"
    return ",".join(rung if isinstance(rung, str) else type(rung).__name__ for rung in rungs)
