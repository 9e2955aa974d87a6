"""Transcripts as they are to be learned: as they are written, or without what nobody hears."""

from __future__ import annotations

import unicodedata
from typing import Literal

__all__ = ["Spelling", "spell"]

Spelling = Literal["as_written", "lower", "letters"]
_APOSTROPHES = str.maketrans("\u2019\u02bc\uff07", "'''")


def spell(text: str, spelling: Spelling) -> str:
    """Return a transcript in lower case, or of lower-case letters and digits alone; single spaces
    are between its words.

    Example:
        >>> spell("I can\u2019t \u2013 it\u2019s 5 o'clock!", "letters")
        "i can't it's 5 o'clock"
    """
    if spelling == "as_written":
        return " ".join(text.split())
    lowered = text.lower().translate(_APOSTROPHES)
    if spelling == "letters":
        lowered = "".join(_kept(lowered, place) for place in range(len(lowered)))
    return " ".join(lowered.split())


def _kept(text: str, place: int) -> str:
    """Return a character, or a space where it is no letter, digit, or apostrophe in a word."""
    character = text[place]
    # M are marks that are written on the letter before.
    if unicodedata.category(character)[0] in "LNM":
        return character
    around = text[place - 1 : place] + text[place + 1 : place + 2]
    inside = character == "'" and len(around) == 2 and around.isalpha()
    return character if inside else " "
