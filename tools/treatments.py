"""Diagnose, then treat: every arm on the same keyed episodes of the tabletop, with twice its time, and who was told what.

    python tools/treatments.py --ordinary RUN --seeds 8301 8302 --out treatments.jsonl

`RUN` holds ordinary episodes, filmed (`failsight collect --mix clean --video 1`). Finished episodes stay in the file and are
not run again. `random` gives every episode what another one was found to need, at the same steps.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from failsight.causes.familiar import MOVED, Familiar
from failsight.core.lens import PREFIX
from failsight.core.rng import keyed_rng
from failsight.core.textfiles import read_json_lines
from failsight.core.types import EpisodeKey
from failsight.episodes.run import Run
from failsight.evaluation.paired import PairedEpisode, compare, success_gap
from failsight.interventions.treat import Treat
from failsight.runtime.loop import Loop
from failsight.sims.tabletop.env import TabletopEnv
from failsight.workflows.familiar import Ordinary, learn_familiar
from failsight.workflows.forks import summarise
from failsight.workflows.plans import make_plan
from failsight.workflows.wiring import make_policy

HORIZON = 320
SHUT = (f"{MOVED} agent",)
"""Putting back the pictures of the fixed camera rescued nothing on the seed this was written on (7 of 17 against 9)."""
ARMS = ("none", "treat", "random", "untold", "told")
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ordinary", type=Path, required=True)
    parser.add_argument("--wordings", type=Path)
    parser.add_argument("--policy", default="tabletop-strong")
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--mix", default="default")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    familiar = learn_familiar(Run(args.ordinary), Ordinary(wordings=args.wordings), print)
    if familiar is None:
        raise SystemExit(1)
    print("limits", {cause: round(limit, 3) for cause, limit in familiar.limits.items()})
    keys = make_plan("tabletop", (), args.seeds, args.trials, args.mix)
    rows = [row for _, row in read_json_lines(args.out)] if args.out.is_file() else []
    done = {(row["arm"], json.dumps(row["key"])): row for row in rows}
    sim, policy = TabletopEnv(images="on_demand", horizon=HORIZON), make_policy(args.policy)
    first = [arm for arm in args.arms if arm in ("none", "treat")]
    order = [(arm, i) for i in range(len(keys)) for arm in first]
    order += [(arm, i) for arm in args.arms if arm not in first for i in range(len(keys))]
    with args.out.open("a") as file:
        for arm, index in order:
            key = keys[index]
            if (arm, json.dumps(key.as_dict())) in done:
                continue
            if arm in ("untold", "told") and not any(cause == "wording" for _, cause in _found(done, key)):
                row = {**done["treat", json.dumps(key.as_dict())], "arm": arm}  # nothing else differs there
            else:
                found = [_found(done, other) for other in keys] if arm == "random" else []
                row = _run(sim, policy, familiar, arm, key, found, index)
            done[arm, json.dumps(key.as_dict())] = row
            file.write(json.dumps(row) + "\n")
            file.flush()
    report([done[arm, json.dumps(key.as_dict())] for arm in args.arms for key in keys], args.arms)


def _found(done: dict[tuple[str, str], Row], key: EpisodeKey) -> list[tuple[int, str]]:
    return [(step, cause) for step, cause in done["treat", json.dumps(key.as_dict())]["causes"]]


def _run(
    sim: TabletopEnv, policy: Any, familiar: Familiar, arm: str, key: EpisodeKey, found: list[Any], index: int
) -> Row:
    forced = None
    if arm == "random":
        forced = found[(index + int(keyed_rng("treatments").integers(1, len(found)))) % len(found)]
    own = next(w.text for w in familiar.wordings if w.task == key.task)
    words = {"told": lambda text, known: own, "untold": lambda text, known: None}
    reword = {"reword": words[arm]} if arm in words else {}
    treat = None if arm == "none" else Treat(SHUT, forced=forced, **reword)
    if treat is not None:
        treat.learn(familiar)
    loop = Loop(sim, policy, monitor=_Knows(familiar) if treat else None, intervention=treat)
    loop.start(key)
    loop.run()
    episode = summarise(key, loop.trace, True)
    data = {name: getattr(episode, name) for name in PairedEpisode.__dataclass_fields__}
    return {"arm": arm, "key": key.as_dict(), "causes": loop.trace.causes, **data}


class _Knows(SimpleNamespace):
    """A monitor that judges nothing and knows what the policy is familiar with."""

    def __init__(self, familiar: Familiar) -> None:
        from failsight.core.types import SILENT

        super().__init__(
            familiar=familiar,
            reset=lambda task: None,
            step=lambda record: SILENT,
            save_state=dict,
            load_state=lambda state: None,
        )


def report(rows: list[Row], arms: list[str]) -> None:
    """What came of it: arms against doing nothing, success per condition, and the confusion of causes."""
    by_arm = {arm: [row for row in rows if row["arm"] == arm] for arm in arms}
    episodes = {arm: [_episode(row) for row in its] for arm, its in by_arm.items()}
    base = episodes["none"]
    for arm in arms:
        result = compare(arm, base, episodes[arm], 20.0)
        ok = [(a.outcome == "success", b.outcome == "success") for a, b in zip(base, episodes[arm], strict=True)]
        won, lost = sum(b and not a for a, b in ok), sum(a and not b for a, b in ok)
        print(
            f"{arm}: success {result.success_rate}, failure_reduction {result.failure_reduction}, collisions {result.collision_rate}"
        )
        print(f"   won {won}, lost {lost}, harm_rate {lost}/{sum(a for a, _ in ok)}, McNemar p {result.mcnemar_p:.2g}")
    if {"treat", "random"} <= set(arms):
        print("treat over random:", success_gap("treat over random", episodes["treat"], episodes["random"]))
    _conditions(by_arm)
    if "treat" in arms:
        _confusion(by_arm["treat"])


def _episode(row: Row) -> PairedEpisode:
    return PairedEpisode(**{name: row[name] for name in PairedEpisode.__dataclass_fields__})


def _conditions(by_arm: dict[str, list[Row]]) -> None:
    for condition in sorted({row["key"]["condition"] for row in by_arm["none"]}):
        cells = []
        for arm, rows in by_arm.items():
            its = [row["outcome"] == "success" for row in rows if row["key"]["condition"] == condition]
            cells.append(f"{arm} {sum(its)}/{len(its)}")
        print(f"{condition:24s} {', '.join(cells)}")


def _confusion(rows: list[Row]) -> None:
    """Condition -> cause: episodes in which it was found, and the median step."""
    for condition in sorted({row["key"]["condition"] for row in rows}):
        its = [row for row in rows if row["key"]["condition"] == condition]
        counts = Counter(cause for row in its for cause in {c for _, c in row["causes"]})
        steps: dict[str, list[int]] = {}
        for row in its:
            for step, cause in row["causes"]:
                steps.setdefault(cause, []).append(step)
        cells = [f"{c} {n} (step {sorted(steps[c])[len(steps[c]) // 2]})" for c, n in counts.most_common()]
        print(f"{condition:24s} of {len(its)}: {', '.join(cells) or 'nothing'}")


__all__ = ["PREFIX", "main", "report"]

if __name__ == "__main__":
    main()
