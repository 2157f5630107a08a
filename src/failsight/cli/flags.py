"""How flags and help read: optional values by their kind alone, commands in groups, the version."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

GROUPS = {
    "record": ("collect", "import", "demonstrate", "episodes", "verify", "view", "label", "failure-tokens"),
    "judge": ("fit", "evaluate", "audit", "explain", "limits", "report"),
    "act": ("run", "serve", "outcomes", "doctor"),
    "train": ("train-policy", "cases"),
}
"""What a newcomer looks for, and the commands that do it."""
PLAIN = ConstructorRegistry()
"""`--out PATH` where the value may be left away; by itself the library writes `--out {None}|PATH`."""
_NOTHING = "None"
"""How a settings file says that a value is left away."""


@PLAIN.primitive_rule
def optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """How a flag that may be left away is read and shown."""
    kinds = [kind for kind in get_args(info.type) if kind is not type(None)]
    if len(kinds) != 1 or type(None) not in get_args(info.type):
        return None
    plain = get_args(kinds[0])[0] if get_origin(kinds[0]) is Annotated else kinds[0]
    if plain not in (int, float, str, Path):
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=plain.__name__.upper(),
        instance_from_str=lambda words: None if words[0] == _NOTHING else plain(words[0]),
        is_instance=lambda value: value is None or isinstance(value, plain),
        str_from_instance=lambda value: [_NOTHING if value is None else str(value)],
    )


def about() -> str:
    """What stands above the list of commands."""
    groups = "\n\n".join(f"{name}: {', '.join(commands)}" for name, commands in GROUPS.items())
    return (
        "Robot policies that see their own failures coming. Every command takes --config FILE: its flags as YAML.\n\n"
        f"{groups}\n\nFirst steps: failsight run demo, or failsight import YOUR_LOGS --out RUN."
    )


def in_groups(commands: Iterable[str]) -> list[str]:
    """Commands in the order of their groups."""
    order = [name for group in GROUPS.values() for name in group]
    return sorted(commands, key=order.index)


def asks_version(arguments: Sequence[str]) -> bool:
    """Whether only the version is asked for."""
    return list(arguments) in (["--version"], ["-V"])


def version_line() -> str:
    """`failsight 0.1.0`."""
    return f"failsight {version('failsight')}"
