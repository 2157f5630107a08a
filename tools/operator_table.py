r"""How capable is the scripted person of the tabletop? Success per cause, from the start and in the middle of episodes.

    python tools/operator_table.py --seeds 8101 8102                     # drives from the start, 1x and 2x the horizon
    python tools/operator_table.py --seeds 8103 --from-step 40           # takes over from the strong policy
    python tools/operator_table.py --seeds 8103 --from-step 40 \
        --operators failsight.sims.tabletop.expert:TabletopExpert         # somebody else, from the same states

Taken over: of the episodes that the policy fails, how many the operator rescues, and of those it solves alone, how many
the operator spoils. Nothing is drawn unless the policy has to look.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module

from scipy import stats

from failsight.core.contracts import Operator
from failsight.core.types import EpisodeKey, Outcome, Task
from failsight.runtime.loop import Loop
from failsight.sims.tabletop.entry import ENTRY
from failsight.sims.tabletop.env import TabletopEnv
from failsight.workflows.wiring import make_policy


class Patient(TabletopEnv):
    """The tabletop with `factor` times the usual horizon."""

    factor = 1

    @property
    def task(self) -> Task:
        """The task of the running episode."""
        return replace(super().task, horizon=super().task.horizon * self.factor)


def main() -> None:
    """Print the tables."""
    options = _options()
    keys = ENTRY.keys(ENTRY.tasks, options.seeds, options.trials, options.mix)
    if options.from_step:
        _takeovers(keys, options.operators, options.from_step, options.policy)
    else:
        for address, factor in ((a, f) for a in options.operators for f in (1, 2)):
            _table(f"{address}, {factor}x the horizon", _from_start(keys, _make(address), factor))


def _from_start(keys: Sequence[EpisodeKey], operator: Operator, factor: int) -> Iterator[tuple[str, bool]]:
    sim = Patient(images="on_demand")
    sim.factor = factor
    for key in keys:
        sim.reset(options={"key": key})
        yield _cause(key), _drive(sim, operator)


def _takeovers(keys: Sequence[EpisodeKey], operators: Sequence[str], step: int, policy: str) -> None:
    """Every operator from the same states."""
    sim, people = TabletopEnv(images="on_demand"), {address: _make(address) for address in operators}
    loop = Loop(sim, make_policy(policy))
    rows: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    for key in keys:
        loop.start(key)
        while not loop.done and sim.steps < step:
            loop.act(*loop.perceive())
        if loop.done:
            continue
        state = sim.save_state()
        while not loop.done:
            loop.act(*loop.perceive())
        alone = "kept" if loop.trace.outcome == Outcome.SUCCESS else "rescued"
        for address, person in people.items():
            sim.load_state(state)
            won = _drive(sim, person)
            rows[f"{address}: {alone}"] += [(_cause(key), won)]
    for title, results in sorted(rows.items()):
        _table(title, results)


def _drive(sim: TabletopEnv, operator: Operator) -> bool:
    """Whether the operator succeeds from where the simulator stands."""
    while True:
        _, _, terminated, truncated, info = sim.step(operator.act(sim))
        if terminated or truncated:
            return bool(info["success"])


def _table(title: str, results: Iterator[tuple[str, bool]] | Sequence[tuple[str, bool]]) -> None:
    """Success per cause and in all, with Wilson intervals (95 %)."""
    causes: dict[str, list[bool]] = defaultdict(list)
    for cause, success in results:
        causes[cause].append(success)
    print(f"\n{title}")
    for cause, wins in [*sorted(causes.items()), ("all", [w for row in causes.values() for w in row])]:
        share = stats.binomtest(sum(wins), len(wins)).proportion_ci(method="wilson")
        print(
            f"  {cause:14} {sum(wins):4}/{len(wins):<4} {sum(wins) / len(wins):.3f} [{share.low:.3f}, {share.high:.3f}]"
        )


def _cause(key: EpisodeKey) -> str:
    return "+".join(item.kind for item in key.perturbations) or "none"


def _make(address: str) -> Operator:
    module, _, name = address.partition(":")
    operator: Operator = getattr(import_module(module), name)()
    return operator


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--trials", type=int, default=20, help="per task and seed")
    parser.add_argument("--mix", default="default")
    parser.add_argument("--operators", nargs="+", default=[ENTRY.operator], help="module:class")
    parser.add_argument("--from-step", type=int, default=0, help="take over here; 0: drive from the start")
    parser.add_argument("--policy", default="tabletop-strong", help="who drives before")
    return parser.parse_args()


if __name__ == "__main__":
    main()
