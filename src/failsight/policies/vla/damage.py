"""A configuration that is not one of ours, or was damaged: one sentence instead of whatever building from it raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from failsight.core.errors import FailsightError


@contextmanager
def damage(path: Path) -> Iterator[None]:
    """What goes wrong while a model is built from the configuration at `path`. Raises FailsightError naming it."""
    try:
        yield
    except FailsightError as error:
        raise FailsightError(f"{path}: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError, MemoryError) as error:
        text = (str(error).strip().splitlines() or [""])[0][:200]
        raise FailsightError(
            f"{path} is damaged or of another version ({type(error).__name__}: {text}). Restore it, or train again."
        ) from error
