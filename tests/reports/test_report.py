import copy
import json
import re

import numpy as np
import pytest

from failsight.core.errors import EpisodeDataError
from failsight.interventions.arms import DEFAULT_ARMS, arm_words
from failsight.reports.html import render, write_report
from failsight.reports.verdict import claims, number
from failsight.storage.images import write_png


def e(value, low=None, high=None, n=40):
    return {"value": value, "low": value if low is None else low, "high": value if high is None else high, "n": n}


def arm(change=(0.0, -0.1, 0.1), reduction=(0.0, -0.2, 0.2), name="arm"):
    return {
        "name": name,
        "pairs": 40,
        "triggers": 10,
        "success_rate": e(0.7, 0.6, 0.8),
        "collision_rate": e(0.1, 0.0, 0.2),
        "stop_rate": e(0.0, 0.0, 0.1),
        "rescue_rate": e(0.5, 0.2, 0.8),
        "harm_rate": e(0.1, 0.0, 0.3),
        "success_change": e(*change),
        "failure_reduction": e(*reduction),
        "collision_reduction": e(0.2, -0.3, 0.6),
        "mcnemar_p": 0.5,
        "e_value": 1.0,
        "duty_cycle": 0.1,
        "human_minutes_per_hour": 4.0,
    }


KINDS = ("collision", "drop", "miss", "timeout")


def make_detection():
    auc = {**e(0.9, 0.85, 0.95), **{n: e(0.5, 0.4, 0.6) for n in ("salus_mlp", "clock", "task_prior", "permuted")}}
    detection = {
        f"{metric}_{share}": copy.deepcopy(auc)
        for metric in ("auc", "within_task_auc", "within_perturbation_auc", "within_task_and_perturbation_auc")
        for share in ("25", "50")
    }
    for share in ("25", "50"):
        shown_ = {"shown": True, "sentence": "90.0 [85.0, 95.0], ahead of clock by +40.0", "over": {}}
        detection[f"claims_{share}"] = {n: dict(shown_) for n in ("pooled", "within_task", "within_perturbation")}
    bins = [{"predicted": 0.2, "observed": e(0.25, 0.1, 0.4)}]
    return {**detection, "reliability_25": {"ece": 0.04, "brier": 0.1, "n": 40, "bins": bins}}


def make_summary():
    types = {k: {"precision": 0.5, "recall": 0.5, "f1": 0.5, "n": 4} for k in KINDS}
    names = ("none", "safe_stop", "slow", "retry", "placebo", "takeover_random", "takeover", "ladder_auto", "ladder")
    arms = {name: arm(name=name) for name in names}
    arms["ladder_auto"] = arm((0.0, -0.02, 0.02), name="ladder_auto")
    arms["ladder"] = arm((0.2, 0.1, 0.3), (0.5, 0.3, 0.7), "ladder")
    arms["ladder"] |= {"over_placebo": e(0.2, 0.05, 0.35), "placebo": "takeover_random"}
    condition = {"success": e(0.7, 0.5, 0.9), **dict.fromkeys(types, 1)}
    return {
        "command": "failsight run demo",
        "commit": "abc",
        "versions": {"failsight": "0"},
        "seeds": {"fit": 1, "gate": 2, "test": 3},
        "wall_s": 100.0,
        "config": {"name": "demo"},
        "episodes": {"fit": 100, "gate": 40, "test": 40},
        "unscored": {"fit": 0, "test": 0},
        "policy": {
            "name": "p",
            "fingerprint": "f",
            "success_rate": e(0.7, 0.6, 0.8),
            "per_condition": {"none": condition},
        },
        "failure_types": {k: {"count": 3, "share": e(0.1)} for k in types},
        "detection": make_detection(),
        "types": {
            "recurrent": {
                "per_type": types,
                "macro_f1": e(0.4),
                "before_onset": {"macro_f1": e(0.3), "lead_steps": 20},
                "hindsight": {"macro_f1": e(0.7)},
            }
        },
        "false_alarm_rate": {
            **e(0.06, 0.03, 0.1),
            "alpha": 0.1,
            "alpha_upper": 0.18,
            "threshold": 0.5,
            "calibration_successes": 50,
        },
        "recall": e(0.7, 0.6, 0.8),
        "before_onset": e(0.4, 0.3, 0.5),
        "lead_steps": e(50.0, 40.0, 60.0),
        "arms": arms,
        "arm_words": arm_words(names),
        "headline": "ladder",
        "gate": [{"rung": "retry", "triggers": 9, "rescues": 1, "harms": 3, "net_low": -0.3, "open": False}],
        "failure_reduction": arms["ladder"]["failure_reduction"],
        "human_minutes_per_hour": 4.0,
        "aa_flips": {"flips": 0, "forks": 20},
        "monitor": {"p50_us": 200.0, "p99_us": 400.0},
    }


def found(summary):
    return {claim.title: claim.found for claim in claims(summary)}


def sentence(summary, title):
    return next(claim.sentence for claim in claims(summary) if claim.title == title)


def shown(summary):
    return {claim.title: claim.shown for claim in claims(summary)}


def test_a_good_result_is_shown_and_a_null_result_is_not():
    result = shown(make_summary())
    assert result["Failures are seen coming"]
    assert result["The ladder with a person prevents failures"]
    assert not result["Backing up and trying again at the alarm helps"]
    assert not result["... and collisions"]


@pytest.mark.parametrize(
    ("change", "title"),
    [
        (lambda s: s["detection"]["claims_50"]["pooled"].update(shown=False), "Failures are seen coming"),
        (
            lambda s: s["detection"]["claims_50"]["within_task"].update(shown=False),
            "... and not by knowing which task is hard",
        ),
        (
            lambda s: s["detection"]["claims_50"]["within_perturbation"].update(shown=False),
            "... nor by knowing what was disturbed",
        ),
        (lambda s: s["false_alarm_rate"].update(high=0.11), "The promised false-alarm rate is kept"),
        (lambda s: s["arms"]["ladder"]["over_placebo"].update(low=0.0), "The ladder with a person prevents failures"),
        (lambda s: s["arms"]["ladder"].pop("over_placebo"), "The ladder with a person prevents failures"),
        (
            lambda s: s["arms"]["ladder"]["failure_reduction"].update(low=-0.01),
            "The ladder with a person prevents failures",
        ),
        (lambda s: s["aa_flips"].update(flips=1), "Differences between arms are real, not noise"),
        (
            lambda s: s["arms"]["ladder_auto"].update(success_change=e(-0.1, -0.2, 0.0)),
            "Without a person the ladder does no harm",
        ),
        (lambda s: s["detection"].pop("claims_50"), "Failures are seen coming"),
    ],
)
def test_each_claim_can_fail(change, title):
    summary = make_summary()
    assert shown(summary)[title] or title == "... and collisions"
    change(summary)
    assert not shown(summary)[title]


PROMISE = "The promised false-alarm rate is kept"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.02, 0.10, "shown"),
        (0.05, 0.20, "not contradicted"),
        (0.10, 0.20, "not contradicted"),
        (0.11, 0.2, "contradicted"),
        (None, None, "not tested"),
    ],
)
def test_a_promise_that_the_interval_contains_is_not_contradicted_and_no_more(low, high, expected):
    summary = make_summary()
    summary["false_alarm_rate"].update(low=low, high=high)
    assert found(summary)[PROMISE] == expected


@pytest.mark.parametrize("key", ["retry", "ladder", "ladder_auto"])
def test_an_arm_that_never_acted_was_not_tested(key):
    summary = make_summary()
    title = summary["arm_words"][key]["title"]
    assert found(summary)[title] != "not tested"
    summary["arms"][key]["duty_cycle"] = 0.0
    assert found(summary)[title] == "not tested"
    assert "It never acted" in sentence(summary, title)


def test_harm_is_counted_among_the_alarmed_successes():
    summary = make_summary()
    summary["arms"]["slow"].update(rescue_rate=e(0.25, n=8), harm_rate=e(2 / 15, n=15))
    said = sentence(summary, "Going slower at the alarm helps")
    assert "2 of 8 alarmed failures rescued, 2 of 15 alarmed successes harmed" in said
    assert "succeeding ones" not in said


def test_a_ladder_with_one_open_rung_is_that_arm_and_says_so():
    summary, title = make_summary(), "The ladder with a person prevents failures"
    assert "no second finding" not in sentence(summary, title)
    summary["gate"].append({**summary["gate"][0], "rung": "takeover", "open": True})
    assert "Only takeover had earned its place, so this is that arm and no second finding." in sentence(summary, title)


def test_every_auc_stands_beside_its_number_of_episodes(tmp_path):
    summary = make_summary()
    for title in ("Failures are seen coming", "... and not by knowing which task is hard"):
        assert "0.90 [0.85, 0.95] of 40 episodes" in sentence(summary, title)
    page = render(summary, tmp_path)
    assert "AUC, n = 40" in page
    assert "50 % (n = 40)" in page


def test_the_clock_has_an_alarm_row_of_its_own(tmp_path):
    summary = make_summary()
    row = {"false_alarm_rate": e(0.13, 0.07, 0.2), "recall": e(0.73, 0.6, 0.8), "lead_steps": e(46.0)}
    summary["detection"]["alarms"] = {"recurrent": row, "clock": row}
    page = render(summary, tmp_path)
    assert re.search(r"elapsed time only</td><td>13 % \[7, 20\]</td><td>73 % \[60, 80\]</td><td>46</td>", page)


def test_the_headline_says_what_was_announced_in_time_and_no_value_twice(tmp_path):
    page = render(make_summary(), tmp_path)
    tiles = re.findall(r'<div class="tile"><span>(.*?)</span><b>(.*?)</b><span>(.*?)</span></div>', page)
    assert ("failures announced in time", "40 %", "at or before the onset [30, 50] %, n = 40") in tiles
    for _, value, below in tiles:
        assert value not in below


def test_a_report_shows_an_arm_it_never_heard_of(tmp_path):
    summary = make_summary()
    summary["arms"]["nudge"] = arm((0.3, 0.2, 0.4), name="nudge")
    words = {"title": "Nudging helps", "sentence": "a push from the side", "asks": "helps", "order": 99}
    summary["arm_words"]["nudge"] = {**words, "autonomous": True, "rung": True, "gated": False, "random": False}
    assert shown(summary)["Nudging helps"]
    assert "a push from the side" in render(summary, tmp_path)


@pytest.mark.parametrize("name", [name for name in DEFAULT_ARMS if name != "none"])
def test_a_report_does_without_any_arm(name, tmp_path):
    summary = make_summary()
    title = summary["arm_words"].pop(name)["title"]
    del summary["arms"][name]
    result = claims(summary)
    assert title not in {claim.title for claim in result}
    assert summary["headline"] in summary["arms"] or name == summary["headline"]
    assert "<svg" in render(summary, tmp_path)
    if name == "placebo":
        del summary["arms"]["takeover_random"], summary["arm_words"]["takeover_random"]
        summary["arms"]["ladder"].pop("over_placebo")
        ladder = next(c for c in claims(summary) if c.title == "The ladder with a person prevents failures")
        assert not ladder.shown
        assert "No placebo was run" in ladder.sentence


def test_a_summary_from_before_words_travelled_still_renders(tmp_path):
    summary = make_summary()
    for key in ("arm_words", "headline"):
        del summary[key]
    summary["arms"]["slow"] = arm((0.3, 0.2, 0.4), name="slow")
    result = shown(summary)
    assert result["slow helps"]
    assert not result["retry helps"]
    assert "none helps" not in result
    assert "ladder auto" in render(summary, tmp_path)


def test_numbers_without_data_say_so():
    assert number({"value": None, "low": None, "high": None, "n": 0}) == "no data (n=0)"
    assert number({"value": -0.001, "low": -0.004, "high": 0.0, "n": 9}, percent=True) == "0 % [0, 0]"
    assert number({"value": 0.5, "low": None, "high": None, "n": 3}) == "0.50 (n=3)"


def test_the_page_is_self_contained(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("a.png", "b.png"):
        write_png(pictures / name, np.zeros((16, 32, 3), np.uint8))
    film = {"file": "a.png", "steps": [0, 5], "p_fail": [0.1, 0.9], "trigger": 1, "acted": [1], "outcome": "success"}
    case = {"label": "rescued", "arm": "ladder", "task": "t", "condition": "none", "none": film, "arm_film": film}
    example = {"file": "b.png", "task": "t", "condition": "none", "onset": 3, "steps": [0], "ticket": 1}
    index = {"types": {"drop": [example], "miss": []}, "cases": [case], "threshold": 0.5}
    (pictures / "pictures.json").write_text(json.dumps(index))
    (tmp_path / "summary.json").write_text(json.dumps(make_summary()))
    page = write_report(tmp_path).read_text()
    assert "not shown" in page
    assert "No episode was harmed in this run" in page
    assert "No episode was not rescued in this run" in page
    assert page.count("data:image/png;base64") == 3
    outside = [u for u in re.findall(r'(?:src|href)="([^"#]+)"', page) if not u.startswith("data:")]
    assert outside == [], f"the page refers to {outside}"


def test_a_page_without_pictures_still_renders(tmp_path):
    assert "<svg" in render(make_summary(), tmp_path)


def test_a_folder_without_a_summary_is_explained(tmp_path):
    with pytest.raises(EpisodeDataError, match=r"no summary\.json"):
        write_report(tmp_path)


EPISODE = {
    "episode": 3,
    "task": "pick",
    "instruction": "pick the </script><b>cup</b>",
    "condition": "none",
    "outcome": "failure",
    "type": "drop",
    "onset": 4,
    "steps": 6,
    "alarm": 2,
    "lead": 2,
    "arms": {"slow": "success"},
    "p_fail": [0.1, None, 0.9],
}


def test_every_episode_is_in_the_page_and_no_text_of_it_ends_the_script(tmp_path):
    table = {"threshold": 0.5, "rate_hz": 20.0, "arms": ["slow"], "episodes": [EPISODE]}
    (tmp_path / "summary.json").write_text(json.dumps(make_summary()))
    (tmp_path / "episodes.json").write_text(json.dumps(table))
    page = write_report(tmp_path).read_text()
    stored = re.search(r'<script type="application/json" id="episodes">(.*?)</script>', page, re.DOTALL).group(1)
    assert json.loads(stored) == table
    assert "<b>cup</b>" not in page
    assert 'data-explorer="episodes"' in page


def test_a_page_without_rows_has_no_table_of_episodes(tmp_path):
    assert 'data-explorer="episodes"' not in render(make_summary(), tmp_path)


def test_a_damaged_table_of_episodes_is_refused_by_its_file(tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps(make_summary()))
    (tmp_path / "episodes.json").write_text("[1, 2")
    with pytest.raises(EpisodeDataError, match=r"episodes\.json"):
        write_report(tmp_path)
