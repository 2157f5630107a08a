"""Instructions as they are compared."""

from __future__ import annotations

import re
import unicodedata

_GAP = re.compile(r"[^\w]+")


def plain(text: str) -> str:
    """The words of an instruction without case, punctuation and spacing.

    >>> plain("Put the Red cube,  please!")
    'put the red cube please'
    """
    return " ".join(_GAP.split(unicodedata.normalize("NFC", text).casefold())).strip()
