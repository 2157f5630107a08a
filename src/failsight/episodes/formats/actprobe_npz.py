"""ActProbe's npz logs: the episodes of one task joined along time.

Their ten signals have no names in the file; the names here go by position and were inferred by comparing ranges and
zeros with the JSON logs. For five of them a relation is checked at each import: eef_z_vel is the size of the change of
eef_z, gripper_qpos_vel that of gripper_qpos_mean, and eef_speed_3d is nowhere less than eef_z_vel.
`denoising_curvature` is the least certain. Hidden states that float16 cannot hold are missing (NaN).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.foreign import read_array, read_count, read_success
from failsight.core.types import Array
from failsight.episodes.logged import LoggedEpisode, read_instruction
from failsight.storage.npz_members import MEMBER_LIMIT, read_members

COLUMNS = (
    *("action_norm", "gripper_oscillation", "denoising_curvature", "eef_z", "chunk_mse", "chunk_mse_mmd"),
    *("gripper_qpos_mean", "eef_z_vel", "eef_speed_3d", "gripper_qpos_vel"),
)
EPISODE_LIMIT = 100_000
"""Episodes of a file."""
_SMALL = 2**26
"""Bytes of an array with one entry per episode."""
_PER_EPISODE = ("length", "success", "episode_id", "seed", "instruction")
_CLOSE = 1e-5


@dataclass(slots=True, kw_only=True)
class NpzNotes:
    """What the reader of npz files had to assume."""

    files: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    """Signal (or `hidden`) -> values that were there but are not finite."""
    doubtful: list[str] = field(default_factory=list)
    """Files whose signals do not keep the relations of the release."""

    def lines(self) -> list[str]:
        """As sentences."""
        if not self.files:
            return []
        lines = [f"the ten signals of {self.files} npz files have no names there and were named by their position"]
        if self.doubtful:
            lines.append(
                f"{', '.join(self.doubtful[:4])}: these positions look wrong (eef_z_vel should be the change of eef_z, "
                "gripper_qpos_vel that of gripper_qpos_mean)"
            )
        return lines


def read_npz(path: Path, task: str, notes: NpzNotes) -> list[LoggedEpisode]:
    """The episodes of one file. Raises EpisodeDataError naming file, array and entry that cannot be read."""
    small = dict.fromkeys(_PER_EPISODE, _SMALL)
    data = read_members(path, {"signals10": MEMBER_LIMIT, **small}, {"hidden": MEMBER_LIMIT})
    signals = _signals(data["signals10"], f"{path}: signals10", notes)
    lengths = _lengths(path, data, len(signals))
    hidden = _hidden(data["hidden"], f"{path}: hidden", len(signals), notes) if "hidden" in data else None
    ends = np.cumsum(lengths)
    notes.files += 1
    if not _keeps_relations(signals, ends - lengths):
        notes.doubtful.append(path.name)
    episodes = []
    for i, (end, length) in enumerate(zip(ends, lengths, strict=True)):
        rows = slice(int(end - length), int(end))
        episodes.append(
            LoggedEpisode(
                task=task,
                instruction=read_instruction(data["instruction"][i], task, f"{path}: instruction[{i}]"),
                seed=read_count(data["seed"][i], f"{path}: seed[{i}]"),
                number=read_count(data["episode_id"][i], f"{path}: episode_id[{i}]"),
                success=read_success(data["success"][i], f"{path}: success[{i}]"),
                signals=signals[rows],
                hidden=None if hidden is None else hidden[rows],
            )
        )
    return episodes


def _lengths(path: Path, data: Mapping[str, Array], steps: int) -> Array:
    count = len(np.atleast_1d(data["length"]))
    if count > EPISODE_LIMIT:
        raise EpisodeDataError(f"{path} has {count} episodes; at most {EPISODE_LIMIT} are read.")
    for name in _PER_EPISODE:
        if data[name].shape != (count,):
            raise EpisodeDataError(f"{path}: {name} has shape {data[name].shape}; the file has {count} episodes.")
    lengths = np.array([read_count(n, f"{path}: length[{i}]", 1) for i, n in enumerate(data["length"])], dtype=object)
    if sum(lengths) != steps:
        raise EpisodeDataError(f"{path} has {steps} steps but its lengths add up to {sum(lengths)}.")
    return lengths.astype(np.int64)


def _signals(values: Array, where: str, notes: NpzNotes) -> Array:
    signals = read_array(values, where, (None, len(COLUMNS)), finite=False)
    missing = np.isnan(signals).sum(axis=0)
    notes.lost += Counter({name: int(n) for name, n in zip(COLUMNS, missing, strict=True) if n})
    return signals


def _hidden(values: Array, where: str, steps: int, notes: NpzNotes) -> Array:
    if values.ndim != 2 or values.dtype.kind != "f" or len(values) != steps or not values.shape[1]:
        raise EpisodeDataError(
            f"{where}: expected floats of shape ({steps}, any), found {values.dtype} of shape {values.shape}."
        )
    with np.errstate(over="ignore"):
        hidden = values.astype(np.float16, copy=False)
    for rows in np.array_split(hidden, 1 + len(hidden) // 1024):
        bad = ~np.isfinite(rows)
        if bad.any():
            rows[bad] = np.nan
            notes.lost["hidden"] += int(bad.sum())
    return hidden


def _keeps_relations(signals: Array, starts: Array) -> bool:
    """Whether the signals that follow from others do so at every step that can be compared."""
    columns = {name: signals[:, i].astype(np.float64) for i, name in enumerate(COLUMNS)}
    inner = np.ones(len(signals), bool)
    inner[starts] = False
    for base, change in (("eef_z", "eef_z_vel"), ("gripper_qpos_mean", "gripper_qpos_vel")):
        difference = np.abs(np.diff(columns[base], prepend=np.nan)) - columns[change]
        if (np.abs(difference[inner]) > _CLOSE).any():
            return False
    return not (columns["eef_speed_3d"] < columns["eef_z_vel"] - _CLOSE).any()
