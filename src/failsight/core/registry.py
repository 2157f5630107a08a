"""From a name to the object behind it: a table of ours, an entry point of an installed package, `package.module:attribute`.

Our own names keep their meaning whatever is installed; a package that claims one of them is warned about and reached by
its address. A name that two packages claim means neither. Everything is imported on use: naming a thing costs nothing.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import warnings
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from importlib.metadata import distributions
from operator import attrgetter
from typing import Any, NamedTuple

from failsight.core.errors import FailsightError, UnknownNameError

_ADDRESS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


class NameClash(UserWarning):
    """An installed package claims a name of ours; ours was taken."""


class Claim(NamedTuple):
    """A name an installed package registers."""

    name: str
    address: str
    """`module:attribute`."""
    package: str


def resolve(kind: str, name: str, table: Mapping[str, str], group: str = "") -> Any:
    """The object `table[name]` points to; else what an installed package registers in the entry-point `group`, or the
    object at the address that `name` is. Without a group only the table counts.

    Raises UnknownNameError with the nearest names, or FailsightError with the install line of a missing extra.
    """
    if name not in table:
        return foreign(kind, name, table, group)
    warn_of_claims(name, group)
    return load(table[name])


def foreign(kind: str, name: str, ours: Collection[str], group: str) -> Any:
    """`resolve` for a name that is none of `ours`."""
    if group and is_address(name):
        return load_foreign(name)
    found = [claim for claim in claims(group) if claim.name == name]
    if not found:
        raise UnknownNameError(kind, name, {*ours, *(claim.name for claim in claims(group))})
    if len(found) > 1:
        both = " and ".join(f"{claim.package} ({claim.address})" for claim in found)
        raise FailsightError(f"The {kind} {name!r} is claimed by {both}; name the one you mean by its address.")
    return load_foreign(found[0].address, found[0].package)


def claims(group: str) -> tuple[Claim, ...]:
    """Names that installed packages register in an entry-point group."""
    return _claims(group, tuple(sys.path)) if group else ()


@cache
def _claims(group: str, path: tuple[str, ...]) -> tuple[Claim, ...]:
    found: dict[str, list[Claim]] = {}
    for distribution in distributions(path=list(path)):
        try:
            package = str(distribution.metadata["Name"])
            mine = [
                Claim(e.name, e.value.split("[")[0].strip(), package)
                for e in distribution.entry_points.select(group=group)
            ]
        except Exception as error:  # whatever a broken package makes its reader raise, the others still count
            warnings.warn(f"The entry points of an installed package cannot be read: {error}", stacklevel=2)
            continue
        found.setdefault(package, mine)
    return tuple(sorted(claim for mine in found.values() for claim in mine))


def warn_of_claims(name: str, group: str) -> None:
    """Say that a package claims a name of ours."""
    for claim in claims(group):
        if claim.name == name:
            warnings.warn(
                f"{claim.package} claims the name {name!r}, which is failsight's own and was taken; reach the package's "
                f"as {claim.address}",
                NameClash,
                stacklevel=3,
            )


def is_address(name: str) -> bool:
    """Whether a name is `package.module:attribute`."""
    return _ADDRESS.fullmatch(name) is not None


def load(target: str, install: str = "pip install 'failsight[train]'") -> Any:
    """Import `module:attribute` of ours; `install`: what to type where a package is missing."""
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("failsight"):
            raise
        raise FailsightError(
            f"{target} needs the package {error.name!r}, which is not installed. Try: {install}"
        ) from error


def load_foreign(address: str, package: str = "", install: str = "") -> Any:
    """Import `module:attribute` of somebody else. Raises FailsightError saying what went wrong in their code."""
    owner = f" of the package {package}" if package else ""
    if not is_address(address):
        raise FailsightError(f"{address!r}{owner} is not an address such as package.module:attribute.")
    module, _, attribute = address.partition(":")
    try:
        return attrgetter(attribute)(importlib.import_module(module))
    except ModuleNotFoundError as error:
        advice = f"Try: {install}" if install else "Install it, or put its folder on PYTHONPATH."
        raise FailsightError(
            f"{address}{owner} needs the module {error.name!r}, which Python does not find. {advice}"
        ) from error
    except Exception as error:
        raise FailsightError(f"{address}{owner} cannot be loaded ({type(error).__name__}: {error}).") from error


def require_members(made: object, contract: type, what: str) -> None:
    """Raises FailsightError naming the members of a protocol that an object from elsewhere lacks."""
    missing = sorted(name for name in _members(contract) if not _has(made, name))
    if missing:
        raise FailsightError(
            f"{what} is a {type(made).__name__} without {', '.join(missing)}: not a {contract.__name__}."
        )


def _members(contract: type) -> Iterator[str]:
    for base in contract.__mro__:
        if getattr(base, "_is_protocol", False):
            names = {*vars(base), *inspect.get_annotations(base)}
            yield from (name for name in names if not name.startswith("_"))


def _has(made: object, name: str) -> bool:
    """Without asking a property, which may refuse before the first episode."""
    try:
        inspect.getattr_static(made, name)
    except AttributeError:
        return hasattr(made, name)
    return True
