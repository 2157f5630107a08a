"""A run that grows by one episode at a time while somebody else's loop goes on, and is sealed when that loop is over.

Each episode is committed by one rename when it ends, and nothing before that counts: a killed process loses the episode in
flight, and `Recording` of the same folder goes on. `close` seals the run and labels it by how its episodes ended.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

import failsight
from failsight.core.errors import EpisodeDataError, FailsightError, StorageError
from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.core.types import EpisodeKey, Outcome, PolicyOutput, Task, Tick
from failsight.episodes.meta import WATCHED, EpisodeMeta, RunMeta
from failsight.episodes.recorder import EpisodeRecorder, clear_recordings, committed_tickets, episode_folder
from failsight.episodes.run import Run, is_sealed
from failsight.episodes.seal import read_episode_meta, seal
from failsight.episodes.verdicts import Judge
from failsight.labels.outcome import OutcomeLabeler
from failsight.labels.table import label_run
from failsight.storage.disk import write_bytes_atomic
from failsight.storage.lock import holds_files, writing_alone
from failsight.storage.video import frames_per_second

_PLACE = "meta/failsight/run.json"


class Recording:
    """An `Observer` that makes a run of what it is told."""

    name, wants_images = "recorder", False

    def __init__(
        self, root: Path, actions: ActionSpec, observations: ObservationSpec, judge: Judge, arm: str = ""
    ) -> None:
        """Args: judge: whose verdicts it keeps, of which policy; arm: what acts.

        Raises FailsightError for a folder that holds something else or a finished run; StorageError when another
        process writes there.
        """
        self.root, self._judge, self._arm = root, judge, arm
        self._specs = actions, observations
        self._shapes: dict[str, tuple[int, ...]] | None = None
        self._stack = ExitStack()
        self._stack.enter_context(writing_alone(root))
        try:
            self._tickets = self._resume()
        except BaseException:
            self._stack.close()
            raise
        self._recorder: EpisodeRecorder | None = None
        self._refused: StorageError | None = None

    def _resume(self) -> int:
        """How many episodes are there already."""
        if not (self.root / _PLACE).is_file():
            if holds_files(self.root):
                raise FailsightError(f"{self.root} is not empty and no recording; choose another folder.")
            return 0
        old = RunMeta.read(self.root / _PLACE)
        if is_sealed(self.root):
            raise FailsightError(f"{self.root} holds a finished run; record into another folder.")
        for what, was, now in (
            ("another policy", old.policy, self._judge.policy),
            ("another bundle", old.bundle, self._judge.bundle),
            ("other rungs", old.arm, self._arm),
            ("other specs", (old.action_spec, old.observation_spec.state), (self._specs[0], self._specs[1].state)),
        ):
            if was != now:
                raise FailsightError(f"{self.root} was recorded with {what}; record into another folder.")
        clear_recordings(self.root, partial_only=True)
        self._shapes = old.shapes
        found = committed_tickets(self.root)
        if found != list(range(len(found))):
            raise EpisodeDataError(f"{self.root} lacks episodes among those it holds; restore them from a copy.")
        return len(found)

    def key_of(self, task: str) -> EpisodeKey:
        """Of the next episode: its number in the run."""
        return EpisodeKey(seed=self._tickets, task=task, episode=self._tickets)

    def begin(self, task: Task, key: EpisodeKey) -> None:
        """An episode begins; its first tick makes it."""
        self._task, self._key, self._began = task, key, time.monotonic()
        self._recorder, self._refused = None, None

    def observe(self, tick: Tick) -> None:
        """Take in one tick. Raises EpisodeDataError for a step that is no data, or tensors of other shapes than before;
        StorageError when the disk refuses.
        """
        try:
            if tick.step is not None and tick.step.replan:
                self._require_shapes(tick.step.output)
            if self._recorder is None:
                fps = frames_per_second(self._specs[0].rate_hz)
                self._recorder = EpisodeRecorder(self.root, self._tickets, fps, None, self._judge)
            self._recorder.observe(tick)
        except StorageError as error:
            self._refused = error
            raise

    def _require_shapes(self, output: PolicyOutput) -> None:
        values = {name: getattr(output, name) for name in ("chunk", "hidden", "samples", "members", "failure")}
        found = {f"policy.{name}": tuple(np.shape(v)) for name, v in values.items() if v is not None}
        if self._shapes is None:
            self._shapes = found
            self._meta(()).write(self.root / _PLACE)
        elif found != self._shapes:
            raise EpisodeDataError(
                f"the policy answers {_told(found)}, and before {_told(self._shapes)}; a run holds one kind of answer"
            )

    def _meta(self, plan: tuple[EpisodeKey, ...]) -> RunMeta:
        return RunMeta(
            action_spec=self._specs[0],
            observation_spec=replace(self._specs[1], cameras=()),
            policy=self._judge.policy,
            sim=WATCHED,
            plan=plan,
            shapes=self._shapes or {},
            versions={"failsight": failsight.__version__, "numpy": np.__version__},
            note="recorded while somebody else's loop went on",
            bundle=self._judge.bundle,
            arm=self._arm,
            labeler=OutcomeLabeler.name,
        )

    def end(self, outcome: Outcome, error: str = "") -> None:
        """Commit the episode; one without a tick is none. Raises StorageError when it could not be kept."""
        recorder, self._recorder = self._recorder, None
        if self._refused is not None and recorder is not None:
            recorder.abandon()
            raise StorageError(f"The episode was not recorded: {self._refused}")
        if recorder is None:
            return
        if self._shapes is None:  # it broke before any step was ever seen: a run knows its shapes
            recorder.abandon()
            return
        recorder.commit(
            EpisodeMeta(
                ticket=self._tickets,
                seed=self._key.seed,
                task=self._key.task,
                episode=self._key.episode,
                condition=self._key.condition,
                instruction=self._task.instruction,
                horizon=self._task.horizon,
                outcome=outcome,
                length=recorder.steps,
                policy=self._judge.policy,
                wall_s=time.monotonic() - self._began,
                error=error,
            )
        )
        self._tickets += 1

    def close(self) -> Run | None:
        """Seal and label what was recorded; None: nothing was. Raises StorageError; closing again does nothing."""
        with self._stack:
            self._stack = ExitStack()
            if not self._tickets or is_sealed(self.root):
                return None
            metas = [read_episode_meta(episode_folder(self.root, ticket)) for ticket in range(self._tickets)]
            horizon = max(max(meta.length, meta.horizon) for meta in metas)
            for meta in metas:
                if not meta.horizon:  # nobody said; the longest episode is the least it can be
                    self._rewrite(replace(meta, horizon=horizon))
            self._meta(tuple(meta.key for meta in metas)).write(self.root / _PLACE)
            seal(self.root)
            run = Run(self.root)
            label_run(run, OutcomeLabeler())
            return run

    def _rewrite(self, meta: EpisodeMeta) -> None:
        path = episode_folder(self.root, meta.ticket) / "episode.json"
        write_bytes_atomic(path, json.dumps(asdict(meta)).encode())


def _told(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name.removeprefix('policy.')} {shape}" for name, shape in shapes.items())
