"""Split conformal thresholds: at most a share alpha of successful episodes ever triggers, on average.

The statistic that is calibrated is the one that is deployed: the largest K-of-N value of an episode. With n successful
calibration episodes the threshold is just above their ceil((n+1)(1-alpha))-th smallest statistic.
Source: Vovk et al. 2005; the (n+1) rank is what several published systems leave out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from failsight.core.errors import CalibrationError
from failsight.core.foreign import read_count, read_number


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A threshold and what it promises."""

    threshold: float
    """Infinite: there is none."""
    alpha: float
    """Nominal episode false-alarm rate, averaged over calibration sets."""
    successes: int
    """n."""
    alpha_upper: float
    """95 % upper bound of the true false-alarm rate behind this one threshold (Beta distribution)."""

    def as_dict(self) -> dict[str, Any]:
        """JSON form; null says that there is no threshold."""
        return {**asdict(self), "threshold": self.threshold if math.isfinite(self.threshold) else None}

    @staticmethod
    def from_dict(data: Mapping[str, Any], where: str) -> Calibration:
        """Inverse of `as_dict`; `where` names the file. Raises EpisodeDataError naming the key."""
        threshold = data["threshold"]
        return Calibration(
            threshold=math.inf if threshold is None else read_number(threshold, f"{where}, threshold"),
            alpha=read_number(data["alpha"], f"{where}, alpha", math.ulp(0.0), math.nextafter(1.0, 0.0)),
            successes=read_count(data["successes"], f"{where}, successes"),
            alpha_upper=read_number(data["alpha_upper"], f"{where}, alpha_upper", 0.0, 1.0),
        )


def conformal_threshold(statistics: Sequence[float], alpha: float) -> Calibration:
    """Threshold from the statistics of successful calibration episodes; +inf for one that was cut short.

    Raises CalibrationError when alpha < 1 / (n + 1), saying how many more successes are needed, and when a statistic is
    NaN or the threshold would not be a number: it would promise a rate it does not keep.
    """
    values = np.sort(np.asarray(statistics, float))
    n = len(values)
    if np.isnan(values).any():
        raise CalibrationError(
            f"{int(np.isnan(values).sum())} of {n} calibration statistics are NaN: the detector could not judge those "
            "episodes. Find out which signal is missing there: failsight audit RUN"
        )
    rank = calibration_rank(n, alpha)
    if rank > n:
        needed = math.ceil(1 / alpha) - 1
        raise CalibrationError(
            f"A false-alarm rate of {alpha:g} needs at least {needed} successful calibration episodes; there are {n}. "
            f"Collect {needed - n} more successes or accept alpha >= {1 / (n + 1):.3f}."
        )
    if not np.isfinite(values[rank - 1]):
        raise CalibrationError(
            f"The calibration statistic of rank {rank} of {n} is {values[rank - 1]}: no threshold follows from it. "
            "Episodes may be shorter than the trigger's window, or a signal missing: failsight audit RUN"
        )
    threshold = float(np.nextafter(values[rank - 1], np.inf))
    upper = float(stats.beta.ppf(0.95, n + 1 - rank, rank))
    return Calibration(threshold=threshold, alpha=alpha, successes=n, alpha_upper=upper)


def calibration_rank(n: int, alpha: float) -> int:
    """ceil((n + 1)(1 - alpha)), safe against the last bit: the rank among n statistics whose value is the threshold."""
    return math.ceil((n + 1) * (1 - alpha) - 1e-9)
