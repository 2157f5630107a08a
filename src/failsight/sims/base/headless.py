"""Rendering without a screen: which back end MuJoCo takes, and its failures in one sentence.

MuJoCo reads MUJOCO_GL when it is imported and MUJOCO_EGL_DEVICE_ID when it makes its first context; both fail with
whatever the library below happened to say.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from failsight.core.errors import RenderingError

_OURS = ("mujoco.", "OpenGL.", "ctypes")
"""Modules whose errors, raised while a context is made, are about rendering."""


def choose_backend() -> None:
    """EGL on a Linux machine without a screen, unless MUJOCO_GL says otherwise; call before importing MuJoCo."""
    if sys.platform.startswith("linux") and "DISPLAY" not in os.environ:
        os.environ.setdefault("MUJOCO_GL", "egl")


@contextmanager
def explained() -> Iterator[None]:
    """Errors of MuJoCo's and OpenGL's own code become a RenderingError; others pass."""
    try:
        yield
    except (RuntimeError, ImportError, AttributeError, OSError) as error:
        if not _module_of(error).startswith(_OURS):
            raise
        _quiet_destructor()
        raise RenderingError(
            f"Rendering failed ({error}). {advice(str(error))} Check with: failsight doctor"
        ) from error


def advice(message: str) -> str:
    """What to do about a failure with this message."""
    device = os.environ.get("MUJOCO_EGL_DEVICE_ID")
    if device is not None and "MUJOCO_EGL_DEVICE_ID" in message:
        return f"MUJOCO_EGL_DEVICE_ID is {device!r}, which this machine does not have: unset it, or set it to 0."
    backend = os.environ.get("MUJOCO_GL", "")
    if "invalid value" in message:
        return f"MUJOCO_GL is {backend!r}: unset it, or set it to egl or osmesa."
    if backend == "osmesa":
        return "MUJOCO_GL is osmesa: on Debian, apt-get install libosmesa6."
    return (
        f"MUJOCO_GL is {backend!r}: on Debian, apt-get install libegl1 libgl1-mesa-dri, or install libosmesa6 and set "
        "MUJOCO_GL=osmesa."
    )


def _module_of(error: BaseException) -> str:
    """Name of the module whose code raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", ""))


def _quiet_destructor() -> None:
    """MuJoCo's GLContext that failed half-way complains in its destructor about a field it never set."""
    context = getattr(sys.modules.get("mujoco"), "GLContext", None)
    if context is not None and not hasattr(context, "_context"):
        context._context = None
