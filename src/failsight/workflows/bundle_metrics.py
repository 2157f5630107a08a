"""What a bundle was worth when it was fitted, kept beside it: `metrics.json`, outside the digest, read by nobody who acts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from failsight.core.errors import BundleError, EpisodeDataError
from failsight.core.textfiles import read_json_object
from failsight.episodes.meta import write_text_atomic
from failsight.evaluation import detection
from failsight.evaluation.detection import Scored
from failsight.evaluation.provenance import commit
from failsight.evaluation.run_claims import precision_table

METRICS = "metrics.json"


def save_metrics(bundle: Path, judged_on: str, figures: Mapping[str, Any]) -> None:
    """Write the figures with what they were judged on."""
    data = {"judged_on": judged_on, "commit": commit(), "figures": dict(figures)}
    write_text_atomic(bundle / METRICS, json.dumps(data, indent=1, allow_nan=False))


def drop_metrics(bundle: Path) -> None:
    """Those of an older fit."""
    (bundle / METRICS).unlink(missing_ok=True)


def read_metrics(bundle: Path) -> dict[str, Any] | None:
    """None where the bundle has none. Raises BundleError when the file is damaged."""
    path = bundle / METRICS
    if not path.is_file():
        return None
    try:
        data = read_json_object(path)
        return {"judged_on": str(data["judged_on"]), "figures": dict(data["figures"])}
    except (EpisodeDataError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path} is damaged ({error}); delete it, or fit again.") from error


def held_out_metrics(scored: Sequence[Scored], horizon: int) -> dict[str, Any]:
    """Figures at 25 and 50 % of the horizon of episodes that were not fitted on, among those still running."""
    result: dict[str, Any] = {}
    for share in (25, 50):
        step = horizon * share // 100
        table = {name: estimate.as_dict() for name, estimate in detection.auc_table(scored, step, "fit").items()}
        result[str(share)] = {**table, **precision_table(scored, step)}
    return result
