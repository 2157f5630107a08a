"""What failures look like before they happen, as rules a person can read, and which signals a detector lives on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from sklearn.tree import DecisionTreeClassifier

from failsight.core.contracts import Predictor
from failsight.core.rng import keyed_rng
from failsight.core.types import FAILURE_TYPES, Array
from failsight.evaluation.detection import auc, within_auc
from failsight.evaluation.intervals import Estimate, bootstrap
from failsight.evaluation.judging import trace
from failsight.predictors.dataset import LabelledSequence
from failsight.predictors.hazard import SOON
from failsight.predictors.missing import filled, usual_values

_DEPTH, _LEAF = 2, 0.02


class Rule(NamedTuple):
    """Conditions on signals, and how well they tell steps before a failure from normal ones."""

    kind: str
    conditions: tuple[tuple[str, str, float], ...]
    """(signal, ">" or "<=", threshold)."""
    precision: float
    """Share of steps that meet the conditions and precede such a failure, on episodes the rule was not made from."""
    recall: float
    base: float
    """That share among all steps."""

    def sentence(self) -> str:
        """`spread > 0.1 and speed > 0.2 -> collision`."""
        when = " and ".join(f"{name} {sign} {value:.3g}" for name, sign, value in self.conditions)
        return f"{when} -> {self.kind}"


def learn_rules(
    train: Sequence[LabelledSequence], test: Sequence[LabelledSequence], names: Sequence[str]
) -> list[Rule]:
    """The best rule per failure type (one for all failures where types are not known), judged on `test` episodes."""
    kinds = [k for k in range(len(FAILURE_TYPES)) if sum(s.kind == k for s in train) >= 5]
    if not any(s.kind >= 0 for s in train):
        return [rule for rule in (_rule(None, "failure", train, test, names),) if rule]
    return [rule for k in kinds if (rule := _rule(k, FAILURE_TYPES[k], train, test, names))]


def _rule(
    kind: int | None,
    title: str,
    train: Sequence[LabelledSequence],
    test: Sequence[LabelledSequence],
    names: Sequence[str],
) -> Rule | None:
    x, y = _steps(train, kind)
    held_x, held_y = _steps(test, kind)
    usual = usual_values(x)
    x, held_x = filled(x, usual), filled(held_x, usual)
    if not y.any() or not held_y.any():
        return None
    tree = DecisionTreeClassifier(
        max_depth=_DEPTH, min_samples_leaf=_LEAF, class_weight="balanced", random_state=0
    ).fit(x, y)
    leaves, held = tree.apply(x), tree.apply(held_x)
    best = max(np.unique(leaves), key=lambda leaf: _f1(y, leaves == leaf))
    hits = held == best
    return Rule(
        kind=title,
        conditions=_path(tree, int(best), names),
        precision=float(held_y[hits].mean()) if hits.any() else float("nan"),
        recall=float(held_y[hits].sum() / held_y.sum()),
        base=float(held_y.mean()),
    )


def _f1(truth: Array, said: Array) -> float:
    return float(2 * (truth & said).sum() / (truth.sum() + said.sum()))


def _steps(sequences: Sequence[LabelledSequence], kind: int | None) -> tuple[Array, Array]:
    """Steps of all episodes; positive: the last second before the onset of such a failure (its first half when the onset
    is not known). Steps after the onset are left out.
    """
    xs, ys = [], []
    for s in sequences:
        end = len(s.signals) if s.onset is None else s.onset + 1
        mine = s.failed and (kind is None or s.kind == kind)
        if s.onset is None and s.failed:
            end = max(1, len(s.signals) // 2)
        y = np.zeros(end, bool)
        if mine:
            y[0 if s.onset is None else max(0, end - s.edges[SOON]) :] = True
        xs.append(s.signals[:end])
        ys.append(y)
    return np.concatenate(xs), np.concatenate(ys)


def _path(tree: DecisionTreeClassifier, leaf: int, names: Sequence[str]) -> tuple[tuple[str, str, float], ...]:
    nodes, conditions = tree.tree_, []
    child = leaf
    while child:
        parents = np.flatnonzero((nodes.children_left == child) | (nodes.children_right == child))
        parent = int(parents[0])
        sign = "<=" if nodes.children_left[parent] == child else ">"
        conditions.append((str(names[nodes.feature[parent]]), sign, float(nodes.threshold[parent])))
        child = parent
    return tuple(reversed(conditions))


def importance(
    predictor: Predictor, test: Sequence[LabelledSequence], names: Sequence[str], cut: int, key: str
) -> dict[str, Estimate]:
    """Loss of within-task AUC (points) when one signal is taken from another episode of the task instead.

    Scores are the evidence at step `cut` among test episodes still running; the swap keeps every signal's own history.
    """
    alive = [s for s in test if len(s.signals) > cut]
    failed = np.array([s.failed for s in alive], bool)
    tasks = np.array([s.task for s in alive])
    if not failed.any() or failed.all():
        return {}
    whole = np.array([trace(predictor, _first(s, cut))[-1] for s in alive])
    strata = [f"{t}|{f}" for t, f in zip(tasks, failed, strict=True)]
    result = {}
    for i, name in enumerate(names):
        donors = _donors(tasks, key, name)
        swapped = np.array(
            [
                trace(predictor, _swap(_first(s, cut), _first(alive[d], cut), i))[-1]
                for s, d in zip(alive, donors, strict=True)
            ]
        )

        def lost(rows: Array, swapped: Array = swapped) -> float:
            before = _ranked(whole[rows], failed[rows], tasks[rows])
            return 100 * (before - _ranked(swapped[rows], failed[rows], tasks[rows]))

        result[name] = bootstrap(lost, strata, (key, name), 200)
    return result


def _ranked(scores: Array, failed: Array, tasks: Array) -> float:
    known = np.isfinite(scores)  # an episode that cannot be judged is not ranked
    scores, failed, tasks = scores[known], failed[known], tasks[known]
    value = within_auc(scores, failed, tasks)
    return value if np.isfinite(value) else auc(scores, failed)


def _donors(tasks: Array, *key: str) -> Array:
    donors = np.arange(len(tasks))
    for task in np.unique(tasks):
        rows = np.flatnonzero(tasks == task)
        donors[rows] = keyed_rng("importance", *key, str(task)).permutation(rows)
    return donors


def _first(s: LabelledSequence, cut: int) -> LabelledSequence:
    hidden = None if s.hidden is None else s.hidden[: cut + 1]
    return replace(s, signals=s.signals[: cut + 1], hidden=hidden)


def _swap(s: LabelledSequence, donor: LabelledSequence, column: int) -> LabelledSequence:
    signals = s.signals.copy()
    signals[:, column] = donor.signals[:, column]
    return replace(s, signals=signals)
