"""The statistics LeRobot keeps of every feature, per episode and over a run: min, max, mean, std, quantiles, count.

Vectors have one number per dimension; pictures one per colour channel, in [0, 1] and of shape (3, 1, 1). Values that are
not finite count as missing; a dimension without any finite value is NaN. Quantiles of pictures are those of the 256
levels (the smallest level that reaches the share), of vectors numpy's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.types import Array
from failsight.storage.disk import reason

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
_LEVELS = 256

Entry = dict[str, Any]
"""One feature's statistics as nested lists, ready for JSON and Parquet."""


def vector_statistics(values: Array) -> Entry:
    """Of (N, D) float64 values, N at least 1."""
    known = np.where(np.isfinite(values), values, np.nan)
    here = ~np.isnan(known).all(0)
    entry: Entry = {}
    for name, of in _SUMMARIES.items():
        result = np.full(values.shape[1], np.nan)
        result[here] = of(known[:, here])
        entry[name] = result.tolist()
    return {**entry, "count": [len(values)]}


_SUMMARIES: dict[str, Any] = {
    "min": lambda v: np.nanmin(v, 0),
    "max": lambda v: np.nanmax(v, 0),
    "mean": lambda v: np.nanmean(v, 0),
    "std": lambda v: np.nanstd(v, 0),
    **{name: (lambda v, share=share: np.nanquantile(v, share, 0)) for name, share in QUANTILES.items()},
}


class PictureLevels:
    """How often each of the 256 levels occurs in each colour channel of the frames looked at."""

    def __init__(self) -> None:
        self._counts = np.zeros((3, _LEVELS), np.int64)
        self._frames = 0

    def add(self, frame: Array) -> None:
        """One frame (H, W, 3) uint8."""
        for channel in range(3):
            self._counts[channel] += np.bincount(frame[..., channel].ravel(), minlength=_LEVELS)
        self._frames += 1

    def join(self, other: PictureLevels) -> None:
        """Add another's frames."""
        self._counts += other._counts
        self._frames += other._frames

    def statistics(self) -> Entry:
        """Per channel, in [0, 1], shape (3, 1, 1)."""
        levels = np.arange(_LEVELS) / (_LEVELS - 1)
        total = self._counts.sum(1)
        mean = self._counts @ levels / total
        spread = np.sqrt(np.maximum(0.0, self._counts @ levels**2 / total - mean**2))
        reached = np.cumsum(self._counts, 1) / total[:, None]
        entry = {"mean": mean, "std": spread}
        entry["min"], entry["max"] = (levels[(reached > 0).argmax(1)], levels[(reached >= 1).argmax(1)])
        entry |= {name: levels[(reached >= share).argmax(1)] for name, share in QUANTILES.items()}
        return {**{name: _deep(value.tolist()) for name, value in entry.items()}, "count": [self._frames]}


def _deep(channels: list[float]) -> list[list[list[float]]]:
    return [[[value]] for value in channels]


def levels_of_video(path: Path) -> PictureLevels:
    """Levels of a video's key frames (one in ten of ours). Raises EpisodeDataError when it cannot be read."""
    levels = PictureLevels()
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.skip_frame = "NONKEY"
            for frame in container.decode(stream):
                levels.add(frame.to_ndarray(format="rgb24"))
    except (OSError, av.error.FFmpegError, IndexError) as error:
        raise EpisodeDataError(f"Cannot read {path} ({reason(error)}); the video is damaged or missing.") from error
    return levels


def as_columns(statistics: Mapping[str, Entry]) -> dict[str, Any]:
    """`{feature: {name: value}}` -> the flat `stats/<feature>/<name>` columns of LeRobot's episode table."""
    return {f"stats/{feature}/{name}": value for feature, entry in statistics.items() for name, value in entry.items()}
