"""What a client of the policy server says, read and never cast: prompt, observation, and where in the episode it is.

Fields beyond openpi's protocol, each optional: `reset` (true: this observation begins an episode), `step` (its control
step in the episode), `executed` (actions executed since the last answer), `outcome` (how the episode before ended) and
`key` (seed, task, episode: what random draws are keyed by). Where a client gives neither step nor executed, the server
has to assume, and its metadata says what.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from failsight.core.contracts import KnowsStates, Policy
from failsight.core.errors import EpisodeDataError
from failsight.core.foreign import read_array, read_count, read_flag, read_picture, read_success, read_text
from failsight.core.pictures import resize_with_pad
from failsight.core.types import Array, EpisodeKey, Observation

FIELDS = ("prompt", "reset", "step", "executed", "outcome", "key")
PROMPT_LIMIT = 1000
"""Characters of an instruction."""
STATE_REACH = 10.0
"""A state entry may lie this many half ranges of its training data from their middle."""
LEAST_HALF_RANGE = 0.06
"""Entries that hardly moved in training: three times the floor below which policies do not standardise (0.02)."""
LARGEST_ZOOM = 2.0
"""Pictures may be enlarged so much; beyond it the policy would see what it never saw."""
LARGEST_SIDE = 2048
"""Pixels of a picture that is resized."""
OUTCOMES = ("success", "failure")
_CAMERAS = ("observation/image", "observation/wrist_image")
_LAST_STEP = 10**9


@dataclass(slots=True)
class Session:
    """One connection and the episode it is in."""

    number: int
    episode: int = -1
    step: int = 0
    """Control step the robot is taken to be at."""
    last: int = 0
    """Control step of the last inference."""
    told: bool = True
    """Whether every step of the episode came from the client."""
    prompt: str = ""
    open: bool = False
    memory: bytes = b""
    previous_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One observation, and what it means for the session it came in."""

    begins: bool
    """It is the first of an episode."""
    step: int
    told: bool
    """Whether the step came from the client."""
    prompt: str
    observation: Observation
    key: EpisodeKey


@dataclass(slots=True)
class Reader:
    """Reads the messages to one policy."""

    policy: Policy
    keys: Mapping[str, str]
    """Our observation name -> the client's."""
    _low: Array | None = field(init=False, default=None)
    _high: Array | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if isinstance(self.policy, KnowsStates):
            low, high = self.policy.state_range
            middle, half = (low + high) / 2, np.maximum((high - low) / 2, LEAST_HALF_RANGE)
            self._low, self._high = middle - STATE_REACH * half, middle + STATE_REACH * half

    @property
    def assumptions(self) -> dict[str, Any]:
        """What a client is told about how its messages are read."""
        ranges = "is finite" if self._low is None else f"lies within {STATE_REACH:g} training half ranges"
        return {
            "episode": "begins with a connection, after an outcome, at reset true, at a step of 0 or below the last "
            "one, and, without reset, step and executed, at another prompt; otherwise a new prompt re-instructs. A new "
            "episode of the same prompt that says none of these cannot be told apart from the one before",
            "step": f"without step or executed, {self.policy.execute} actions are taken as executed per answer",
            "pictures": "floats in [0, 1] are scaled to bytes; other sizes are resized with padding, as openpi does",
            "state": f"every entry {ranges}",
            "random": "keyed by `key`, or else by prompt and first observation",
        }

    def read(self, session: Session, message: Mapping[str, Any]) -> Request:
        """Raises EpisodeDataError naming the field that is missing or means nothing."""
        prompt = session.prompt
        if "prompt" in message or not prompt:
            prompt = _read_prompt(message.get("prompt"))
        begins, step = _place(session, message, prompt)
        if begins and "prompt" not in message:
            raise EpisodeDataError("The first observation of an episode needs a 'prompt'.")
        told = begins or "step" in message or "executed" in message
        observation = self.observation(message)
        return Request(
            begins=begins,
            step=step,
            told=told,
            prompt=prompt,
            observation=observation,
            key=_read_key(message, prompt, observation),
        )

    def observation(self, message: Mapping[str, Any]) -> dict[str, Array]:
        """Their names -> ours: `observation.state` (S,) float32, images (H, W, 3) uint8.

        Raises EpisodeDataError naming what is missing or of another shape.
        """
        spec, found = self.policy.observation_spec, {"observation.state": np.zeros(0, np.float32)}
        for i, (name, height, width) in enumerate(spec.cameras):
            theirs = self.keys.get(name, _CAMERAS[i] if i < len(_CAMERAS) else f"observation/{name}")
            value = _find(message, f"observation.images.{name}", theirs)
            found[f"observation.images.{name}"] = _read_view(value, theirs, height, width)
        if spec.state:
            theirs = self.keys.get("state", "observation/state")
            found["observation.state"] = self._read_state(_find(message, "observation.state", theirs), theirs)
        return found

    def _read_state(self, value: Any, where: str) -> Array:
        names = self.policy.observation_spec.state
        state = read_array(value, where, (len(names),))
        if self._low is not None and self._high is not None:
            for i in np.flatnonzero((state < self._low) | (state > self._high)):
                raise EpisodeDataError(
                    f"{where}: {names[i]} is {state[i]:g}; this policy takes {self._low[i]:g} to {self._high[i]:g}, "
                    f"{STATE_REACH:g} times the range it was trained on. Check units and order of the state."
                )
        return state


def read_outcome(value: Any) -> str:
    """success, failure or unknown. Raises EpisodeDataError for anything else."""
    if isinstance(value, str) and value.strip().lower() == "unknown":
        return "unknown"
    return OUTCOMES[0] if read_success(value, "outcome") else OUTCOMES[1]


def read_executed(session: Session, message: Mapping[str, Any]) -> int:
    """Actions executed since the last answer, or those assumed."""
    if "executed" not in message:
        return session.step - session.last
    return read_count(message["executed"], "executed", 0, _LAST_STEP)


def _read_prompt(value: Any) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise EpisodeDataError("The first observation of an episode needs a 'prompt'.")
    text = read_text(value, "prompt", PROMPT_LIMIT)
    if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text.replace("\n", " ").replace("\t", " ")):
        raise EpisodeDataError("prompt: the text holds control characters; send plain words.")
    return text


def _place(session: Session, message: Mapping[str, Any], prompt: str) -> tuple[bool, int]:
    """(whether an episode begins, control step)."""
    reset = read_flag(message["reset"], "reset") if "reset" in message else None
    step = read_count(message["step"], "step", 0, _LAST_STEP) if "step" in message else None
    reached = session.last + read_executed(session, message)
    if not session.open or reset:
        return True, step or 0
    if reset is None and step is not None and (step == 0 or step < session.last):
        return True, step
    if reset is None and step is None and "executed" not in message and prompt != session.prompt:
        return True, 0
    if step is None:
        return False, reached
    if step < session.last:
        raise EpisodeDataError(
            f"step went back from {session.last} to {step}; say reset: true where an episode begins."
        )
    if "executed" in message and step != reached:
        raise EpisodeDataError(
            f"step is {step} and executed says {reached - session.last} since step {session.last}; leave one of them out."
        )
    return False, step


def _read_key(message: Mapping[str, Any], prompt: str, observation: Observation) -> EpisodeKey:
    value = message.get("key")
    if value is None:
        digest = hashlib.blake2b(prompt.encode(), digest_size=7)
        for name in sorted(observation):
            digest.update(np.ascontiguousarray(observation[name]).tobytes())
        return EpisodeKey(seed=0, task="remote", episode=int.from_bytes(digest.digest(), "little"))
    if not isinstance(value, Mapping) or set(value) != {"seed", "task", "episode"}:
        raise EpisodeDataError("key: expected a map of seed, task and episode.")
    return EpisodeKey(
        seed=read_count(value["seed"], "key.seed"),
        task=read_text(value["task"], "key.task", PROMPT_LIMIT),
        episode=read_count(value["episode"], "key.episode"),
    )


def _find(message: Mapping[str, Any], ours: str, theirs: str) -> Any:
    value = message.get(ours, message.get(theirs))
    if value is None:
        names = sorted(str(name)[:40] for name in list(message)[:20])
        raise EpisodeDataError(f"The observation has no {theirs!r} (nor {ours!r}); it has {names}.")
    return value


def _read_view(value: Any, where: str, height: int, width: int) -> Array:
    picture = read_picture(value, where)
    if max(picture.shape) > LARGEST_SIDE:
        raise EpisodeDataError(f"{where} has shape {picture.shape}; send pictures of at most {LARGEST_SIDE} a side.")
    zoom = min(height / picture.shape[0], width / picture.shape[1])
    if zoom > LARGEST_ZOOM:
        raise EpisodeDataError(
            f"{where} has shape {picture.shape}; the policy's camera is {height} x {width}, and pictures are enlarged "
            f"{LARGEST_ZOOM:g} times at most."
        )
    return resize_with_pad(picture, height, width)
