"""The training studies at their smallest, with every stage real."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import Quiet

from failsight.core.errors import EpisodeDataError, UnknownNameError
from failsight.episodes.demonstrations import save_demonstrations
from failsight.evaluation.intervals import Estimate
from failsight.recipes.runs import STUDIES, find_recipe
from failsight.recipes.studies import failure_head, lattice_ablation, mobile_vla
from failsight.recipes.studies.lattice_ablation import Cell, paired_difference
from failsight.sims.navigation.scenarios import SCENARIOS
from failsight.workflows.audit import audit_data
from failsight.workflows.cases import read_cases, table_of_cases
from failsight.workflows.closed_loop import Drive
from failsight.workflows.drive import chains
from failsight.workflows.offline import judge_memory
from failsight.workflows.plans import make_plan


def summary_of(folder):
    summary = json.loads((folder / "summary.json").read_text())
    for key in ("command", "commit", "versions", "seeds", "wall_s", "claims", "figures", "tables"):
        assert key in summary
    for figure in summary["figures"].values():
        assert set(figure) == {"value", "low", "high", "n"}
    page = (folder / "report.html").read_text()
    assert "not shown" in page or "shown" in page
    return summary


def test_the_table_of_studies_is_what_the_readme_says():
    assert set(STUDIES) == {"mobile-vla", "lattice-ablation", "failure-head"}
    with pytest.raises(UnknownNameError, match="mobile-vla"):
        find_recipe("mobile-vl")


@pytest.mark.slow
@pytest.mark.sim
def test_mobile_vla(tmp_path):
    mobile_vla.run_mobile_vla(tmp_path / "m", 2, Quiet(), mobile_vla.smoke())
    summary = summary_of(tmp_path / "m")
    for arm in ("3d", "2d"):
        for key in ("success_seen", "success_held_out", "validation_loss", "held_out_loss"):
            assert f"{arm}_{key}" in summary["figures"]
    assert {"success_blank_instruction", "success_swapped_instruction", "success_frozen_history"} <= set(
        summary["figures"]
    )
    assert any("angular_z never changes" in line for line in summary["remarks"])
    names = {path.name: case for path, case in read_cases(tmp_path / "m")}
    assert set(names) == {"3d", "2d"}
    assert names["2d"]["actions"] == 2
    columns, rows = table_of_cases(tmp_path)
    assert len(rows) == 2
    assert all(len(row) == len(columns) for row in rows)


@pytest.mark.slow
@pytest.mark.sim
def test_lattice_ablation_goes_on_where_it_was(tmp_path):
    cells = (Cell("fc", "one-step"), Cell("lstm", "policy-head"))
    lattice_ablation.run_lattice_ablation(tmp_path, 2, Quiet(), lattice_ablation.smoke(), cells)
    first = summary_of(tmp_path)
    assert "one-step-fc_success" in first["figures"]
    assert "policy-head-lstm_minus_one-step-fc" in first["figures"]
    stamp = (tmp_path / "data" / "episodes.json").stat().st_mtime_ns
    lattice_ablation.run_lattice_ablation(tmp_path, 2, Quiet(), lattice_ablation.smoke(), cells)
    assert (tmp_path / "data" / "episodes.json").stat().st_mtime_ns == stamp
    assert summary_of(tmp_path)["figures"] == first["figures"]


@pytest.mark.slow
@pytest.mark.sim
def test_failure_head(tmp_path):
    failure_head.run_failure_head(tmp_path, 2, Quiet(), failure_head.smoke())
    summary = summary_of(tmp_path)
    for key in (
        "joint_within_task_auc_50",
        "through_auc_25",
        "alone_auc_25",
        "success_joint",
        "success_plain",
        "success_joint_minus_plain",
    ):
        assert key in summary["figures"]


# ---------------------------------------------------------------------- pieces


def drives(outcomes):
    keys = make_plan("navigation", SCENARIOS[:1], [0], len(outcomes), "clean")
    return [Drive(key, bool(good), False, "left", 10) for key, good in zip(keys, outcomes, strict=True)]


def test_paired_differences_are_over_the_same_episodes():
    difference, p = paired_difference(drives([1] * 20), drives([0] * 15 + [1] * 5), ("t",))
    assert difference.value == 0.75
    assert difference.low > 0.5
    assert p < 0.001
    same, p = paired_difference(drives([1, 0] * 10), drives([1, 0] * 10), ("t",))
    assert same.value == 0
    assert p == 1


def test_memory_is_called_memory():
    def about(value, spread=0.01):
        return Estimate(value=value, low=value - spread, high=value + spread, n=40)

    assert not judge_memory(about(0.10), about(0.12), about(0.9, 0.05), about(0.85, 0.1)).remembers
    by_loss = judge_memory(about(0.02), about(0.2), about(0.9, 0.05), about(0.85, 0.1))
    assert by_loss.remembers
    assert "more than doubles" in by_loss.sentence
    by_drives = judge_memory(about(0.10), about(0.12), about(0.9, 0.05), about(0.2, 0.1))
    assert by_drives.remembers
    assert "succeeds less" in by_drives.sentence


def test_chains_stop_at_the_first_failure():
    shares, mean = chains([[True] * 5, [True, True, False, True, True], [False] * 5])
    assert [round(s.value, 3) for s in shares] == [0.667, 0.667, 0.333, 0.333, 0.333]
    assert mean.value == pytest.approx(7 / 3)


def test_plans_of_the_room_are_checked():
    keys = make_plan("navigation", (), [1], 3, "default")
    assert len(keys) == 24
    with pytest.raises(UnknownNameError, match="wheel_slip"):
        make_plan("navigation", (), [1], 1, "wheel_slp:3")
    with pytest.raises(UnknownNameError, match="1box_vert_left"):
        make_plan("navigation", ("1box_vert_lef",), [1], 1, "clean")


def audited(tmp_path, change):
    from studies_data import drives_to_audit

    items, actions, observations = drives_to_audit()
    data = save_demonstrations(tmp_path / "d", change(items), actions, observations, source="s")
    return audit_data(data, (2, 4))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda items: items, None),
        (lambda items: [replace(i, name=f"{n}{i.name}") for n in range(2) for i in items], "have a near-duplicate"),
        (lambda items: [replace(i, instruction="go") for i in items], "can ignore language"),
        (lambda items: [replace(i, actions=i.actions * np.float32([1, 0, 1])) for i in items], "never changes"),
        (lambda items: [replace(i, actions=i.actions * np.float32([1, 0.01, 1])) for i in items], "less than 5 %"),
        (lambda items: [replace(i, actions=np.sign(i.actions)) for i in items], "discrete head"),
        (lambda items: [replace(i, scenario="a") for i in items], "holding scenarios out is impossible"),
    ],
)
def test_the_audit_says_what_a_data_set_cannot_teach(tmp_path, change, words):
    warnings = " ".join(audited(tmp_path, change).warnings)
    assert warnings == "" if words is None else words in warnings


def test_broken_cases_are_named(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "case.json").write_text("{half")
    with pytest.raises(EpisodeDataError, match=r"case\.json is not JSON"):
        read_cases(tmp_path)
