"""The nearest known wording of an instruction, slot by slot: what is moved, onto what, to which side, over what.

Things are told apart by the nearest named colour and by shape; a thing that follows `on` or `above` (in Korean: stands
before `위`) is what another is put on. The user's own table comes first. Where two known wordings are nearly as near,
or none is near, it asks instead of guessing. English and Korean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from failsight.causes.familiar import Familiar
from failsight.causes.wordings import plain
from failsight.core.types import Array

MARGIN = 0.5
"""By how much the nearest known wording has to be nearer than the next."""
_SHAPES = {
    "cube": "cube cubes block blocks box brick dice square 큐브 블록 상자 정육면체 네모",
    "cylinder": "cylinder can tube tin roll barrel drum 원기둥 실린더 캔 통",
}
_SIDES = {"left": "left lefthand leftmost 왼쪽 왼편 좌측", "right": "right righthand rightmost 오른쪽 오른편 우측"}
_OVER = [
    "wall",
    "barrier",
    "fence",
    "divider",
    "partition",
    "obstacle",
    "hurdle",
    "over",
    "across",
    "past",
    "beyond",
    "벽",
    "장벽",
    "울타리",
    "칸막이",
    "담",
    "너머",
    "넘겨",
    "넘어",
]
_OVER_NOUNS = frozenset(
    ["wall", "barrier", "fence", "divider", "partition", "obstacle", "hurdle", "벽", "장벽", "울타리", "칸막이", "담"]
)
_ON = frozenset(["on", "onto", "atop", "above", "upon", "over", "top", "위", "위에", "위로"])
_KOREAN = {
    "빨간 빨강 붉은 적색 빨간색": (229, 0, 0),
    "초록 녹색 초록색 푸르른": (21, 176, 26),
    "파란 파랑 푸른 청색 파란색": (3, 67, 223),
    "노란 노랑 황색 노란색": (255, 255, 20),
    "검은 검정": (0, 0, 0),
    "흰 하얀": (255, 255, 255),
    "주황 주황색": (249, 115, 6),
    "보라 보라색": (126, 30, 156),
}
_PARTICLES = ("으로", "에서", "까지", "을", "를", "에", "로", "은", "는", "이", "가", "의")


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """Something with a colour."""

    colour: Array
    """(3,) red, green, blue from 0 to 1."""
    shape: str
    at: int
    """Word at which it is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """What an instruction says."""

    moved: Thing | None
    onto: Thing | None
    side: str
    over: bool
    words: frozenset[str]


def match_wording(instruction: str, familiar: Familiar) -> str | None:
    """The known wording to use in place of `instruction`; None: none is near enough, or two are."""
    table = {plain(left): right for left, right in familiar.table.items()}
    if (right := table.get(plain(instruction))) is not None:
        return right
    return nearest(instruction, [wording.text for wording in familiar.wordings])


def nearest(instruction: str, known: Sequence[str]) -> str | None:
    """The one of the known wordings that says the same; None where none is near enough, or two are."""
    wanted = slots_of(instruction)
    scored = sorted(((_likeness(wanted, slots_of(text)), text) for text in known), reverse=True)
    if not scored or scored[0][0] <= MARGIN:
        return None
    if len(scored) > 1 and scored[0][0] - scored[1][0] < MARGIN:
        return None
    return scored[0][1]


def slots_of(instruction: str) -> Slots:
    """What an instruction says, as far as it is understood."""
    words = [_stem(word) for word in plain(instruction).split()]
    things = _things(words)
    based = [i for i, thing in enumerate(things) if _is_base(words, thing)] if len(things) > 1 else []
    onto = things[based[-1]] if based else None
    rest = [thing for thing in things if thing is not onto]
    return Slots(
        moved=rest[0] if rest else None,
        onto=onto,
        side=next((side for side, names in _SIDES.items() if set(names.split()) & set(words)), ""),
        over=bool(_OVER_NOUNS & set(words)),
        words=frozenset(words),
    )


def _likeness(one: Slots, other: Slots) -> float:
    """How much two instructions say the same: slots that agree less slots that contradict."""
    score = 2 * _same_thing(one.moved, other.moved) + 2 * _same_thing(one.onto, other.onto)
    score += 1.0 if one.side == other.side else -1.0
    score += 1.0 if one.over == other.over else -1.0
    together = one.words | other.words
    return score + len(one.words & other.words) / max(1, len(together))


def _same_thing(one: Thing | None, other: Thing | None) -> float:
    if one is None or other is None:
        return 0.5 if one is other else -1.0
    apart = float(np.linalg.norm(_hue(one.colour) - _hue(other.colour)))
    shapes = 0.0 if not (one.shape and other.shape) else 0.25 if one.shape == other.shape else -0.25
    return 1.0 - 2.0 * apart + shapes


def _hue(colour: Array) -> Array:
    """(3,) share of each channel, and how grey it is: a dark blue is a blue."""
    lifted = colour - colour.min()
    total = lifted.sum()
    mixed: Array = lifted / total if total > 0.15 else np.full(3, 1 / 3)
    return mixed


def _things(words: Sequence[str]) -> list[Thing]:
    found = []
    for at, word in enumerate(words):
        colour = _colours().get(word)
        if colour is None:
            continue
        after = words[at + 1] if at + 1 < len(words) else ""
        shape = next((name for name, names in _SHAPES.items() if after in names.split()), "")
        found.append(Thing(colour=np.array(colour), shape=shape, at=at))
    return found


def _is_base(words: Sequence[str], thing: Thing) -> bool:
    """Whether another thing is put on this one: `on (top of) (the) THING`, in Korean `THING ... 위에`."""
    before = [word for word in words[max(0, thing.at - 4) : thing.at] if word not in ("the", "a", "of")]
    after = words[thing.at + 1 : thing.at + 4]
    korean = any(word in ("위", "위에", "위로") for word in after) and not any(w in _colours() for w in after[:2])
    return bool(before and before[-1] in _ON) or korean


def _stem(word: str) -> str:
    """A Korean word without its particle; any other as it is."""
    if not ("가" <= word[:1] <= "힣") or word in ("위에", "위로"):
        return word
    known = {name for names in (*_SHAPES.values(), *_SIDES.values(), *_KOREAN) for name in names.split()} | set(_OVER)
    for particle in _PARTICLES:
        if word.endswith(particle) and word.removesuffix(particle) in known:
            return word.removesuffix(particle)
    return word


@cache
def _colours() -> dict[str, tuple[float, float, float]]:
    """Name of one word -> red, green, blue from 0 to 1: the named colours of CSS and of the xkcd survey, and Korean ones."""
    from matplotlib.colors import CSS4_COLORS, XKCD_COLORS, to_rgb  # heavy, and only wanted for an unknown wording

    names = {name.removeprefix("xkcd:"): to_rgb(code) for name, code in {**XKCD_COLORS, **CSS4_COLORS}.items()}
    shapes = {name for names_ in _SHAPES.values() for name in names_.split()}
    english = {name: rgb for name, rgb in names.items() if name.isalpha() and name not in shapes}
    korean = {name: tuple(v / 255 for v in rgb) for names_, rgb in _KOREAN.items() for name in names_.split()}
    return {**english, **korean}  # type: ignore[dict-item]
