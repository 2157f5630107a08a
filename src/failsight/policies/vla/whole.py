"""Weights are taken whole or not at all: what a file lacks, adds or shapes otherwise is refused by name.

A tensor left out keeps its random start, and a policy with a random layer still answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from failsight.core.errors import FailsightError

_SHOWN = 3


def require_fit(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], place: Path) -> None:
    """Refuse tensors (...) that are not exactly those wanted, in name and shape. Raises FailsightError with some."""
    if missing := set(wanted) - set(found):
        raise FailsightError(f"{place} {lacking(missing)} that this model has; train it again.")
    if more := sorted(set(found) - set(wanted)):
        raise FailsightError(f"{place} holds {len(more)} tensors that this model lacks ({more[0]}, ...).")
    other = [name for name, value in wanted.items() if found[name].shape != value.shape]
    if other:
        name = other[0]
        raise FailsightError(
            f"{place} does not fit this model: {name} is {tuple(found[name].shape)} there and "
            f"{tuple(wanted[name].shape)} here ({len(other)} such tensors)."
        )
    require_finite(found, place)


def require_finite(found: Mapping[str, Tensor], place: Path) -> None:
    """Refuse weights (...) that are not numbers: a policy with them answers nothing. Raises FailsightError."""
    for name, value in found.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise FailsightError(f"{place} holds weights that are not finite ({name}); it is damaged, or diverged.")


def load_all(model: nn.Module, path: Path) -> None:
    """Every tensor of a model from a file written with `own_tensors`: tied tensors stand there once."""
    found, state = load_file(path), model.state_dict()
    tied: dict[int | str, list[str]] = {}
    for name, value in state.items():
        tied.setdefault(value.data_ptr() or name, []).append(name)
    one_each = [next((name for name in names if name in found), names[0]) for names in tied.values()]
    require_fit(found, {name: state[name] for name in {*one_each, *(set(state) & set(found))}}, path)
    model.load_state_dict(found, strict=False)


def load_adapter(model: Any, path: Path) -> None:
    """Low-rank updates and new tokens of a PEFT model."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    found = load_file(path)
    require_fit(found, get_peft_model_state_dict(model), path)
    set_peft_model_state_dict(model, found)


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """State, tensors (...) of any shape, without the second name of tied ones, which safetensors refuses."""
    kept: dict[int | str, str] = {}
    state = model.state_dict()
    for name, value in state.items():
        kept.setdefault(value.data_ptr() or name, name)
    return {name: state[name].contiguous() for name in kept.values()}


def lacking(names: Iterable[str]) -> str:
    """`lacks 5 tensors (a, b, c, ...)`."""
    listed = sorted(names)
    more = ", ..." if len(listed) > _SHOWN else ""
    return f"lacks {len(listed)} tensors ({', '.join(listed[:_SHOWN])}{more})"
