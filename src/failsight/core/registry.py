"""One table from name to `module:attribute`, resolved on use, so that naming a thing does not import it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from failsight.core.errors import FailsightError, UnknownNameError


def resolve(kind: str, name: str, table: Mapping[str, str]) -> Any:
    """The object `table[name]` points to.

    Raises UnknownNameError with the nearest names, or FailsightError with the install line of a missing extra.
    """
    if name not in table:
        raise UnknownNameError(kind, name, table)
    return load(table[name])


def load(target: str) -> Any:
    """Import `module:attribute`."""
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("failsight"):
            raise
        raise FailsightError(
            f"{target} needs the package {error.name!r}, which is not installed. Try: pip install 'failsight[train]'"
        ) from error
