"""Words of an instruction for the `tiny` network, under a numbered rule that a checkpoint records.

Rule 1 knows the letters a to z alone. Rule 2 (of every new checkpoint) reads any script: letters with their marks, whole
numbers with sign and decimals, every symbol (an emoji, +, =) by itself; punctuation, case and spacing say nothing. Scripts
written without spaces (Chinese characters, kana) are read sign by sign. A rule never changes once it has a number.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from failsight.core.errors import FailsightError

WORD_RULE = 2
MAX_WORDS = 24
"""Words of an instruction the `tiny` backbone reads, unless told otherwise."""
_NUMBER = re.compile(r"(?:(?<![\w)\]])[+\-\u2212])?\d+(?:[.,:]\d+)*")
_INVISIBLE = frozenset("\u200c\u200d\ufe0e\ufe0f")
"""Joiners and variation selectors: how a sign is drawn."""
_QUOTING = frozenset("`^\u00b4\u00a8\u00af\u00b8")
"""Symbols by category, punctuation by use."""


def words(text: str, rule: int = WORD_RULE) -> list[str]:
    """The words in order.

    >>> words("Move to shelf 3!"), words("왼쪽으로, 2.5 m"), words("Move to shelf 3!", rule=1)
    (['move', 'to', 'shelf', '3'], ['왼쪽으로', '2.5', 'm'], ['move', 'to', 'shelf'])
    """
    if rule == 1:
        return re.findall(r"[a-z]+", text.lower())
    if rule != WORD_RULE:
        raise FailsightError(f"The checkpoint reads words by rule {rule}, which this version does not know; update it.")
    plain = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    found: list[str] = []
    at = 0
    for number in _NUMBER.finditer(plain):
        found += _signs(plain[at : number.start()])
        found.append(number.group().replace("\u2212", "-").removeprefix("+"))
        at = number.end()
    return found + _signs(plain[at:])


def vocabulary_of(instructions: Iterable[str], rule: int = WORD_RULE) -> tuple[str, ...]:
    """All words of the training instructions, sorted."""
    return tuple(sorted({word for text in instructions for word in words(text, rule)}))


def _signs(text: str) -> list[str]:
    """Words of a text without numbers."""
    found: list[str] = []
    joined = False
    for sign in text:
        kind = unicodedata.category(sign)[0]
        if sign in _INVISIBLE or (kind == "M" and not joined):
            continue
        if kind not in "LMNS" or sign in _QUOTING:
            joined = False
        elif kind == "S" or _alone(sign):
            found.append(sign)
            joined = False
        elif joined:
            found[-1] += sign
        else:
            found.append(sign)
            joined = True
    return found


def _alone(sign: str) -> bool:
    """Whether a script puts no spaces between words, so that every sign is read by itself."""
    code = ord(sign)
    return (
        0x3040 <= code <= 0x30FF or 0x3400 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF or 0x20000 <= code <= 0x3FFFF
    )
