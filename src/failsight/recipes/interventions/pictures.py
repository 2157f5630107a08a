"""Films for the report: an episode run again from its key (bit-equal to the first time), looked at while it runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from failsight.core.rng import keyed_rng
from failsight.core.types import FAILURE_TYPES, Outcome
from failsight.episodes.images import write_png
from failsight.interventions.arms import find_arm, find_arms
from failsight.labels.table import read_labels
from failsight.recipes.interventions.experiment import TEST_ARMS, ExperimentResult
from failsight.recipes.interventions.summary import headline_of
from failsight.runtime.bench import Bench
from failsight.workflows.films import film, strip
from failsight.workflows.forks import ForkRecord, fork_bench

_EXAMPLES = 3


def picture_experiment(result: ExperimentResult, folder: Path) -> None:
    """Write `pictures/*.png` and `pictures/pictures.json`: examples per failure type, and three compared episodes."""
    folder.mkdir(parents=True, exist_ok=True)
    bench = fork_bench(result.config.sim, result.config.policy, result.bundle)
    threshold = result.fitted.calibrations["recurrent"].threshold
    index: dict[str, Any] = {"types": _type_examples(bench, result, folder), "cases": [], "threshold": threshold}
    for label, record, arm in interesting(result.arms, worth_filming(TEST_ARMS)):
        index["cases"].append(_case(bench, result, folder, label, record, arm))
    (folder / "pictures.json").write_text(json.dumps(index, indent=1))
    bench.sim.close()


def _type_examples(bench: Bench, result: ExperimentResult, folder: Path) -> dict[str, list[dict[str, Any]]]:
    labels = read_labels(result.test_run)
    examples: dict[str, list[dict[str, Any]]] = {}
    for kind in FAILURE_TYPES:
        tickets = [ticket for ticket, label in labels.items() if label.failure_type == kind]
        order = keyed_rng(result.config.seed, "examples", kind).permutation(len(tickets))
        examples[kind] = []
        for ticket in (tickets[i] for i in order[:_EXAMPLES]):
            meta, onset = result.test_run.episodes[ticket], labels[ticket].onset or 0
            end = meta.length
            at = sorted({0, max(0, onset - 20), max(0, onset - 8), onset, min(end, onset + 8), end})
            shot = film(bench, meta.key, None, at)
            name = f"type-{kind}-{ticket}.png"
            write_png(folder / name, strip(shot.frames))
            examples[kind].append(
                {
                    "file": name,
                    "task": meta.instruction,
                    "condition": meta.condition,
                    "onset": onset,
                    "steps": shot.steps,
                    "ticket": ticket,
                }
            )
    return examples


def worth_filming(names: Sequence[str]) -> list[str]:
    """The arm of the headline, then rungs from the strongest to the mildest."""
    rungs = [arm.key for arm in find_arms(names) if arm.rung]
    return list(dict.fromkeys([headline_of(names), *rungs[::-1]]))


def interesting(records: Sequence[ForkRecord], arms: Sequence[str]) -> list[tuple[str, ForkRecord, str]]:
    """A rescued, a lost and a harmed episode, each of the first arm that has one."""
    found = []
    for label, before, after in (("rescued", False, True), ("lost", False, False), ("harmed", True, False)):
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
        file = f"case-{label}-{name.split('_')[0]}.png"
        write_png(folder / file, strip(shot.frames))
        case[name] = {
            "file": file,
            "steps": shot.steps,
            "p_fail": shot.p_fail,
            "trigger": shot.trigger,
            "acted": shot.acted,
            "outcome": str(shot.outcome),
        }
    return case
