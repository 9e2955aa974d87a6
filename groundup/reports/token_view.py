"""An example token by token, coloured by whether each token is trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.text import Text

from groundup.contracts.processors import TextProcessor
from groundup.core.values import TokenSequence

__all__ = ["LEGEND", "TokenView", "trained_tokens", "view_tokens"]

# tokens of an example
SHOWN = 600
OPENS = "‹"
CLOSES = "›"
LEGEND = (
    "Green: trained on; dim: read only. Shades alternate from token to token. Without colours:"
    f" {OPENS}trained on{CLOSES}."
)
# By whether a token is trained on; neighbours differ, so that tokens can be told apart.
_SHADES = {True: ("black on green", "black on bright_green"), False: ("dim", "dim italic")}
# what a decoder gives for part of a character
_REPLACEMENT = "\ufffd"
# bytes of UTF-8
_LONGEST_CHARACTER = 4


@dataclass(frozen=True)
class TokenView:
    """Every token of an example, coloured by whether it is trained on; without colours, marked
    ‹thus›.

    Attributes:
        title: Which example it is.
        pieces: (text, trained) of each token; tokens that share one character are one piece.
        cut: How many tokens are not shown.
    """

    title: str
    pieces: tuple[tuple[str, bool], ...]
    cut: int = 0

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self.title, style="bold")
        if console.no_color or console.color_system is None:
            yield Padding(Text(self.mark()), (0, 0, 1, 2))
            return
        text = Text()
        for number, (piece, trained) in enumerate(self.pieces):
            text.append(piece, style=_SHADES[trained][number % 2])
        yield Padding(text.append(self._rest()), (0, 0, 1, 2))

    def mark(self) -> str:
        """Return plain text in which each run of trained tokens is enclosed as ‹thus›."""
        parts: list[str] = []
        inside = False
        for piece, trained in (*self.pieces, ("", False)):
            if trained != inside:
                parts.append(OPENS if trained else CLOSES)
            parts.append(piece)
            inside = trained
        return "".join(parts) + self._rest()

    def _rest(self) -> str:
        return f" … {self.cut:,} more tokens" if self.cut else ""


def trained_tokens(sequence: TokenSequence) -> NDArray[np.bool_]:
    """Return (T,) which tokens are trained on: without a mask, all but the first, which nothing
    comes before."""
    trained = sequence.trained
    return trained if trained is not None else np.arange(len(sequence.tokens)) > 0


def view_tokens(title: str, sequence: TokenSequence, processor: TextProcessor) -> TokenView:
    """Return the first 600 tokens of an example as they are to be shown."""
    trained = trained_tokens(sequence)
    shown = min(len(sequence.tokens), SHOWN)
    pieces: list[tuple[str, bool]] = []
    held: list[int] = []
    for index in range(shown):
        held.append(int(sequence.tokens[index]))
        text = processor.decode(held, keep_special=True)
        last = index + 1 == shown or trained[index + 1] != trained[index]
        # tokens of bytes make a character together; bytes that are no character are shown anyway
        if not text.endswith(_REPLACEMENT) or len(held) >= _LONGEST_CHARACTER or last:
            pieces.append((text, bool(trained[index])))
            held = []
    return TokenView(title, tuple(pieces), len(sequence.tokens) - shown)
