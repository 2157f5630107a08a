"""What a report says of every arm: the words that came with the figures, or its key where none came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def arm_words(summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Words of every arm of the summary, in their order; an older summary has none and keeps the order of its arms."""
    told = summary.get("arm_words", {})
    words = {key: {**_plain(key, place), **told.get(key, {})} for place, key in enumerate(summary["arms"])}
    return dict(sorted(words.items(), key=lambda item: item[1]["order"]))


def name_of(key: str) -> str:
    """A key as text.

    >>> name_of("ladder_auto")
    'ladder auto'
    """
    return key.replace("_", " ")


def placebos(words: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Keys of the arms that act at random moments."""
    return [key for key, row in words.items() if row["random"]]


def _plain(key: str, place: int) -> dict[str, Any]:
    """What can be said of an arm nobody described."""
    asks = "" if key == "none" else "helps"
    flags = {"autonomous": True, "rung": False, "gated": False, "random": False}
    return {"title": f"{name_of(key)} helps", "sentence": "", "asks": asks, "order": place, **flags}
