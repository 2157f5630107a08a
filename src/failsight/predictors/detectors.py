"""Every detector behind one contract: what it needs, how it is fitted, where it comes from.

A detector is fitted on labelled training episodes alone and returns a streaming `Predictor`; nothing here sees a
calibration or a test episode. `Risk.evidence` is its score, larger for worse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from failsight.core.contracts import Predictor
from failsight.core.registry import load
from failsight.core.specs import Access
from failsight.predictors.baselines import ClockPredictor, RandomPredictor, TaskClockPredictor, TaskPriorPredictor
from failsight.predictors.dataset import permute_labels
from failsight.predictors.detector import Detector, FitData
from failsight.predictors.fit_blend import MemberFit, fit_blend
from failsight.predictors.fit_ledger import LedgerOptions, fit_ledger
from failsight.predictors.scalars import COLUMNS, fit_scalar
from failsight.predictors.transforms import pad, positive_columns
from failsight.signals.bank import UNCERTAINTY_NAMES


def _ledger(access: Access = Access.HIDDEN, **options: object) -> Callable[[FitData], Predictor]:
    """The ledger on what one level of access gives."""
    return partial(_fit_ledger, access, options)


def _fit_ledger(access: Access, options: dict[str, Any], data: FitData) -> Predictor:
    only = tuple(c.name for c in data.columns if c.access <= access)
    settings = replace(LedgerOptions(), only=only, **options)
    if access < Access.HIDDEN:
        settings = replace(settings, members=tuple(m for m in settings.members if m != "hidden"))
    return fit_ledger(data.train, data.names, settings)


_LEARNED = ("signals", "hidden")
"""Members of the ledger that labels enter; the running mean would rank episodes under any labels."""


def _scalar(name: str) -> Callable[[FitData], Predictor]:
    return partial(_fit_scalar, name)


def _fit_scalar(name: str, data: FitData) -> Predictor:
    return fit_scalar(name, data.train, data.names)


def _network(target: str, **dials: object) -> Callable[[FitData], Predictor]:
    return partial(_fit_network, target, dials)


def _fit_network(target: str, dials: dict[str, Any], data: FitData) -> Predictor:
    module = load("failsight.predictors.fit_network:fit_network")
    options = load("failsight.predictors.fit_network:TrainOptions")
    losses = load("failsight.predictors.losses:LossOptions")
    stopping = load("failsight.predictors.early_stop:Stopping")
    made: dict[str, Callable[[Any], object]] = {
        "loss": lambda v: losses(main=v),
        "stopping": lambda v: stopping(every=v[0], patience=v[1], blind=v[2]),
    }
    settings = {k: made[k](v) if k in made else v for k, v in dials.items()}
    kind = load(f"failsight.predictors.network:{target}")
    fitted: Predictor = module(kind, data.train, data.names, options(seed=data.seed, **settings))
    return fitted


def _salus(data: FitData) -> Predictor:
    columns = [data.names.index(name) for name in UNCERTAINTY_NAMES]
    six = [replace(s, signals=s.signals[:, columns]) for s in data.train]
    parts = load("failsight.predictors.early_stop:set_aside")(six, data.seed)
    kept, aside = ([six[i] for i in part] for part in parts)
    fitted = load("failsight.predictors.fit_mlp:fit_mlp")(kept, aside, data.seed)
    predictor: Predictor = type(fitted)({**fitted.arrays, "columns": np.array(columns)})
    return predictor


def _distance(target: str) -> Callable[[FitData], Predictor]:
    return partial(_fit_distance, target)


def _fit_distance(target: str, data: FitData) -> Predictor:
    fitted: Predictor = load("failsight.predictors.distances:fit_distance")(
        load(f"failsight.predictors.distances:{target}"), data.train, data.seed
    )
    return fitted


def _novelty(target: str) -> Callable[[FitData], Predictor]:
    return partial(_fit_novelty, target)


def _fit_novelty(target: str, data: FitData) -> Predictor:
    fitted: Predictor = load("failsight.predictors.fit_novelty:fit_novelty")(
        load(f"failsight.predictors.novelty:{target}"), data.train, data.names, data.seed
    )
    return fitted


def _fiper(data: FitData) -> Predictor:
    fitted: Predictor = load("failsight.predictors.fit_novelty:fit_fiper")(data.train, data.names, data.seed)
    return fitted


def _hazard(data: FitData) -> Predictor:
    options = load("failsight.predictors.fit_recurrent:RecurrentOptions")(members=3, epochs=20, seed=data.seed)
    raw = pad([s.signals for s in data.train])
    fitted: Predictor = load("failsight.predictors.fit_recurrent:fit_recurrent")(
        data.train, (), options, log=positive_columns(raw)
    )
    return fitted


BLEND = {"running_mean": "running_mean", "ledger": "ledger", "hazard": "hazard_ensemble"}
"""Members of the default -> the detectors that fit them."""


def blended(data: FitData) -> list[str]:
    """Members that can be fitted here: without torch no hazard ensemble, without a chunk error no running mean."""
    return [m for m, name in BLEND.items() if not DETECTORS[name].lacks(data)]


def _blend(data: FitData) -> Predictor:
    fits = {m: _member(data, DETECTORS[BLEND[m]].fit) for m in blended(data)}
    return fit_blend(data.train, data.held, fits, data.seed)


def _blend_learned(data: FitData) -> Predictor:
    """Without the running mean: it would rank episodes under any labels."""
    entries = {m: DETECTORS[BLEND[m]] for m in blended(data) if m != "running_mean"}
    fits = {m: _member(data, entry.learned_part or entry.fit) for m, entry in entries.items()}
    return fit_blend(data.train, data.held, fits, data.seed)


def _member(data: FitData, fit: Callable[[FitData], Predictor]) -> MemberFit:
    return lambda train: fit(data._replace(train=train, held=()))


def _permuted(data: FitData) -> Predictor:
    return _ledger(members=_LEARNED)(data._replace(train=permute_labels(data.train, data.seed)))


def _failed(data: FitData) -> list[bool]:
    return [s.failed for s in data.train]


_SAFE = "SAFE, arXiv 2506.09937"
_ALIKE: Mapping[str, object] = {"balance": True, "batch": 64, "dropout": 0.0}
_PLAIN_ADAM: Mapping[str, object] = {"optimizer": "adam", "cosine": False, "clip": 0.0}
"""As in SAFE: the squares of the weights in the loss (0.01, the middle of its grid), a constant rate."""
DETECTORS: dict[str, Detector] = {
    "blend": Detector(
        title="mean of running mean, ledger and hazard (default)",
        source="failsight",
        access=Access.ACTIONS,
        fit=_blend,
        learned_part=_blend_learned,
        parts=BLEND,
    ),
    "ledger": Detector(
        title="evidence ledger",
        source="failsight",
        access=Access.ACTIONS,
        fit=_ledger(),
        learned_part=_ledger(members=_LEARNED),
    ),
    "ledger_actions": Detector(
        title="ledger, actions only",
        source="failsight",
        access=Access.ACTIONS,
        fit=_ledger(Access.ACTIONS),
        learned_part=_ledger(Access.ACTIONS, members=_LEARNED),
    ),
    "ledger_proprioception": Detector(
        title="ledger, actions and proprioception",
        source="failsight",
        access=Access.PROPRIOCEPTION,
        fit=_ledger(Access.PROPRIOCEPTION),
        learned_part=_ledger(Access.PROPRIOCEPTION, members=_LEARNED),
    ),
    "ledger_signals": Detector(
        title="ledger, all signals, no hidden state",
        source="failsight",
        access=Access.SAMPLES,
        fit=_ledger(Access.SAMPLES),
        learned_part=_ledger(Access.SAMPLES, members=_LEARNED),
    ),
    "ledger_uncentred": Detector(
        title="ledger without task centring",
        source="failsight",
        access=Access.ACTIONS,
        fit=_ledger(centre_tasks=False),
        learned_part=_ledger(centre_tasks=False, members=_LEARNED),
    ),
    "gru_td": Detector(
        title="GRU-32, TD(0.9), signals",
        source="failsight; TD as in arXiv 2604.20472",
        access=Access.ACTIONS,
        torch=True,
        fit=_network("GruTd", loss="td", skip_first=4),
    ),
    "gru_td_hidden": Detector(
        title="GRU-32, TD(0.9), signals and hidden",
        source="failsight; TD as in arXiv 2604.20472",
        access=Access.HIDDEN,
        torch=True,
        fit=_network("GruTdHidden", loss="td", skip_first=2),
    ),
    "hazard_ensemble": Detector(
        title="recurrent hazard ensemble", source="failsight", access=Access.ACTIONS, fit=_hazard, torch=True
    ),
    "salus_mlp": Detector(
        title="SALUS network 6-64-64-4",
        source="SALUS",
        access=Access.SAMPLES,
        every_column=UNCERTAINTY_NAMES,
        types=True,
        instead="signal_mlp",
        torch=True,
        fit=_salus,
    ),
    "signal_mlp": Detector(
        title="network 64-64 on the log's signals",
        source="failsight; widths of SALUS",
        access=Access.ACTIONS,
        torch=True,
        fit=_network("SignalMlp", learning_rate=2e-3, weight_decay=1e-4, batch=32, epochs=20, dropout=0.0),
    ),
    "mist_mlp": Detector(
        title="MIST risk network",
        source="github.com/AnikS22/mist-vla",
        access=Access.HIDDEN,
        torch=True,
        fit=_network("MistMlp", learning_rate=3e-4, weight_decay=1e-4, batch=32, epochs=8, dropout=0.1),
    ),
    "safe_mlp": Detector(
        title="SAFE-MLP",
        source=_SAFE,
        access=Access.HIDDEN,
        torch=True,
        fit=_network("SafeMlp", loss="safe", learning_rate=1e-3, weight_decay=1e-2, epochs=60, **_ALIKE),
    ),
    "safe_lstm": Detector(
        title="SAFE-LSTM",
        source=_SAFE,
        access=Access.HIDDEN,
        torch=True,
        fit=_network("SafeLstm", learning_rate=3e-4, weight_decay=1e-2, epochs=20, **_ALIKE, **_PLAIN_ADAM),
    ),
    "actprobe": Detector(
        title="ActProbe",
        source="arXiv 2606.08508",
        access=Access.ACTIONS,
        columns=("chunk_mse", "overlap"),
        torch=True,
        fit=_network(
            "ActProbe",
            learning_rate=1e-3,
            weight_decay=1e-4,
            batch=64,
            epochs=400,
            dropout=0.0,
            memory_dropout=0.4,
            stopping=(5, 50, 60),
        ),
    ),
    "mahalanobis": Detector(
        title="Mahalanobis distance", source=_SAFE, access=Access.HIDDEN, fit=_distance("Mahalanobis")
    ),
    "euclidean_knn": Detector(
        title="Euclidean 5-NN", source=_SAFE, access=Access.HIDDEN, fit=_distance("EuclideanKnn")
    ),
    "cosine_knn": Detector(title="cosine 5-NN", source=_SAFE, access=Access.HIDDEN, fit=_distance("CosineKnn")),
    "pca_kmeans": Detector(title="PCA and k-means", source=_SAFE, access=Access.HIDDEN, fit=_distance("PcaKmeans")),
    "rnd": Detector(
        title="random network distillation",
        source="FIPER, arXiv 2510.09459",
        access=Access.HIDDEN,
        torch=True,
        fit=_novelty("Rnd"),
        supervised=False,
    ),
    "logpzo": Detector(
        title="logpZO",
        source="FAIL-Detect, arXiv 2503.08558",
        access=Access.HIDDEN,
        torch=True,
        fit=_novelty("LogpZo"),
        supervised=False,
    ),
    "fiper": Detector(
        title="FIPER: novelty and action entropy",
        source="arXiv 2510.09459",
        access=Access.HIDDEN,
        columns=("action_entropy",),
        torch=True,
        fit=_fiper,
        supervised=False,
    ),
    **{
        name.replace("-", "_"): Detector(
            title=title, source=source, access=access, fit=_scalar(name), supervised=False, columns=COLUMNS[name]
        )
        for name, title, source, access in (
            ("running-mean", "running mean of the log chunk error", "failsight", Access.ACTIONS),
            ("stac-single", "STAC-Single", _SAFE, Access.ACTIONS),
            ("stac", "STAC", "arXiv 2410.04640", Access.SAMPLES),
            ("sample-variance", "variance of drawn chunks", _SAFE, Access.SAMPLES),
            ("cluster-entropy", "cluster entropy of drawn chunks", _SAFE, Access.SAMPLES),
            ("action-entropy", "action entropy (FIPER's ACE)", "arXiv 2510.09459", Access.SAMPLES),
            ("token-probability", "token probability", _SAFE, Access.SAMPLES),
            ("token-entropy", "token entropy", _SAFE, Access.SAMPLES),
            ("reversals", "direction reversals", "arXiv 2605.28726", Access.ACTIONS),
        )
    },
    "clock": Detector(
        title="elapsed time only",
        source="control",
        access=Access.ACTIONS,
        supervised=False,
        adds_prior=False,
        fit=lambda data: ClockPredictor.fit([len(s.signals) for s in data.train], _failed(data)),
    ),
    "task_clock": Detector(
        title="elapsed time over the task's usual",
        source="control",
        access=Access.ACTIONS,
        supervised=False,
        adds_prior=False,
        fit=lambda data: TaskClockPredictor.fit(
            [s.task for s in data.train], [len(s.signals) for s in data.train], _failed(data)
        ),
    ),
    "task_prior": Detector(
        title="the task's failure rate only",
        source="control",
        access=Access.ACTIONS,
        supervised=False,
        adds_prior=False,
        fit=lambda data: TaskPriorPredictor.fit([s.task for s in data.train], _failed(data)),
    ),
    "condition_prior": Detector(
        title="the perturbation's failure rate only",
        source="control",
        access=Access.ACTIONS,
        supervised=False,
        adds_prior=False,
        by="condition",
        fit=lambda data: TaskPriorPredictor.fit([s.task for s in data.train], _failed(data)),
    ),
    "permuted": Detector(
        title="ledger on permuted labels",
        source="control",
        access=Access.ACTIONS,
        supervised=False,
        adds_prior=False,
        fit=_permuted,
    ),
    "random": Detector(
        title="random numbers",
        source="control",
        access=Access.ACTIONS,
        supervised=False,
        adds_prior=False,
        fit=lambda data: RandomPredictor({"seed": np.array(data.seed)}),
    ),
}
"""Name in tables and summaries -> detector; the first is the default on logs."""
SLOW = ("blend", "hazard_ensemble", "mist_mlp", "safe_mlp", "safe_lstm")
"""More than five seconds per fit on the logs at hand; comparisons run them under fewer protocols."""
CONTROLS = ("clock", "task_clock", "task_prior", "condition_prior", "permuted", "random")


def titles(rows: Mapping[str, Detector]) -> dict[str, dict[str, str]]:
    """What a summary says about its rows."""
    return {n: {"title": d.title, "source": d.source, "access": d.access.name.lower()} for n, d in rows.items()}
