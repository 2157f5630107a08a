"""`tools/walks.py` counts what a person counts who follows one value through a small package by hand."""

import importlib.util
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools/walks.py"
PACKAGE = {
    "__init__.py": "",
    "top/__init__.py": "",
    "top/go.py": """
        from toy.bottom.store import Box, count
        from toy.middle.mean import mean, shout
        def go(start, seed):
            box = Box(start, seed)
            found = mean(box)
            shout(seed)
            number = count(start)
            return found, number
    """,
    "middle/__init__.py": "",
    "middle/mean.py": """
        def mean(box):
            rows = list(box.rows)
            return [sum(rows)]
        def shout(text):
            return [text]
    """,
    "bottom/__init__.py": "",
    "bottom/store.py": """
        class Box:
            def __init__(self, rows, seed):
                self.rows, self.seed = rows, seed
        def count(items):
            size = len(items)
            return size
    """,
}
HEIGHTS = {"top": 2, "middle": 1, "bottom": 0}


@pytest.fixture
def tool(monkeypatch):
    spec = importlib.util.spec_from_file_location("walks", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def go(tmp_path, monkeypatch):
    for name, text in PACKAGE.items():
        path = tmp_path / "toy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = text.strip("\n").splitlines()
        path.write_text("\n".join(line[8:] for line in lines))
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("toy.top.go").go
    for name in [name for name in sys.modules if name.split(".")[0] == "toy"]:
        del sys.modules[name]


def test_a_value_is_followed_and_what_it_is_put_into(tool, go, tmp_path):
    walk = tool.follow(tmp_path / "toy", "top.go:go", "start", lambda: go([1, 2], [7]))
    assert list(walk.functions) == [
        ("top.go", "go"),
        ("bottom.store", "Box.__init__"),
        ("middle.mean", "mean"),
        ("bottom.store", "count"),
    ]
    # start, box and found in go; rows in Box; box in mean, whose own list of plain numbers is another thing; items in count
    assert sorted(walk.names) == ["box", "found", "items", "rows", "start"]
    assert tool.figures(walk, HEIGHTS) == {
        "functions": 4,
        "stays": 4,
        "modules": 3,
        "climbs": 1,
        "returns": 1,
        "names": 5,
    }


def test_another_value_of_the_same_call_walks_another_way(tool, go, tmp_path):
    walk = tool.follow(tmp_path / "toy", "top.go:go", "seed", lambda: go([1, 2], [7]))
    assert [function for _, function in walk.functions] == ["go", "Box.__init__", "mean", "shout"]


def test_what_is_given_to_other_processes_is_done_at_once(tool):
    assert tool.Inline(2).submit(max, 3, 5).result() == 5
