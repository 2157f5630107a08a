"""How far does one value walk? A value is followed, while a script runs, from the function that is given it.

    python tools/walks.py workflows.fit:fit_run run SCRIPT          # an own run into a bundle
    python tools/walks.py cli.training:train_policy data SCRIPT     # training data into a checkpoint

Followed are the value, what is stored in it, what functions of the package that were given any of it hand back, and what
holds one of these. Numbers and texts by themselves are not followed, nor what numpy or torch made of an array, until a
function of the package hands that back. Every function that is given some of it counts once, in the order of first entry:
stays (functions in a row of one module are one stay), modules, climbs (the next stay lies in a higher layer), returns (a
module is entered that was left before), and names (of parameters and variables that the followed bear on their way). Layers
are read from the pyproject.toml of the package, so that an older checkout is measured by its own. Work for other processes
is done in this one, so that it is seen.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import enum
import functools
import importlib
import itertools
import runpy
import sys
import threading
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, MethodType, ModuleType, NoneType
from typing import Any

import numpy as np

_PLAIN = (
    int,
    float,
    complex,
    str,
    bytes,
    NoneType,
    type,
    ModuleType,
    BuiltinFunctionType,
    enum.Enum,
    np.generic,
    np.dtype,
)
_DEPTH = 3
"""How deep a value is looked into."""
_MOST = 40
"""How many items of a collection are looked at."""


class Walk:
    """A profile function that follows a value through a package."""

    def __init__(self, package: Path, start: str, parameter: str) -> None:
        """`start`: MODULE:FUNCTION within the package, whose `parameter` is followed."""
        self._root, self._start, self._parameter = f"{package}/", start, parameter
        self._followed: dict[int, Any] = {}  # the objects are kept, so that no number is given twice
        self._shared: set[int] = set()
        self.functions: dict[tuple[str, str], None] = {}
        """(module, function), in the order of first entry."""
        self.names: dict[str, None] = {}

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """As `sys.setprofile` calls it."""
        if event not in ("call", "return") or (place := self._place(frame.f_code)) is None:
            return
        given = frame.f_locals
        if event == "call" and not self._followed and self._start == ":".join(place):
            self._shared = {id(value) for module in self._modules() for value in vars(module).values()}
            self._follow(given[self._parameter], _DEPTH)
        if self._followed:
            self._enter(place, frame.f_code, given) if event == "call" else self._leave(frame.f_code, given, argument)

    def _enter(self, place: tuple[str, str], code: CodeType, given: dict[str, Any]) -> None:
        borne = [name for name in _parameters(code) if name in given and self._carries(given[name], _DEPTH)]
        if borne and "<" not in code.co_name:
            self.functions.setdefault(place)
            self._bear(borne)

    def _leave(self, code: CodeType, given: dict[str, Any], result: Any) -> None:
        borne = [name for name, value in given.items() if self._carries(value, _DEPTH)]
        self._bear(borne)
        handed_back = any(result is given.get(name) for name in _parameters(code))
        if borne and (not handed_back or self._carries(result, _DEPTH)):
            self._follow(result, _DEPTH)

    def _bear(self, names: Sequence[str]) -> None:
        self.names.update((name, None) for name in names if name not in ("self", "cls") and name[0] != ".")

    def _follow(self, value: Any, depth: int) -> None:
        if isinstance(value, _PLAIN) or id(value) in self._shared or id(value) in self._followed:
            return
        if isinstance(value, tuple | frozenset) and not value:
            return  # there is one empty tuple for all
        self._followed[id(value)] = value
        if depth and not callable(value):
            for each in self._contents(value):
                self._follow(each, depth - 1)

    def _carries(self, value: Any, depth: int) -> bool:
        if isinstance(value, _PLAIN):
            return False
        if id(value) in self._followed:
            return True
        return depth > 0 and any(self._carries(each, depth - 1) for each in self._contents(value))

    def _contents(self, value: Any) -> Iterable[Any]:
        if isinstance(value, np.ndarray):
            return (value.base,)
        if isinstance(value, list | tuple | set | frozenset):
            return itertools.islice(value, _MOST)
        if isinstance(value, dict):
            return itertools.islice(value.values(), _MOST)
        if isinstance(value, functools.partial):
            return (value.func, *value.args, *value.keywords.values())
        if isinstance(value, MethodType):
            return (value.__self__,)
        if isinstance(value, FunctionType):
            return _enclosed(value)
        return _fields(value) if type(value).__module__.split(".")[0] == Path(self._root).name else ()

    def _place(self, code: CodeType) -> tuple[str, str] | None:
        if not code.co_filename.startswith(self._root):
            return None
        return code.co_filename[len(self._root) : -len(".py")].replace("/", "."), code.co_qualname

    def _modules(self) -> list[ModuleType]:
        name = Path(self._root).name
        return [module for key, module in sys.modules.items() if key.split(".")[0] == name]


def _parameters(code: CodeType) -> tuple[str, ...]:
    stars = bool(code.co_flags & 4) + bool(code.co_flags & 8)
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + stars]


def _enclosed(function: FunctionType) -> list[Any]:
    found = []
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # not set yet
            found.append(cell.cell_contents)
    return found


def _fields(value: Any) -> list[Any]:
    slots = [slot for kind in type(value).__mro__ for slot in getattr(kind, "__slots__", ()) if slot != "__dict__"]
    named = [getattr(value, slot) for slot in slots if isinstance(slot, str) and hasattr(value, slot)]
    return [*getattr(value, "__dict__", {}).values(), *named]


class Inline(concurrent.futures.Executor):
    """Does at once, in this process, what a pool of processes is given."""

    def __init__(self, *_: Any, initializer: Callable[..., None] | None = None, initargs: Sequence[Any] = ()) -> None:
        if initializer is not None:
            initializer(*initargs)

    def submit(self, call: Callable[..., Any], /, *given: Any, **named: Any) -> concurrent.futures.Future[Any]:
        """As of any executor."""
        done: concurrent.futures.Future[Any] = concurrent.futures.Future()
        done.set_result(call(*given, **named))
        return done


def layers_of(project: Path, package: str) -> dict[str, int]:
    """Room -> its height; rooms side by side are equally high."""
    contracts = tomllib.loads((project / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(c for c in contracts if c["type"] == "layers" and c["containers"] == [package])["layers"]
    return {room.strip(): -i for i, layer in enumerate(layers) for room in layer.split("|")}


def figures(walk: Walk, heights: dict[str, int]) -> dict[str, int]:
    """Functions, stays, modules, climbs, returns and names of a walk; `heights` by room."""
    stays = [module for module, _ in itertools.groupby(module for module, _ in walk.functions)]
    levels = [heights.get(module.split(".")[0], 0) for module in stays]
    return {
        "functions": len(walk.functions),
        "stays": len(stays),
        "modules": len(set(stays)),
        "climbs": sum(b > a for a, b in itertools.pairwise(levels)),
        "returns": len(stays) - len(set(stays)),
        "names": len(walk.names),
    }


def follow(package: Path, start: str, parameter: str, run: Callable[[], object]) -> Walk:
    """The walk of a value while `run` is called, in all threads of this process."""
    walk = Walk(package, start, parameter)
    threading.setprofile(walk)
    sys.setprofile(walk)
    try:
        run()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return walk


def main() -> None:
    """Run the script under the profile; print its walk."""
    start, parameter, script = sys.argv[1:4]
    concurrent.futures.ProcessPoolExecutor = Inline  # type: ignore[misc, assignment]
    package = Path(str(importlib.import_module("failsight").__file__)).parent
    walk = follow(package, start, parameter, lambda: runpy.run_path(script, run_name="__main__"))
    for module, function in walk.functions:
        print(f"  {module}:{function}")
    print("  " + " ".join(walk.names))
    found = figures(walk, layers_of(package.parents[1], "failsight"))
    print("  ".join(f"{name} {count}" for name, count in found.items()))


if __name__ == "__main__":
    main()
