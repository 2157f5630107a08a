"""Looking at episodes: annotated videos, picture strips, example sheets."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from failsight.core.contracts import Labels
from failsight.core.errors import EpisodeDataError, FailsightError, StorageError, told
from failsight.core.rng import keyed_rng
from failsight.core.types import FAILURE_TYPES, Array
from failsight.episodes.run import Episode, Run
from failsight.episodes.verdicts import alarm_steps, read_verdicts
from failsight.evaluation.scoring import replay
from failsight.labels.table import read_labels
from failsight.monitor.bundle import load_monitor
from failsight.storage.disk import writing
from failsight.storage.images import write_png
from failsight.storage.video import VideoWriter, frames_per_second
from failsight.workflows.films import strip
from failsight.workflows.risk_curve import risk_curve, risk_line
from failsight.workflows.wiring import make_sim

_FRAMES = 8


def pictures_of(run: Run, episode: Episode) -> list[Array]:
    """(256, 256, 3) pictures before every step and after the last, by executing the recorded actions again.

    Raises FailsightError for a simulator that draws nothing for people.
    """
    sim = make_sim(run.meta.sim)
    if not hasattr(sim, "render"):
        raise FailsightError(f"Simulator {run.meta.sim} draws nothing for people: it has no render().")
    pictures = []
    with told(f"Running episode {episode.meta.ticket} again in {run.meta.sim} failed"):
        sim.reset(options={"key": episode.meta.key})
        for action in episode.actions:
            pictures.append(np.asarray(sim.render()))
            sim.step(action)
        pictures.append(np.asarray(sim.render()))
        sim.close()
    return pictures


def view_episode(folder: Path, number: int, out: Path | None, as_strip: bool, bundle: Path | None = None) -> Path:
    """Write an annotated video or a strip; with a bundle the video shows what its monitor says of every step.

    Raises EpisodeDataError for an unknown or empty episode, BundleError for a bundle that does not fit the run.
    """
    run = Run(folder)
    require_drawn(run)
    episode = next(iter(run.read([number])))
    if not episode.meta.length:
        raise EpisodeDataError(f"Episode {number} is errored and has no steps: {episode.meta.error}")
    if as_strip and bundle is not None:
        raise FailsightError("A strip has no room for curves; leave --strip or --bundle away.")
    verdicts = [] if bundle is None else replay(load_monitor(bundle, learns=False), episode)
    pictures = pictures_of(run, episode)
    label = read_labels(run).get(number)
    target = out or folder / f"episode-{number:06d}.{'png' if as_strip else 'mp4'}"
    if as_strip:
        at = np.linspace(0, len(pictures) - 1, _FRAMES).astype(int)
        write_png(target, strip([pictures[i] for i in at]))
        return target
    alarms = alarm_steps(read_verdicts(folder)).get(number, set())
    frames = _captioned(pictures, _notes(episode, label, alarms, [risk_line(v) for v in verdicts]))
    if verdicts:
        curve = risk_curve(verdicts, label.onset if label else None, pictures[0].shape[1])
        frames = [np.concatenate([frame, curve.at(step)]) for step, frame in enumerate(frames)]
    _film(target, frames, frames_per_second(run.meta.action_spec.rate_hz))
    return target


def require_drawn(run: Run) -> None:
    """Raises EpisodeDataError for a log: its episodes cannot be run again, so there is nothing to look at."""
    if run.meta.signals:
        raise EpisodeDataError(
            f"{run.root} is a log of somebody else's episodes: they cannot be run again and have no pictures. What its "
            f"monitor saw in one is said by: failsight explain {run.root} --bundle {run.root / 'bundle'} --episode N"
        )


def _captioned(pictures: Sequence[Array], notes: Sequence[str]) -> list[Array]:
    return [np.concatenate([p, caption(note, p.shape[1], 80)]) for p, note in zip(pictures, notes, strict=True)]


def _film(target: Path, frames: Sequence[Array], fps: float) -> None:
    """A video; nothing half-written stays. Raises StorageError when the disk refuses."""
    partial = target.with_name(target.name + ".partial")
    height, width = frames[0].shape[:2]
    try:
        video = VideoWriter(partial, height, width, fps)
        for frame in frames:
            video.add(frame)
        video.close()
        with writing(target):
            os.replace(partial, target)
    except StorageError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def _notes(episode: Episode, label: Labels | None, alarms: set[int], judged: Sequence[str]) -> list[str]:
    head = f"{episode.meta.instruction}\n{episode.meta.condition}"
    by_step: dict[int, str] = {}
    for event in episode.events:
        if event.kind != "contact":
            by_step[event.step] = f"{event.kind} {event.subject}"
    last, notes = "", []
    for t in range(episode.meta.length + 1):
        last = by_step.get(t, last)
        verdict = "  ALARM" if t in alarms else ""
        if label is not None and label.onset is not None and t >= label.onset:
            verdict += f"  LOST ({label.failure_type})"
        if episode.meta.error and t == episode.meta.length:
            verdict += f"\n{episode.meta.error}"
        said = f"\n{judged[min(t, len(judged) - 1)]}" if judged else ""
        notes.append(f"{head}\nstep {t}  {last}{verdict}{said}")
    return notes


def caption(text: str, width: int, height: int) -> Array:
    """White text on dark, (height, width, 3) uint8."""
    figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor="#102a43")
    canvas = FigureCanvasAgg(figure)
    figure.text(0.03, 0.92, text, color="white", fontsize=7, va="top", family="DejaVu Sans", wrap=True)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def example_sheet(run: Run, labels: Mapping[int, Labels], per_type: int = 3) -> Path:
    """`RUN/labels/examples.png`: random examples of every type, a caption above each strip.

    Raises EpisodeDataError for a log, and for a run without a failed episode.
    """
    require_drawn(run)
    rows = []
    for kind in FAILURE_TYPES:
        tickets = [t for t, label in labels.items() if label.failure_type == kind]
        order = keyed_rng("sheet", kind).permutation(len(tickets))
        for episode in run.read(sorted(tickets[i] for i in order[:per_type])):
            onset = labels[episode.meta.ticket].onset or 0
            pictures = pictures_of(run, episode)
            at = [min(len(pictures) - 1, max(0, onset + d)) for d in (-30, -15, -5, 0, 5, 15)]
            image = strip([pictures[i] for i in at])
            text = f"{kind}   episode {episode.meta.ticket}   {episode.meta.instruction}   {episode.meta.condition}   lost after {onset}"
            rows += [caption(text, image.shape[1], 24), image]
    target = run.root / "labels" / "examples.png"
    if not rows:
        raise EpisodeDataError(f"{run.root} has no failed episode to show.")
    write_png(target, np.concatenate(rows))
    return target
