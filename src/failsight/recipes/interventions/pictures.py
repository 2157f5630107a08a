"""Films for the report: an episode run again from its key (bit-equal to the first time), looked at while it runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from failsight.core.rng import keyed_rng
from failsight.core.types import FAILURE_TYPES, Outcome
from failsight.interventions.arms import find_arm, find_arms
from failsight.labels.table import read_labels
from failsight.recipes.interventions.experiment import ExperimentResult
from failsight.recipes.interventions.summary import headline_of
from failsight.runtime.bench import Bench
from failsight.storage.images import write_png
from failsight.workflows.films import cannot_draw, film, strip
from failsight.workflows.forks import ForkRecord, fork_bench

_EXAMPLES = 3


def picture_experiment(result: ExperimentResult, folder: Path) -> str:
    """Write `pictures/*.png` and `pictures/pictures.json`: examples per failure type, and three compared episodes.

    Returns why there are none where the simulator draws no pictures; empty when they were made.
    """
    bench = fork_bench(result.config.sim, result.config.policy, result.judges.bundle, result.config.fallback)
    try:
        reason = cannot_draw(bench.sim, result.test_run.episodes[0].key)
        if not reason:
            _picture(bench, result, folder)
    finally:
        bench.sim.close()
    return reason


def _picture(bench: Bench, result: ExperimentResult, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    threshold = result.judges.calibration.as_dict()["threshold"]
    index: dict[str, Any] = {"types": _type_examples(bench, result, folder), "cases": [], "threshold": threshold}
    for label, record, arm in interesting(result.arms, worth_filming(result.choice.arms)):
        index["cases"].append(_case(bench, result, folder, label, record, arm))
    (folder / "pictures.json").write_text(json.dumps(index, indent=1))


def _type_examples(bench: Bench, result: ExperimentResult, folder: Path) -> dict[str, list[dict[str, Any]]]:
    labels = read_labels(result.test_run)
    examples: dict[str, list[dict[str, Any]]] = {}
    failed = {ticket: label.failure_type or "failure" for ticket, label in labels.items() if not label.success}
    for kind in FAILURE_TYPES if set(failed.values()) <= {*FAILURE_TYPES} else ("failure",):
        tickets = [ticket for ticket, found in failed.items() if found == kind]
        order = keyed_rng(result.config.seed, "examples", kind).permutation(len(tickets))
        examples[kind] = [
            _example(bench, result, folder / f"type-{kind}-{ticket}.png", ticket, labels[ticket].onset)
            for ticket in (tickets[i] for i in order[:_EXAMPLES])
        ]
    return examples


def _example(bench: Bench, result: ExperimentResult, path: Path, ticket: int, onset: int | None) -> dict[str, Any]:
    """A strip around the onset, or of the whole episode where it is not known."""
    meta = result.test_run.episodes[ticket]
    end, at = meta.length, None
    if onset is not None:
        at = sorted({0, max(0, onset - 20), max(0, onset - 8), onset, min(end, onset + 8), end})
    shot = film(bench, meta.key, None, at)
    write_png(path, strip(shot.frames))
    return {
        "file": path.name,
        "task": meta.instruction,
        "condition": meta.condition,
        "onset": onset,
        "steps": shot.steps,
        "ticket": ticket,
    }


def worth_filming(names: Sequence[str]) -> list[str]:
    """The arm of the headline, then rungs from the strongest to the mildest."""
    rungs = [arm.key for arm in find_arms(names) if arm.rung]
    return list(dict.fromkeys([headline_of(names), *rungs[::-1]]))


def interesting(records: Sequence[ForkRecord], arms: Sequence[str]) -> list[tuple[str, ForkRecord, str]]:
    """A rescued, a not rescued and a harmed episode, each of the first arm that has one."""
    found = []
    for label, before, after in (("rescued", False, True), ("not rescued", False, False), ("harmed", True, False)):
        for arm in arms:
            hits = [
                r
                for r in records
                if arm in r.arms
                and (r.none.outcome == Outcome.SUCCESS) == before
                and (r.arms[arm].outcome == Outcome.SUCCESS) == after
                and r.arms[arm].intervened_steps > 0
            ]
            if hits:
                best = max(hits, key=lambda r: r.arms[arm].steps)
                found.append((label, best, arm))
                break
    return found


def _case(
    bench: Bench, result: ExperimentResult, folder: Path, label: str, record: ForkRecord, arm: str
) -> dict[str, Any]:
    none = film(bench, record.key, None)
    acted = film(bench, record.key, find_arm(arm).make(result.entries))
    case: dict[str, Any] = {"label": label, "arm": arm, "task": record.key.task, "condition": record.key.condition}
    for name, shot in (("none", none), ("arm_film", acted)):
        file = f"case-{label.replace(' ', '-')}-{name.split('_')[0]}.png"
        write_png(folder / file, strip(shot.frames))
        case[name] = {
            "file": file,
            "steps": shot.steps,
            "p_fail": [value if np.isfinite(value) else None for value in shot.p_fail],
            "trigger": shot.trigger,
            "acted": shot.acted,
            "outcome": str(shot.outcome),
        }
    return case
