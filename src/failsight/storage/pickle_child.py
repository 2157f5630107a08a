"""The process in which pickles of others are opened: it makes plain values and arrays, calls nothing else, and has limits.

`python -m failsight.storage.pickle_child FOLDER` reads one JSON line on its input (files, and which keys of
records are kept) and writes `0.npz`, `1.npz`, ... into FOLDER: arrays, and `tree`, JSON that says where they belong; or
`0.txt`, the sentence that says why not.
"""

from __future__ import annotations

import collections
import importlib
import io
import json
import pickle
import resource
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

MEMORY = 16 * 2**30
CPU_S = 600
FILE = 4 * 2**30
_NUMPY = ("numpy.core", "numpy._core")
_DEPTH = 32
_VALUES = 2_000_000
_PLAIN = {"set": set, "frozenset": frozenset, "bytearray": bytearray, "complex": complex}


class PlainUnpickler(pickle.Unpickler):
    """Knows numbers, texts, containers, arrays of NumPy and tensors of torch; every other name is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """Raises UnpicklingError for what is not on the list."""
        if module == "builtins" and name in _PLAIN:
            return _PLAIN[name]
        if module == "collections" and name in ("OrderedDict", "deque"):
            return getattr(collections, name)
        if (module, name) == ("_codecs", "encode"):
            return _encode
        if (module == "numpy" and name in ("ndarray", "dtype")) or (
            module == "numpy.dtypes" and name.endswith("DType")
        ):
            return getattr(np.dtypes if module == "numpy.dtypes" else np, name)
        if module in [f"{base}.multiarray" for base in _NUMPY] and name in ("_reconstruct", "scalar"):
            return getattr(importlib.import_module("numpy._core.multiarray"), name)
        if module in [f"{base}.numeric" for base in _NUMPY] and name == "_frombuffer":
            return _from_buffer
        if module.partition(".")[0] == "torch":
            return _torch(module, name)
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which is neither number, text nor array")


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it holds bytes encoded as {encoding}")
    return text.encode("latin1")


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: str) -> Any:
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order="F" if order == "F" else "C")


def _torch(module: str, name: str) -> Any:
    """Tensors as torch stores them, if torch is there; what is inside is read with weights only."""
    try:
        torch = importlib.import_module("torch")  # by name: nothing here may depend on it
    except ImportError as error:
        raise pickle.UnpicklingError("it holds tensors; install torch to read them") from error
    if (module, name) == ("torch.storage", "_load_from_bytes"):
        return lambda data: torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if (module, name) in (("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter")):
        return getattr(torch._utils, name)
    found = getattr(torch, name, None) if module == "torch" else None
    if isinstance(found, torch.dtype) or name == "Size":
        return found
    raise pickle.UnpicklingError(f"it holds {module}.{name}, which is neither number, text nor array")


class _Plain:
    """Turns values into JSON and a list of arrays."""

    def __init__(self, keep: Collection[str]) -> None:
        self.arrays: list[Any] = []
        self._keep, self._left = frozenset(keep), _VALUES

    def of(self, value: Any, depth: int = 0) -> Any:
        """JSON in which {"a": i} is the i-th array and {"d": {...}} a mapping."""
        self._left -= 1
        if depth > _DEPTH or self._left < 0:
            raise ValueError("it is nested too deeply or has too many values")
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            value = (value.float() if value.is_floating_point() else value).numpy()
        if isinstance(value, np.ndarray):
            return self._array(value, depth)
        if isinstance(value, dict):
            kept = {str(k): v for k, v in value.items() if not self._keep or str(k) in self._keep}
            return {"d": {name: self.of(part, depth + 1) for name, part in kept.items()}}
        if isinstance(value, list | tuple | collections.deque | set | frozenset):
            return [self.of(part, depth + 1) for part in value]
        raise ValueError(f"it holds a {type(value).__name__}, which is neither number, text nor array")

    def _array(self, value: Any, depth: int) -> Any:
        if value.dtype.kind not in "biufUS":
            return self.of(value.tolist(), depth + 1)
        self.arrays.append(value)
        return {"a": len(self.arrays) - 1}


def convert(path: Path, keep: Collection[str], target: Path) -> None:
    """One file. Raises whatever the file makes Python raise."""
    with path.open("rb") as file:
        value = PlainUnpickler(file).load()
    plain = _Plain(keep)
    tree = json.dumps(plain.of(value)).encode()
    arrays = {str(i): array for i, array in enumerate(plain.arrays)}
    with target.open("wb") as out:
        save: Callable[..., None] = np.savez
        save(out, tree=np.frombuffer(tree, np.uint8), **arrays)


def main() -> None:
    """Read the order, take the limits, convert file by file."""
    order, folder = json.loads(sys.stdin.readline()), Path(sys.argv[1])
    for what, most in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CPU, CPU_S), (resource.RLIMIT_FSIZE, FILE)):
        resource.setrlimit(what, (most, most))
    for number, name in enumerate(order["files"]):
        try:
            convert(Path(name), order["keep"], folder / f"{number}.npz")
        except BaseException as error:  # a stranger's bytes make Python raise anything
            (folder / f"{number}.npz").unlink(missing_ok=True)
            said = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
            (folder / f"{number}.txt").write_text(said, errors="replace")


if __name__ == "__main__":
    main()
