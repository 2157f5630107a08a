"""Which failure, said when it matters: at the onset and shortly before it, by the alarm that is deployed.

At step t the answer is the top type if the trigger has fired by then, else none. Failures are asked at their onset (or
`lead` steps before it, at the earliest at their first step), successes at a step drawn by key from the onsets of failures
of the same task (of all tasks where it has none), so that nobody is asked sooner. Macro F1 is the mean over the classes
that occur, the four types and none. A success that is over by then gives its last answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from failsight.core.rng import keyed_rng
from failsight.core.timing import steps_in
from failsight.core.types import FAILURE_TYPES, Array
from failsight.evaluation.detection import Scored, type_scores
from failsight.evaluation.intervals import Estimate, bootstrap

LEAD_S = 1.0
"""Time before the onset at which the type is asked a second time: 20 steps on the tabletop."""
CLASSES = (*FAILURE_TYPES, "none")
NONE = len(FAILURE_TYPES)


class Answers(NamedTuple):
    """True and said class of every episode that could be asked, as indices into CLASSES."""

    truth: Array
    said: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeFigure:
    """Macro F1 over five classes, and what it is made of."""

    macro_f1: Estimate
    confusion: Array
    """(5, 5) counts, rows the truth."""
    unasked: int
    """Episodes nobody could ask: failures without a known onset or type; all, where no failure has one."""
    lead: int

    def as_dict(self, rate_hz: float) -> dict[str, Any]:
        """JSON form; `rate_hz` says what the lead is in seconds (null when unknown)."""
        precision, recall, f1 = f1_table(self.confusion)
        rows = {
            name: {
                "precision": _number(precision[i]),
                "recall": _number(recall[i]),
                "f1": _number(f1[i]),
                "n": int(self.confusion[i].sum()),
            }
            for i, name in enumerate(CLASSES)
        }
        return {
            "macro_f1": self.macro_f1.as_dict(),
            "per_type": rows,
            "confusion": self.confusion.tolist(),
            "unasked": self.unasked,
            "lead_steps": self.lead,
            "lead_s": self.lead / rate_hz if rate_hz else None,
        }


def type_figure(episodes: Sequence[Scored], key: str, lead: int = 0) -> TypeFigure:
    """Macro F1 over five classes, `lead` steps before the onset; interval by bootstrap over episodes of each class.

    NaN when no failure has a known onset and type.
    """
    answers = ask(episodes, lead)
    return TypeFigure(
        macro_f1=bootstrap(
            lambda rows: macro_f1(answers.truth[rows], answers.said[rows]), answers.truth.tolist(), (key, "type", lead)
        ),
        confusion=confusion(answers.truth, answers.said),
        unasked=len(episodes) - len(answers.truth),
        lead=lead,
    )


def type_rows(episodes: Sequence[Scored], key: str, rate_hz: float, alarm: bool = True) -> dict[str, Any]:
    """The figure at the onset, with `before_onset` (`LEAD_S` earlier) and `hindsight` beside it: the mean over the
    last steps of episodes that are known to have failed, among the four types, which nobody can act on.

    `alarm` False: too few successes gave no threshold, so nothing can be said in time (no data), only in hindsight.
    """
    asked = episodes if alarm else ()
    return {
        **type_figure(asked, key).as_dict(rate_hz),
        "before_onset": type_figure(asked, key, steps_in(LEAD_S, rate_hz)).as_dict(rate_hz),
        "hindsight": type_scores(episodes, key).as_dict(),
    }


def ask(episodes: Sequence[Scored], lead: int) -> Answers:
    """The answer of every episode; nobody is asked when no failure has a known onset and type."""
    onsets: dict[str, list[int]] = {}
    for e in episodes:
        if _known(e):
            onsets.setdefault(e.task, []).append(int(e.onset or 0))
    every = [step for steps in onsets.values() for step in steps]
    pairs = []
    for e in episodes if every else ():
        if _known(e):
            pairs.append((e.kind, said(e, max(0, int(e.onset or 0) - lead))))
        elif not e.failed:
            drawn = int(keyed_rng("type asked", e.task, e.ticket).choice(onsets.get(e.task, every)))
            pairs.append((NONE, said(e, max(0, drawn - lead))))
    truth, answered = np.array(pairs, int).reshape(-1, 2).T
    return Answers(truth, answered)


def said(episode: Scored, step: int) -> int:
    """Class said at `step`: the top type if the trigger has fired by then, else none; the last step once it is over."""
    if episode.trigger is None or episode.trigger > step:
        return NONE
    scores = episode.types[min(step, len(episode.types) - 1)]
    return int(np.argmax(scores)) if np.isfinite(scores).all() else NONE


def _known(episode: Scored) -> bool:
    return episode.failed and episode.onset is not None and episode.kind >= 0


def confusion(truth: Array, answered: Array) -> Array:
    """(5, 5) counts, rows the truth."""
    table = np.zeros((len(CLASSES), len(CLASSES)), int)
    np.add.at(table, (truth, answered), 1)
    return table


class F1Table(NamedTuple):
    """Per class (5,); NaN where it never occurs."""

    precision: Array
    recall: Array
    f1: Array


def f1_table(table: Array) -> F1Table:
    """Precision (0 when never said), recall and F1 = 2 hits / (said + occurred) from a confusion table (5, 5)."""
    hit, answered, occurred = np.diag(table).astype(float), table.sum(0), table.sum(1)
    there = np.where(occurred > 0, 1.0, np.nan)
    return F1Table(
        precision=there * hit / np.maximum(answered, 1),
        recall=there * hit / np.maximum(occurred, 1),
        f1=there * 2 * hit / np.maximum(answered + occurred, 1),
    )


def macro_f1(truth: Array, answered: Array) -> float:
    """Mean F1 over the classes that occur, indices into `CLASSES` (N,) and (N,); NaN without an episode."""
    f1 = f1_table(confusion(truth, answered)).f1
    return float(np.nanmean(f1)) if np.isfinite(f1).any() else float("nan")


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
