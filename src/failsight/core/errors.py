"""Every error failsight raises on purpose.

FailsightError            bad input or a decided refusal: one sentence, exit code 2
├── UnknownNameError      a task, policy, recipe ... that is not registered; offers the nearest names
├── SpecMismatchError     producer and consumer disagree about actions or observations
├── EpisodeDataError      an episode, run or label table that cannot be read as what it claims to be
├── BundleError           a bundle that does not fit the policy or the code beside it
├── CalibrationError      too little or one-sided data for the promised false-alarm rate
├── RenderingError        no picture can be drawn on this machine as it is set up
└── StorageError          the disk refused: full, read-only, missing
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class FailsightError(Exception):
    """Base of all deliberate refusals; the command line prints the message and exits with code 2."""


class UnknownNameError(FailsightError):
    """A name that is not registered."""

    def __init__(self, kind: str, name: str, available: Iterable[str]) -> None:
        names = sorted(available)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        hint = f"Did you mean {', '.join(near)}?" if near else f"Available: {', '.join(names)}."
        super().__init__(f"Unknown {kind} {name!r}. {hint}")


class SpecMismatchError(FailsightError):
    """Two specs that had to be equal are not; the message shows both sides."""


class EpisodeDataError(FailsightError):
    """Recorded data is missing, truncated, of another version, or not finite."""


class BundleError(FailsightError):
    """A bundle does not fit the policy, the feature size or this version."""


class CalibrationError(FailsightError):
    """The promised false-alarm rate cannot be kept with the episodes at hand."""


class StorageError(FailsightError):
    """A file could not be written; nothing half-written is left behind."""


class RenderingError(FailsightError):
    """No picture can be drawn: a wrong environment variable or a missing library, named with what to do."""


@contextmanager
def told(what: str, kind: type[FailsightError] = FailsightError) -> Iterator[None]:
    """What code that may be somebody else's raises becomes one sentence of this kind: "`what` (ValueError: ...)."

    A deliberate refusal goes on as it is.
    """
    try:
        yield
    except FailsightError:
        raise
    except Exception as error:
        raise kind(f"{what} ({type(error).__name__}: {error}).") from error
