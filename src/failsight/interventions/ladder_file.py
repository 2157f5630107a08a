"""`ladder.json` in the folder of a bundle: what forks showed about every rung, so that who protects a robot climbs the same
ladder as the experiment that proved it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from failsight.core.errors import BundleError, EpisodeDataError
from failsight.core.foreign import read_count, read_text, require_distinct
from failsight.core.textfiles import read_json_object
from failsight.core.types import FAILURE_TYPES
from failsight.interventions.gate import GateEntry
from failsight.storage.disk import write_bytes_atomic

LADDER = "ladder.json"


def save_ladder(bundle: Path, entries: Sequence[GateEntry]) -> Path:
    """Write the ladder of a bundle, rungs mildest first, beside it; returns the file.

    Raises StorageError when the disk refuses.
    """
    owner = read_json_object(bundle / "fingerprint.json")["bundle"]
    data = {"bundle": owner, "rungs": [entry.as_dict() for entry in entries]}
    write_bytes_atomic(bundle / LADDER, json.dumps(data, indent=1).encode())
    return bundle / LADDER


def load_ladder(bundle: Path) -> tuple[GateEntry, ...]:
    """The ladder of a bundle; empty where nobody proved one.

    Raises BundleError when it is damaged or that of another bundle: a rung would act that was never shown to help.
    """
    path = bundle / LADDER
    if not path.is_file():
        return ()
    try:
        data = read_json_object(path)
        owner, entries = read_text(data["bundle"], "bundle"), tuple(map(_entry, data["rungs"]))
        require_distinct(((entry.rung, entry.type) for entry in entries), "rungs", "rung")
    except (EpisodeDataError, KeyError, TypeError) as error:
        raise BundleError(f"{path} is no ladder ({error}); delete it, or run the experiment again.") from error
    if owner != read_json_object(bundle / "fingerprint.json").get("bundle"):
        raise BundleError(f"{path} was proved on another bundle ({owner}); delete it, or run the experiment again.")
    return entries


def _entry(data: Any) -> GateEntry:
    rung = read_text(data["rung"], "rungs")
    triggers = read_count(data["triggers"], f"rungs, {rung}, triggers")
    rescues, harms = (read_count(data[name], f"rungs, {rung}, {name}", 0, triggers) for name in ("rescues", "harms"))
    if rescues + harms > triggers:
        raise EpisodeDataError(f"rungs, {rung}: {rescues} rescues and {harms} harms in {triggers} triggers.")
    kind = data.get("type", "")
    if kind not in ("", *FAILURE_TYPES):
        raise EpisodeDataError(
            f"rungs, {rung}: type is {kind!r}; write one of {', '.join(FAILURE_TYPES)}, or leave it out."
        )
    return GateEntry(rung=rung, triggers=triggers, rescues=rescues, harms=harms, type=kind)
