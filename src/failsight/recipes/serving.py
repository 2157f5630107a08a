"""Policies for others to drive: the server, and what came of the episodes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from failsight.core.errors import EpisodeDataError, FailsightError
from failsight.core.textfiles import read_text_file
from failsight.evaluation.intervals import proportion
from failsight.recipes.adapters import make_policy
from failsight.recipes.evaluators import chains
from failsight.recipes.study import text_of
from failsight.runtime.server import PolicyServer


def key_table(pairs: Sequence[str]) -> dict[str, str]:
    """`name=key` pairs. Raises FailsightError for anything else."""
    for pair in pairs:
        if "=" not in pair:
            raise FailsightError(f"Write --camera NAME=KEY, for example agent=observation/image; this is {pair!r}.")
    return dict(pair.split("=", 1) for pair in pairs)


def make_server(
    checkpoint: str, keys: dict[str, str], outcomes: Path | None, ask: Callable[[str], str] | None
) -> PolicyServer:
    """A server of a checkpoint or a registered policy."""
    if outcomes is not None:
        outcomes.parent.mkdir(parents=True, exist_ok=True)
    return PolicyServer(make_policy(checkpoint), keys=keys, outcomes=outcomes, ask=ask)


def outcome_table(path: Path, chain: int) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Success per instruction; with `chain`, the share of chains with at least k tasks done, and their mean length.

    A chain is as many episodes in a row of one connection. Episodes of unknown outcome are counted and left out.
    Raises EpisodeDataError when the file is missing or damaged.
    """
    try:
        rows = [json.loads(line) for line in read_text_file(path).splitlines() if line]
        known = [
            (row["session"], row["prompt"], row["outcome"] == "success") for row in rows if row["outcome"] != "unknown"
        ]
    except (EpisodeDataError, ValueError, KeyError, TypeError) as error:
        raise EpisodeDataError(f"{path} is not an outcome file of failsight serve ({error}).") from error
    unknown = len(rows) - len(known)
    if chain:
        return _chain_table(known, chain, unknown)
    table: list[tuple[str, ...]] = []
    for prompt in sorted({prompt for _, prompt, _ in known}):
        good = [success for _, text, success in known if text == prompt]
        table.append((prompt, text_of(proportion(sum(good), len(good))), str(len(good))))
    good = [success for _, _, success in known]
    table.append(("all", text_of(proportion(sum(good), len(good))), f"{len(good)} ({unknown} unknown)"))
    return ("instruction", "success", "episodes"), table


def _chain_table(
    known: Sequence[tuple[int, str, bool]], chain: int, unknown: int
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    sessions: dict[int, list[bool]] = {}
    for session, _, success in known:
        sessions.setdefault(session, []).append(success)
    groups = [good[i : i + chain] for good in sessions.values() for i in range(0, len(good) - chain + 1, chain)]
    shares, mean = chains(groups)
    table = [(f"{k} in a row", text_of(share), str(len(groups))) for k, share in enumerate(shares, 1)]
    return ("chain", "share", "chains"), [
        *table,
        ("average length", text_of(mean), f"{len(groups)} ({unknown} unknown)"),
    ]
