"""Pickles of others, as plain values: they are opened in a process of its own (`pickle_child`) that has limits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from failsight.core.errors import EpisodeDataError
from failsight.core.foreign import one_line
from failsight.storage.npz_members import MEMBER_LIMIT, member_names, read_members

FILE_LIMIT = 8 * 2**30
TIMEOUT_S = 900.0
_BATCH = 16
"""Files per process: starting one takes a second, and what they become lies on the disk meanwhile."""


def read_pickles(paths: Sequence[Path], keep: Sequence[str] = ()) -> Iterator[tuple[Path, Any]]:
    """Each file's value: None, bools, numbers, texts, lists, dicts with text as keys, arrays. `keep`: keys that are kept.

    Raises EpisodeDataError naming a file that holds anything else, is damaged, or needs more time or memory than allowed.
    """
    for start in range(0, len(paths), _BATCH):
        some = paths[start : start + _BATCH]
        for path in some:
            if path.stat().st_size > FILE_LIMIT:
                raise EpisodeDataError(f"{path} is larger than {FILE_LIMIT >> 30} GiB; split it.")
        with TemporaryDirectory(prefix="failsight-") as folder:
            _run(some, keep, Path(folder))
            for number, path in enumerate(some):
                yield path, _value(Path(folder), number, path)


def _run(paths: Sequence[Path], keep: Sequence[str], folder: Path) -> None:
    order = json.dumps({"files": [str(path.absolute()) for path in paths], "keep": list(keep)}) + "\n"
    command = [sys.executable, "-m", "failsight.storage.pickle_child", str(folder)]
    try:
        subprocess.run(command, input=order.encode(), capture_output=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise EpisodeDataError(
            f"{paths[0]} and others take longer than {TIMEOUT_S:g} s to read; split them."
        ) from error


def _value(folder: Path, number: int, path: Path) -> Any:
    made, refused = folder / f"{number}.npz", folder / f"{number}.txt"
    if refused.is_file():
        raise EpisodeDataError(f"{path} is not read: {one_line(refused.read_text(errors='replace'))}.")
    if not made.is_file():
        raise EpisodeDataError(f"{path} needs more memory or time than a pickle may take; split it, or store arrays.")
    names = member_names(made)
    arrays = read_members(made, dict.fromkeys(names, MEMBER_LIMIT), {})
    return _plain(json.loads(arrays["tree"].tobytes()), arrays)


def _plain(tree: Any, arrays: Mapping[str, Any]) -> Any:
    if isinstance(tree, list):
        return [_plain(part, arrays) for part in tree]
    if isinstance(tree, dict):
        if "a" in tree:
            return arrays[str(tree["a"])]
        return {name: _plain(part, arrays) for name, part in tree["d"].items()}
    return tree
