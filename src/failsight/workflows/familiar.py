"""What a policy is familiar with, from the successful episodes of a run; kept in the bundle by `fit`.

Half of the episodes say what is usual, the other half set the limits. The number of every cause is divided by the
largest one of the first half, and one conformal limit holds for the largest quotient of an episode: so the share of
ordinary episodes in which anything at all is diagnosed is promised, however many causes there are.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from failsight.causes.diagnosis import Diagnosis
from failsight.causes.familiar import (
    COLOURS,
    GRAIN,
    MOVED,
    OPENED,
    SHAKING,
    SLIP,
    START,
    Familiar,
    Wording,
    start_of,
)
from failsight.causes.motion import TICKS, response_of
from failsight.causes.views import UsualView, view_of
from failsight.causes.wordings import plain
from failsight.core.errors import FailsightError
from failsight.core.foreign import read_text
from failsight.core.lens import PREFIX
from failsight.core.types import Array, Outcome
from failsight.episodes.run import Episode, Run
from failsight.monitor.calibration import conformal_threshold
from failsight.storage.pictures import Video
from failsight.storage.video import frames_per_second

ALPHA = 0.02
"""Share of ordinary episodes in which a cause may be diagnosed."""
SMALLEST = {MOVED: 0.25, COLOURS: 4.0, GRAIN: 0.3, START: 1.0, SHAKING: 50.0, SLIP: 0.05, OPENED: 0.05}
"""Kind of cause -> number below which nothing is named: pixels, grey levels, log, spreads, shares. A video that loses
detail as it is stored is off by up to two grey levels and .1 in its grain.
"""
LEAST = math.ceil(1 / ALPHA) - 1
"""Episodes that set the limits, at the least; as many again say what is usual."""


class _Seen(NamedTuple):
    """What is read of a successful episode."""

    instruction: str
    task: str
    states: Array
    actions: Array
    pictures: Mapping[str, Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordinary:
    """Where to learn what is ordinary."""

    run: Path | None = None
    """Ordinary episodes of the same policy; None: the run that is fitted on."""
    wordings: Path | None = None
    """The user's table of wordings; see `read_wordings`."""


def learn_familiar(run: Run, ordinary: Ordinary, note: Callable[[str], None]) -> Familiar | None:
    """From successful episodes; None, and a note, where they are too few.

    Raises EpisodeDataError for a damaged video, FailsightError for ordinary episodes of another policy, and for a table
    that leads to what is no wording of them.
    """
    fitted = run.meta.policy
    run = run if ordinary.run is None else Run(ordinary.run)
    if run.meta.policy != fitted:
        raise FailsightError(
            f"{run.root} holds episodes of policy {run.meta.policy}, and the run to fit on those of {fitted}; give ordinary "
            "episodes of the same policy."
        )
    if not run.meta.has_actions:
        return None
    table = {} if ordinary.wordings is None else read_wordings(ordinary.wordings)
    episodes = [_ordinary(run, e) for e in run.read(_successes(run)) if len(e.states) > TICKS]
    if len(episodes) < 2 * LEAST:
        note(
            f"no diagnosis of causes: it needs {2 * LEAST} successful episodes and this run has {len(episodes)}; give a run of "
            "ordinary days with --ordinary RUN"
        )
        return None
    wordings, fixed = _wordings(episodes)
    known = {plain(wording.text): wording.text for wording in wordings}
    if lost := [right for right in table.values() if plain(right) not in known]:
        raise FailsightError(f"The table of wordings leads to {lost[0]!r}, which no successful episode was told.")
    first, second = episodes[::2], episodes[1::2]
    views = _views(run, first, note)
    usual = Familiar(
        wordings=wordings,
        fixed=fixed,
        views=views,
        start=start_of([e.states for e in first]),
        response=response_of([(e.states[: TICKS + 1], e.actions[:TICKS]) for e in first]),
        limits={},
        alpha=ALPHA,
        episodes=len(second),
        table={left: known[plain(right)] for left, right in table.items()},
    )
    return replace(usual, limits=_limits(run, usual, first, second))


def _successes(run: Run) -> list[int]:
    return [meta.ticket for meta in run.episodes if meta.outcome == Outcome.SUCCESS and meta.length > TICKS]


def _ordinary(run: Run, episode: Episode) -> _Seen:
    meta = episode.meta
    return _Seen(meta.instruction, meta.task, episode.states, episode.actions, _first_pictures(run, meta.ticket))


def _first_pictures(run: Run, ticket: int) -> dict[str, Array]:
    """(H, W, 3) by camera; only of an episode that was filmed."""
    pictures = {}
    for camera, height, width in run.meta.observation_spec.cameras:
        if (path := run.video(ticket, camera)) is not None:
            tolerance = 0.5 / frames_per_second(run.meta.action_spec.rate_hz)
            pictures[camera] = Video(path).at(np.zeros(1), tolerance, (height, width), str(path))[0]
    return pictures


def _wordings(episodes: Sequence[_Seen]) -> tuple[tuple[Wording, ...], bool]:
    """Distinct instructions, and whether new ones are rare: by the share seen once (Good-Turing), at most `ALPHA`."""
    seen = Counter((e.instruction, e.task) for e in episodes)
    wordings = tuple(Wording(text=text, task=task, episodes=n) for (text, task), n in sorted(seen.items()))
    once = sum(wording.episodes == 1 for wording in wordings)
    return wordings, once / len(episodes) <= ALPHA


def _views(run: Run, episodes: Sequence[_Seen], note: Callable[[str], None]) -> tuple[UsualView, ...]:
    views = []
    for camera, _, _ in run.meta.observation_spec.cameras:
        pictures = [e.pictures[camera] for e in episodes if camera in e.pictures]
        if len(pictures) == len(episodes):
            views.append(view_of(camera, pictures))
        else:
            note(
                f"pictures of {camera} are not diagnosed: {len(pictures)} of {len(episodes)} episodes were filmed; collect "
                "ordinary episodes with --video 1 and give them with --ordinary RUN"
            )
    return tuple(views)


def _limits(run: Run, usual: Familiar, first: Sequence[_Seen], second: Sequence[_Seen]) -> dict[str, float]:
    """Cause -> limit: the largest number of the first half times one conformal factor from the second."""
    before, after = ([_numbers(run, usual, e) for e in part] for part in (first, second))
    causes = sorted({cause for numbers in before for cause in numbers})
    most = {cause: max(max(n.get(cause, 0.0) for n in before), 1e-9) for cause in causes}
    worst = [max(n.get(cause, 0.0) / most[cause] for cause in causes) for n in after]
    factor = conformal_threshold(worst, usual.alpha).threshold
    return {cause: max(factor * most[cause], SMALLEST[cause.partition(" ")[0]]) for cause in causes}


def _numbers(run: Run, usual: Familiar, episode: _Seen) -> dict[str, float]:
    """Cause -> largest number of an episode, as the diagnosis of a running one would see it."""
    diagnosis = Diagnosis(usual, run.meta.action_spec, run.meta.observation_spec)
    pictures = {PREFIX + camera: picture for camera, picture in episode.pictures.items()}
    diagnosis.begin(episode.instruction, pictures, episode.states[0])
    for state, command in zip(episode.states[1:], episode.actions, strict=False):
        diagnosis.follow(state, command)
    return diagnosis.highest


def read_wordings(path: Path) -> dict[str, str]:
    """A user's table: CSV rows of other wording, known wording. Raises FailsightError naming the row."""
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        raise FailsightError(f"Cannot read the wordings {path} ({error}).") from error
    table: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        where = f"{path}, row {number}"
        if not row:
            continue
        if len(row) != 2:
            raise FailsightError(f"{where}: expected other wording, known wording; found {len(row)} cells.")
        other, known = (read_text(cell, where) for cell in row)
        if plain(other) in {plain(left) for left in table}:
            raise FailsightError(f"{where}: {other!r} stands there twice.")
        table[other] = known
    return table
