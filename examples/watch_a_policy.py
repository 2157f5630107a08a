"""Any policy, any gymnasium environment: record, fit, watch, and see on the same episodes whether watching helped.

    python examples/watch_a_policy.py record runs/recorded
    failsight fit runs/recorded --detector ledger
    python examples/watch_a_policy.py watch runs/recorded/bundle runs/watched
    failsight evaluate detection runs/watched --bundle runs/recorded/bundle

The policy below is twenty lines that know nothing of failsight; the environment is `own_simulator.py`, used as any other.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import failsight
from examples.own_simulator import ACTIONS, OBSERVATIONS, Person, ReachEnv
from failsight.core.types import Perturbation
from failsight.evaluation.paired import PairedEpisode, compare


class MyPolicy:
    """Goes to where it believes the cup is, and believes it less surely the farther away it is."""

    def __init__(self) -> None:
        self._episode = 0

    def reset(self) -> None:
        """A new episode."""
        self._episode += 1
        self._rng = np.random.default_rng(self._episode)

    def infer(self, obs: dict) -> dict:
        """Eight drawn chunks of eight actions."""
        hand, cup = np.split(obs["state"].astype(float), 2)
        away = np.linalg.norm(cup - hand)
        believed = cup + 0.1 * away * self._rng.standard_normal((8, 1, 2))
        chunks = np.clip(np.repeat(believed - hand, 8, axis=1) / 0.08, -1, 1)
        return {"actions": chunks[0], "samples": chunks}


def drive(watched, episodes: int, first: int) -> list[PairedEpisode]:
    """Episodes of both tasks, half of them in a draught; each is told how it ended."""
    robot, done = ReachEnv(), []
    for number in range(episodes):
        task, condition = ("left-cup", "right-cup")[number % 2], ("none", "draught:5")[number // 2 % 2]
        perturbations = Perturbation.parse(condition)
        key = failsight.EpisodeKey(seed=7, task=task, episode=first + number, perturbations=perturbations)
        observation, _ = robot.reset(options={"key": key})
        watched.reset(task, f"touch the {task}", horizon=40, key=key)
        over = success = False
        while not (over or success):
            command = watched.step({"state": observation["observation.state"], "robot": robot})
            if command.stop:
                break
            observation, _, success, over, _ = robot.step(command.action)
        trace = watched.end(success)
        done.append(
            PairedEpisode(
                task=task,
                outcome=trace.outcome,
                collision=False,
                triggered=trace.trigger_step is not None,
                steps=len(trace.path),
                intervened_steps=sum(kind != "continue" for kind in trace.kinds),
                human_steps=trace.human_steps,
            )
        )
    return done


def record(folder: str, episodes: int = 60) -> None:
    """Nothing acts: the policy does as it always did."""
    robot = {"actions": ACTIONS, "observations": OBSERVATIONS}
    with failsight.watch(MyPolicy(), record=folder, execute=4, clock=None, **robot) as watched:
        drive(watched, episodes, first=0)


def watch(bundle: str, folder: str, episodes: int = 24) -> None:
    """The same unseen episodes in three arms; the first is recorded with its verdicts."""

    def person(observation) -> np.ndarray:
        return Person().act(observation["robot"])

    with failsight.watch(MyPolicy(), bundle, record=folder, shadow=True, execute=4, clock=None) as watched:
        alone = drive(watched, episodes, first=1000)
    for rung in ("safe_stop", "takeover"):
        with failsight.watch(MyPolicy(), bundle, rungs=[rung], person=person, execute=4, clock=None) as watched:
            arm = compare(rung, alone, drive(watched, episodes, first=1000), ACTIONS.rate_hz)
        print(
            f"{rung}: success {arm.success_rate}, change {arm.success_change}, {arm.triggers} of {arm.pairs} triggered, "
            f"rescued {arm.rescue_rate}, harmed {arm.harm_rate}, McNemar p {arm.mcnemar_p:.3f}"
        )


if __name__ == "__main__":
    {"record": record, "watch": watch}[sys.argv[1]](*sys.argv[2:])
