"""Windows of a data set: the one function that says which frames a policy sees, for training and for running.

At a control step t a policy sees the frames t - (W-1) * stride, ..., t - stride, t. Frames before the start are the
first frame again ("the robot has stood still"): they are seen like any other, and only their losses are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from failsight.core.errors import SpecMismatchError
from failsight.core.types import Array
from failsight.episodes.demonstrations import DemonstrationSet
from failsight.policies.vla.batch import WindowBatch
from failsight.policies.vla.design import VLAConfig
from failsight.policies.vla.frames import window_frames
from failsight.policies.vla.normalise import Normaliser, states_of
from failsight.training.augment import augment
from failsight.training.options import Augment


class Windows:
    """Every window of some episodes of a data set."""

    def __init__(
        self, data: DemonstrationSet, config: VLAConfig, episodes: Sequence[int], augment: Augment | None
    ) -> None:
        """`episodes`: which ones. Raises SpecMismatchError when data and configuration speak of different actions,
        states, cameras or rates.
        """
        require_actions(data, config)
        require_places(data, config)
        self._entries = state_columns(data, config)
        self._data, self._config, self._augment = data, config, augment
        stride, steps = config.history.stride, data.steps_per_frame
        if stride % steps and config.history.window > 1:
            raise SpecMismatchError(
                f"The data stores every {steps}th step, so a history stride of {stride} falls between frames; "
                f"set --history.stride to a multiple of {steps}."
            )
        if data.chunks is not None and data.chunks.shape[1] < config.chunk:
            raise SpecMismatchError(
                f"{data.source} holds what to do for {data.chunks.shape[1]} steps from each frame and the policy predicts "
                f"{config.chunk}; set --chunk to {data.chunks.shape[1]} or less."
            )
        self._stride = max(1, stride // steps)
        stats = config.statistics
        keep = np.array([d.kind == "binary" for d in config.action_spec.dimensions])
        self.actions = Normaliser(config.scheme, stats["action"], stats["clip"], stats["epsilon"], keep)
        self.states = states_of(config)
        self._columns = [data.action_spec.names.index(name) for name in config.action_spec.names]
        starts = [data.episodes[e].first + np.arange(data.episodes[e].length) for e in episodes]
        self._at = np.concatenate(starts) if starts else np.zeros(0, np.int64)
        self._episode = np.concatenate(
            [np.full(data.episodes[e].length, e) for e in episodes] or [np.zeros(0, np.int64)]
        )
        self._texts, self._text = data.instructions, text_numbers(data)

    def __len__(self) -> int:
        return len(self._at)

    def batch(self, rows: Array, seed: Sequence[int] | None) -> WindowBatch:
        """The windows `rows` (B,); `seed` keys the augmentation (None: none)."""
        data, config = self._data, self._config
        frames, early = self._frames(rows)
        said = self._text[frames]
        texts = [self._texts[number] for number in said[:, -1]]
        images = np.stack([np.asarray(data.images[name])[frames] for name, _, _ in config.observation_spec.cameras], 2)
        states = self.states.forward(np.asarray(data.states)[frames][..., self._entries])
        target, inside = self._targets(frames, rows)
        counts = ~early & (said == said[:, -1:])  # what was done under another text is not taught under this one
        weight = inside * counts[..., None] * self._ages()[None, :, None]
        batch = WindowBatch(
            images=torch.from_numpy(np.ascontiguousarray(images.transpose(0, 1, 2, 5, 3, 4))),
            states=torch.from_numpy(states),
            texts=texts,
            resets=self._resets(frames),
            target=torch.from_numpy(target),
            weight=torch.from_numpy(weight.astype(np.float32)),
            fails=self._labels(data.fails, frames, early),
            failing=self._labels(data.failing, frames, early),
            left=self._labels(data.left, frames, early),
            places=torch.from_numpy(self._places(frames)),
            episodes=torch.from_numpy(np.asarray(self._episode[rows])),
            rows=torch.from_numpy(np.asarray(rows)),
        )
        if self._augment is None or seed is None:
            return batch
        return augment(self._augment, batch, data, seed, self._binary())

    def describe(self, rows: Array) -> list[str]:
        """`episode:frame` of the windows `rows` (B,), for messages."""
        found = []
        for row in rows:
            episode = self._data.episodes[self._episode[row]]
            found.append(f"{episode.name}:{int(self._at[row]) - episode.first}")
        return found

    def _binary(self) -> Array:
        return np.array([d.kind == "binary" for d in self._config.action_spec.dimensions])

    def _frames(self, rows: Array) -> tuple[Array, Array]:
        """(B, W) flat frame numbers and (B, W) whether before the start."""
        history = self._config.history
        first = np.array([self._data.episodes[e].first for e in self._episode[rows]])
        pairs = [window_frames(int(t), history.window, self._stride) for t in self._at[rows] - first]
        frames = np.array([p[0] for p in pairs]) + first[:, None]
        return frames, np.array([p[1] for p in pairs])

    def _targets(self, frames: Array, rows: Array) -> tuple[Array, Array]:
        """(B, W, H, A) normalised chunks and (B, W, H) whether each action was done in this episode and for its text."""
        data, steps = self._data, self._config.chunk
        if data.chunks is not None:
            chunk = np.asarray(data.chunks)[frames][..., :steps, self._columns]
            return self.actions.forward(chunk), np.ones(chunk.shape[:3], bool)
        last = np.array([data.episodes[e].first + data.episodes[e].length - 1 for e in self._episode[rows]])
        wanted = frames[..., None] + np.arange(steps)
        at = np.minimum(wanted, last[:, None, None])
        inside = (wanted <= last[:, None, None]) & (self._text[at] == self._text[frames][..., None])
        return self.actions.forward(np.asarray(data.actions)[at][..., self._columns]), inside

    def _resets(self, frames: Array) -> list[bool]:
        if self._data.resets is None:
            return [False] * len(frames)
        return [bool(value) for value in np.asarray(self._data.resets)[frames[:, -1]] > 0]

    def _places(self, frames: Array) -> Array:
        """(B, W, P) float32."""
        columns, places = self._config.auxiliary.columns, self._data.places
        if places is None or not columns:
            return np.zeros((*frames.shape, 0), np.float32)
        return np.asarray(np.asarray(places)[frames], np.float32)

    def _ages(self) -> Array:
        history = self._config.history
        age = np.arange(history.window - 1, -1, -1)
        return np.asarray(history.decay**age)

    @staticmethod
    def _labels(values: Array | None, frames: Array, early: Array) -> Tensor:
        if values is None:
            return torch.full(frames.shape, float("nan"))
        found = np.asarray(values)[frames].astype(np.float32)
        return torch.from_numpy(np.where(early, np.nan, found).astype(np.float32))


def text_numbers(data: DemonstrationSet) -> Array:
    """(N,) which of `data.instructions` holds at every frame."""
    number = {text: i for i, text in enumerate(data.instructions)}
    found = np.zeros(len(data.actions), np.int32)
    for row in data.episodes:
        for start, text in ((0, row.instruction), *row.changes):
            found[row.first + start : row.first + row.length] = number[text]
    return found


def require_actions(data: DemonstrationSet, config: VLAConfig) -> None:
    """Data and model must mean the same actions; fewer in the model is a choice somebody has to make.

    Raises SpecMismatchError naming both sides and the flag that chooses.
    """
    have, want = data.action_spec.names, config.action_spec.names
    if set(want) - set(have):
        raise SpecMismatchError(
            f"The model acts in {len(want)} dimensions ({', '.join(want)}) and {data.source} has {len(have)} "
            f"({', '.join(have)}): {', '.join(sorted(set(want) - set(have)))} cannot be learnt from it."
        )


def require_places(data: DemonstrationSet, config: VLAConfig) -> None:
    """Raises SpecMismatchError when the data do not hold the auxiliary targets that are asked for."""
    wanted = config.auxiliary.columns
    held = 0 if data.places is None else data.places.shape[1]
    if wanted and held != wanted:
        raise SpecMismatchError(
            f"{data.source} has {held} auxiliary targets and {config.auxiliary.offsets} offsets and "
            f"{config.auxiliary.flags} flags are asked for; set --auxiliary.offsets and --auxiliary.flags to what is there."
        )


def state_columns(data: DemonstrationSet, config: VLAConfig) -> list[int]:
    """Where the data holds the states a policy reads, by name. Raises SpecMismatchError: states, cameras or rate differ."""
    have, want = data.observation_spec, config.observation_spec
    rates = (data.action_spec.rate_hz, config.action_spec.rate_hz)
    lacking = [name for name in want.state if name not in have.state]
    unseen = [camera for camera in want.cameras if camera not in have.cameras]
    if lacking or unseen or (rates[0] != rates[1] and all(rates)):
        raise SpecMismatchError(
            f"{data.source} has states {', '.join(have.state) or 'none'}, cameras {_shown(have.cameras)} at {rates[0]:g} Hz; "
            f"the policy reads {', '.join(want.state) or 'none'} and {_shown(want.cameras)} at {rates[1]:g} Hz."
        )
    return [have.state.index(name) for name in want.state]


def _shown(cameras: Sequence[tuple[str, int, int]]) -> str:
    return ", ".join(f"{name} ({height} x {width})" for name, height, width in cameras)


def choose_actions(data: DemonstrationSet, dimensions: Sequence[str], expected: int | None = None) -> list[str]:
    """The action dimensions to train: all of the data's, or those chosen.

    Raises SpecMismatchError when `expected` (what the model or simulator has) differs and nothing was chosen.
    """
    names = list(data.action_spec.names)
    if not dimensions:
        if expected is not None and expected != len(names):
            raise SpecMismatchError(
                f"{data.source} has {len(names)} action dimensions ({', '.join(names)}) and the model has {expected}; "
                f"nothing is dropped silently. Choose with --action-dims, for example --action-dims "
                f"{' '.join(names[:expected])}."
            )
        return names
    unknown = [name for name in dimensions if name not in names]
    if unknown:
        raise SpecMismatchError(
            f"--action-dims names {', '.join(unknown)}, which {data.source} does not have ({', '.join(names)})."
        )
    return list(dimensions)
