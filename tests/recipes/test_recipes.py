import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from conftest import Quiet

from failsight.core.errors import FailsightError, UnknownNameError
from failsight.core.types import EpisodeKey
from failsight.episodes.run import Run
from failsight.evaluation.scoring import replay
from failsight.monitor.bundle import load_monitor
from failsight.recipes.runs import RECIPES, find_recipe, run_recipe
from failsight.recipes.shipped_policy import TRAIN_RECIPES, find_train_recipe, train_policy
from failsight.runtime.loop import Loop
from failsight.sims.tabletop.entry import ENTRY
from failsight.workflows.forks import ArmPlan, fork_bench, fork_episode, placebo_step
from failsight.workflows.plans import make_plan
from failsight.workflows.wiring import make_policy, make_sim


def test_plans_are_keyed_and_cover_the_mix():
    keys = make_plan("tabletop", (), [1, 2], 13, "default")
    assert len(keys) == len(set(keys)) == 12 * 2 * 13
    assert keys == make_plan("tabletop", (), [1, 2], 13, "default")
    assert set(Counter(k.condition for k in keys)) == set(ENTRY.find_mix("default"))
    assert {k.condition for k in make_plan("tabletop", (), [1], 4, "none,push:3")} == {"none", "push:3"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: find_recipe("dmeo"), "Did you mean demo"),
        (lambda: find_train_recipe("tabletop-weka"), "Did you mean tabletop-weak"),
        (lambda: make_policy("tabletop-stong"), "Did you mean tabletop-strong"),
        (lambda: make_sim("tabeltop"), "Did you mean tabletop"),
        (lambda: make_plan("tabletop", ["stack-red-cube-blue-cub"], [0], 1, "clean"), "stack-red-cube-blue-cube"),
        (lambda: make_plan("tabletop", (), [0], 1, "defualt"), "Unknown mix"),
        (lambda: make_plan("tabletop", (), [0], 1, "puhs:3"), "Did you mean push"),
        (lambda: ENTRY.find_mix("push"), "push:1 to push:5"),
    ],
)
def test_wrong_names_offer_the_right_ones(call, message):
    with pytest.raises((UnknownNameError, FailsightError), match=message):
        call()


def test_the_table_of_recipes_is_what_the_readme_says():
    assert set(RECIPES) == {"demo", "tabletop-paper", "smoke", "interventions"}
    assert set(TRAIN_RECIPES) == {"tabletop", "tabletop-weak", "tabletop-smoke"}


@pytest.mark.sim
@pytest.mark.parametrize(("name", "low", "high"), [("tabletop-strong", 22, 24), ("tabletop-weak", 6, 22)])
def test_the_shipped_policies_are_as_strong_as_they_say(name, low, high):
    """24 clean episodes; the full tables are in each checkpoint's config.json."""
    policy, sim = make_policy(name), make_sim("tabletop")
    loop, good = Loop(sim, policy), 0
    for key in make_plan("tabletop", (), [21], 2, "clean"):
        loop.start(key)
        loop.run()
        good += loop.trace.outcome == "success"
    sim.close()
    assert low <= good <= high
    assert policy.config.provenance["data_fingerprint"]
    assert policy.config.provenance["command"].startswith("failsight train-policy")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smoke") / "smoke"
    report = run_recipe("smoke", folder, 2, Quiet())
    return folder, report, json.loads((folder / "summary.json").read_text())


pytestmark = pytest.mark.xdist_group("smoke")


@pytest.mark.slow
@pytest.mark.sim
def test_a_whole_experiment_has_every_promised_figure(smoke):
    _, report, summary = smoke
    assert report.is_file()
    assert summary["policy"]["success_rate"]["n"] == 24
    assert set(summary["failure_types"]) == {"collision", "drop", "miss", "timeout"}
    for metric in ("auc_50", "within_task_auc_50"):
        row = summary["detection"][metric]
        assert {"value", "low", "high", "n", "clock", "task_prior", "permuted"} <= set(row)
    assert summary["false_alarm_rate"]["alpha"] == 0.3
    for arm in ("none", "safe_stop", "slow", "retry", "placebo", "takeover", "ladder", "ladder_auto"):
        figures = summary["arms"][arm]
        assert {"success_rate", "collision_rate", "rescue_rate", "harm_rate", "triggers", "pairs"} <= set(figures)
        assert figures["pairs"] == 24
    assert summary["aa_flips"]["flips"] == 0
    for key in ("lead_steps", "failure_reduction", "human_minutes_per_hour", "wall_s", "episodes"):
        assert key in summary


@pytest.mark.slow
@pytest.mark.sim
def test_the_table_of_episodes_agrees_with_the_figures(smoke):
    folder, report, summary = smoke
    table = json.loads((folder / "episodes.json").read_text())
    rows = table["episodes"]
    assert [row["episode"] for row in rows] == list(range(24))
    assert sum(row["outcome"] == "success" for row in rows) == round(24 * summary["policy"]["success_rate"]["value"])
    assert sum(row["type"] == "drop" for row in rows) == summary["failure_types"]["drop"]["count"]
    alarmed = [row for row in rows if row["alarm"] is not None]
    assert len(alarmed) == summary["arms"]["takeover"]["triggers"]
    for row in rows:
        assert len(row["p_fail"]) == row["steps"]
        late = row["steps"] if row["onset"] is None else row["onset"]
        wanted = late - row["alarm"] if row["alarm"] is not None and row["outcome"] == "failure" else None
        assert row["lead"] == wanted
        assert set(row["arms"]) >= ({"takeover", "slow", "ladder"} if row in alarmed else set())
    assert 'id="episodes"' in report.read_text()
    assert summary["monitor"]["p50_us"] > 0


@pytest.mark.slow
@pytest.mark.sim
def test_online_verdicts_equal_offline_replay(smoke):
    """The trigger the fork run saw online is the one replay finds in the store, bit for bit."""
    folder, _, _ = smoke
    run, monitor = Run(folder / "test"), load_monitor(folder / "bundle")
    lines = [json.loads(line) for line in (folder / "arms.jsonl").read_text().splitlines()[1:]]
    online = {(r["key"]["task"], r["key"]["episode"]): r["trigger_step"] for r in lines}
    bench = fork_bench("tabletop", "tabletop-strong", folder / "bundle")
    for episode in run.read():
        on = [t for t, v in enumerate(replay(monitor, episode)) if v.trigger]
        assert online[episode.meta.task, episode.meta.episode] == (on[0] if on else None)
    loop = Loop(bench.sim, bench.policy, monitor=bench.monitor)
    first = next(iter(run.read([0])))
    loop.start(first.meta.key)
    loop.run()
    offline = [v.risk.p_fail for v in replay(monitor, first)]
    assert [r.p_fail for r in loop.trace.risks] == offline
    bench.sim.close()


@pytest.mark.slow
@pytest.mark.sim
def test_a_finished_experiment_is_reused_and_a_killed_fork_file_recovers(smoke):
    folder, _, summary = smoke
    path = folder / "arms.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:10]) + "\n" + lines[10][: len(lines[10]) // 2])
    run_recipe("smoke", folder, 2, Quiet())
    again = json.loads((folder / "summary.json").read_text())
    assert again["arms"] == summary["arms"]
    assert again["resumed"]


@pytest.mark.slow
@pytest.mark.sim
def test_viewing_and_example_sheet(smoke):
    from videos import read_video

    from failsight.core.errors import FailsightError
    from failsight.labels.table import read_labels
    from failsight.workflows.risk_curve import HEIGHT
    from failsight.workflows.view import example_sheet, view_episode

    folder, _, _ = smoke
    run = Run(folder / "test")
    video = view_episode(folder / "test", 0, folder / "view.mp4", False)
    assert sum(1 for _ in read_video(video)) == run.episodes[0].length + 1
    assert view_episode(folder / "test", 0, folder / "view.png", True).stat().st_size > 1000
    judged = view_episode(folder / "test", 0, folder / "judged.mp4", False, folder / "bundle")
    plain, curve = next(iter(read_video(video))), next(iter(read_video(judged)))
    assert curve.shape[0] == plain.shape[0] + HEIGHT
    with pytest.raises(FailsightError, match="no room for curves"):
        view_episode(folder / "test", 0, None, True, folder / "bundle")
    assert example_sheet(run, read_labels(run)).stat().st_size > 1000


def test_the_placebo_is_distributed_like_the_alarms():
    steps = (None, 10, 20, 20)
    draws = [
        placebo_step(ArmPlan(arms=(), placebo_steps=steps), EpisodeKey(seed=1, task="t", episode=i))
        for i in range(4000)
    ]
    shares = Counter(draws)
    assert shares[20] / 4000 == pytest.approx(0.5, abs=0.03)
    assert shares[None] / 4000 == pytest.approx(0.25, abs=0.03)


@pytest.mark.slow
@pytest.mark.sim
def test_forks_need_no_trigger(smoke):
    folder, _, _ = smoke
    bench = fork_bench("tabletop", "tabletop-strong", folder / "bundle")
    record = fork_episode(
        ArmPlan(arms=("placebo",), placebo_steps=(30,)), bench, EpisodeKey(seed=1, task="pick-red-cube-left", episode=0)
    )
    assert "placebo" in record.arms
    bench.sim.close()


@pytest.mark.slow
@pytest.mark.sim
def test_training_runs_resumes_and_loads(tmp_path):
    losses = []
    checkpoint = train_policy(
        find_train_recipe("tabletop-smoke"), tmp_path, lambda n: None, lambda step, values: losses.append(values)
    )
    policy = make_policy(str(checkpoint))
    table = json.loads((checkpoint / "config.json").read_text())["provenance"]["success"]["clean"]["all"]
    assert table.endswith("/12")
    assert not (checkpoint / "training.safetensors").exists(), "what only a training needs stays in its folder"
    assert np.isfinite([v for values in losses for v in values.values()]).all()
    shipped = make_policy("tabletop-strong").config
    assert (policy.config.chunk, policy.config.execute) == (shipped.chunk, shipped.execute)
    assert policy.config.head == shipped.head
    assert policy.config.backbone == replace(shipped.backbone, words=policy.config.backbone.words)
    assert policy.config.history == shipped.history
    assert policy.config.auxiliary == shipped.auxiliary
    again = train_policy(find_train_recipe("tabletop-smoke"), tmp_path, lambda n: None, lambda step, values: None)
    assert make_policy(str(again)).fingerprint == policy.fingerprint


@pytest.mark.slow
@pytest.mark.sim
def test_kill_9_during_a_tabletop_collection_then_resume_changes_nothing(tmp_path):
    """The command itself, killed at a random moment, equals an undisturbed run: actions and outcomes byte by byte."""

    def command(folder):
        tasks = ["pick-red-cube-left", "obstacle-red-cube-left", "stack-red-cube-blue-cube"]
        arguments = ["collect", "--out", str(folder), "--tasks", *tasks, "--trials", "5", "--seeds", "3", "4"]
        return [sys.executable, "-c", f"from failsight.cli.main import main; main({[*arguments, '--resume']!r})"]

    process = subprocess.Popen(command(tmp_path / "killed"), stdout=subprocess.DEVNULL)
    recording = tmp_path / "killed" / "recording"
    wanted = int(np.random.default_rng().integers(2, 24))
    while process.poll() is None and len(list(recording.glob("episode-*"))) < wanted:
        time.sleep(0.01)
    killed = process.poll() is None
    process.kill()
    process.wait()
    for folder in ("killed", "calm"):
        subprocess.run(command(tmp_path / folder), check=True, stdout=subprocess.DEVNULL)
    runs = [list(Run(tmp_path / folder).read()) for folder in ("killed", "calm")]
    assert killed
    assert len(runs[0]) == 30
    for one, two in zip(*runs, strict=True):
        assert one.meta.key == two.meta.key
        assert one.meta.outcome == two.meta.outcome
        assert one.actions.tobytes() == two.actions.tobytes()
        assert one.hidden.tobytes() == two.hidden.tobytes()
        assert one.events == two.events
