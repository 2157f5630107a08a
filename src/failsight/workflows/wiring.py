"""Names -> simulators, policies, operators; benches for worker processes."""

from __future__ import annotations

import os
from pathlib import Path

from failsight.core.contracts import Labeler, Operator, Policy, Sim
from failsight.core.errors import UnknownNameError
from failsight.core.registry import load, resolve
from failsight.core.textfiles import read_json_object
from failsight.episodes.run import Run
from failsight.labels.driving import DriveLabeler
from failsight.labels.events import EventLabeler
from failsight.labels.outcome import OutcomeLabeler
from failsight.labels.table import labeler_name
from failsight.policies import POLICIES
from failsight.runtime.bench import Bench
from failsight.sims import OPERATORS, SIMS
from failsight.sims.headless import explained
from failsight.sims.tabletop.plan import targets


def make_sim(name: str) -> Sim:
    """A registered simulator that renders only on demand. Raises UnknownNameError and RenderingError."""
    with explained():
        sim: Sim = resolve("simulator", name, SIMS)(images="on_demand")
    return sim


def make_policy(name: str) -> Policy:
    """A registered policy, a checkpoint folder, or the address of a policy server. Raises UnknownNameError with the nearest names."""
    if name in POLICIES:
        policy: Policy = resolve("policy", name, POLICIES)()
        return policy
    if name.startswith(("ws://", "wss://")):
        token = os.environ.get("FAILSIGHT_TOKEN", "").strip()
        remote: Policy = load("failsight.policies.remote.policy:RemotePolicy")(name, token=token)
        return remote
    if Path(name).exists():
        kind = "streaming:VLAPolicy" if _checkpoint_type(Path(name)) == "vla" else "policy:TinyPolicy"
        loaded: Policy = load(f"failsight.policies.vla.{kind}").load(name)
        return loaded
    raise UnknownNameError("policy or checkpoint folder", name, POLICIES)


def _checkpoint_type(folder: Path) -> str:
    """What a checkpoint folder says it is; the loader says what is wrong when it says nothing."""
    path = folder / "config.json"
    return str(read_json_object(path).get("type")) if path.is_file() else ""


def make_operator(sim: str) -> Operator:
    """The scripted expert of a simulator."""
    operator: Operator = resolve("operator", sim, OPERATORS)()
    return operator


def find_operator(sim: str) -> Operator | None:
    """The person of a simulator, None where it has none."""
    return make_operator(sim) if sim in OPERATORS else None


def make_bench(sim: str, policy: str) -> Bench:
    """Simulator and policy of one worker process."""
    return Bench(make_sim(sim), make_policy(policy))


def make_labeler(run: Run) -> Labeler:
    """What labels a run: its events, or only its outcome where it has none."""
    if labeler_name(run) == "outcome":
        return OutcomeLabeler()
    if run.meta.sim.startswith("navigation"):
        return DriveLabeler(run.meta.action_spec)
    return EventLabeler(targets(), run.meta.action_spec)
