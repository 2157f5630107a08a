"""The loss menu as rows of a table: the same GRU on the same inputs, one switch at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from failsight.core.contracts import Predictor
from failsight.core.registry import load
from failsight.core.specs import Access
from failsight.predictors.detector import Detector, FitData

MENU: Mapping[str, Mapping[str, object]] = {
    "episode": {},
    "brier": {"main": "brier"},
    "td": {"main": "td"},
    "hazard": {"main": "hazard"},
    "margin": {"main": "margin"},
    "rank": {"main": "rank"},
    "variation": {"variation": 1.0},
    "curvature": {"curvature": 1.0},
    "monotone": {"monotone": 1.0},
    "contrast": {"contrast": 0.1},
    "patterns": {"patterns": 0.3},
    "phases": {"phases": True},
}
"""Row -> switches of `LossOptions`; the others add one term (or the sampling) to the episode loss."""


def _fit_with(switches: Mapping[str, object]) -> Callable[[FitData], Predictor]:
    def fit(data: FitData) -> Predictor:
        options = load("failsight.predictors.fit_network:TrainOptions")
        losses = load("failsight.predictors.losses:LossOptions")(**switches)
        fitted: Predictor = load("failsight.predictors.fit_network:fit_network")(
            load("failsight.predictors.network:GruTd"),
            data.train,
            data.names,
            options(seed=data.seed, loss=losses, skip_first=4),
        )
        return fitted

    return fit


ABLATION: dict[str, Detector] = {
    f"loss_{name}": Detector(
        title=f"GRU-32, {name}", source="loss menu", access=Access.ACTIONS, fit=_fit_with(switches)
    )
    for name, switches in MENU.items()
}
"""Detectors of the ablation, by the name used in summaries."""
