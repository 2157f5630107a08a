"""Every block of code in docs/format.md makes a run."""

import re
from pathlib import Path

import pytest

from failsight.episodes.run import Run

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs/format.md").read_text(), re.S)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: re.sub(r"\W+", " ", block)[:40])
def test_a_block_makes_a_run(block, tmp_path, monkeypatch):
    assert len(block.strip().splitlines()) <= 10
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "docs/format.md", "exec"), {"__name__": "__main__"})
    run = Run("run")
    outcomes = [episode.outcome for episode in run.episodes]
    assert outcomes.count("failure") in (1, 3)
    assert len(list(run.read())) == len(outcomes) >= 4


def test_there_is_a_block_for_every_way_in():
    assert len(BLOCKS) >= 7
