"""Policies for others to drive: the server, and what came of the episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from failsight.core.errors import FailsightError
from failsight.core.foreign import one_line
from failsight.evaluation.intervals import proportion, text_of
from failsight.serving.client_message import OUTCOMES
from failsight.serving.door import read_port, require_token
from failsight.serving.outcome_file import EpisodeEnd, read_ends
from failsight.serving.server import PolicyServer
from failsight.workflows.drive import chains
from failsight.workflows.wiring import make_policy

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def key_table(pairs: Sequence[str]) -> dict[str, str]:
    """`name=key` pairs. Raises FailsightError for anything else, and for a name given twice."""
    table: dict[str, str] = {}
    for pair in pairs:
        name, equals, key = pair.partition("=")
        if not (name and equals and key):
            raise FailsightError(f"Write --camera NAME=KEY, for example agent=observation/image; this is {pair!r}.")
        if name in table:
            raise FailsightError(f"--camera names {name!r} twice.")
        table[name] = key
    return table


def require_address(host: str, port: int, token: str) -> None:
    """Refuse an address that cannot be served, before a policy is loaded. Raises FailsightError."""
    read_port(port)
    require_token(host, token)


def make_server(
    checkpoint: str, keys: dict[str, str], outcomes: Path | None, ask: Callable[[str], str] | None, token: str = ""
) -> PolicyServer:
    """A server of a checkpoint or a registered policy. Raises FailsightError for another server and unknown cameras."""
    if checkpoint.startswith(("ws://", "wss://")):
        raise FailsightError(
            f"{checkpoint} is served already, and the memory of its clients lies there; let them connect to it."
        )
    policy = make_policy(checkpoint)
    known = [name for name, _, _ in policy.observation_spec.cameras] + ["state"]
    for name in keys:
        if name not in known:
            raise FailsightError(f"--camera names {name!r}; {checkpoint} has {', '.join(known)}.")
    return PolicyServer(policy, keys=keys, outcomes=outcomes, ask=ask, token=token)


def outcome_table(path: Path, chain: int) -> Table:
    """Success per instruction; with `chain`, the share of chains with at least k tasks done, and their mean length.

    A chain is as many episodes in a row of one connection. Episodes of unknown outcome are counted and left out, and
    so is every chain that holds one or is not whole (the connection or the server ended in it).
    Raises EpisodeDataError when the file is missing or damaged.
    """
    if chain < 0:
        raise FailsightError(f"--chain is the number of tasks in a chain, from 1; it is {chain}.")
    ends = read_ends(path)
    if chain:
        return _chain_table(ends, chain)
    known = [(end.prompt, end.outcome == "success") for end in ends if end.outcome != "unknown"]
    unknown = len(ends) - len(known)
    table: list[tuple[str, ...]] = []
    for prompt in sorted({prompt for prompt, _ in known}):
        good = [success for text, success in known if text == prompt]
        table.append((one_line(prompt), text_of(proportion(sum(good), len(good))), str(len(good))))
    good = [success for _, success in known]
    table.append(("all", text_of(proportion(sum(good), len(good))), f"{len(good)} ({unknown} unknown)"))
    return ("instruction", "success", "episodes"), table


def _chain_table(ends: Sequence[EpisodeEnd], chain: int) -> Table:
    groups, left_out = _whole_chains(ends, chain)
    note = f"{len(groups)} ({left_out} left out: not whole or an outcome unknown)"
    if not groups:
        return ("chain", "share", "chains"), [("average length", "no whole chain", note)]
    shares, mean = chains(groups)
    table = [(f"{k} in a row", text_of(share), str(len(groups))) for k, share in enumerate(shares, 1)]
    return ("chain", "share", "chains"), [*table, ("average length", text_of(mean), note)]


def _whole_chains(ends: Sequence[EpisodeEnd], chain: int) -> tuple[list[list[bool]], int]:
    """Successes of every whole chain, and how many chains were left out."""
    found: dict[tuple[str, int, int], list[EpisodeEnd]] = {}
    for end in ends:
        found.setdefault((end.run, end.session, end.episode // chain), []).append(end)
    whole = []
    for (_, _, number), group in found.items():
        outcomes = {end.episode: end.outcome for end in group}
        every = range(number * chain, (number + 1) * chain)
        if len(group) == chain and all(outcomes.get(episode) in OUTCOMES for episode in every):
            whole.append([outcomes[episode] == OUTCOMES[0] for episode in every])
    return whole, len(found) - len(whole)
