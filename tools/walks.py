"""How far does one value walk? The functions a command passes through, measured while it runs.

    python tools/walks.py fit RUN                          # an own run into a bundle
    python tools/walks.py train-policy --data D --out O    # training data into a checkpoint

Any command of failsight can stand there. Functions count once, in the order in which they are first entered: stays, their
rooms, climbs (the next function lies in a higher layer than the one before), returns (a room is entered that was left
before), calls between functions of two rooms (crossings), those that go up, and the parameter names at the crossings. Layers
are read from pyproject.toml, so that an older checkout is measured by its own. Worker processes are not seen: use one worker.
"""

from __future__ import annotations

import itertools
import sys
import tomllib
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple


class Place(NamedTuple):
    """A function of failsight."""

    room: str
    module: str
    function: str


class Walk:
    """A profile function that remembers who called whom."""

    def __init__(self, root: Path) -> None:
        self._root = str(root / "src" / "failsight") + "/"
        self.stays: dict[Place, None] = {}
        self.calls: dict[tuple[Place, Place], tuple[str, ...]] = {}

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """As `sys.setprofile` calls it."""
        if event != "call" or (place := self._place(frame)) is None:
            return
        self.stays.setdefault(place)
        outer = frame.f_back
        while outer is not None and (caller := self._place(outer)) is None:
            outer = outer.f_back
        if outer is not None and caller is not None and (caller, place) not in self.calls:
            code = frame.f_code
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            self.calls[caller, place] = tuple(name for name in names if name not in ("self", "cls"))

    def _place(self, frame: FrameType) -> Place | None:
        code = frame.f_code
        if not code.co_filename.startswith(self._root) or code.co_name.startswith("<"):
            return None
        path = Path(code.co_filename[len(self._root) :])
        room = path.parts[0] if len(path.parts) > 1 else "failsight"
        return Place(room, str(path.with_suffix("")), code.co_qualname)


def layers_of(root: Path) -> dict[str, int]:
    """Room -> its height; rooms side by side are equally high."""
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(c for c in contracts if c["type"] == "layers")["layers"]
    return {room.strip(): -i for i, layer in enumerate(layers) for room in layer.split("|")}


def report(walk: Walk, heights: dict[str, int]) -> str:
    """The figures as one line."""
    crossings = [(a, b) for a, b in walk.calls if a.room != b.room]
    up = [(a, b) for a, b in crossings if heights.get(b.room, 0) > heights.get(a.room, 0)]
    names = {(b.room, name) for a, b in crossings for name in walk.calls[a, b]}
    order = [place.room for place in walk.stays]
    pairs = [(a, b) for a, b in itertools.pairwise(order) if a != b]
    climbs = sum(heights.get(b, 0) > heights.get(a, 0) for a, b in pairs)
    returns = len(pairs) + 1 - len(set(order))
    rooms = set(order)
    modules = {place.module for place in walk.stays}
    lines = [
        f"stays {len(walk.stays)}  modules {len(modules)}  rooms {len(rooms)}  climbs {climbs}  returns {returns}  crossings {len(crossings)}  "
        f"up {len(up)}  names {len({name for _, name in names})}"
    ]
    lines += [f"  up: {a.module}:{a.function} -> {b.module}:{b.function}" for a, b in sorted(up)]
    return "\n".join(lines)


def main() -> None:
    """Run the command under the profile; print what it said, then the walk."""
    import failsight
    from failsight.cli.main import main as command

    root = Path(failsight.__file__).parents[2]
    walk = Walk(root)
    sys.setprofile(walk)
    try:
        command(sys.argv[1:])
    finally:
        sys.setprofile(None)
        print(report(walk, layers_of(root)))


if __name__ == "__main__":
    main()
