"""Where a trained policy can be judged: our simulators here, other benchmarks through the policy server.

One interface: an evaluator has tasks, makes the keyed episodes of a seed, and returns one `Drive` per episode.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from failsight.core.specs import require_equal
from failsight.core.textfiles import read_json
from failsight.core.types import EpisodeKey
from failsight.evaluation.claims import differs
from failsight.evaluation.intervals import Estimate, bootstrap, text_of
from failsight.policies.vla.design import VLAConfig
from failsight.workflows.closed_loop import CHANGES, Drive, by_task, closed_loop, obeyed, success_of
from failsight.workflows.plans import tasks_of
from failsight.workflows.progress import Reporter, ticking
from failsight.workflows.train import note_success
from failsight.workflows.wiring import find_sim, make_sim

TEST_SEED = 9900
"""Of closed-loop figures; no training draws from it."""
SELECTION_SEED = 9800
"""Of the success rate that chooses a checkpoint; never the seed of a figure."""


class Evaluator(NamedTuple):
    """A simulator as a benchmark."""

    name: str

    def tasks(self) -> list[str]:
        """Every task it can set."""
        return tasks_of(self.name)

    def episodes(self, seed: int, trials: int) -> list[EpisodeKey]:
        """`trials` unperturbed episodes per task."""
        return [EpisodeKey(seed=seed, task=task, episode=i) for task in self.tasks() for i in range(trials)]

    def drive(
        self, checkpoint: Path, keys: Sequence[EpisodeKey], workers: int, progress: Callable[[int], None]
    ) -> list[Drive]:
        """One drive per key, in order."""
        return closed_loop(checkpoint, self.name, keys, workers, progress=progress)


def require_sim(name: str) -> None:
    """Raises UnknownNameError with the nearest names; an empty name is no simulator and fine."""
    if name:
        find_sim(name)


def require_drivable(sim: str, config: VLAConfig) -> None:
    """Refuse a policy the simulator cannot drive, before anything is trained; an empty name is no simulator and fine.

    Raises FailsightError when the simulator is not installed, SpecMismatchError when the two mean different things.
    """
    if not sim:
        return
    env = make_sim(sim)
    try:
        require_equal("Action specs of policy and simulator", policy=config.action_spec, simulator=env.action_spec)
        require_equal(
            "Observation specs of policy and simulator", policy=config.observation_spec, simulator=env.observation_spec
        )
    finally:
        env.close()


def success_in(sim: str, trials: int, workers: int) -> Callable[[Path], float]:
    """A function that gives the success rate of a checkpoint, for choosing the best one."""
    return partial(_success_rate, Evaluator(sim), trials, workers)


def _success_rate(evaluator: Evaluator, trials: int, workers: int, checkpoint: Path) -> float:
    keys = evaluator.episodes(SELECTION_SEED, trials)
    return success_of(evaluator.drive(checkpoint, keys, workers, lambda done: None)).value


def drive_and_note(
    checkpoint: Path, folder: Path, sim: str, trials: int, workers: int
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Success per task as a table; overall success goes into the case, single outcomes into `drives.json`."""
    evaluator = Evaluator(sim)
    drives = evaluator.drive(checkpoint, evaluator.episodes(TEST_SEED, trials), workers, lambda done: None)
    overall = success_of(drives)
    note_success(folder, {"success": overall.as_dict(), "sim": sim})
    rows = [
        {"task": d.key.task, "episode": d.key.episode, "success": d.success, "collided": d.collided} for d in drives
    ]
    (folder / "drives.json").write_text(json.dumps(rows))
    table = [(task, text_of(figure)) for task, figure in by_task(drives).items()]
    return ("task", "success"), [*table, ("all", text_of(overall))]


def compare_cases(first: Path, second: Path) -> str:
    """One sentence: success of the first minus the second on the same episodes."""
    a, b = (read_json(folder / "drives.json") for folder in (first, second))
    values = np.array([float(x["success"]) - float(y["success"]) for x, y in zip(a, b, strict=True)])
    difference: Estimate = bootstrap(lambda rows: float(values[rows].mean()), [x["task"] for x in a], ("a/b",))
    verdict = "a difference is shown" if differs(difference) else "no difference is shown"
    return f"Success of a minus b, same episodes: {text_of(difference)} (n={difference.n}); {verdict}."


def change_table(
    checkpoint: Path, sim: str, trials: int, workers: int, reporter: Reporter
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Success as it is, without its instruction, with another one, and with a frozen past."""
    require_sim(sim)
    keys = Evaluator(sim).episodes(TEST_SEED, trials)
    tick = reporter.count(len(keys) * len(CHANGES))
    rows: list[tuple[str, ...]] = []
    for change in CHANGES:
        drives = closed_loop(checkpoint, sim, keys, workers, change, ticking(tick, change))
        side = obeyed(drives)
        rows.append((change.replace("-", " "), text_of(success_of(drives)), text_of(side)))
    return ("policy", "success", "passed on the task's side"), rows


def chains(successes: Sequence[Sequence[bool]]) -> tuple[list[Estimate], Estimate]:
    """CALVIN's figures: share of chains that got at least k tasks right in a row, and the average length.

    >>> [round(e.value, 2) for e in chains([[True, True, False, True, True], [True, False, False, False, False]])[0]]
    [1.0, 0.5, 0.0, 0.0, 0.0]
    """
    from failsight.evaluation.intervals import proportion

    lengths = np.array([next((i for i, good in enumerate(chain) if not good), len(chain)) for chain in successes])
    longest = max((len(chain) for chain in successes), default=0)
    shares = [proportion(int((lengths >= k).sum()), len(lengths)) for k in range(1, longest + 1)]
    mean = bootstrap(lambda rows: float(lengths[rows].mean()), ["all"] * len(lengths), ("chains",))
    return shares, mean
