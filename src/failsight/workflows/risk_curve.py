"""What a monitor said over one episode, as a strip below its film: p_fail, threshold, alarm, onset, and where we are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from failsight.core.types import FAILURE_TYPES, Array, Verdict

HEIGHT = 96
_LEFT, _RIGHT = 0.12, 0.97


class RiskCurve(NamedTuple):
    """The whole curve; `at` marks a step on it."""

    picture: Array
    """(HEIGHT, W, 3) uint8 without a mark."""
    steps: int

    def at(self, step: int) -> Array:
        """(HEIGHT, W, 3) uint8: the curve with a line at `step`."""
        width = self.picture.shape[1]
        share = min(step, self.steps) / max(self.steps, 1)
        column = int(width * (_LEFT + (_RIGHT - _LEFT) * share))
        marked = self.picture.copy()
        marked[:, max(0, column - 1) : column + 1] = (255, 255, 255)
        return marked


def risk_curve(verdicts: Sequence[Verdict], onset: int | None, width: int) -> RiskCurve:
    """The curve of an episode's verdicts, (HEIGHT, width, 3): what the threshold is compared with, and the threshold."""
    judged = _judged(verdicts)
    figure = Figure(figsize=(width / 100, HEIGHT / 100), dpi=100, facecolor="#102a43")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((_LEFT, 0.2, _RIGHT - _LEFT, 0.72), facecolor="#102a43")
    axes.plot(judged, color="#7cb8ff", linewidth=1.2)
    axes.plot([verdict.threshold for verdict in verdicts], color="#f7c948", linewidth=0.9, linestyle="--")
    for step, verdict in enumerate(verdicts):
        if verdict.trigger:
            axes.axvspan(step, step + 1, color="#e12d39", alpha=0.35, linewidth=0)
    if onset is not None:
        axes.axvline(onset, color="#ef8354", linewidth=1)
    axes.set_xlim(0, max(len(verdicts), 1))
    axes.tick_params(colors="white", labelsize=5, length=2, pad=1)
    axes.spines[:].set_visible(False)
    canvas.draw()
    return RiskCurve(np.asarray(canvas.buffer_rgba())[..., :3].copy(), len(verdicts))


def risk_line(verdict: Verdict) -> str:
    """One line for a caption: what is judged, against what, and the likeliest type once the alarm is on."""
    judged = _judged([verdict])[0]
    if not np.isfinite(judged):
        return f"blind: {verdict.blind}"
    name = "evidence" if np.isfinite(verdict.risk.evidence) else "p_fail"
    text = f"{name} {judged:.2f} of {verdict.threshold:.2f}"
    if verdict.trigger and np.isfinite(verdict.risk.type).all():
        text += f"  ALARM ({FAILURE_TYPES[int(np.argmax(verdict.risk.type))]})"
    elif verdict.trigger:
        text += "  ALARM"
    return text


def _judged(verdicts: Sequence[Verdict]) -> list[float]:
    """What the threshold is compared with at each step; NaN where the monitor was blind."""
    return [v.risk.evidence if np.isfinite(v.risk.evidence) else v.risk.p_fail for v in verdicts]
