"""Every public function that takes or returns an array says its shape: in its own docstring, its class's or its contract's."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "failsight"
CONTRACTS = SOURCE / "core" / "contracts.py"
ARRAY = re.compile(r"\b(?:Array|ArrayLike|Tensor|NDArray|ndarray)\b")
SIZE = r"(?:\d{1,3}|\.\.\.|\d? ?[A-Z][a-z]?\d?(?: ?[-+*] ?(?:\d+|[A-Z]))*|len\(\w+\))"
NAMED = rf"(?:{SIZE}|\w+(?: [-+*] \w+)*)"
SHAPE = re.compile(
    rf"(?<!\w)\((?:|\.\.\.|{NAMED},|(?:{NAMED}, )*{SIZE}(?:, {NAMED})+|(?:{NAMED}, )+{SIZE}(?:, {NAMED})*)\)"
)
"""`()`, `(...)`, `(T,)`, `(width,)`, or several sizes of which one is a number, a letter or `len(names)`."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A public function, and the class it is in, if any."""

    path: Path
    node: Function
    owner: ast.ClassDef | None

    @property
    def text(self) -> str:
        """What its own docstring says."""
        return ast.get_docstring(self.node) or ""

    @property
    def place(self) -> str:
        """Where to look."""
        owner = f"{self.owner.name}." if self.owner else ""
        return f"{self.path.relative_to(SOURCE)}:{self.node.lineno} {owner}{self.node.name}"


def functions_of(path: Path) -> Iterator[Method]:
    """Public functions of a file, and public methods of its public classes."""
    for node in ast.parse(path.read_text()).body:
        owner = node if isinstance(node, ast.ClassDef) else None
        if owner and owner.name.startswith("_"):
            continue
        for inner in owner.body if owner else [node]:
            if isinstance(inner, Function) and not inner.name.startswith("_"):
                yield Method(path=path, node=inner, owner=owner)


def parameters_of(node: Function) -> list[ast.arg]:
    """Everything that is handed in, without `self` and `cls`."""
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [each for each in arguments if each.arg not in ("self", "cls")]


def mentions_array(annotation: ast.expr | None) -> bool:
    """Whether an annotation has an array or tensor anywhere in it."""
    return annotation is not None and bool(ARRAY.search(ast.unparse(annotation)))


def arrays_of(node: Function) -> list[str]:
    """Names of the parameters that are, or hold, arrays."""
    return [each.arg for each in parameters_of(node) if mentions_array(each.annotation)]


def takes_arrays(node: Function) -> bool:
    """Whether an array goes in or comes out."""
    return bool(arrays_of(node)) or mentions_array(node.returns)


def states_shape(text: str) -> bool:
    """Whether a text has a shape such as `(T,)`, `(N, A)` or `()` in it."""
    return bool(SHAPE.search(text))


def class_states(method: Method) -> bool:
    """Whether the class's docstring states shapes and names the method, or each array the method takes."""
    text = (ast.get_docstring(method.owner) or "") if method.owner else ""
    named = [re.search(rf"`{each}`|\b{each} \(", text) for each in arrays_of(method.node)]
    return states_shape(text) and bool(f"`{method.node.name}`" in text or (named and all(named)))


def promises() -> set[tuple[str, tuple[str, ...]]]:
    """Methods of the contracts that state a shape, by name and parameters."""
    stated = [each for each in functions_of(CONTRACTS) if states_shape(each.text)]
    return {(each.node.name, tuple(arg.arg for arg in parameters_of(each.node))) for each in stated}


def bases_of(owner: ast.ClassDef | None) -> list[str]:
    """Names of the classes a class inherits from."""
    return [ast.unparse(base).rpartition(".")[2] for base in owner.bases] if owner else []


def silent(methods: list[Method], promised: set[tuple[str, tuple[str, ...]]]) -> list[str]:
    """Array functions that nobody states a shape for."""
    stated = {(each.owner.name, each.node.name) for each in methods if each.owner and states_shape(each.text)}

    def told(method: Method) -> bool:
        signature = (method.node.name, tuple(arg.arg for arg in parameters_of(method.node)))
        inherited = any((base, method.node.name) in stated for base in bases_of(method.owner))
        own = states_shape(method.text) or class_states(method)
        return own or inherited or (method.owner is not None and signature in promised)

    return [each.place for each in methods if takes_arrays(each.node) and not told(each)]


def test_every_public_array_function_states_a_shape():
    methods = [each for path in sorted(SOURCE.rglob("*.py")) for each in functions_of(path)]
    assert sum(takes_arrays(each.node) for each in methods) > 200
    missing = silent(methods, promises())
    assert not missing, "no shape in the docstring of\n" + "\n".join(missing)


def raised(node: Function) -> set[str]:
    """Names of the errors that stand in a function's own body."""
    found = [each.exc for each in ast.walk(node) if isinstance(each, ast.Raise) and each.exc is not None]
    return {ast.unparse(each.func if isinstance(each, ast.Call) else each) for each in found}


def test_every_public_array_function_names_what_it_raises():
    methods = [each for path in sorted(SOURCE.rglob("*.py")) for each in functions_of(path) if takes_arrays(each.node)]
    missing = [f"{each.place}: {name}" for each in methods for name in raised(each.node) if name not in each.text]
    assert not missing, "raised, and not in the docstring:\n" + "\n".join(missing)


@pytest.mark.parametrize(
    "text",
    ["(T,)", "(N, A)", "(H, W, 3)", "(B, W, S)", "()", "(..., A)", "(4 S,)", "(T - 1,)", "(BINS,)", "(draws, N)"],
)
def test_a_shape_is_recognised(text):
    assert states_shape(f"Speed {text} in m.")


@pytest.mark.parametrize(
    "text", ["(T)", "(see Sim, Robot)", "f(x, y)", "reset()", "(m)", "(1)", "(LIBERO, SAFE)", "reset(None)"]
)
def test_a_remark_is_no_shape(text):
    assert not states_shape(f"Speed {text} in m.")


def test_a_function_without_a_shape_is_found_by_place_and_name(tmp_path, monkeypatch):
    monkeypatch.setattr("test_shapes.SOURCE", tmp_path)
    path = tmp_path / "speeds.py"
    path.write_text(
        'class A:\n    """A."""\n    def speed(self, x: Sequence[Array]) -> float:\n        """Speed (m)."""\n'
    )
    assert silent(list(functions_of(path)), set()) == ["speeds.py:3 A.speed"]
    assert silent(list(functions_of(path)), {("speed", ("x",))}) == []
    assert silent(list(functions_of(path)), {("speed", ("y",))}) == ["speeds.py:3 A.speed"]
