"""A bundle: the folder that holds everything a monitor needs, and refuses the wrong policy.

`config.json` (predictor, trigger rule), `model.safetensors`, `calibration.json`, `specs.json`, and `fingerprint.json`
with a digest over all of them: nothing in them changes unseen. Thresholds learned in use live beside it in
`adapted.json`, outside the digest, which names the bundle it belongs to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from failsight.causes.familiar import Familiar
from failsight.core.contracts import Policy
from failsight.core.errors import BundleError, EpisodeDataError, FailsightError
from failsight.core.foreign import read_count, read_text, require_distinct
from failsight.core.specs import Access, ActionSpec, ObservationSpec, SignalColumn
from failsight.core.types import Array
from failsight.episodes.meta import write_text_atomic
from failsight.monitor.band import Band
from failsight.monitor.made_for import MadeFor
from failsight.monitor.monitor import Bank, LoggedSignals, RiskMonitor
from failsight.monitor.probability import ProbabilityMap
from failsight.monitor.senses import Senses, Usual
from failsight.monitor.stored_predictor import make_predictor, require_known, stored_name
from failsight.monitor.thresholds import Thresholds
from failsight.monitor.trigger import TriggerRule
from failsight.signals.bank import SignalBank, bank_columns

BUNDLE_VERSION = 2
_COVERED = ("config.json", "model.safetensors", "calibration.json", "specs.json")
"""What the digest covers, with the policy and feature size of `fingerprint.json`."""
_FILES = (*_COVERED, "fingerprint.json")
FAMILIAR = "familiar.json"
"""What the policy is familiar with; a bundle may lack it, and then no cause is diagnosed."""
ADAPTED = "adapted.json"
_BELONGING = (ADAPTED, FAMILIAR, "ladder.json")
"""What others leave beside a bundle and what is void for the next one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What a bundle holds."""

    predictor: Any
    """Any `StoredPredictor`, ours or of another package."""
    rule: TriggerRule
    thresholds: Thresholds
    action_spec: ActionSpec
    observation_spec: ObservationSpec
    policy: str
    """Fingerprint of the policy it belongs to."""
    provenance: Mapping[str, Any]
    """What it was fitted on."""
    signals: tuple[SignalColumn, ...] = ()
    """The columns the predictor reads when they come with the step; empty when failsight computes them."""
    probability: ProbabilityMap | None = None
    """From evidence to p_fail; None: evidence is p_fail."""
    band: Band | None = None
    """The threshold is for deviations from it; None: for the evidence itself."""
    usual: Usual | None = None
    """What training knows of every signal; without it no single one is missed."""
    familiar: Familiar | None = None
    """What the policy is familiar with; None: no cause is diagnosed."""


def save_bundle(folder: Path, bundle: Bundle) -> None:
    """Write the folder.

    Raises BundleError when a weight or figure is not finite; what was learned in use with an older bundle, and the ladder
    that was proved on it, are dropped.
    """
    stored = stored_name(bundle.predictor)
    arrays = {key: np.array(array, order="C") for key, array in bundle.predictor.arrays.items()}
    _require_finite(arrays, f"The {stored} predictor")
    folder.mkdir(parents=True, exist_ok=True)
    for name in _BELONGING:
        (folder / name).unlink(missing_ok=True)
    save_file(arrays, folder / "model.safetensors")
    config = {
        "bundle_version": BUNDLE_VERSION,
        "predictor": stored,
        "trigger": asdict(bundle.rule),
        "provenance": dict(bundle.provenance),
    }
    specs_json = {
        "action": bundle.action_spec.as_dict(),
        "observation": bundle.observation_spec.as_dict(),
        "signals": [column.as_dict() for column in bundle.signals],
    }
    calibration = {
        **bundle.thresholds.as_dict(),
        "probability": _stored(bundle.probability),
        "band": _stored(bundle.band),
        "usual": _stored(bundle.usual),
    }
    for name, data in (("config.json", config), ("calibration.json", calibration), ("specs.json", specs_json)):
        _write_json(folder / name, data)
    size = int(bundle.predictor.hidden_size)
    if bundle.familiar is not None:
        _write_json(folder / FAMILIAR, bundle.familiar.as_dict())
    files = {name: _digest((folder / name).read_bytes()) for name in _covered(bundle.familiar is not None)}
    whole = {"policy": bundle.policy, "hidden_size": size, "files": files}
    _write_json(folder / "fingerprint.json", {**whole, "bundle": _digest_of(whole)})


def _covered(familiar: bool) -> tuple[str, ...]:
    return (*_COVERED, FAMILIAR) if familiar else _COVERED


def _stored(part: ProbabilityMap | Band | Usual | None) -> dict[str, Any] | None:
    return None if part is None else part.as_dict()


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _digest_of(whole: Mapping[str, Any]) -> str:
    """Over weights, calibration, specs, config, and whom they belong to."""
    return _digest(json.dumps([whole[name] for name in ("policy", "hidden_size", "files")], sort_keys=True).encode())


def load_monitor(folder: str | Path, policy: Policy | None = None, *, learns: bool = True) -> RiskMonitor:
    """The monitor of a bundle; with `policy`, it is checked against what the bundle was made for.

    Args: learns: whether finished episodes calibrate unknown tasks; `save_adapted` keeps what was learned.

    Raises BundleError, naming file and key, when a file is missing, damaged or changed since it was saved, holds what no
    fit writes, or the policy, specs or feature size differ.
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
            f"{path / 'config.json'} has bundle version {config.get('bundle_version')}; this failsight loads {BUNDLE_VERSION}. Fit again."
        )
    with _reading(path / "fingerprint.json"):
        owner, size = read_text(fingerprint["policy"], "policy"), read_count(fingerprint["hidden_size"], "hidden_size")
        covered = _covered(FAMILIAR in fingerprint["files"])
        files = {name: read_text(fingerprint["files"][name], name) for name in covered}
    with _reading(path / "specs.json"):
        actions, observations = ActionSpec.from_dict(specs["action"]), ObservationSpec.from_dict(specs["observation"])
        columns = tuple(SignalColumn.from_dict(column) for column in specs["signals"])
        require_distinct((column.name for column in columns), "signals", "column")
    with _reading(path / "calibration.json"):
        thresholds, mapped, band = _calibration(calibration)
    with _reading(path / "config.json"):
        rule, name = _rule(config["trigger"]), read_text(config["predictor"], "predictor")
        require_known(name)
    digest = _require_unchanged(path, files, fingerprint)
    if policy is not None:
        _check_policy(path, policy, (actions, observations), owner)
    with _reading(path / "model.safetensors"):
        predictor = make_predictor(name, _arrays(path / "model.safetensors"))
    if predictor.hidden_size != size:
        raise BundleError(f"{path} reads {predictor.hidden_size} features; fingerprint.json says {size}. Fit again.")
    with _reading(path / "specs.json"):
        bank: Bank = LoggedSignals(tuple(c.name for c in columns)) if columns else SignalBank(actions, observations)
    with _reading(path / "calibration.json"):
        found = calibration["usual"]
        usual = None if found is None else Usual.from_dict(found, len(bank.names))
    monitor = RiskMonitor(predictor, bank, rule, thresholds, mapped, band, Senses(bank.names, actions, usual))
    monitor.fingerprint, monitor.learns = digest, learns
    monitor.made_for = _made_for(owner, actions, observations, predictor.hidden_size, usual, bool(columns))
    monitor.familiar = _familiar(path / FAMILIAR, actions, observations) if FAMILIAR in files else None
    _read_adapted(path / ADAPTED, monitor)
    return monitor


def _made_for(
    policy: str, actions: ActionSpec, observations: ObservationSpec, size: int, usual: Usual | None, logged: bool
) -> MadeFor:
    """What training always had is needed; nothing is, where that was not written down."""
    always = () if usual is None or logged else usual.always
    known = bank_columns(actions, observations) if always else ()
    levels = {column.access for column, needed in zip(known, always, strict=True) if needed}
    levels = levels | {Access.HIDDEN} if size else levels
    return MadeFor(
        policy=policy,
        action_spec=actions,
        observation_spec=observations,
        hidden_size=size,
        levels=frozenset(levels),
        logged=logged,
    )


def _familiar(path: Path, actions: ActionSpec, observations: ObservationSpec) -> Familiar:
    data = _json(path)
    with _reading(path):
        return Familiar.from_dict(data, len(observations.state), len(actions.dimensions))


def _require_unchanged(path: Path, files: Mapping[str, str], fingerprint: Mapping[str, Any]) -> str:
    """The digest of the bundle. Raises BundleError naming the file that is not the one that was saved."""
    if lost := [name for name in files if not (path / name).is_file()]:
        raise BundleError(f"{path} lacks {', '.join(lost)}, which it was saved with. Fit again.")
    for name, digest in files.items():
        if _digest((path / name).read_bytes()) != digest:
            raise BundleError(f"{path / name} is not the file this bundle was saved with. Fit again.")
    if _digest_of(fingerprint) != fingerprint.get("bundle"):
        raise BundleError(f"{path / 'fingerprint.json'} is not the file this bundle was saved with. Fit again.")
    return str(fingerprint["bundle"])


def save_adapted(folder: Path, monitor: RiskMonitor) -> None:
    """Keep what a monitor of this bundle learned in use, beside it."""
    _write_json(folder / ADAPTED, {"bundle": monitor.fingerprint, "tasks": monitor.thresholds.adapted()})


def _read_adapted(path: Path, monitor: RiskMonitor) -> None:
    if not path.is_file():
        return
    data = _json(path)
    with _reading(path):
        owner, tasks = read_text(data["bundle"], "bundle"), dict(data["tasks"])
        monitor.thresholds.adopt(tasks, "tasks")
    if owner != monitor.fingerprint:
        raise BundleError(f"{path} belongs to another bundle ({owner}); delete it to start learning afresh.")


def _rule(data: Mapping[str, Any]) -> TriggerRule:
    unknown = set(data) - {field.name for field in fields(TriggerRule)}
    if unknown:
        raise EpisodeDataError(f"trigger has no {', '.join(sorted(unknown))}.")
    return TriggerRule(**data)


def _calibration(data: Mapping[str, Any]) -> tuple[Thresholds, ProbabilityMap | None, Band | None]:
    mapped, band = data["probability"], data["band"]
    return (
        Thresholds.from_dict(data),
        None if mapped is None else ProbabilityMap.from_dict(mapped),
        None if band is None else Band.from_dict(band),
    )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What is wrong inside is said with the file's name."""
    try:
        yield
    except BundleError as error:
        raise BundleError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    except FailsightError as error:
        raise BundleError(f"{path}: {error} Fit again.") from error
    except KeyError as error:
        raise BundleError(f"{path} has no {error} where it is expected. Fit again.") from error
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise BundleError(f"{path} holds something of another kind than expected ({error}). Fit again.") from error


def _check_policy(path: Path, policy: Policy, specs: tuple[ActionSpec, ObservationSpec], expected: str) -> None:
    actions, observations = specs
    if policy.action_spec != actions:
        raise BundleError(
            f"{path} was made for actions {actions.names}; this policy has {policy.action_spec.names} or other ranges."
        )
    if policy.observation_spec.state != observations.state:
        raise BundleError(
            f"{path} was made for the state {observations.state}; this policy reads {policy.observation_spec.state}."
        )
    if policy.fingerprint != expected:
        raise BundleError(
            f"{path} was fitted on policy {expected}, this one is {policy.fingerprint}. "
            "Collect episodes with this policy and fit again."
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} is damaged ({error}). Fit again.") from error
    if not isinstance(data, dict):
        raise BundleError(f"{path} is damaged (it holds no map). Fit again.")
    return data


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Raises BundleError when a number is not finite: nothing unknown is saved as if it were known."""
    try:
        text = json.dumps(data, indent=1, allow_nan=False)
    except ValueError as error:
        raise BundleError(f"{path.name} would hold a number that is not finite; nothing was saved there.") from error
    write_text_atomic(path, text)


def _arrays(path: Path) -> dict[str, Array]:
    try:
        arrays = dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise BundleError(f"{path} is damaged ({error}). Fit again.") from error
    _require_finite(arrays, str(path))
    return arrays


def _require_finite(arrays: Mapping[str, Array], where: str) -> None:
    bad = [name for name, value in arrays.items() if value.dtype.kind == "f" and not np.isfinite(value).all()]
    if bad:
        raise BundleError(f"{where} holds weights that are not finite: {', '.join(sorted(bad))}. Fit again.")
