"""A rendered conversation in pieces: stretches of text and special tokens, trained on or not.

Shape legend: T tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from groundup.core.values import TokenSequence
from groundup.processors.chat.protection import Marks

__all__ = [
    "Piece",
    "ends_turn",
    "join_tokens",
    "mark_continuing",
    "settle_stops",
    "strip_blanks",
    "take_spans",
]


@dataclass(frozen=True)
class Piece:
    """A stretch of text, or one special token, all of which is trained on or none.

    ``continues`` is true of a text that follows another: the two are cut where the assistant begins
    or ends to write.
    """

    text: str
    special: int | None
    trained: bool
    continues: bool = False


def strip_blanks(pieces: list[Piece], strips: Mapping[str, tuple[bool, bool]]) -> list[Piece]:
    """Take away the blanks that a special token takes with it, as the tokenizers of Phi-3 have
    it."""
    if not strips:
        return pieces
    # Forwards for the blanks behind a token, then backwards for those before one.
    for step, side in ((1, 1), (-1, 0)):
        taking = False
        kept = []
        for piece in pieces[::step]:
            if piece.special is not None:
                taking = strips.get(piece.text, (False, False))[side]
                kept.append(piece)
                continue
            text = piece.text
            if taking:
                text = text.lstrip() if side else text.rstrip()
                # The blanks may go on in the next piece.
                taking = not text
            if text:
                kept.append(replace(piece, text=text))
        pieces = kept[::step]
    return pieces


def mark_continuing(pieces: list[Piece]) -> list[Piece]:
    """Note which texts go on where another one ended."""
    found = pieces[:1]
    for before, piece in pairwise(pieces):
        follows = before.special is None and piece.special is None
        found.append(replace(piece, continues=follows))
    return found


def take_spans(text: str, marks: Marks) -> tuple[str, list[tuple[int, int]]]:
    """Return the text without the marks of ``{% generation %}``, and the (start, stop) between each
    pair of them."""
    spans: list[tuple[int, int]] = []
    kept = []
    size = 0
    # Marks come in pairs: the parts are outside, inside, outside and so on.
    for number, part in enumerate(re.split(f"[{marks.open}{marks.close}]", text)):
        if number % 2 == 1:
            spans.append((size, size + len(part)))
        kept.append(part)
        size += len(part)
    return "".join(kept), spans


def settle_stops(pieces: list[Piece]) -> list[Piece]:
    """End each trained run with its stop token: one that follows directly joins it, blanks behind
    one leave it."""
    fixed = list(pieces)
    for index in range(1, len(pieces)):
        before = fixed[index - 1]
        here = fixed[index]
        answer_ends = before.trained and before.special is None and not here.trained
        # Many templates write the stop token after what they mark; it has to be learned too.
        if answer_ends and here.special is not None:
            fixed[index] = Piece(here.text, here.special, True)
        # The template's own line end behind a stop token is never generated.
        last_of_run = index + 1 == len(pieces) or not pieces[index + 1].trained
        blank = here.special is None and not here.text.strip()
        if before.trained and before.special is not None and here.trained and last_of_run and blank:
            fixed[index] = Piece(here.text, None, False)
    return fixed


def ends_turn(piece: Piece, after: Piece | None) -> bool:
    return piece.trained and piece.special is not None and (after is None or not after.trained)


def join_tokens(pieces: list[Piece], plain: Iterator[NDArray[np.int32]]) -> TokenSequence:
    """Return the tokens of pieces.

    Args:
        pieces: In order.
        plain: Yields the tokens of each text among them.
    """
    # A conversation may have no pieces at all.
    tokens = [np.zeros(0, dtype=np.int32)]
    trained = [np.zeros(0, dtype=np.bool_)]
    for piece in pieces:
        own = next(plain) if piece.special is None else np.array([piece.special], dtype=np.int32)
        tokens.append(own)
        trained.append(np.full(len(own), piece.trained))
    return TokenSequence(np.concatenate(tokens), np.concatenate(trained))
