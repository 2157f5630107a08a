"""`failsight run bench-tabletop`: the same comparison where onset, type and dimension risk are known.

Episodes of the shipped policy are collected once to fit on and once, under another seed, to test on; nothing is chosen
on the test episodes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression

from failsight.core.contracts import Predictor
from failsight.core.errors import CalibrationError
from failsight.core.rng import keyed_rng
from failsight.core.types import FAILURE_TYPES, Array
from failsight.episodes.meta import write_text_atomic
from failsight.episodes.run import Run
from failsight.evaluation import detection
from failsight.evaluation.bench_figures import auc_figures, bootstraps, control_estimate, other_figures
from failsight.evaluation.claims import CONTROL_ROWS
from failsight.evaluation.detection import Scored
from failsight.evaluation.failure_types import type_rows
from failsight.evaluation.judging import DataSet, Traces, blend_traces, facts_of, judge, load_traces, save_traces
from failsight.evaluation.moments import headline_claims, moment_figures
from failsight.evaluation.patterns import importance, learn_rules
from failsight.evaluation.protocols import Split
from failsight.evaluation.provenance import commit, versions
from failsight.evaluation.scoring import score_all
from failsight.evaluation.survival import beside_clock, clock_rows, model_rows, windows_of
from failsight.labels.table import read_labels
from failsight.monitor.trigger import TriggerRule
from failsight.predictors.ablation import ABLATION
from failsight.predictors.dataset import FitSplit, LabelledSequence, build_sequences, signal_columns, split_sequences
from failsight.predictors.detector import FitData
from failsight.predictors.detectors import CONTROLS, DETECTORS, SLOW, blended, titles
from failsight.predictors.fit_mlp import fit_mlp
from failsight.predictors.fit_recurrent import RecurrentOptions, fit_recurrent
from failsight.reports.html import write_report
from failsight.runtime.pool import run_pool
from failsight.signals.bank import SIGNAL_COLUMNS, SIGNAL_NAMES
from failsight.workflows.collect import CollectOptions, collect_run
from failsight.workflows.fit import calibrate, choose_rule
from failsight.workflows.fit_ensemble import FitOptions
from failsight.workflows.plans import make_plan
from failsight.workflows.progress import Reporter, succeeding

SEED = 4000
FIT_TRIALS, TEST_TRIALS = 40, 25
_ROWS = {**DETECTORS, **ABLATION}
_NAME = "tabletop"
PERMUTATIONS = 6
"""Label permutations per supervised detector in the control; the slow ones have theirs in bench-real."""


class Ticket(NamedTuple):
    """One fit."""

    detector: str
    permuted: int = 0

    def path(self, root: Path) -> Path:
        """Where its traces are kept."""
        return root / "scores" / f"{self.detector}{f'-permuted{self.permuted}' if self.permuted else ''}.npz"


class Data(NamedTuple):
    """Both runs as one data set, and who is who in it."""

    whole: DataSet
    split: Split


def run_bench_tabletop(folder: Path, workers: int, reporter: Reporter) -> Path:
    """Run or finish the comparison; returns the report's path."""
    began = time.monotonic()
    for name, seed, trials in (("fit", SEED, FIT_TRIALS), ("test", SEED + 2, TEST_TRIALS)):
        reporter.stage(f"collecting episodes: {name}")
        _collect(folder / name, seed, trials, workers, reporter)
    data = load_data(folder)
    tickets = _tickets(data)
    missing = [t for t in tickets if not t.path(folder).is_file()]
    reporter.stage(f"fitting: {len(tickets)} fits, {len(tickets) - len(missing)} there already")
    tick = reporter.count(len(missing)) if missing else None
    for ticket, _ in run_pool(partial(load_data, folder), partial(_judge, folder), missing, workers):
        if tick is not None:
            tick(ticket.detector)
    reporter.stage("types, time to failure, dimensions")
    ground = ground_truth(folder, data)
    reporter.stage("figures and report")
    summary = summarise(folder, data, tickets) | {"ground_truth": ground}
    summary |= {"command": f"failsight run bench-tabletop --workers {workers}", "wall_s": time.monotonic() - began}
    write_text_atomic(folder / "summary.json", json.dumps(summary, indent=1, allow_nan=False))
    return write_report(folder)


def _collect(root: Path, seed: int, trials: int, workers: int, reporter: Reporter) -> None:
    keys = make_plan("tabletop", (), [seed], trials, "default")
    options = CollectOptions(workers=workers, resume=True)
    collect_run(root, keys, options, succeeding(reporter.count(len(keys))))


def load_data(folder: Path) -> Data:
    """Fit and test episodes with the sampling columns, every signal causal."""
    sequences: list[LabelledSequence] = []
    sizes, horizon = [], 0
    columns = signal_columns(Run(folder / "fit"), sampling=True)
    for name in ("fit", "test"):
        run = Run(folder / name)
        part = build_sequences(run, read_labels(run), sampling=True)
        sequences += [replace(s, ticket=s.ticket + 100_000 * (name == "test")) for s in part]
        sizes.append(len(part))
        horizon = run.episodes[0].horizon
    order = keyed_rng("bench-tabletop", "validate").permutation(sizes[0])
    held = int(0.15 * sizes[0])
    test = np.arange(sizes[0], sum(sizes))
    split = Split(np.sort(order[held:]), np.sort(order[:held]), test, np.zeros(0, int))
    whole = DataSet(
        name=_NAME, columns=columns, sequences=tuple(sequences), facts=facts_of(sequences, horizon), rate_hz=20.0
    )
    return Data(whole, split)


def _tickets(data: Data) -> list[Ticket]:
    fit = FitData(data.whole.sequences, data.whole.columns, 0)
    tickets = [Ticket(name) for name, entry in _ROWS.items() if not entry.lacks(fit) and not entry.parts]
    learned = [
        t.detector
        for t in tickets
        if t.detector in DETECTORS and _ROWS[t.detector].supervised and t.detector not in SLOW
    ]
    return tickets + [Ticket(name, r) for name in learned for r in range(1, PERMUTATIONS + 1)]


def _judge(folder: Path, data: Data, ticket: Ticket) -> bool:
    traces = judge(data.whole, _ROWS[ticket.detector], data.split, ticket.permuted, ticket.permuted > 0)
    save_traces(ticket.path(folder), traces)
    return True


def summarise(folder: Path, data: Data, tickets: Sequence[Ticket]) -> dict[str, Any]:
    """Figures of every detector, in the form of the other comparison."""
    boots = bootstraps(data.whole.facts, _NAME)
    facts = data.whole.facts
    kept, controls = dict[str, Traces](), dict[str, list[Traces]]()
    for ticket in tickets:
        traces = load_traces(ticket.path(folder))
        if ticket.permuted:
            controls.setdefault(ticket.detector, []).append(traces)
        else:
            kept[ticket.detector] = traces
    kept = _blended(kept, data)
    rows = {name: {"folds": [traces]} for name, traces in kept.items()}
    priors = {name: rows[name] for name in CONTROL_ROWS if name in rows}
    detectors = dict[str, Any]()
    for name, stored in rows.items():
        adds = _ROWS[name].adds_prior
        figures = auc_figures(stored, facts, boots, adds)
        figures |= other_figures(stored, facts, "25", data.whole.rate_hz, name)
        figures["running"] = moment_figures(stored, facts, boots, adds)
        if name not in CONTROLS and name not in ABLATION:
            figures["claims"] = headline_claims(stored, priors, facts, boots, adds)
        detectors[name] = {_NAME: figures}
    permuted = {
        name: {_NAME: control_estimate(traces, facts, "alive50", len(controls)).as_dict()}
        for name, traces in controls.items()
    }
    fit = FitData(data.whole.sequences, data.whole.columns, 0)
    test = data.split.seen
    return {
        "kind": "bench",
        "default": "hazard_ensemble",
        "detectors": {name: detectors[name] for name in ("hazard_ensemble", *DETECTORS) if name in detectors},
        "losses": {name: row for name, row in detectors.items() if name in ABLATION},
        "permuted": permuted,
        "datasets": {
            _NAME: {
                "episodes": len(test),
                "failures": int(facts.failed[test].sum()),
                "tasks": len(np.unique(facts.task)),
                "horizon": facts.horizon,
                "judged_at": "25 % of the horizon",
                "moment": "25",
                "one_test_run": True,
                "lacking": {name: d.lacks(fit) for name, d in DETECTORS.items() if d.lacks(fit)},
            }
        },
        "titles": titles(_ROWS),
        "versions": versions(),
        "commit": commit(),
    }


def _blended(kept: dict[str, Traces], data: Data) -> dict[str, Traces]:
    """The traces with those of the blend, which follow from its members'."""
    if "blend" not in DETECTORS:
        return kept
    members = blended(FitData(data.whole.sequences, data.whole.columns, 0))
    parts = {m: kept[DETECTORS["blend"].parts[m]] for m in members if DETECTORS["blend"].parts[m] in kept}
    return {"blend": blend_traces(parts, data.whole, data.split), **kept} if len(parts) == len(members) else kept


def ground_truth(folder: Path, data: Data) -> dict[str, Any]:
    """What only a simulator can check: types, time to failure, dimension risk, learned patterns."""
    width = len(SIGNAL_NAMES)
    plain = [replace(s, signals=s.signals[:, :width]) for s in data.whole.sequences]
    test = [plain[i] for i in data.split.seen]
    parts = split_sequences([s for i, s in enumerate(plain) if i not in set(data.split.seen.tolist())], 0)
    split = replace(parts, train=(*parts.train, *parts.calibrate), calibrate=())  # alarms: see _types
    recurrent = fit_recurrent(split.train, split.validate, RecurrentOptions())
    rule = TriggerRule()
    scored = score_all(test, recurrent, rule, float("inf"))
    names = Run(folder / "fit").meta.action_spec.names
    rules = learn_rules(split.train, test, SIGNAL_NAMES)
    carried = importance(recurrent, test, SIGNAL_NAMES, data.whole.facts.horizon // 2, "bench-tabletop")
    return {
        "types": _types(split, test, recurrent, data.whole.rate_hz),
        "time_to_failure": _time(split, test, recurrent),
        "dimensions": _dimensions(folder, split, scored, score_all(test, _fit_mist(split), rule, float("inf")), names),
        "rules": [{**r._asdict(), "rule": r.sentence()} for r in rules],
        "importance": {n: e.as_dict() for n, e in sorted(carried.items(), key=lambda item: -item[1].value)},
    }


def _fit_mist(split: FitSplit) -> Predictor:
    return DETECTORS["mist_mlp"].fit(FitData(split.train, SIGNAL_COLUMNS, 0))


def _types(split: FitSplit, test: Sequence[LabelledSequence], recurrent: Predictor, rate_hz: float) -> dict[str, Any]:
    """Failure type of the ensemble, of the six-signal network, of the same network on all signals and on random ones.

    Each has its own alarm, calibrated on the validation successes (which also chose its epoch); where these are too few,
    only hindsight has data.
    """

    def rows(name: str, model: Predictor, part: FitSplit, episodes: Sequence[LabelledSequence]) -> dict[str, Any]:
        rule, threshold = choose_rule(model, part.validate, FitOptions()), float("inf")
        with suppress(CalibrationError):
            threshold = calibrate(model, part.validate, rule, FitOptions().alpha).threshold
        scored = score_all(episodes, model, rule, threshold)
        return type_rows(scored, name, rate_hz, alarm=np.isfinite(threshold))

    def salus(part: FitSplit, inputs: int) -> Predictor:
        return fit_mlp(part.train, part.validate, 0, inputs=inputs)

    noise = FitSplit(**{k: tuple(map(_random_signals, getattr(split, k))) for k in ("train", "validate", "calibrate")})
    truth = np.array([s.kind for s in test if s.failed])
    return {
        "recurrent": rows("recurrent", recurrent, split, test),
        "salus_six_signals": rows("six", salus(split, 6), split, test),
        "salus_all_signals": rows("all", salus(split, len(SIGNAL_NAMES)), split, test),
        "salus_random_signals": rows("random", salus(noise, 6), noise, [_random_signals(s) for s in test]),
        "chance_f1": _chance(truth),
        "constant_f1": _constant(truth),
    }


def _random_signals(s: LabelledSequence) -> LabelledSequence:
    return replace(s, signals=keyed_rng("noise", s.ticket).standard_normal(s.signals.shape).astype(np.float32))


def _constant(truth: Array) -> float:
    """Macro F1 in hindsight of always guessing the most frequent type."""
    counts = np.bincount(truth, minlength=len(FAILURE_TYPES))
    return float(2 * counts.max() / (len(truth) + counts.max()) / (counts > 0).sum())


def _chance(truth: Array, draws: int = 300) -> float:
    """Mean macro F1 in hindsight of guesses that have the right frequencies and know nothing."""
    rng, values = keyed_rng("chance f1"), []
    kinds = np.unique(truth)
    for _ in range(draws):
        guess = rng.permutation(truth)
        f1 = [2 * ((truth == k) & (guess == k)).sum() / ((truth == k).sum() + (guess == k).sum()) for k in kinds]
        values.append(np.mean(f1))
    return float(np.mean(values))


def _time(split: FitSplit, test: Sequence[LabelledSequence], recurrent: Any) -> dict[str, Any]:
    predicted, windows = [], windows_of(recurrent.edges)
    for s in test:
        recurrent.reset(s.task)
        time_, within = np.empty(len(s.signals)), np.empty((len(s.signals), len(windows)))
        for t, signals in enumerate(s.signals):
            time_[t] = recurrent.update(signals, None if s.hidden is None else s.hidden[t]).time_to_failure
            within[t] = recurrent.lost.cumsum()[: len(windows)]
        predicted.append((time_, within))
    model, clock = model_rows(test, predicted), clock_rows([*split.train, *split.validate], test)
    failed = [s.failed for s in test]
    found = {m: beside_clock(model, clock, failed, m, "tabletop", windows) for m in ("c_index", "brier")}
    return {measure: {n: e.as_dict() for n, e in beside._asdict().items()} for measure, beside in found.items()}


def _dimensions(
    folder: Path, split: FitSplit, scored: list[Scored], mist: list[Scored], names: Sequence[str]
) -> dict[str, Any]:
    """AUC and squared error per action dimension: the ensemble, MIST, and a logistic model on the pose alone."""
    poses = {
        (name, episode.meta.ticket): episode.states
        for name in ("fit", "test")
        for episode in Run(folder / name).read()
        if episode.meta.scored
    }
    x = np.concatenate([poses["fit", s.ticket] for s in split.train])
    y = np.concatenate([s.dimension for s in split.train])
    centre, spread = x.mean(0), np.maximum(x.std(0), 1e-6)
    models = [
        LogisticRegression(max_iter=300).fit((x - centre) / spread, y[:, d]) if y[:, d].any() else None
        for d in range(len(names))
    ]

    def pose_only(s: Scored) -> Scored:
        z = (poses["test", s.ticket - 100_000] - centre) / spread
        columns = [np.zeros(len(z)) if m is None else m.predict_proba(z)[:, 1] for m in models]
        return replace(s, dimension=np.stack(columns, 1))

    result = {}
    rows = {"recurrent": scored, "mist": mist, "pose_only": [pose_only(s) for s in scored]}
    for name, episodes in rows.items():
        aucs = detection.dimension_auc(episodes, names)
        errors = [float(((e.dimension - e.dimension_labels) ** 2).mean()) for e in episodes]
        result[name] = {
            "auc": {n: a.as_dict() for n, a in aucs.items()},
            "mean_auc": float(np.nanmean([a.value for a in aucs.values()])),
            "mse": float(np.average(errors, weights=[len(e.p_fail) for e in episodes])),
        }
    return result
