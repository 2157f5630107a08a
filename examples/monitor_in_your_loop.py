"""A monitor in your own control loop, from a bundle that `failsight fit` made of recorded episodes.

    python examples/monitor_in_your_loop.py runs/reach/bundle

The loop is yours; the monitor wants one `Step` per control tick and answers with a `Verdict` before the action is sent.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from examples.own_policy import Reach
from examples.own_simulator import ReachEnv
from failsight import EpisodeKey, Step, load_monitor
from failsight.core.types import Perturbation


def drive(bundle: str, episode: int, condition: str = "none") -> tuple[bool, int | None]:
    """One episode; returns whether it succeeded and the tick of the first alarm."""
    robot, policy = ReachEnv(), Reach()
    monitor = load_monitor(bundle, policy)  # refuses a policy it was not made for
    key = EpisodeKey(seed=77, task="left-cup", episode=episode, perturbations=Perturbation.parse(condition))
    robot.reset(options={"key": key})
    policy.reset(robot.task, key)
    monitor.reset(robot.task)
    output, cursor, alarm = None, 0, None
    for tick in range(robot.task.horizon):
        observation = robot.observe()
        replan = output is None or cursor == policy.execute
        if replan:
            output, cursor = policy.infer(observation, tick), 0
        action = output.chunk[cursor]
        step = Step(
            index=tick,
            state=observation["observation.state"],
            action=action,
            output=output,
            cursor=cursor,
            replan=replan,
        )
        verdict = monitor.step(step)
        if verdict.blind:
            print(f"tick {tick}: cannot judge, {verdict.blind}")
        if verdict.trigger and alarm is None:
            alarm = tick
            print(f"tick {tick}: {verdict.why}")  # slow down, stop, call somebody
        _, _, success, late, _ = robot.step(action)
        cursor += 1
        if success or late:
            break
    return success, alarm


def main(bundle: str) -> None:
    """Ten episodes, half of them in a draught."""
    for episode in range(10):
        condition = "draught:5" if episode % 2 else "none"
        success, alarm = drive(bundle, episode, condition)
        told = "no alarm" if alarm is None else f"alarm at tick {alarm}"
        print(f"episode {episode} ({condition}): {'success' if success else 'failure'}, {told}")


if __name__ == "__main__":
    main(sys.argv[1])
