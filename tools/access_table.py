"""What each level of access buys: the same detector on the same episodes, shown more and more of the policy.

    python tools/access_table.py FIT_RUN TEST_RUN [--detector blend]

Both runs are labelled (`failsight collect`); the second is judged and nothing is learned from it. A level sees the signals of its
own access and below; `actions, one by one` sees one action per step instead of the chunk, as `select_action` gives it.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np

from failsight.core.specs import Access
from failsight.core.types import PolicyOutput
from failsight.episodes.run import Run
from failsight.evaluation.detection import auc_table
from failsight.evaluation.scoring import score_all
from failsight.labels.table import read_labels
from failsight.monitor.trigger import TriggerRule
from failsight.predictors.dataset import build_sequences, signal_columns
from failsight.predictors.detector import FitData
from failsight.predictors.find_detector import find_detector
from failsight.signals.bank import replay_signals


def shown(sequences, columns, level):
    """Sequences with the signals of a level; the hidden state at the highest alone."""
    kept = [i for i, column in enumerate(columns) if column.access <= level]
    return [
        replace(s, signals=s.signals[:, kept], hidden=s.hidden if level == Access.HIDDEN else None) for s in sequences
    ], tuple(columns[i] for i in kept)


def one_by_one(run, sequences):
    """Signals of policies that give one action per step."""
    found = []
    for s, episode in zip(sequences, run.read([s.ticket for s in sequences]), strict=True):
        steps = [
            replace(step, output=PolicyOutput(chunk=step.action[None]), cursor=0, replan=True)
            for step in episode.steps()
        ]
        found.append(replace(s, signals=replay_signals(steps, run.meta.action_spec, run.meta.observation_spec)))
    return found


def main(fit_folder, test_folder, detector="blend"):
    fit, test = Run(fit_folder), Run(test_folder)
    learn, judge = (build_sequences(run, read_labels(run)) for run in (fit, test))
    columns, horizon = signal_columns(fit), fit.episodes[0].horizon
    rows = {"actions, one by one": (one_by_one(fit, learn), one_by_one(test, judge), Access.ACTIONS)}
    rows |= {level.name.lower(): (learn, judge, level) for level in Access}
    print(
        f"{detector}, {len(learn)} episodes to learn from, {len(judge)} judged, {sum(s.failed for s in judge)} of them failed"
    )
    print("| level | signals | AUC within tasks at 25 % | at 50 % |\n|---|---|---|---|")
    for name, (own, other, level) in rows.items():
        known, kept = shown(own, columns, level)
        judged, _ = shown(other, columns, level)
        order = np.random.default_rng(0).permutation(len(known))
        train, validate = ([known[i] for i in part] for part in np.split(order, [int(0.8 * len(known))]))
        predictor = find_detector(detector).fit(FitData(train, kept, 0, validate))
        scored = score_all(judged, predictor, TriggerRule(), np.inf)
        scored = [replace(s, p_fail=s.alarm) for s in scored]
        cells = [auc_table(scored, horizon * share // 100, "access")["within_task_auc"] for share in (25, 50)]
        print(f"| {name} | {len(kept)} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main(*(word for word in sys.argv[1:] if word != "--detector"))
