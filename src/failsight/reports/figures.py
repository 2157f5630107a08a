"""Figures as SVG text, drawn from summary values only."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

matplotlib.rcParams.update(
    {
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#9aa4b2",
        "xtick.color": "#52606d",
        "ytick.color": "#52606d",
        "svg.fonttype": "path",
        "svg.hashsalt": "failsight",
    }
)
INK, ACCENT, GOOD, BAD, SOFT = "#243b53", "#2f6fde", "#1f9d6b", "#d64545", "#bcccdc"
TYPE_COLORS = {"collision": "#d64545", "drop": "#e9a23b", "miss": "#8e6bbf", "timeout": "#7b8794"}


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def traces(case: Mapping[str, Any], threshold: float | None) -> str:
    """p_fail of an episode without and with the intervention; shaded where something other than the policy decided."""
    figure = Figure(figsize=(9.4, 1.7))
    axes = figure.subplots()
    for name, color, label in (("arm_film", ACCENT, case["arm"].replace("_", " ")), ("none", "#7b8794", "nothing")):
        values = [np.nan if value is None else value for value in case[name]["p_fail"]]
        axes.plot(values, color=color, lw=1.2 if name == "none" else 1.8, label=f"{label}: {case[name]['outcome']}")
    acted = case["arm_film"]["acted"]
    if acted:
        axes.axvspan(acted[0], acted[-1] + 1, color=ACCENT, alpha=0.10, lw=0)
    if threshold is not None:
        axes.axhline(threshold, color=BAD, lw=0.9, ls="--")
        axes.text(0.5, threshold + 0.03, "threshold", color=BAD, fontsize=7.5)
    axes.set(ylim=(0, 1.02), xlabel="control step", ylabel="p_fail")
    axes.margins(x=0.01)
    axes.legend(frameon=False, loc="upper right", fontsize=8)
    return _svg(figure)


def reliability(table: Mapping[str, Any]) -> str:
    """Predicted against observed failure rate with exact intervals."""
    figure = Figure(figsize=(3.6, 3.4))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=SOFT, lw=1)
    for row in table["bins"]:
        observed = row["observed"]
        axes.plot([row["predicted"]] * 2, [observed["low"], observed["high"]], color=SOFT, lw=2)
        axes.plot(row["predicted"], observed["value"], "o", color=ACCENT, ms=5)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="predicted p_fail", ylabel="observed failure rate")
    return _svg(figure)


def failure_types(types: Mapping[str, Any]) -> str:
    """How often each type occurs."""
    figure = Figure(figsize=(4.4, 1.9))
    axes = figure.subplots()
    names = list(types)[::-1]
    axes.barh(names, [types[n]["count"] for n in names], color=[TYPE_COLORS.get(n, INK) for n in names], height=0.62)
    for i, name in enumerate(names):
        axes.text(types[name]["count"] + 0.2, i, str(types[name]["count"]), va="center", color=INK)
    axes.set_xlabel("test episodes")
    return _svg(figure)


def arms(table: Mapping[str, Any], order: Sequence[str]) -> str:
    """Change of the success rate against doing nothing, with intervals."""
    figure = Figure(figsize=(6.4, 0.36 * len(order) + 0.7))
    axes = figure.subplots()
    for i, name in enumerate(order[::-1]):
        change = table[name]["success_change"]
        if change["value"] is None:
            continue
        low = change["low"] if change["low"] is not None else change["value"]
        high = change["high"] if change["high"] is not None else change["value"]
        color = GOOD if low > 0 else BAD if high < 0 else "#7b8794"
        axes.plot([100 * low, 100 * high], [i, i], color=color, lw=2.5, solid_capstyle="round")
        axes.plot(100 * change["value"], i, "o", color=color, ms=6)
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_yticks(np.arange(len(order)), [name.replace("_", " ") for name in order[::-1]])
    axes.set_xlabel("change of success rate, percentage points (95 % interval)")
    return _svg(figure)


def evidence(alarm: Mapping[str, Any]) -> str:
    """Evidence of one episode with its threshold, and the displayed probability below."""
    figure = Figure(figsize=(9.4, 2.2))
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    top.plot(alarm["evidence"], color=ACCENT, lw=1.6)
    top.axhline(alarm["threshold"], color=BAD, lw=0.9, ls="--")
    top.set_ylabel("evidence")
    shown = [np.nan if p is None else p for p in alarm["p_fail"]]
    bottom.plot(shown, color=INK, lw=1.4)
    bottom.set(ylim=(0, 1.02), xlabel="step", ylabel="p_fail")
    for axes in (top, bottom):
        axes.margins(x=0.01)
        if alarm["at"] is not None:
            axes.axvline(alarm["at"], color=BAD, lw=1.2)
    why = alarm["why"]
    if why and why["last_safe"] is not None:
        top.axvline(why["last_safe"], color=GOOD, lw=1.2)
    return _svg(figure)


def importance(table: Mapping[str, Any], most: int = 12) -> str:
    """Points of within-task AUC lost when a signal is taken from another episode."""
    names = [name for name in table if table[name]["value"] is not None][:most][::-1]
    figure = Figure(figsize=(6.4, 0.3 * len(names) + 0.7))
    axes = figure.subplots()
    for i, name in enumerate(names):
        row = table[name]
        if row["low"] is not None:
            axes.plot([row["low"], row["high"]], [i, i], color=SOFT, lw=2.5, solid_capstyle="round")
        axes.plot(row["value"], i, "o", color=ACCENT, ms=5)
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_yticks(np.arange(len(names)), names)
    axes.set_xlabel("AUC points lost when this signal is another episode's (95 % interval)")
    return _svg(figure)


def learning(curves: Mapping[str, Any]) -> str:
    """Loss over training steps, smoothed, with validation as dots; one line per training."""
    figure = Figure(figsize=(9.4, 2.6))
    axes = figure.subplots()
    for i, (name, curve) in enumerate(curves.items()):
        steps, losses = (np.array([point[k] for point in curve["train"]]) for k in (0, 1))
        width = max(1, len(losses) // 40)
        smooth = np.convolve(losses, np.ones(width) / width, "valid")
        color = matplotlib.colormaps["tab10"](i % 10)
        axes.plot(steps[width - 1 :], smooth, color=color, lw=1.2, label=name)
        if curve["valid"]:
            axes.plot(*zip(*curve["valid"], strict=True), "o", color=color, ms=4)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.margins(x=0.01)
    axes.legend(frameon=False, fontsize=8, ncols=4)
    return _svg(figure)


def rates(bars: Sequence[Mapping[str, Any]]) -> str:
    """Shares with their intervals, one row each."""
    figure = Figure(figsize=(7.4, 0.5 + 0.28 * len(bars)))
    axes = figure.subplots()
    for row, bar in enumerate(reversed(bars)):
        axes.plot([bar["low"], bar["high"]], [row, row], color=ACCENT, lw=2.4, solid_capstyle="butt")
        axes.plot(bar["value"], row, "o", color=INK, ms=5)
    axes.set_yticks(range(len(bars)), [bar["name"] for bar in reversed(bars)])
    axes.set(xlim=(0, 1.01), xlabel="closed-loop success, 95 % interval")
    axes.grid(axis="x", color=SOFT, lw=0.5)
    return _svg(figure)
