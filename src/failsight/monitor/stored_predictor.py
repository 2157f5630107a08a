"""The class of a bundle's predictor: ours by name, anybody else's by the address of the class itself.

A name would say too little: two packages may give theirs the same one, and ours would then load in the place of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from failsight.core.contracts import StoredPredictor
from failsight.core.errors import BundleError, UnknownNameError, told
from failsight.core.registry import is_address, load, load_foreign, require_members
from failsight.core.types import Array
from failsight.predictors import PREDICTORS


def stored_name(predictor: Any) -> str:
    """What a bundle writes down to find the class again. Raises BundleError when it could not be found again."""
    kind, name = type(predictor), getattr(predictor, "name", "")
    if name in PREDICTORS and load(PREDICTORS[name]) is kind:
        return str(name)
    require_members(predictor, StoredPredictor, "The predictor")
    address = f"{kind.__module__}:{kind.__qualname__}"
    if kind.__module__ == "__main__" or not is_address(address) or load_foreign(address) is not kind:
        raise BundleError(f"{address} cannot be found again; define the class of the predictor in a module of its own.")
    return address


def require_known(name: str) -> None:
    """Raises UnknownNameError for what is neither a name of ours nor an address; imports nothing."""
    if name not in PREDICTORS and not is_address(name):
        raise UnknownNameError("predictor", name, PREDICTORS)


def make_predictor(name: str, arrays: Mapping[str, Array]) -> StoredPredictor:
    """The predictor from what it learned, named arrays (...) whose shapes its class states.

    Raises BundleError for a class that is no predictor or refuses the arrays.
    """
    if name in PREDICTORS:
        made: StoredPredictor = load(PREDICTORS[name])(arrays)
        return made
    kind = load_foreign(name)
    if not all(callable(getattr(kind, part, None)) for part in ("reset", "update")):
        raise BundleError(f"{name} is not the class of a predictor.")
    with told(f"{name} cannot be made from this bundle", BundleError):
        made = kind(arrays)
    require_members(made, StoredPredictor, f"What {name} makes")
    return made
