"""What was judged and decided is stored with the episode it belongs to, and comes back as it was."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from test_store import make_meta

from failsight.core.errors import EpisodeDataError
from failsight.core.types import CONTINUE, Decision, DecisionKind, Outcome
from failsight.episodes.formats.format import ReadOptions
from failsight.episodes.recorder import EpisodeRecorder
from failsight.episodes.run import Run
from failsight.episodes.seal import seal
from failsight.episodes.verdicts import (
    Judge,
    VerdictRow,
    alarm_steps,
    changes_of,
    count_alarms,
    read_verdicts,
    store_verdicts,
    verdict_table,
    write_verdicts,
)
from failsight.interventions.rungs import Watch
from failsight.labels.outcome import OutcomeLabeler
from failsight.labels.run_demonstrations import FORMAT
from failsight.labels.table import label_run, read_labels
from failsight.runtime import collect as collecting
from failsight.runtime.collect import prepare, record_episode
from failsight.storage.parquet import read_table, write_table
from failsight.workflows.episodes import EpisodeFilter, list_episodes

JUDGE = Judge(bundle="b1/2", policy="point")


def rows(count, alarm_at=()):
    return [
        VerdictRow(
            step=t,
            time_s=0.05 * t,
            p_fail=t / 100,
            threshold=0.5,
            margin=t / 100 - 0.5,
            trigger=t in alarm_at,
            why="p_fail" if t in alarm_at else "",
            decision="stop" if t in alarm_at else "continue",
            guard="clip" if t == 1 else "",
        )
        for t in range(count)
    ]


class Judging(EpisodeRecorder):
    """Stands in for a loop with a monitor: a verdict per recorded step."""

    def __init__(self, root, ticket, fps, cameras=None, judge=None):
        super().__init__(root, ticket, fps, cameras, JUDGE if ticket != 1 else None)

    def add(self, step, *rest):
        super().add(step, *rest)
        super().add_verdict(rows(step.index + 1, {3, 4, 6})[-1])

    def add_verdict(self, row):
        """What the loop itself would say."""


def test_verdicts_are_sealed_per_bundle(tmp_path, monkeypatch):
    monkeypatch.setattr(collecting, "EpisodeRecorder", Judging)
    bench, meta = make_meta()
    for ticket in prepare(tmp_path, meta, resume=False):
        record_episode(tmp_path, 0.0, bench, ticket)
    seal(tmp_path)
    found = read_verdicts(tmp_path)
    assert {judge.bundle for judge in found} == {"b1/2", ""}
    assert sorted(p.name for p in (tmp_path / "verdicts").iterdir()) == ["b1-2.parquet", "unmonitored.parquet"]
    frame = found[JUDGE]
    lengths = {m.ticket: m.length for m in Run(tmp_path).episodes}
    assert frame.groupby("ticket").size().to_dict() == {0: lengths[0], 2: lengths[2]}
    first = frame[frame["ticket"] == 0]
    assert first["p_fail"].to_list() == [t / 100 for t in range(lengths[0])]
    assert first["guard"].iloc[1] == "clip"
    assert count_alarms(found) == {0: 2, 1: 2, 2: 2}
    assert alarm_steps(found)[1] == {3, 4, 6}
    label_run(Run(tmp_path), OutcomeLabeler())
    columns, listed, total = list_episodes(tmp_path, EpisodeFilter())
    assert [dict(zip(columns, row, strict=True))["alarms"] for row in listed] == [2, 2, 2]
    assert total == 3


def test_a_run_can_be_judged_afterwards(tmp_path):
    nan = VerdictRow(step=0, time_s=0.0, blind="the state is frozen")
    write_verdicts(tmp_path, JUDGE, {4: [nan], 2: rows(2)})
    frame = read_verdicts(tmp_path)[JUDGE]
    assert frame["ticket"].to_list() == [2, 2, 4]
    assert np.isnan(frame["p_fail"].iloc[2])
    assert frame["blind"].iloc[2] == "the state is frozen"
    assert read_verdicts(tmp_path / "nothing") == {}


def test_another_table_among_the_verdicts_is_refused(tmp_path):
    path = write_verdicts(tmp_path, JUDGE, {0: rows(2)})
    write_table(path, read_table(path, ["step"]))
    with pytest.raises(EpisodeDataError, match="other columns"):
        read_verdicts(tmp_path)


@pytest.mark.parametrize("broken", [{1}, {0, 1, 2}])
def test_a_run_with_errored_episodes_is_sealed_and_keeps_their_reason(tmp_path, broken, monkeypatch):
    bench, meta = make_meta()
    step = bench.sim.step

    def breaks(action):
        if bench.sim.key.episode in broken and bench.sim._step == 4:
            raise ValueError("the arm fell off")
        return step(action)

    monkeypatch.setattr(bench.sim, "step", breaks)
    for ticket in prepare(tmp_path, meta, resume=False):
        record_episode(tmp_path, 0.0, bench, ticket)
    seal(tmp_path)
    run = Run(tmp_path)
    assert [m.outcome == Outcome.ERRORED for m in run.episodes] == [t in broken for t in range(3)]
    assert run.episodes[1].error == "robot: ValueError: the arm fell off"
    assert run.episodes[1].instruction == "go home"
    assert [len(e.states) for e in run.read()][1] == 4, "the steps before the error are kept"
    label_run(run, OutcomeLabeler())
    columns, listed, _ = list_episodes(tmp_path, EpisodeFilter())
    assert dict(zip(columns, listed[1], strict=True))["error"] == "robot: ValueError: the arm fell off"


@pytest.mark.parametrize("broken", [{1}, {0, 1, 2}])
def test_an_episode_that_never_began_has_no_steps(tmp_path, broken, monkeypatch):
    bench, meta = make_meta()
    reset = bench.sim.reset

    def breaks(*, seed=None, options=None):
        if options["key"].episode in broken:
            raise ValueError("no arm")
        return reset(seed=seed, options=options)

    tickets = prepare(tmp_path, meta, resume=False)
    monkeypatch.setattr(bench.sim, "reset", breaks)
    for ticket in tickets:
        record_episode(tmp_path, 0.0, bench, ticket)
    seal(tmp_path)
    run = Run(tmp_path)
    assert [len(e.states) for e in run.read()][1] == 0
    assert [m.length > 0 for m in run.episodes] == [t not in broken for t in range(3)]


def test_derived_tables_of_another_run_are_refused(tmp_path):
    """Two runs of the same plan: as many steps, the same episodes, and still not the same run."""
    for name in ("one", "two"):
        bench, meta = make_meta()
        for ticket in prepare(tmp_path / name, meta, resume=False):
            record_episode(tmp_path / name, 0.0, bench, ticket)
        seal(tmp_path / name)
        label_run(Run(tmp_path / name), OutcomeLabeler())
        write_verdicts(tmp_path / name, JUDGE, {0: rows(2)})
        assert len(read_labels(Run(tmp_path / name))) == 3
        assert len(read_verdicts(tmp_path / name)[JUDGE]) == 2
    shutil.copytree(tmp_path / "one/labels", tmp_path / "two/labels", dirs_exist_ok=True)
    shutil.copytree(tmp_path / "one/verdicts", tmp_path / "two/verdicts", dirs_exist_ok=True)
    with pytest.raises(EpisodeDataError, match="made from another run"):
        read_labels(Run(tmp_path / "two"))
    with pytest.raises(EpisodeDataError, match="made from another run"):
        read_verdicts(tmp_path / "two")


class Tells(Watch):
    """Another instruction at step 3."""

    def propose(self, verdict, context):
        if context.step != 3:
            return CONTINUE
        return Decision(kind=DecisionKind.REINSTRUCT, reason="test", instruction="go to the origin")


def test_rows_of_before_have_told_nobody_anything(tmp_path):
    rows = [VerdictRow(step=0, time_s=0.0)]
    table = verdict_table(0, rows, JUDGE)
    old = table.drop_columns(["instruction"])
    path = store_verdicts(tmp_path, [table, old])
    assert read_verdicts(tmp_path)[JUDGE]["instruction"].to_list() == ["", ""]
    write_table(path, old)
    assert changes_of(read_verdicts(tmp_path)) == {}


def test_what_a_policy_was_told_is_what_a_policy_that_learns_from_the_run_is_told(tmp_path):
    """Told at step 3, it plans by it from step 4 on: there the prompt-reset token and the other instruction begin."""
    bench, meta = make_meta(video=1.0)
    bench, meta = replace(bench, intervention=Tells()), replace(meta, labeler="outcome")
    for ticket in prepare(tmp_path / "run", meta, resume=False):
        record_episode(tmp_path / "run", 1.0, bench, ticket)
    seal(tmp_path / "run")
    label_run(Run(tmp_path / "run"), OutcomeLabeler())
    demonstrations, _, _ = FORMAT.read(tmp_path / "run", ReadOptions())
    found = [(item.instruction, item.changes) for item in demonstrations]
    assert found == [("go home", ((4, "go to the origin"),))] * 3
