"""Somebody else's policy as one that is asked for a `PolicyOutput`: recognised by what it has, nothing of theirs imported.

| what it has | how it is asked |
|---|---|
| `fingerprint`, `execute`, `infer(observation, step)` | as our own policies |
| `predict_action_chunk(observation)` | a chunk (H, A) or (1, H, A), as LeRobot's policies answer |
| `select_action(observation)` | one action (A,) or (1, A); what it has queued is dropped when somebody else acted |
| `infer(observation)` | a map with `actions`, as openpi answers; `hidden` and `samples` in it are used |
| a call | an action, a chunk, such a map, or a `PolicyOutput` |
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np

from failsight.core.errors import EpisodeDataError, FailsightError
from failsight.core.foreign import read_array, read_count
from failsight.core.specs import Access
from failsight.core.types import Array, EpisodeKey, PolicyOutput, Task

Kind = Literal["ours", "predict_action_chunk", "select_action", "infer", "call"]
_ACTIONS = ("actions", "action")


class Answered(NamedTuple):
    """What a policy said, as it said it and as it is judged."""

    raw: Any
    output: PolicyOutput


class HiddenTap:
    """The hidden state of a network through its forward hook: of every call the vector of the last token, averaged over
    the calls of one inference.
    """

    def __init__(self, module: Any) -> None:
        """Args: module: anything with `register_forward_hook`: a layer, or a whole transformers model."""
        self._sum: Array | None = None
        self._mean: Array | None = None
        self._calls = 0
        self._handle = module.register_forward_hook(lambda module, given, answer: self._take(answer))

    def _take(self, answer: Any) -> None:
        vector = last_token(answer)
        self._sum = vector if self._sum is None else self._sum + vector
        self._calls += 1

    def collect(self, queued: bool = False) -> Array:
        """(D,) of the calls since the last time; `queued`: without any, that of the last one, which is still in force.

        Raises FailsightError when there is neither.
        """
        if self._sum is not None:
            self._mean = self._sum / self._calls
        elif not queued or self._mean is None:
            raise FailsightError("the network that hidden states are taken from was not called in this inference")
        self._sum, self._calls = None, 0
        return self._mean

    def close(self) -> None:
        """Leave the network as it was."""
        self._handle.remove()


def last_token(answer: Any) -> Array:
    """(D,) float32 of what a network answered: a tensor (..., D), a tuple that begins with one, or a transformers output."""
    found = getattr(answer, "last_hidden_state", None)
    if found is None and getattr(answer, "hidden_states", None):
        found = answer.hidden_states[-1]
    if found is None:
        found = answer[0] if isinstance(answer, tuple | list) else answer
    array = to_array(found)
    return np.asarray(array.reshape(-1, array.shape[-1])[-1], np.float32)


def to_array(value: Any) -> Array:
    """(...) array of a tensor on any device and of any precision, or of what NumPy takes."""
    for name in ("detach", "float", "cpu"):
        value = getattr(value, name)() if hasattr(value, "detach") else value
    return np.asarray(value)


class PolicyFace:
    """Asks a policy of any of these kinds."""

    def __init__(self, policy: Any, *, hidden: Any = None, samples: int = 0, calls: str = "") -> None:
        """Args: hidden: a network with `register_forward_hook`, or a function from an observation to (D,); samples: how
        many more chunks are drawn per inference, each one more call; calls: which of the kinds it is, where it has several.

        Raises FailsightError for what can be asked in none of these ways.
        """
        if inspect.isclass(policy):
            raise FailsightError(f"{policy.__name__} is a class; watch one that was made of it.")
        self.policy, self.kind = policy, _kind_of(policy, calls)
        self._ask = policy if self.kind == "call" else getattr(policy, "infer" if self.kind == "ours" else self.kind)
        self._samples = read_count(samples, "samples")
        self._tap = HiddenTap(hidden) if hasattr(hidden, "register_forward_hook") else None
        self._hidden: Callable[[Any], Any] | None = None if self._tap is not None else hidden
        if self._hidden is not None and not callable(self._hidden):
            raise FailsightError(
                f"hidden is a network or a function of the observation, not a {type(hidden).__name__}."
            )
        if samples and self.kind in ("select_action", "ours"):
            raise FailsightError(f"A policy asked through {self.kind} gives no further samples; leave samples out.")

    @property
    def may_offer(self) -> frozenset[Access]:
        """The levels of access it gives at most; what a map brings is seen at the first answer."""
        free = self.kind in ("ours", "infer", "call")
        has = {
            Access.ACTIONS: True,
            Access.SAMPLES: free or self._samples > 0,
            Access.HIDDEN: free or self._tap is not None or self._hidden is not None,
        }
        return frozenset(level for level, there in has.items() if there)

    @property
    def execute(self) -> int:
        """How many actions of a chunk it means to be executed; 0: all."""
        config = getattr(self.policy, "config", None)
        for owner, name in ((self.policy, "execute"), (config, "n_action_steps"), (self.policy, "n_action_steps")):
            if isinstance(found := getattr(owner, name, None), int):
                return found if self.kind != "select_action" else 1
        return 0

    def reset(self, task: Task, key: EpisodeKey) -> None:
        """A new episode, where it wants to know."""
        reset = getattr(self.policy, "reset", None)
        if callable(reset):
            reset(task, key) if self.kind == "ours" else reset()

    def forget(self) -> None:
        """What it has queued is void: somebody else acted."""
        if self.kind == "select_action":
            drop = getattr(self.policy, "drop_queued_actions", None) or getattr(self.policy, "reset", None)
            if callable(drop):
                drop()

    def reinstruct(self, instruction: str) -> bool:
        """Tell it another instruction; False: it takes it from the observation."""
        tell = getattr(self.policy, "reinstruct", None)
        if callable(tell):
            tell(instruction)
        return callable(tell)

    def answer(self, observation: Any, step: int) -> Answered:
        """One inference. Raises EpisodeDataError for an answer that is no array of numbers, and what the policy raises."""
        began = time.perf_counter()
        raw = self._ask(observation, step) if self.kind == "ours" else self._ask(observation)
        output = read_answer(raw)
        if self.kind == "select_action" and len(output.chunk) != 1:
            raise FailsightError(f"select_action gave {len(output.chunk)} actions; one robot is watched at a time")
        if self._tap is not None:
            output = replace(output, hidden=self._tap.collect(queued=self.kind == "select_action"))
        elif self._hidden is not None:
            output = replace(output, hidden=to_array(self._hidden(observation)).ravel())
        if self._samples:
            drawn = [read_answer(self._ask(observation)).chunk for _ in range(self._samples)]
            output = replace(output, samples=np.stack([output.chunk, *drawn]))
            if self._tap is not None:
                self._tap.collect()  # that of the chunk in force was taken
        return Answered(raw, replace(output, latency_ms=1000 * (time.perf_counter() - began)))

    def close(self) -> None:
        """Leave the policy as it was."""
        if self._tap is not None:
            self._tap.close()


def _kind_of(policy: Any, calls: str) -> Kind:
    if all(hasattr(policy, name) for name in ("fingerprint", "execute", "infer", "save_state")):
        return "ours"
    kinds: tuple[Kind, ...] = ("predict_action_chunk", "select_action", "infer")
    for kind in kinds:
        if calls in ("", kind) and callable(getattr(policy, kind, None)):
            return kind
    if calls or not callable(policy):
        wanted = calls or "predict_action_chunk, select_action, infer or a call"
        raise FailsightError(f"A {type(policy).__name__} cannot be asked for actions: it has no {wanted}.")
    return "call"


def read_answer(raw: Any) -> PolicyOutput:
    """A policy's answer: a `PolicyOutput`, a map with `actions` (H, A), a chunk or an action, with or without a first
    dimension of 1. Raises EpisodeDataError for anything else, FailsightError for a map without actions.
    """
    if isinstance(raw, PolicyOutput):
        return raw
    if not isinstance(raw, Mapping):
        return PolicyOutput(chunk=_chunk(raw, "the policy's answer"))
    name = next((name for name in _ACTIONS if name in raw), "")
    if not name:
        raise FailsightError(f"the policy's answer has no actions; it has {', '.join(map(str, raw)) or 'nothing'}")
    hidden, samples = raw.get("hidden"), raw.get("samples")
    return PolicyOutput(
        chunk=_chunk(raw[name], f"the policy's answer, {name}"),
        hidden=None if hidden is None else to_array(hidden).ravel(),
        samples=None if samples is None else read_array(to_array(samples), "samples", (None,) * 3, finite=False),
    )


def _chunk(value: Any, where: str) -> Array:
    try:
        array = to_array(value)
    except ValueError as error:
        raise EpisodeDataError(f"{where}: the rows differ in length.") from error
    array = array[0] if array.ndim == 3 and len(array) == 1 else array
    return read_array(array[None] if array.ndim == 1 else array, where, (None, None), finite=False)
