"""Conformance checks: what every simulator, policy, signal group, labeler, predictor, monitor and intervention promises.

Each check raises AssertionError with the clause that was broken. They are part of the public API: run them over your
own adapter, as `tests/test_conformance.py` runs them over every registered one.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from failsight.core.contracts import (
    Context,
    Demonstrator,
    Intervention,
    Labeler,
    Monitor,
    Policy,
    Predictor,
    Signal,
    Sim,
)
from failsight.core.registry import load
from failsight.core.specs import ObservationSpec
from failsight.core.types import (
    FAILURE_TYPES,
    Array,
    Decision,
    DecisionKind,
    EpisodeKey,
    Event,
    PolicyOutput,
    Risk,
    Step,
    Task,
    Verdict,
)

WORDINGS = ("put the red cube in the left bin", "stack the blue cube on the green cube", "go to the right")
"""Instructions that policies are told in checks."""


def check_sim(make: Callable[[], Sim], key: EpisodeKey, other: EpisodeKey, actions: Sequence[Array]) -> None:
    """Observation contract, determinism from the key, and bit-exact save and load, pixels included.

    Args:
        make: builds a fresh simulator.
        key: episode to run.
        other: a different episode, to dirty a simulator with before loading.
        actions: legal actions (A,) for at least 6 steps that do not end the episode.

    Raises AssertionError naming the law that is broken.
    """
    first, second = make(), make()
    before = first.reset(options={"key": key})[0]
    assert isinstance(first, Sim), "a simulator must have every method of the Sim contract"
    spec = first.observation_spec
    assert before["observation.state"].shape == (len(spec.state),), "observation.state must match the spec"
    for name, height, width in spec.cameras:
        image = first.observe()[f"observation.images.{name}"]
        assert image.shape == (height, width, 3), "images must match the spec"
        assert image.dtype == np.uint8, "images must be uint8"
    assert first.task.id in {task.id for task in first.tasks()}, "the running task must be one of tasks()"
    second.reset(options={"key": key})
    half = len(actions) // 2
    assert _execute(first, actions[:half]) == _execute(second, actions[:half]), "equal keys must give equal episodes"
    saved = first.save_state()
    future = _execute(first, actions[half:])
    first.load_state(saved)
    assert _execute(first, actions[half:]) == future, "loading in the same simulator must replay exactly"
    second.reset(options={"key": other})
    second.load_state(saved)
    assert _execute(second, actions[half:]) == future, "loading in another simulator must replay exactly"
    first.close()
    second.close()


def _execute(sim: Sim, actions: Sequence[Array]) -> list[Any]:
    trace: list[Any] = []
    for action in actions:
        observation, reward, terminated, truncated, info = sim.step(action)
        assert info["is_success"] == info["success"], "info must say is_success, the name other libraries look for"
        pixels = {name: value.tobytes() for name, value in sim.observe().items()}
        trace.append(
            (observation["observation.state"].tobytes(), pixels, reward, terminated, truncated, info["success"])
        )
        trace.append(sim.events())
        if terminated or truncated:
            break
    return trace


def check_policy(policy: Policy, sim: Sim, key: EpisodeKey) -> None:
    """Shapes, finiteness, determinism from key and step, no hidden shift by extra calls, sessions kept apart."""
    assert isinstance(policy, Policy), "a policy must have every method of the Policy contract"
    assert policy.action_spec == sim.action_spec, "action specs of policy and simulator must be equal"
    sim.reset(options={"key": key})
    policy.reset(sim.task, key)
    observation = sim.observe()
    output = policy.infer(observation, 0)
    assert output.chunk.shape[1] == len(policy.action_spec.dimensions), "a chunk must be (H, A)"
    assert output.chunk.dtype == np.float32, "a chunk must be float32"
    assert policy.execute <= len(output.chunk), "a policy cannot execute more actions than it returns"
    for name in ("hidden", "samples", "members"):
        value = getattr(output, name)
        assert value is None or np.isfinite(value).all(), f"{name} must be finite"
        assert value is None or value.dtype == np.float16, f"{name} must be float16, as it is recorded"
    policy.infer(observation, 5)
    again = policy.infer(observation, 0)
    assert np.array_equal(again.chunk, output.chunk), "an inference must depend on observation, key and step alone"
    if output.samples is not None and again.samples is not None:
        assert np.array_equal(again.samples, output.samples), "samples must be keyed by episode and step"
    others = [(replace(sim.task, instruction=text), replace(key, seed=key.seed + i)) for i, text in enumerate(WORDINGS)]
    check_policy_sessions(policy, [(sim.task, key), *others])


def make_observations(spec: ObservationSpec, count: int, seed: int = 0) -> list[dict[str, Array]]:
    """Random pictures (H, W, 3) uint8 and states (S,) float32 that no simulator has to make."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        pictures = {
            f"observation.images.{name}": rng.integers(0, 256, (height, width, 3), np.uint8)
            for name, height, width in spec.cameras
        }
        state = 0.1 * rng.standard_normal(len(spec.state)).astype(np.float32)
        found.append({**pictures, "observation.state": state})
    return found


def check_policy_sessions(policy: Policy, sessions: Sequence[tuple[Task, EpisodeKey]], count: int = 4) -> None:
    """Episodes that share a policy in turns equal the same episodes alone, bit for bit, and so do re-instructed ones."""
    observations = [make_observations(policy.observation_spec, count, seed) for seed, _ in enumerate(sessions)]
    new = [f"{task.instruction} again" for task, _ in sessions]

    def step(i: int, t: int) -> dict[str, bytes]:
        if t == 0:
            policy.reset(*sessions[i])
        if t == count // 2:
            policy.reinstruct(new[i])
        return _bits(policy.infer(observations[i][t], t * policy.execute))

    alone = [[step(i, t) for t in range(count)] for i in range(len(sessions))]
    memories = [b""] * len(sessions)
    for t in range(count):
        for i in range(len(sessions)):
            if t > 0:
                policy.load_state(memories[i])
            assert step(i, t) == alone[i][t], (
                f"save_state and load_state must keep instruction, random key and memory: session {i} changes at "
                f"inference {t} when others are served in between"
            )
            memories[i] = policy.save_state()


def check_reinstruct(policy: Policy, task: Task, key: EpisodeKey, instruction: str, heeds: bool = True) -> None:
    """A new instruction in mid-episode is kept, and changes the actions of a policy that `heeds` its instruction."""
    observation, later = make_observations(policy.observation_spec, 2)
    policy.reset(task, key)
    policy.infer(observation, 0)
    before = policy.save_state()
    unchanged = policy.infer(later, policy.execute).chunk
    policy.load_state(before)
    policy.reinstruct(instruction)
    after = policy.save_state()
    assert after != before, "a new instruction must be part of the saved state"
    changed = policy.infer(later, policy.execute).chunk
    assert not (heeds and np.array_equal(changed, unchanged)), "a new instruction must change the actions"
    policy.load_state(before)
    assert np.array_equal(policy.infer(later, policy.execute).chunk, unchanged), "loading must undo a new instruction"
    policy.load_state(after)
    assert np.array_equal(policy.infer(later, policy.execute).chunk, changed), "loading must keep a new instruction"


def policy_digest(policy: Policy) -> str:
    """What a policy says in a fixed episode, as text: every output, bit for bit."""
    digest = hashlib.blake2b(digest_size=16)
    policy.reset(Task(id="t", suite="s", instruction=WORDINGS[0], horizon=100), EpisodeKey(seed=1, task="t", episode=2))
    for t, observation in enumerate(make_observations(policy.observation_spec, 3)):
        for name, value in _bits(policy.infer(observation, t * policy.execute)).items():
            digest.update(name.encode() + value)
    return digest.hexdigest()


def check_policy_process(target: str, *arguments: str) -> None:
    """A policy says the same in every process: nothing in it hangs on the hash seed, the process number or the clock.

    `target`: `module:function` that builds the policy from text `arguments`, here and in a new process.
    """
    code = (
        "import sys; from failsight.core.registry import load; from failsight.testing.checks import policy_digest; "
        "sys.stdout.write(policy_digest(load(sys.argv[1])(*sys.argv[2:])))"
    )
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    there = subprocess.run(
        [sys.executable, "-c", code, target, *arguments],
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    here = policy_digest(load(target)(*arguments))
    assert there.stdout == here, "a policy must not depend on the process: key its random numbers by episode and step"


def _bits(output: PolicyOutput) -> dict[str, bytes]:
    values = {name: getattr(output, name) for name in ("chunk", "hidden", "samples", "members", "failure")}
    return {name: value.tobytes() for name, value in values.items() if value is not None}


def make_steps(count: int, actions: int, states: int, hidden: int = 6, seed: int = 0) -> list[Step]:
    """A random but plausible recorded episode: a new chunk every third step."""
    rng = np.random.default_rng(seed)
    steps: list[Step] = []
    output: PolicyOutput | None = None
    state = np.zeros(states)
    for t in range(count):
        if output is None or t % 3 == 0:
            chunk = rng.uniform(-1, 1, (5, actions)).astype(np.float32)
            output = PolicyOutput(
                chunk=chunk,
                hidden=rng.standard_normal(hidden).astype(np.float16),
                samples=(chunk + 0.1 * rng.standard_normal((4, 5, actions))).astype(np.float16),
                members=(chunk + 0.05 * rng.standard_normal((3, 5, actions))).astype(np.float16),
            )
        state = state + 0.01 * rng.standard_normal(states)
        steps.append(
            Step(
                index=t,
                state=state.astype(np.float32),
                action=output.chunk[t % 3],
                output=output,
                cursor=t % 3,
                replan=t % 3 == 0,
            )
        )
    return steps


def check_signal(signal: Signal, steps: Sequence[Step]) -> None:
    """Names and units match, values are causal, reset forgets everything."""
    assert len(signal.names) == len(signal.units), "every signal needs a unit"
    assert len(set(signal.names)) == len(signal.names), "signal names must be unique"

    def run(part: Sequence[Step]) -> Array:
        signal.reset()
        rows = []
        for step in part:
            out = np.full(len(signal.names), -1e9)
            signal.update(step, out)
            assert (out != -1e9).all(), "update must write every value"
            rows.append(out)
        return np.array(rows)

    whole = run(steps)
    assert np.array_equal(run(steps), whole, equal_nan=True), "reset must forget the episode"
    half = len(steps) // 2
    assert np.array_equal(run(steps[:half]), whole[:half], equal_nan=True), "the future must not change the past"


def check_labeler(labeler: Labeler, task: str, states: Array, actions: Array, events: Sequence[Event]) -> None:
    """Lengths match, a success has neither type nor onset, a failure has both or neither (nobody knows).

    `states` (T, S) and `actions` (T, A) of one episode. Raises AssertionError naming the law that is broken.
    """
    for success in (True, False):
        labels = labeler.label(task, states, actions, events, success)
        assert labels.time_to_failure.shape == (len(states),), "time to failure must be (T,)"
        assert labels.dimension.shape == actions.shape, "dimension risk must be (T, A)"
        if success:
            assert labels.failure_type is None, "a success has no failure type"
            assert labels.onset is None, "a success has no onset"
            assert np.isinf(labels.time_to_failure).all(), "a success never fails"
        elif labels.failure_type is None:
            assert labels.onset is None, "a failure without a type has no onset"
            assert np.isnan(labels.time_to_failure).all(), "nobody knows when it was lost"
        else:
            assert labels.failure_type in FAILURE_TYPES, "a failure has a type"
            assert labels.onset is not None, "a failure has an onset"
            assert 0 <= labels.onset < len(states), "the onset is a step of the episode"
            assert (labels.time_to_failure[labels.onset :] == 0).all(), "time to failure is 0 from the onset on"


def check_demonstrator(demonstrator: Demonstrator, sim: Sim, tasks: Sequence[str], seed: int = 0) -> None:
    """Keyed episodes, shapes as the simulator says, labels it would give again, and a simulator that is left alone.

    Raises AssertionError naming the law that is broken.
    """
    key = demonstrator.key(seed, 0, tasks)
    assert key == demonstrator.key(seed, 0, tasks), "an episode must follow from seed and index alone"
    assert [demonstrator.key(seed, i, tasks).task for i in range(len(tasks))] == list(tasks), "tasks must come in turn"
    shown, again = demonstrator.show(sim, key), demonstrator.show(sim, key)
    assert (shown is None) == (again is None), "a demonstration must follow from its key"
    if shown is not None and again is not None:
        spec, size, frames = sim.observation_spec, len(sim.action_spec.dimensions), len(shown.states)
        np.testing.assert_array_equal(shown.chunks, again.chunks, "a demonstration must follow from its key")
        assert shown.states.shape == (frames, len(spec.state)), "states must match the spec"
        assert shown.chunks.shape == (frames, shown.chunks.shape[1], size), "chunks must be (T, H, A)"
        for name, height, width in spec.cameras:
            assert shown.images[name].shape == (frames, height, width, 3), "images must match the spec"
    sim.reset(options={"key": key})
    before = sim.save_state()
    chunk = demonstrator.chunk(sim)
    assert sim.save_state() == before, "asking for a chunk must leave the simulator as it was"
    np.testing.assert_array_equal(demonstrator.chunk(sim), chunk, "the same state must be answered the same way")


def check_predictor(predictor: Predictor, signals: Array, hidden: Array | None, task: str) -> None:
    """Causal, repeatable after reset, saved and loaded exactly, probabilities in range, NaN inputs survived.

    `signals` (T, S) and `hidden` (T, D), or None, of one episode. Raises AssertionError naming the law that is broken.
    """

    def update(t: int) -> tuple[float, float]:
        risk = predictor.update(signals[t], None if hidden is None else hidden[t])
        assert risk.type.shape == (len(FAILURE_TYPES),), "type must be (4,)"
        return _scores(risk)

    def run(first: int, last: int) -> list[tuple[float, float]]:
        return [update(t) for t in range(first, last)]

    half = len(signals) // 2
    predictor.reset(task)
    whole = run(0, len(signals))
    predictor.reset(task)
    assert run(0, half) == whole[:half], "the future must not change the past"
    state = predictor.save_state()
    rest = run(half, len(signals))
    predictor.reset(task)
    predictor.load_state(state)
    assert run(half, len(signals)) == rest == whole[half:], "save and load must continue exactly"
    predictor.reset(task)
    _scores(predictor.update(np.full_like(signals[0], np.nan), None if hidden is None else hidden[0]))


def _scores(risk: Risk) -> tuple[float, float]:
    """(p_fail, evidence) with -1 for what is not given; at least one must be."""
    assert np.isfinite(risk.p_fail) or np.isfinite(risk.evidence), "a predictor must say something"
    assert np.isnan(risk.p_fail) or 0 <= risk.p_fail <= 1 + 1e-6, "p_fail must be a probability"
    return tuple(-1.0 if np.isnan(v) else float(v) for v in (risk.p_fail, risk.evidence))  # type: ignore[return-value]


def check_monitor(monitor: Monitor, steps: Sequence[Step], task: Task) -> None:
    """Repeatable, causal, saved and loaded exactly."""

    def run(part: Sequence[Step]) -> list[tuple[float, bool]]:
        monitor.reset(task)
        return [(v.risk.p_fail, v.trigger) for v in (monitor.step(s) for s in part)]

    whole, half = run(steps), len(steps) // 3 * 2
    assert run(steps) == whole, "reset must forget the episode"
    assert run(steps[:half]) == whole[:half], "the future must not change the past"
    state = monitor.save_state()
    rest = [(v.risk.p_fail, v.trigger) for v in (monitor.step(s) for s in steps[half:])]
    monitor.reset(task)
    monitor.load_state(state)
    assert [(v.risk.p_fail, v.trigger) for v in (monitor.step(s) for s in steps[half:])] == rest == whole[half:], (
        "save and load must continue exactly"
    )


def check_intervention(intervention: Intervention, context: Context) -> None:
    """Silent without a trigger, legal decisions with one, and forgetful after reset."""
    quiet = Verdict(risk=Risk(p_fail=0.1), threshold=0.5, margin=-0.4, trigger=False, why="")
    alarm = Verdict(risk=Risk(p_fail=0.9), threshold=0.5, margin=0.4, trigger=True, why="test")

    def run() -> list[Decision]:
        intervention.reset()
        return [intervention.propose(verdict, context) for verdict in (quiet, alarm, alarm, quiet)]

    decisions = run()
    assert decisions[0].kind == DecisionKind.CONTINUE, "without a trigger an intervention does nothing"
    for decision in decisions:
        assert 0 < decision.rate <= 1, "a rate is a share of full speed"
        if decision.kind != DecisionKind.CONTINUE:
            assert decision.reason, "a decision says why"
        if decision.action is not None:
            assert decision.action.shape == (len(context.action_spec.dimensions),), "an action must be (A,)"
            low, high = context.action_spec.low, context.action_spec.high
            assert ((decision.action >= low) & (decision.action <= high)).all(), "an action must be legal"
    assert [d.kind for d in run()] == [d.kind for d in decisions], "reset must forget the episode"
