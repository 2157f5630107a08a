"""The experiment on interventions with somebody else's simulator, policy and arm, and on the navigation room."""

import json

import pytest
from test_foreign_package import installed_at

from failsight.cli.main import main
from failsight.core.errors import FailsightError, UnknownNameError
from failsight.interventions.ladder_file import load_ladder
from failsight.recipes.interventions.choice import choose_arms
from failsight.recipes.interventions.options import ExperimentConfig
from failsight.recipes.runs import run_recipe
from failsight.reports.html import write_report
from failsight.reports.verdict import claims

pytestmark = pytest.mark.xdist_group("anywhere")
LONELY = """from dataclasses import replace
from pointworld.sim import ENTRY as WHOLE
ENTRY = replace(WHOLE, operator="", labeler="", targets={})
"""
SIZES = [
    "--workers",
    "1",
    "--fit-trials",
    "40",
    "--gate-trials",
    "12",
    "--test-trials",
    "12",
    "--mix",
    "none,wind:3",
    "--alpha",
    "0.5",
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    with installed_at(folder / "site") as site:
        (site / "lonely.py").write_text(LONELY)
        yield folder


@pytest.fixture(scope="module")
def whole(world):
    out = world / "whole"
    main(["run", "smoke", "--sim", "pointworld", "--policy", "homing", "--out", str(out), *SIZES, *ARMS])
    return out, json.loads((out / "summary.json").read_text())


ARMS = ("--arms", "ladder", "homewards", "takeover", "slow", "placebo", "random_trigger", "always_on", "salus")


@pytest.mark.slow
def test_an_outsiders_arm_is_tried_on_an_outsiders_simulator(whole):
    _, summary = whole
    assert [*summary["arms"]] == [
        *("none", "slow", "placebo", "random_trigger", "always_on", "takeover", "salus", "ladder", "homewards")
    ]
    assert summary["arms"]["always_on"]["triggers"] == summary["arms"]["none"]["pairs"], "from the first step on"
    assert [entry["rung"] for entry in summary["gate"]] == ["slow", "takeover", "homewards"]
    assert summary["arm_words"]["homewards"]["sentence"] == "Go home by itself at the alarm"
    assert summary["headline"] == "ladder"
    ladder = load_ladder(whole[0] / "bundle")
    assert (
        {e.rung: e.rescues for e in ladder if not e.type}
        == {row["rung"]: row["rescues"] for row in summary["gate"]}
        != {}
    )
    assert summary["arms"]["takeover"]["triggers"] > 0
    assert summary["arms"]["homewards"]["rescue_rate"]["value"] > 0, "who knows where it is comes home"
    assert {"low", "high"} <= set(summary["arms"]["homewards"]["over_placebo"])
    assert summary["aa_flips"]["flips"] == 0
    assert set(summary["failure_types"]) == {"collision", "drop", "miss", "timeout"}
    assert "no render" in summary["left_out"]["films"]
    titles = [claim.title for claim in claims(summary)]
    assert "homewards at the alarm helps" in titles
    assert not [title for title in titles if title.startswith("Backing up")], (
        "the robot cannot back up, and was not asked"
    )


@pytest.mark.slow
def test_a_given_bundle_judges_and_nothing_is_fitted(whole, world, tmp_path):
    out, first = whole
    arguments = ["--sim", "pointworld", "--policy", "homing", "--bundle", str(out / "bundle"), *SIZES, *ARMS]
    given = tmp_path / "given"
    main(["run", "smoke", "--out", str(given), *arguments])
    summary = json.loads((given / "summary.json").read_text())
    assert not (given / "fit").exists()
    assert not (given / "bundle").exists()
    for key in ("gate", "aa_flips", "recall", "before_onset"):
        assert summary[key] == first[key], "the same monitor on the same episodes"
    assert summary["arms"]["takeover"] | {"over_placebo": 0} == first["arms"]["takeover"] | {"over_placebo": 0}
    auc = summary["detection"]["auc_25"]
    assert auc["value"] == first["detection"]["auc_25"]["value"]
    assert {"clock", "task_prior"} <= set(auc)
    assert "permuted" not in auc, "nothing was fitted that could be fitted on permuted labels"
    gate = [json.loads(line) for line in (given / "gate.jsonl").read_text().splitlines()[1:]]
    stamp = json.loads(json.loads((given / "arms.jsonl").read_text().splitlines()[0])["stamp"])
    assert stamp[2]["placebo_steps"] == [record["trigger_step"] for record in gate]
    assert write_report(given).is_file()
    lines = (given / "arms.jsonl").read_text().splitlines()
    (given / "arms.jsonl").write_text("\n".join(lines[:5]) + "\n")
    main(["run", "smoke", "--out", str(given), *arguments])
    again = json.loads((given / "summary.json").read_text())
    assert (again["arms"], again["resumed"]) == (summary["arms"], True)


@pytest.mark.slow
def test_where_nobody_can_come_and_nothing_is_told_that_is_said(whole, world, tmp_path):
    out, _ = whole
    lonely = ["--sim", "lonely:ENTRY", "--policy", "homing", "--bundle", str(out / "bundle"), *SIZES]
    main(["run", "interventions", "--out", str(tmp_path / "lonely"), *lonely])
    summary = json.loads((tmp_path / "lonely/summary.json").read_text())
    assert [*summary["arms"]] == ["none", "safe_stop", "slow", "placebo", "ladder_auto"]
    assert set(summary["left_out"]) == {"retry", "takeover", "takeover_random", "ladder", "films"}
    assert "no operator" in summary["left_out"]["ladder"]
    assert "needs a delta action dz" in summary["left_out"]["retry"]
    assert summary["headline"] == "ladder_auto"
    assert summary["failure_types"] == {}
    assert summary["policy"]["per_condition"]["wind:3"]["failure"] > 0
    page = (tmp_path / "lonely/report.html").read_text()
    assert "types are not known" in page
    assert "Left out: takeover" in page


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        ({"arms": ("slow", "slwo")}, UnknownNameError, "Did you mean slow"),
        ({"arms": ("slow", "retry")}, FailsightError, "--arms retry cannot be tried here: Retry backtracks"),
        ({"arms": ("fallback",)}, FailsightError, "--arms fallback cannot be tried here: .* name one with --fallback"),
        ({"arms": ("fallback",), "fallback": "tabletop-weak"}, FailsightError, "differ"),
        ({"arms": ("ladder",), "sim": "lonely:ENTRY"}, FailsightError, "--arms ladder cannot be tried here: it calls"),
        ({"policy": "tabletop-weak"}, FailsightError, "differ"),
    ],
)
def test_what_does_not_belong_together_is_refused_before_anything_runs(world, config, error, words):
    with pytest.raises(error, match=words):
        choose_arms(ExperimentConfig(name="x", **{"sim": "pointworld", "policy": "homing", **config}))


def test_flags_of_interventions_do_not_vanish_elsewhere(tmp_path):
    from conftest import Quiet

    from failsight.recipes.interventions.flags import ExperimentChoice

    choice = ExperimentChoice(sim="navigation", fit_trials=3)
    with pytest.raises(FailsightError, match="--sim, --fit-trials would change nothing in mobile-vla"):
        run_recipe("mobile-vla", tmp_path / "x", 1, Quiet(), choice=choice)
    assert not (tmp_path / "x").exists()
    assert choice.as_arguments() == " --sim navigation --fit-trials 3"
