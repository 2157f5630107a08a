"""A bundle: the folder that holds everything a monitor needs, and refuses the wrong policy.

`config.json` (predictor, trigger rule), `model.safetensors`, `calibration.json`, `specs.json`, `fingerprint.json`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from failsight.core.contracts import Policy
from failsight.core.errors import BundleError
from failsight.core.registry import resolve
from failsight.core.specs import ActionSpec, ObservationSpec, SignalColumn
from failsight.core.types import Array
from failsight.episodes.meta import write_text_atomic
from failsight.monitor.band import Band
from failsight.monitor.monitor import Bank, LoggedSignals, RiskMonitor
from failsight.monitor.probability import ProbabilityMap
from failsight.monitor.thresholds import Thresholds
from failsight.monitor.trigger import TriggerRule
from failsight.predictors import PREDICTORS
from failsight.signals.bank import SignalBank

BUNDLE_VERSION = 1
_FILES = ("config.json", "model.safetensors", "calibration.json", "specs.json", "fingerprint.json")


def save_bundle(
    folder: Path,
    predictor: Any,
    rule: TriggerRule,
    thresholds: Thresholds,
    specs: tuple[ActionSpec, ObservationSpec],
    policy_fingerprint: str,
    provenance: Mapping[str, Any],
    signals: tuple[SignalColumn, ...] = (),
    probability: ProbabilityMap | None = None,
    band: Band | None = None,
) -> None:
    """Write the folder; `predictor` is any registered predictor with `name`, `arrays`, `hidden_size`.

    `signals` are the columns it reads when they come with the step; empty when failsight computes them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.array(array, order="C") for name, array in predictor.arrays.items()}
    save_file(arrays, folder / "model.safetensors")
    config = {
        "bundle_version": BUNDLE_VERSION,
        "predictor": predictor.name,
        "trigger": asdict(rule),
        "provenance": dict(provenance),
    }
    specs_json = {
        "action": specs[0].as_dict(),
        "observation": specs[1].as_dict(),
        "signals": [column.as_dict() for column in signals],
    }
    calibration = {
        **thresholds.as_dict(),
        "probability": None if probability is None else probability.as_dict(),
        "band": None if band is None else band.as_dict(),
    }
    fingerprint = {
        "policy": policy_fingerprint,
        "hidden_size": predictor.hidden_size,
        "model": _digest(folder / "model.safetensors"),
    }
    for name, data in (
        ("config.json", config),
        ("calibration.json", calibration),
        ("specs.json", specs_json),
        ("fingerprint.json", fingerprint),
    ):
        write_text_atomic(folder / name, json.dumps(data, indent=1))


def load_monitor(folder: str | Path, policy: Policy | None = None) -> RiskMonitor:
    """The monitor of a bundle; with `policy`, it is checked against what the bundle was made for.

    Raises BundleError when a file is missing or damaged, or the policy, specs or feature size differ.
    """
    path = Path(folder)
    missing = [name for name in _FILES if not (path / name).is_file()]
    if missing:
        raise BundleError(f"{path} is not a bundle: it lacks {', '.join(missing)}. Make one with: failsight fit RUN")
    config, calibration, specs, fingerprint = (
        _json(path / name) for name in ("config.json", "calibration.json", "specs.json", "fingerprint.json")
    )
    if config.get("bundle_version") != BUNDLE_VERSION:
        raise BundleError(
            f"{path} has bundle version {config.get('bundle_version')}; this failsight loads {BUNDLE_VERSION}. Fit again."
        )
    if _digest(path / "model.safetensors") != fingerprint["model"]:
        raise BundleError(f"{path}/model.safetensors is not the file this bundle was saved with. Fit again.")
    actions = ActionSpec.from_dict(specs["action"])
    observations = ObservationSpec.from_dict(specs["observation"])
    if policy is not None:
        _check_policy(path, policy, actions, fingerprint["policy"])
    predictor = resolve("predictor", config["predictor"], PREDICTORS)(_arrays(path / "model.safetensors"))
    columns = tuple(SignalColumn.from_dict(column) for column in specs.get("signals", []))
    bank: Bank = LoggedSignals(tuple(c.name for c in columns)) if columns else SignalBank(actions, observations)
    mapped, band = calibration.pop("probability", None), calibration.pop("band", None)
    return RiskMonitor(
        predictor,
        bank,
        TriggerRule(**config["trigger"]),
        Thresholds.from_dict(calibration),
        None if mapped is None else ProbabilityMap.from_dict(mapped),
        None if band is None else Band.from_dict(band),
    )


def _check_policy(path: Path, policy: Policy, actions: ActionSpec, expected: str) -> None:
    if policy.action_spec != actions:
        raise BundleError(
            f"{path} was made for actions {actions.names}; this policy has {policy.action_spec.names} or other ranges."
        )
    if policy.fingerprint != expected:
        raise BundleError(
            f"{path} was fitted on policy {expected}, this one is {policy.fingerprint}. "
            "Collect episodes with this policy and fit again."
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise BundleError(f"{path} is damaged ({error}). Fit again.") from error
    return data


def _arrays(path: Path) -> dict[str, Array]:
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise BundleError(f"{path} is damaged ({error}). Fit again.") from error


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
