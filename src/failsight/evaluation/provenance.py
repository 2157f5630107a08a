"""Where a figure comes from: versions and commit of the code that made it."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from contextlib import suppress
from pathlib import Path

import failsight


def versions() -> dict[str, str]:
    """Versions that can change a result, of what is installed."""
    found = {}
    for name in ("numpy", "torch", "mujoco", "pyarrow"):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return {"failsight": failsight.__version__, "python": platform.python_version(), **found}


def commit() -> str:
    """The git commit of this code, "unknown" outside a checkout."""
    try:
        return subprocess.run(
            ["git", "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parent,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
