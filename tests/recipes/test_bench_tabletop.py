"""The comparison where the truth is known, as small as it gets with every stage real."""

import json

import pytest
from conftest import Quiet

from failsight.predictors.fit_recurrent import RecurrentOptions
from failsight.recipes.bench import tabletop as bench_tabletop
from failsight.recipes.bench.tabletop import run_bench_tabletop


@pytest.mark.slow
@pytest.mark.sim
@pytest.mark.xdist_group("bench")
def test_every_stage_on_a_few_episodes(tmp_path, monkeypatch):
    kept = {n: bench_tabletop.DETECTORS[n] for n in ("ledger", "stac", "clock", "task_prior")}
    monkeypatch.setattr(bench_tabletop, "_ROWS", kept)
    monkeypatch.setattr(bench_tabletop, "DETECTORS", {**kept, "mist_mlp": bench_tabletop.DETECTORS["mist_mlp"]})
    monkeypatch.setattr(bench_tabletop, "FIT_TRIALS", 5)
    monkeypatch.setattr(bench_tabletop, "TEST_TRIALS", 3)
    monkeypatch.setattr(bench_tabletop, "RecurrentOptions", lambda: RecurrentOptions(members=2, epochs=5))
    report = run_bench_tabletop(tmp_path, 1, Quiet())
    summary = json.loads((tmp_path / "summary.json").read_text())
    truth = summary["ground_truth"]
    assert summary["datasets"]["tabletop"]["episodes"] == 36
    assert set(summary["detectors"]) == set(kept)
    assert summary["detectors"]["clock"]["tabletop"]["auc50_alive"]["value"] == 50
    assert set(truth["types"]) >= {"recurrent", "salus_six_signals", "salus_random_signals", "chance_f1"}
    assert 0 < truth["time_to_failure"]["c_index"]["clock"]["value"] < 1
    assert set(truth["dimensions"]) == {"recurrent", "mist", "pose_only"}
    assert 0 < truth["dimensions"]["recurrent"]["mse"] < 0.5
    assert "Where the truth is known" in report.read_text()
