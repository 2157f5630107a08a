"""Names -> simulators, policies, operators; benches for worker processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from failsight.core.contracts import Demonstrator, Labeler, Operator, Policy, Sim
from failsight.core.errors import FailsightError, told
from failsight.core.foreign import read_file_name
from failsight.core.registry import claims, load, load_foreign, require_members, resolve
from failsight.core.sim_entry import SimEntry
from failsight.core.specs import ActionSpec, with_look
from failsight.episodes.run import Run
from failsight.labels import LABELERS
from failsight.labels.outcome import OutcomeLabeler
from failsight.labels.table import labeler_name
from failsight.policies import POLICIES
from failsight.runtime.bench import Bench
from failsight.sims import SIMS
from failsight.sims.base.headless import explained


def find_sim(name: str) -> SimEntry:
    """The entry of a simulator: ours, an installed package's, or the one at an address. Raises UnknownNameError."""
    entry = resolve("simulator", name, SIMS, "failsight.sims")
    if not isinstance(entry, SimEntry):
        raise FailsightError(
            f"Simulator {name} is a {type(entry).__name__}, not a failsight.core.sim_entry.SimEntry that says how to make it."
        )
    return entry


def make_sim(name: str) -> Sim:
    """A simulator that renders only on demand. Raises UnknownNameError and RenderingError, FailsightError when it is
    not installed.
    """
    entry = find_sim(name)
    with explained():
        sim: Sim = _make(f"Simulator {name}", entry.make, entry.install, images="on_demand")
    require_members(sim, Sim, f"Simulator {name}")
    if entry.look:
        sim.observation_spec = with_look(sim.observation_spec, entry.look, f"Simulator {name}")
    return sim


def make_policy(name: str) -> Policy:
    """A policy by name (ours, an installed package's, an address), a checkpoint folder, or the address of a policy server.

    Raises UnknownNameError with the nearest names, FailsightError where a name is also a folder.
    """
    if name.startswith(("ws://", "wss://")):
        token = os.environ.get("FAILSIGHT_TOKEN", "").strip()
        remote: Policy = load("failsight.policies.remote.policy:RemotePolicy")(name, token=token)
        return remote
    if name in POLICIES or not Path(name).exists():
        build = resolve("policy or checkpoint folder", name, POLICIES, "failsight.policies")
        policy: Policy = build() if name in POLICIES else _called(f"Policy {name}", build)
        require_members(policy, Policy, f"Policy {name}")
        return policy
    claimed = [claim for claim in claims("failsight.policies") if claim.name == name]
    if claimed:
        raise FailsightError(
            f"{name} is a folder and a policy of the package {claimed[0].package}: write ./{name} or {claimed[0].address}."
        )
    loaded: Policy = load("failsight.policies.vla.streaming:VLAPolicy").load(name)
    return loaded


def find_operator(sim: str) -> Operator | None:
    """The scripted expert of a simulator; None where nobody can take over."""
    address = find_sim(sim).operator
    if not address:
        return None
    operator: Operator = _make(f"The operator of {sim}", address)
    require_members(operator, Operator, f"The operator of {sim}")
    return operator


def find_demonstrator(sim: str) -> Demonstrator:
    """Who shows how a simulator's tasks are done. Raises FailsightError where nobody does."""
    address = find_sim(sim).demonstrator
    if not address:
        raise FailsightError(f"Nobody demonstrates in {sim}: its entry names no demonstrator (see CONTRIBUTING.md).")
    demonstrator: Demonstrator = _make(f"The demonstrator of {sim}", address)
    require_members(demonstrator, Demonstrator, f"The demonstrator of {sim}")
    return demonstrator


def make_bench(sim: str, policy: str) -> Bench:
    """Simulator and policy of one worker process."""
    return Bench(make_sim(sim), make_policy(policy))


def labeler_of(sim: str, actions: ActionSpec) -> Labeler:
    """What labels new runs of a simulator: from its events, or only the outcome where they mean nothing."""
    entry = find_sim(sim)
    if not entry.labeler:
        return OutcomeLabeler()
    known = (entry.targets, actions) if entry.targets else (actions,)
    labeler: Labeler = _make(f"The labeler of {sim}", LABELERS.get(entry.labeler, entry.labeler), "", *known)
    require_members(labeler, Labeler, f"The labeler of {sim}")
    read_file_name(labeler.name, f"The name of the labeler of {sim}")
    return labeler


def make_labeler(run: Run) -> Labeler:
    """What labelled a run, or would have. Raises FailsightError when its simulator is labelled by something else now."""
    name = labeler_name(run)
    if name == OutcomeLabeler.name:
        return OutcomeLabeler()
    labeler = labeler_of(run.meta.sim, run.meta.action_spec)
    if labeler.name != name:
        raise FailsightError(
            f"{run.root} is labelled by {name!r}, but {run.meta.sim} is labelled by {labeler.name!r} now; collect again, or "
            "install the version that made the run."
        )
    return labeler


def _make(what: str, address: str, install: str = "", *arguments: Any, **options: Any) -> Any:
    """Call what an entry names. What somebody else's code raises becomes one sentence that says whose it is."""
    if not address.startswith("failsight."):
        build = load_foreign(address, install=install)
        return _called(f"{what} ({address})", build, install, *arguments, **options)
    with _needing(what, install):
        made = load(address, install) if install else load(address)
        return made(*arguments, **options)


def _called(what: str, build: Any, install: str = "", *arguments: Any, **options: Any) -> Any:
    with told(f"{what} cannot be made"), _needing(what, install):
        return build(*arguments, **options)


@contextmanager
def _needing(what: str, install: str) -> Iterator[None]:
    """A package that is missing is named, with what to type where that is known. Raises FailsightError."""
    try:
        yield
    except ModuleNotFoundError as error:
        advice = f" Try: {install}" if install else ""
        raise FailsightError(f"{what}: the package {error.name!r} is not installed.{advice}") from error
