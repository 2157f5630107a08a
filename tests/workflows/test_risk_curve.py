"""The strip below a film says what the monitor said, and where in the episode we are."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import make_log_run

from failsight.core.errors import EpisodeDataError
from failsight.core.types import Risk, Verdict
from failsight.workflows.risk_curve import HEIGHT, risk_curve, risk_line
from failsight.workflows.view import example_sheet, view_episode


def verdict(p_fail, *, trigger=False, evidence=float("nan"), kind=None):
    risk = Risk(p_fail=p_fail, evidence=evidence)
    if kind is not None:
        risk = replace(risk, type=np.eye(4)[kind])
    return Verdict(risk=risk, threshold=0.5, margin=0.0, trigger=trigger, why="", blind="the state is not finite")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (verdict(0.25), "p_fail 0.25 of 0.50"),
        (verdict(0.25, evidence=1.5), "evidence 1.50 of 0.50"),
        (verdict(0.75, trigger=True), "p_fail 0.75 of 0.50  ALARM"),
        (verdict(0.75, trigger=True, kind=1), "p_fail 0.75 of 0.50  ALARM (drop)"),
        (verdict(float("nan")), "blind: the state is not finite"),
    ],
)
def test_a_caption_says_what_is_judged_against_what(said, expected):
    assert risk_line(said) == expected


def test_the_mark_moves_with_the_step_and_the_alarm_is_coloured():
    quiet = risk_curve([verdict(0.2)] * 20, None, 256)
    alarmed = risk_curve([verdict(0.2)] * 10 + [verdict(0.2, trigger=True)] * 10, None, 256)
    assert quiet.picture.shape == (HEIGHT, 256, 3)
    red = (alarmed.picture[..., 0].astype(int) - quiet.picture[..., 0]) > 20
    assert red[:, :130].sum() == 0
    assert red[:, 150:240].mean() > 0.5
    columns = [int(np.flatnonzero((quiet.at(step) == 255).all((0, 2))).mean()) for step in (0, 10, 20)]
    assert columns == [29, 138, 247]


def test_a_log_has_nothing_to_look_at_and_says_what_else_there_is(tmp_path):
    run = make_log_run(tmp_path / "run", count=8)
    with pytest.raises(EpisodeDataError, match="failsight explain"):
        view_episode(run.root, 0, None, False)
    with pytest.raises(EpisodeDataError, match="log of somebody else's episodes"):
        example_sheet(run, {})
