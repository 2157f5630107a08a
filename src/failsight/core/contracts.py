"""The interfaces between the stages. `failsight.testing` holds the checks every implementation must pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.core.types import (
    Array,
    Decision,
    EpisodeKey,
    Event,
    Observation,
    PolicyOutput,
    Risk,
    Step,
    Task,
    Tick,
    Verdict,
)


@runtime_checkable
class Sim(Protocol):
    """A simulator: a `gymnasium.Env` with dict observations, plus events and exact save and load.

    Saving, loading and stepping again is bit-exact, pixels included, in this and in another process.
    """

    action_spec: ActionSpec
    observation_spec: ObservationSpec

    @property
    def task(self) -> Task:
        """The task of the running episode."""

    def tasks(self) -> Sequence[Task]:
        """Every task this simulator can set."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """Start an episode; `options={"key": EpisodeKey}` decides it completely. Returns observation and info.

        The observation holds `observation.state` (S,) float32, in the units its names end in, and
        `observation.images.<camera>` (H, W, 3) uint8, unless the simulator was told to draw only when asked.
        """

    def step(self, action: Array) -> tuple[dict[str, Array], float, bool, bool, dict[str, Any]]:
        """One control tick of `action` (A,), as in `action_spec`: observation, reward, terminated, truncated, info.

        `info["success"]`, and `info["is_success"]` for other libraries, say whether the goal holds. The observation is
        that of `reset`: `observation.state` (S,) float32, and images unless they are drawn only when asked.
        """

    def observe(self) -> dict[str, Array]:
        """The full observation of the present state: `observation.state` (S,), and (H, W, 3) uint8 of every camera."""

    def events(self) -> list[Event]:
        """Events since the last call."""

    def save_state(self) -> bytes:
        """Everything needed to go on from here."""

    def load_state(self, state: bytes) -> None:
        """Go on from a saved state, whatever happened in between."""

    def close(self) -> None:
        """Free the renderer."""


@runtime_checkable
class Robot(Protocol):
    """What moves: a simulator is wrapped as one. Its methods may raise; the loop then holds, stops and latches."""

    action_spec: ActionSpec
    observation_spec: ObservationSpec

    def observe(self) -> Observation:
        """The full observation, and under `time_s` () the second at which it was made; any part may be missing."""

    def send(self, action: Array) -> None:
        """Command (A,) float32 in the units of `action_spec` for one control tick."""

    def stop(self, reason: str) -> None:
        """Request a stop; the emergency stop is hardware."""


@runtime_checkable
class Policy(Protocol):
    """A policy: images, instruction and state in, action chunks out."""

    action_spec: ActionSpec
    observation_spec: ObservationSpec
    fingerprint: str
    """Changes whenever the weights or the configuration change."""
    execute: int
    """How many actions of a chunk are executed before the next inference."""

    def reset(self, task: Task, key: EpisodeKey) -> None:
        """Start an episode; random draws are keyed by `key` and the step."""

    def reinstruct(self, instruction: str) -> None:
        """Another instruction in the middle of the episode; memory and random key stay."""

    def infer(self, observation: Observation, step: int) -> PolicyOutput:
        """One inference for the observation at control step `step`: `chunk` (H, A) in the units of `action_spec`."""

    def save_state(self) -> bytes:
        """All that `reset` sets and `infer` reads: instruction, random key, memory."""

    def load_state(self, state: bytes) -> None:
        """Go on from a saved state, whatever episode this policy was in."""


@runtime_checkable
class KnowsStates(Protocol):
    """A policy that remembers which states it was trained on."""

    @property
    def state_range(self) -> tuple[Array, Array]:
        """(S,) lowest and (S,) highest state of the training data."""


class Signal(Protocol):
    """Causal numbers per tick, in constant memory."""

    names: tuple[str, ...]
    units: tuple[str, ...]

    def reset(self) -> None:
        """Forget the episode."""

    def update(self, step: Step, out: Array) -> None:
        """Write this tick's values, in `units`, into `out` (len(names),) float64; NaN: this tick has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Ground truth of one episode of T steps."""

    success: bool
    failure_type: str | None
    """None on a success, and on a failure whose type is not known."""
    onset: int | None
    """Step after which the episode was lost; None for a success, and when it is not known."""
    time_to_failure: Array
    """(T,) steps until the onset, 0 from the onset on; +inf on a success, NaN when not known."""
    dimension: Array
    """(T, A) bool: harm through this action dimension within the next second."""


class Labeler(Protocol):
    """Turns an episode and its events into labels."""

    name: str

    def label(self, task: str, states: Array, actions: Array, events: Sequence[Event], success: bool) -> Labels:
        """Labels of an episode of `task`: states (T, S), each measured before its action of (T, A), and its events."""


class Predictor(Protocol):
    """Learns risk; every implementation is causal: `update` sees one step at a time."""

    def reset(self, task: str) -> None:
        """Start an episode."""

    def update(self, signals: Array, hidden: Array | None) -> Risk:
        """Risk after one more tick: `signals` (S,), NaN where one is missing; `hidden` (D,), None where there is none.

        Raises BundleError when it reads hidden states and gets none, or one of another length.
        """

    def save_state(self) -> Mapping[str, Array]:
        """Memory of the running episode: named arrays of any shape, `()` for a number, that later ticks leave alone."""

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Go on from what `save_state` gave, after `reset` with the same task: same names and shapes, `()` or (S,)."""


class StoredPredictor(Predictor, Protocol):
    """A predictor that a bundle can hold: its class, called with `arrays`, gives it again."""

    arrays: Mapping[str, Array]
    """Everything it learned."""
    hidden_size: int
    """Length of the hidden states it reads; 0: none."""


class Monitor(Protocol):
    """The same object online and offline; replaying a recorded episode gives bit-equal verdicts."""

    def reset(self, task: Task) -> None:
        """Start an episode."""

    def step(self, record: Step) -> Verdict:
        """Judge one tick."""

    def save_state(self) -> Mapping[str, Array]:
        """Memory of the running episode: named arrays of any shape, `()` for one number."""

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Go on from what `save_state` gave, after `reset` with the same task: same names and shapes, `()` or (S,)."""


@dataclass(slots=True, kw_only=True)
class Context:
    """What an intervention may know besides the verdict."""

    step: int
    horizon: int
    state: Array
    """(S,) float32 of this step."""
    path: Sequence[Array]
    """States (S,) of all earlier steps, oldest first."""
    last_action: Array
    """(A,) the last command; before there is one, what holds the robot where it was measured."""
    action_spec: ActionSpec
    observation_spec: ObservationSpec
    sent: Sequence[Array] = ()
    """Commands (A,) of all earlier steps, whoever's they were, oldest first."""
    output: PolicyOutput | None = None
    """The policy output in force."""
    instruction: str = ""
    """What the policy is told."""
    task: Task | None = None
    """The task of the running episode, with the instruction it was given at the start; None: not known."""
    observation: Observation | None = None
    """What was observed at the policy's last inference, before any lens; None: nothing yet."""
    fresh: bool = False
    """Whether that inference was at this step."""


class Intervention(Protocol):
    """Proposes what to do at each tick; the runtime carries it out and the guard may always tighten it."""

    def reset(self) -> None:
        """Start an episode."""

    def propose(self, verdict: Verdict, context: Context) -> Decision:
        """The decision for this tick."""


class Operator(Protocol):
    """Stands in for the person who is called: takes over the controls."""

    def act(self, sim: Sim) -> Array:
        """(A,) the person's action for the present state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """T frames of an episode that a demonstrator acted in: what a policy learns from."""

    images: Mapping[str, Array]
    """Camera -> (T, H, W, 3) uint8."""
    states: Array
    """(T, S) float32."""
    chunks: Array
    """(T, H, A) float32: what is right from each frame on, without noise; H is 1 where only the next action is known."""
    places: Array | None = None
    """(T, P) float32 auxiliary targets, as in `Demonstration`."""


class Demonstrator(Protocol):
    """Shows how the tasks of its simulator are done; noise on the path teaches how to come back, labels have none."""

    steps_per_frame: int
    """Control steps between two frames."""
    phrasings: Mapping[str, Sequence[str]]
    """Instruction -> other wordings of the same task."""

    def key(self, seed: int, index: int, tasks: Sequence[str]) -> EpisodeKey:
        """The episode of demonstration `index`: tasks in turn, and how it starts."""

    def show(self, sim: Sim, key: EpisodeKey) -> Shown | None:
        """Act in one whole episode; None when it failed and should not be learnt from."""

    def chunk(self, sim: Sim) -> Array:
        """(H, A) float32, what is right from here; the simulator is left as it was found."""


class Observer(Protocol):
    """Is told of every tick after it: a recorder, a trace, a flight recorder, a console. It changes nothing.

    One that raises breaks the episode like any other part; while a broken tick is told, what it raises is ignored.
    """

    @property
    def name(self) -> str:
        """Who it is in the reason of an errored episode."""

    @property
    def wants_images(self) -> bool:
        """Whether `Tick.images` must be filled, which costs a rendering per tick."""

    def observe(self, tick: Tick) -> None:
        """Take in one tick."""
