"""failsight: robot policies that see their own failures coming, and act in time.

The few names a user of the library needs; each is imported when it is first asked for, so that `import failsight` is light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from failsight.core.errors import FailsightError as FailsightError
    from failsight.core.specs import ActionSpec as ActionSpec
    from failsight.core.specs import Dimension as Dimension
    from failsight.core.specs import ObservationSpec as ObservationSpec
    from failsight.core.types import EpisodeKey as EpisodeKey
    from failsight.core.types import PolicyOutput as PolicyOutput
    from failsight.core.types import Step as Step
    from failsight.core.types import Task as Task
    from failsight.core.types import Verdict as Verdict
    from failsight.episodes.run import Run as Run
    from failsight.monitor.bundle import load_monitor as load_monitor
    from failsight.runtime.loop import Loop as Loop
    from failsight.runtime.protector import Protector as Protector
    from failsight.runtime.watch import watch as watch

__version__ = "0.1.0"

_HOMES = {
    "ActionSpec": "failsight.core.specs",
    "Dimension": "failsight.core.specs",
    "EpisodeKey": "failsight.core.types",
    "FailsightError": "failsight.core.errors",
    "Loop": "failsight.runtime.loop",
    "ObservationSpec": "failsight.core.specs",
    "PolicyOutput": "failsight.core.types",
    "Protector": "failsight.runtime.protector",
    "Run": "failsight.episodes.run",
    "Step": "failsight.core.types",
    "Task": "failsight.core.types",
    "Verdict": "failsight.core.types",
    "load_monitor": "failsight.monitor.bundle",
    "watch": "failsight.runtime.watch",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'failsight' has no attribute {name!r}; it offers {', '.join(_HOMES)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
