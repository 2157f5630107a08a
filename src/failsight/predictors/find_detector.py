"""A detector by its name: ours, an installed package's, or the one at an address."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from failsight.core.contracts import Predictor, StoredPredictor
from failsight.core.errors import FailsightError, told
from failsight.core.registry import foreign, require_members, warn_of_claims
from failsight.predictors.detector import Detector, FitData
from failsight.predictors.detectors import DETECTORS

GROUP = "failsight.detectors"
"""Entry points of other packages' detectors."""


def find_detector(name: str) -> Detector:
    """A detector of ours, of an installed package, or at an address. Raises UnknownNameError with the nearest names."""
    if name in DETECTORS:
        warn_of_claims(name, GROUP)
        return DETECTORS[name]
    found = foreign("detector", name, DETECTORS, GROUP)
    if not isinstance(found, Detector):
        raise FailsightError(
            f"Detector {name} is a {type(found).__name__}, not a failsight.predictors.detector.Detector."
        )
    return replace(found, fit=partial(_fit_foreign, name, found.fit))


def _fit_foreign(name: str, fit: Callable[[FitData], Predictor], data: FitData) -> Predictor:
    """What somebody else's fit raises becomes one sentence that says whose it is."""
    with told(f"The detector {name} cannot be fitted"):
        predictor = fit(data)
    require_members(predictor, StoredPredictor, f"What the detector {name} fits")
    return predictor
