"""The claims of one test run whose episodes were scored one by one (`Scored`), by the rule of `evaluation.claims`.

Controls know nothing of the episode: the clock, the task's failure rate, the perturbation's. Their rates come from the
episodes the detector was fitted on, never from the test run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from failsight.evaluation.alarms import average_precision, precision_at
from failsight.evaluation.claims import Bootstraps, claim, figure, over_controls
from failsight.evaluation.detection import Scored
from failsight.evaluation.ranking import Ranking, episode_weights, task_weights

TOP = 20
"""K of precision@K."""
Group = Literal["", "task", "condition"]


def constant_rows(episodes: Sequence[Scored], rate: Callable[[Scored], float]) -> list[Scored]:
    """The same episodes as a control sees them that knows one number about each."""
    return [replace(e, p_fail=np.full(len(e.p_fail), rate(e)), trigger=None) for e in episodes]


def clock_rows(episodes: Sequence[Scored]) -> list[Scored]:
    """As the clock sees them: among episodes still running, all alike."""
    return [replace(e, p_fail=np.arange(len(e.p_fail), dtype=float), trigger=None) for e in episodes]


def ranking_at(episodes: Sequence[Scored], step: int, group: Group = "") -> list[Ranking]:
    """Scores at `step` of the episodes still running there, compared within `group`; what could not be judged is left out."""
    units = np.array([i for i, e in enumerate(episodes) if len(e.p_fail) > step and np.isfinite(e.p_fail[step])], int)
    alive = [episodes[i] for i in units]
    return [
        Ranking(
            units,
            np.array([float(e.p_fail[step]) for e in alive]),
            np.array([e.failed for e in alive], bool),
            np.array([e.condition if group == "condition" else e.task for e in alive]),
        )
    ]


def run_claim(
    episodes: Sequence[Scored], controls: Mapping[str, Sequence[Scored]], step: int, group: Group, key: str
) -> dict[str, Any]:
    """Whether the detector beats every control at `step`, pooled or within `group`, with the sentence that says so."""
    boots = _bootstraps(episodes, key)
    own, within = ranking_at(episodes, step, group), bool(group)
    rows = {name: ranking_at(c, step, group) for name, c in controls.items()}
    result = figure(own, boots, within)
    return {**result, **claim(result, over_controls(own, rows, boots, within))}


def _bootstraps(episodes: Sequence[Scored], key: str) -> Bootstraps:
    strata = [f"{e.task}|{int(e.failed)}" for e in episodes]
    return Bootstraps(episode_weights(strata, (key,)), task_weights([e.task for e in episodes], (key,)))


def precision_table(episodes: Sequence[Scored], step: int) -> dict[str, Any]:
    """AUPRC and precision@20 at `step` among episodes still running, as shares, each with the prevalence; None: no data."""
    (row,) = ranking_at(episodes, step)
    if not len(row.score):
        return {"auprc": {"value": None, "prevalence": None, "n": 0}, f"precision_at_{TOP}": {"value": None, "n": 0}}
    prevalence = float(row.failed.mean())
    area = average_precision(row.score, row.failed)
    return {
        "auprc": {"value": area if np.isfinite(area) else None, "prevalence": prevalence, "n": len(row.score)},
        f"precision_at_{TOP}": {**precision_at(row.score, row.failed, TOP).as_dict(), "prevalence": prevalence},
    }
