"""The house stays one that can be read: no room holds more than a share of it, functions stay short."""

import ast
from collections import Counter
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).parents[2] / "src" / "failsight"
LARGEST_ROOM = 0.15
MEDIAN, NINE_IN_TEN, LONGEST = 7, 21, 60


def test_no_room_is_too_large():
    lines = Counter[str]()
    for path in SOURCE.rglob("*.py"):
        lines[path.relative_to(SOURCE).parts[0]] += len(path.read_text().splitlines())
    shares = {room: count / lines.total() for room, count in lines.items()}
    assert max(shares.values()) <= LARGEST_ROOM, Counter(shares).most_common(3)


def test_functions_are_short():
    """A function's lines are those from `def` to its last, docstring and nested functions included."""
    lengths = {
        f"{path.relative_to(SOURCE)}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    longest = max(lengths, key=lambda name: lengths[name])
    assert lengths[longest] <= LONGEST, f"{longest} has {lengths[longest]} lines"
    median, nine_in_ten = np.percentile(list(lengths.values()), (50, 90))
    assert median <= MEDIAN
    assert nine_in_ten <= NINE_IN_TEN
