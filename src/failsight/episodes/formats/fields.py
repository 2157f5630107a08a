"""Which names in somebody's file mean what: `--map success=ok,episode=ep,signals=entropy+var`, and what goes without saying."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from failsight.core.errors import EpisodeDataError
from failsight.core.foreign import require_distinct

SCALARS = ("success", "episode", "task", "instruction", "seed")
"""One value per episode (or the same at every step)."""
JOINED = ("signals", "hidden", "state", "action")
"""Numbers per step; several names are put side by side."""
WHOLE = ("chunk", "samples")
"""One array per step."""
ROLES = (*SCALARS, "step", *JOINED, *WHOLE)
_SAME = {"episode": ("episode_id", "episode_index"), "step": ("frame_index", "t", "timestamp", "time")}
"""Other names that are understood where nobody says more."""
_NEVER = frozenset(
    {"index", "length", "reward", "rewards", "done", "dones", "next.reward", "next.done", "next.success"}
)
"""Numbers that are no signal: counters, and what tells the outcome."""
_SHOWN = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """Names in a file by what they mean."""

    names: Mapping[str, tuple[str, ...]]
    """Role -> names; a role that the file does not have is missing."""
    assumed: bool
    """The signals are every number that nobody asked for otherwise; text among them is passed by."""

    def __getitem__(self, role: str) -> tuple[str, ...]:
        return self.names.get(role, ())

    def one(self, role: str) -> str:
        """The name of a role that has one, empty without."""
        return next(iter(self[role]), "")

    @property
    def wanted(self) -> tuple[str, ...]:
        """All names, each once."""
        return tuple(dict.fromkeys(name for role in ROLES for name in self[role]))

    @property
    def told(self) -> str:
        """As a person reads it."""
        parts = (f"{role} = {shown(self[role], ' + ')}" for role in ROLES if self[role])
        return f"fields taken: {', '.join(parts)}"


def read_map(text: str) -> dict[str, tuple[str, ...]]:
    """`role=name,role=name+name` -> role -> names.

    >>> read_map("success=ok,signals=entropy+var")
    {'success': ('ok',), 'signals': ('entropy', 'var')}
    """
    fields: dict[str, tuple[str, ...]] = {}
    for part in text.split(",") if text else ():
        role, sign, names = (piece.strip() for piece in part.partition("="))
        given = tuple(name.strip() for name in names.split("+"))
        if not sign or role not in ROLES or not all(given) or role in fields:
            raise EpisodeDataError(
                f"--map: {part.strip()!r} is not role=name or occurs twice; roles are {', '.join(ROLES)}; write "
                "signals=entropy+variance for several names."
            )
        if len(given) > 1 and role not in JOINED:
            raise EpisodeDataError(f"--map: {role} takes one name, found {', '.join(given)}.")
        fields[role] = given
    require_distinct((n for names in fields.values() for n in names), "--map", "the name")
    return fields


def choose(said: Mapping[str, tuple[str, ...]], available: Sequence[str], where: str) -> Fields:
    """What each name of a file means, from what was said and what goes without saying.

    Raises EpisodeDataError naming what is missing, what there is, and what to write.
    """
    names = {role: tuple(n for name in given for n in expand(name, available, where)) for role, given in said.items()}
    taken = {name for given in names.values() for name in given}
    for role in ROLES:
        default = next((n for n in (role, *_SAME.get(role, ())) if n in available and n not in taken), None)
        if role not in names and default is not None:
            names[role] = (default,)
            taken.add(default)
    assumed = not names.get("signals") and not names.get("action")
    if assumed:
        other = {n for same in _SAME.values() for n in same} | _NEVER
        names["signals"] = tuple(n for n in available if n not in taken | other)
    if "success" not in names:
        raise EpisodeDataError(
            f"{where}: nothing is called success; say which it is with --map success=NAME. There are: {shown(available)}."
        )
    if not names.get("signals") and not names.get("action"):
        raise EpisodeDataError(f"{where}: no signals and no action; name them with --map signals=NAME+NAME.")
    return Fields(names=names, assumed=assumed)


def expand(name: str, available: Sequence[str], where: str) -> list[str]:
    """The name itself, or its numbered parts: `h` -> `h_0`, `h_1`, ... (also `h0`, `h.0`, `h[0]`)."""
    if name in available:
        return [name]
    pattern = re.compile(rf"{re.escape(name)}[._]?\[?(\d{{1,6}})\]?")
    parts = sorted((int(found[1]), n) for n in available if (found := pattern.fullmatch(n)))
    numbers = [number for number, _ in parts]
    if not parts or numbers != list(range(numbers[0], numbers[0] + len(parts))) or numbers[0] > 1:
        raise EpisodeDataError(f"{where}: nothing is called {name!r}. There are: {shown(available)}.")
    return [n for _, n in parts]


def shown(names: Iterable[str], joint: str = ", ") -> str:
    """The first names, and how many more."""
    every = list(names)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return joint.join(name[:60] for name in every[:_SHOWN]) + more
