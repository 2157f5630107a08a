"""What nobody uses is deleted: vulture finds it, and the few names it cannot know are listed with their reason."""

import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "failsight"
KEPT = {
    "__getattr__ __dir__": "Python asks for them",
    "find_class": "pickle asks for it",
    "process": "called by the websockets library's own logger",
    "pix_fmt skip_frame pre_tokenizer sub_configs config_class supports_gradient_checkpointing": "set for a library",
    "action_space current_action offsamples": "set for a simulator or its wrappers",
    "success_rate collision_rate stop_rate rescue_rate harm_rate harm_alarmed rr success_change failure_reduction collision_reduction "
    "mcnemar_p e_value duty_cycle human_minutes_per_hour steps_from": "fields that are written out as a whole",
    "read_episode store_log write_verdicts": "public: one file, a log from memory, a run judged afterwards",
    "Backbone": "the contract a new backbone is written against",
}


def test_nothing_is_unused():
    vulture = pytest.importorskip("vulture")
    found = vulture.Vulture()
    found.scavenge([str(SOURCE)])
    addressed = set()
    for file in SOURCE.rglob("*.py"):
        addressed |= set(re.findall(r":(\w+)\"", file.read_text()))
    kept = {name for names in KEPT for name in names.split()}
    public = SOURCE / "testing"
    unused = {
        f"{item.filename.relative_to(SOURCE)}:{item.first_lineno} {item.name}"
        for item in found.get_unused_code(min_confidence=60)
        if item.name not in addressed | kept and public not in item.filename.parents
    }
    assert not unused, f"nobody uses {', '.join(sorted(unused))}"
    assert kept <= {item.name for item in found.get_unused_code(min_confidence=60)}, "a kept name is used by now"
