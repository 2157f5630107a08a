"""Failure tokens: one number per frame that a failure head is trained to say.

1: lost, or lost within the horizon; 0: not; -1: nobody knows. Made from labels, corrected by people, exchanged as one
`.npy` per episode (int8, one entry per frame) with tools that know nothing else of us.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from failsight.core.contracts import Labels
from failsight.core.errors import EpisodeDataError
from failsight.core.types import Array
from failsight.episodes.run import Run

HORIZON_S = 2.0


def folder_of(run: Run) -> Path:
    """Where a run keeps its tokens."""
    return run.root / "labels" / "failure_tokens"


def tokens_of(run: Run, label: Labels, horizon_s: float = HORIZON_S) -> Array:
    """(T,) float32 tokens that follow from a label; NaN where the onset is not known."""
    left = label.time_to_failure / run.meta.action_spec.rate_hz
    return np.where(np.isnan(left), np.nan, left <= horizon_s).astype(np.float32)


def create(run: Run, labels: Mapping[int, Labels], horizon_s: float = HORIZON_S) -> int:
    """Write tokens for every labelled episode; returns how many episodes."""
    for ticket, label in labels.items():
        _write(folder_of(run), ticket, tokens_of(run, label, horizon_s))
    return len(labels)


def set_range(run: Run, ticket: int, first: int, last: int, value: int) -> None:
    """Set frames `first` to `last` (inclusive) of an episode. Raises EpisodeDataError outside it."""
    length = _length(run, ticket)
    if value not in (-1, 0, 1):
        raise EpisodeDataError(f"A failure token is -1 (unknown), 0 or 1, not {value}.")
    if not 0 <= first <= last < length:
        raise EpisodeDataError(f"Episode {ticket} has frames 0 to {length - 1}; {first} to {last} does not lie inside.")
    tokens = read_tokens(run).get(ticket, np.full(length, np.nan, np.float32)).copy()
    tokens[first : last + 1] = np.nan if value < 0 else value
    _write(folder_of(run), ticket, tokens)


def read_tokens(run: Run) -> dict[int, Array]:
    """Ticket -> (T,) float32 with NaN for unknown; empty when nobody made any."""
    found = {}
    for path in sorted(folder_of(run).glob("episode_*.npy")):
        ticket = int(path.stem.split("_")[1])
        found[ticket] = _read(path, _length(run, ticket))
    return found


def check(run: Run) -> list[str]:
    """What is wrong with the tokens of a run, one sentence each; empty when nothing is."""
    problems = []
    present = {int(p.stem.split("_")[1]): p for p in folder_of(run).glob("episode_*.npy")}
    for meta in run.episodes:
        if meta.ticket not in present:
            problems.append(f"episode {meta.ticket} has no tokens")
            continue
        try:
            tokens = _read(present[meta.ticket], meta.length)
        except EpisodeDataError as error:
            problems.append(str(error))
            continue
        if meta.outcome == "success" and (tokens == 1).any():
            problems.append(f"episode {meta.ticket} succeeded and still has failing frames")
        if meta.outcome == "failure" and not (tokens == 1).any():
            problems.append(f"episode {meta.ticket} failed and has no failing frame")
    problems += [
        f"episode {ticket} is not in the run" for ticket in sorted(set(present) - {m.ticket for m in run.episodes})
    ]
    return problems


def export(run: Run, target: Path) -> int:
    """Copy the tokens to a folder of `episode_NNNNNN.npy`; returns how many."""
    tokens = read_tokens(run)
    if not tokens:
        raise EpisodeDataError(
            f"{run.root} has no failure tokens; make them with: failsight failure-tokens create {run.root}"
        )
    for ticket, values in tokens.items():
        _write(target, ticket, values)
    return len(tokens)


def import_tokens(run: Run, source: Path) -> int:
    """Take tokens from a folder, all or none. Raises EpisodeDataError naming the file that does not fit."""
    paths = sorted(source.glob("*.npy"))
    if not paths:
        raise EpisodeDataError(f"{source} holds no .npy files.")
    taken = {}
    for path in paths:
        digits = path.stem.split("_")[-1]
        if not digits.isdigit():
            raise EpisodeDataError(f"{path} names no episode; call it episode_000012.npy.")
        taken[int(digits)] = _read(path, _length(run, int(digits)))
    for ticket, values in taken.items():
        _write(folder_of(run), ticket, values)
    return len(taken)


def _length(run: Run, ticket: int) -> int:
    if not 0 <= ticket < len(run.episodes):
        raise EpisodeDataError(f"{run.root} has no episode {ticket}; it has {len(run.episodes)}.")
    return run.episodes[ticket].length


def _read(path: Path, length: int) -> Array:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise EpisodeDataError(f"{path} is not a whole .npy file ({error}).") from error
    if values.shape != (length,):
        raise EpisodeDataError(f"{path} has shape {values.shape}; its episode has {length} frames.")
    if not np.isin(values, (-1, 0, 1)).all():
        raise EpisodeDataError(f"{path} holds values other than -1, 0 and 1.")
    return np.where(values < 0, np.nan, values).astype(np.float32)


def _write(folder: Path, ticket: int, tokens: Array) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"episode_{ticket:06d}.npy", np.where(np.isnan(tokens), -1, tokens).astype(np.int8))
