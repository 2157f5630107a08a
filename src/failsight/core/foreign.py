"""Values from outside, read and never cast: each reader returns what the value means, or refuses and names the place.

Casting is how a failure becomes a success (`bool("False")` is True), a bright picture a black one (0.47 as uint8 is 0)
and one number a whole row of them (a (1,) array broadcasts). Importers, readers of runs, server, client and loop all
read through here. `where` is the place as a person finds it: file, line, key. Every refusal is an EpisodeDataError.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.types import Array

YES = frozenset({"true", "1", "yes", "success"})
NO = frozenset({"false", "0", "no", "failure", "fail"})
TEXT_LIMIT = 4096
"""Characters of a task text; longer ones are a file that was put in the wrong place."""
_LARGEST = 2**63 - 1


def read_success(value: Any, where: str) -> bool:
    """True or False from a bool, exactly 0 or 1, or a known word (any case).

    Scores between 0 and 1, -1, None, lists of flags and other words are refused: which of them count as success is
    for their owner to say.

    >>> read_success("False", "a.jsonl:3")
    False
    """
    if isinstance(value, np.ndarray | np.generic) and np.ndim(value) == 0:
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    word = value.strip().lower() if isinstance(value, str) else None
    if word in YES | NO:
        return word in YES
    raise EpisodeDataError(f"{where}: success is {_shown(value)}; write true or false.")


def read_text(value: Any, where: str, limit: int = TEXT_LIMIT) -> str:
    """Text without surrounding space: from text, UTF-8 bytes, or a 0-dimensional array of either.

    Not empty, no NUL, no half of a character (a lone surrogate, which no file can hold).
    """
    if isinstance(value, np.ndarray | np.generic) and np.ndim(value) == 0:
        value = value.item()
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise EpisodeDataError(f"{where}: the text is not UTF-8 ({error}).") from error
    if not isinstance(value, str):
        raise EpisodeDataError(f"{where}: expected text, found {_shown(value)}.")
    text = value.strip()
    broken = "\0" in text or any("\ud800" <= c <= "\udfff" for c in text[:limit])
    if not text or broken or len(text) > limit:
        found = "is empty" if not text else "holds a broken character" if broken else f"has {len(text)} characters"
        raise EpisodeDataError(f"{where}: the text {found}; expected 1 to {limit} characters.")
    return text


def read_flag(value: Any, where: str) -> bool:
    """True or False from a bool or exactly 0 or 1."""
    if isinstance(value, np.ndarray | np.generic) and np.ndim(value) == 0:
        value = value.item()
    if isinstance(value, bool) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise EpisodeDataError(f"{where}: expected true or false, found {_shown(value)}.")


def one_line(text: str, limit: int = 400) -> str:
    """Somebody else's words for a message or a log: one line, printable, cut at `limit` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def read_number(value: Any, where: str, low: float = float("-inf"), high: float = float("inf")) -> float:
    """A finite number within [low, high]; bools and text are refused."""
    if isinstance(value, np.ndarray | np.generic) and np.ndim(value) == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise EpisodeDataError(f"{where}: expected a number, found {_shown(value)}.")
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if not np.isfinite(number) or not low <= number <= high:
        raise EpisodeDataError(f"{where}: expected a finite number from {low:g} to {high:g}, found {_shown(value)}.")
    return number


def read_count(value: Any, where: str, low: int = 0, high: int = _LARGEST) -> int:
    """A whole number within [low, high]; 3.0 is whole, 2.5 and True are refused."""
    number = read_number(value, where)
    if number != int(number):
        raise EpisodeDataError(f"{where}: expected a whole number, found {_shown(value)}.")
    whole = int(value)
    if not low <= whole <= high:
        raise EpisodeDataError(f"{where}: expected a whole number from {low} to {high}, found {_shown(value)}.")
    return whole


def read_array(value: Any, where: str, shape: tuple[int | None, ...], *, finite: bool = True) -> Array:
    """A float32 array of exactly `shape`, (T,) or more (None: any length of at least 1); nothing broadcasts or is cut.

    Args: finite: refuse NaN, infinity and what float32 cannot hold; False: those become NaN, which means missing.

    Raises EpisodeDataError for another shape, rows that differ in length, what is no number, and what is not finite.
    """
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise EpisodeDataError(f"{where}: the rows differ in length.") from error
    if array.dtype.kind not in "fiu":
        raise EpisodeDataError(f"{where}: expected numbers, found {array.dtype}.")
    fits = array.ndim == len(shape) and all(
        have == want if want is not None else have >= 1 for have, want in zip(array.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise EpisodeDataError(f"{where}: expected shape ({wanted}), found {array.shape}.")
    with np.errstate(over="ignore"):
        result = array.astype(np.float32)
    bad = ~np.isfinite(result)
    if finite and bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        raise EpisodeDataError(f"{where}: entry {place} is {array[place]}; expected finite numbers.")
    result[bad] = np.nan
    return result


def read_picture(value: Any, where: str) -> Array:
    """(H, W, 3) uint8 from uint8, whole numbers 0 to 255, or floats in [0, 1] (times 255, rounded).

    (3, H, W) is turned. Raises EpisodeDataError for floats that are not whole and exceed 1, negative values, NaN and
    other shapes.
    """
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise EpisodeDataError(f"{where}: the rows of the picture differ in length.") from error
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise EpisodeDataError(f"{where}: a picture is (height, width, 3), found {array.shape}.")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all() or array.min() < 0 or array.max() > 255:
        raise EpisodeDataError(f"{where}: a picture holds bytes 0 to 255 or floats 0 to 1, found {_range(array)}.")
    if array.dtype.kind == "f" and array.max() <= 1:
        return np.rint(array.astype(np.float32) * 255).astype(np.uint8)
    if array.dtype.kind == "f" and (array != np.rint(array)).any():
        raise EpisodeDataError(f"{where}: a picture holds bytes 0 to 255 or floats 0 to 1, found {_range(array)}.")
    return array.astype(np.uint8)


def read_pictures(value: Any, where: str) -> Array:
    """(T, H, W, 3) uint8, `read_picture` for a whole episode: its range is judged over all frames, never one by one.

    Raises EpisodeDataError naming the frame.
    """
    array = np.asarray(value)
    if array.ndim == 4 and array.shape[1] == 3 and array.shape[3] != 3:
        array = array.transpose(0, 2, 3, 1)
    if array.ndim != 4 or array.shape[3] != 3 or 0 in array.shape[1:]:
        raise EpisodeDataError(f"{where}: pictures are (frames, height, width, 3), found {array.shape}.")
    if array.dtype == np.uint8 or not len(array):
        return array.astype(np.uint8, copy=False)
    if array.dtype.kind not in "fiu":
        raise EpisodeDataError(f"{where}: a picture holds bytes 0 to 255 or floats 0 to 1, found {array.dtype}.")
    scale = 255 if array.dtype.kind == "f" and array.max() <= 1 else 1
    result = np.empty(array.shape, np.uint8)
    for t, picture in enumerate(array):
        bytes_ = scale == 255 or array.dtype.kind != "f" or (picture == np.rint(picture)).all()
        if not (bytes_ and np.isfinite(picture).all() and picture.min() >= 0 and picture.max() <= 255):
            raise EpisodeDataError(
                f"{where}, frame {t}: a picture holds bytes 0 to 255 or floats 0 to 1, found {_range(picture)}."
            )
        result[t] = picture if scale == 1 else np.rint(picture.astype(np.float32) * 255)
    return result


def read_file_name(value: object, where: str) -> str:
    """Letters, digits, `_` and `-`: text that names a file and nothing outside its folder."""
    text = read_text(value, where, limit=64)
    if not re.fullmatch(r"[\w-]+", text, re.ASCII):
        raise EpisodeDataError(f"{where}: expected letters, digits, _ and -, found {text!r}.")
    return text


def require_distinct(values: Iterable[Hashable], where: str, what: str) -> None:
    """Refuse a value that occurs twice."""
    seen: set[Hashable] = set()
    for value in values:
        if value in seen:
            raise EpisodeDataError(f"{where}: {what} {value!r} occurs twice.")
        seen.add(value)


def require_increasing(values: Array, where: str, what: str = "time") -> None:
    """Raises EpisodeDataError for (T,) values that are not finite or do not grow strictly."""
    array = np.asarray(values, np.float64)
    if not np.isfinite(array).all():
        at = int(np.argmin(np.isfinite(array)))
        raise EpisodeDataError(f"{where}: {what} at row {at} is {array[at]}.")
    steps = np.diff(array)
    if (steps <= 0).any():
        at = int(np.argmax(steps <= 0)) + 1
        raise EpisodeDataError(f"{where}: {what} does not increase at row {at} ({array[at - 1]:g}, {array[at]:g}).")


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _range(array: Array) -> str:
    if array.dtype.kind not in "fiu":
        return str(array.dtype)
    return f"{array.dtype} from {array.min():g} to {array.max():g}"
