"""A sample of texts, of bounded size, for what is learned from their statistics alone."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterable, Iterator
from hashlib import blake2b

__all__ = ["TextSample"]

# characters; a library of one book each would otherwise be a handful of items to draw from
_PIECE = 100_000
_log = logging.getLogger("groundup")


class TextSample:
    """Texts, or pieces of them that are drawn evenly where all of them would be too many.

    A piece is drawn by a hash of what it says: the sample does not depend on the order of the
    texts, and what is drawn from a part of them is what that part adds to the sample of all.

    Args:
        texts: Gone through once; any number.
        most_bytes: How many bytes of UTF-8 are kept in memory at most. Of more, the share of pieces
            that are drawn is halved until they fit.

    Attributes:
        bytes_read: The bytes of all texts.
        bytes_kept: The bytes of the sample.
    """

    def __init__(self, texts: Iterable[str], most_bytes: int) -> None:
        self.bytes_read = 0
        self.bytes_kept = 0
        self._pieces: list[bytes] = []
        # plain numbers, as there may be millions of tweets
        self._hashes = array("Q")
        self._texts = array("q")
        limit = 1 << 64
        for number, text in enumerate(texts):
            for start in range(0, max(len(text), 1), _PIECE):
                piece = text[start : start + _PIECE].encode()
                self.bytes_read += len(piece)
                drawn = int.from_bytes(blake2b(piece, digest_size=8).digest(), "little")
                if drawn >= limit:
                    continue
                self._pieces.append(piece)
                self._hashes.append(drawn)
                self._texts.append(number)
                self.bytes_kept += len(piece)
            while self.bytes_kept > most_bytes:
                limit //= 2
                self._thin(limit)
        if self.bytes_kept < self.bytes_read:
            _log.info(
                "The tokenizer is learned from %s MB drawn from %s MB of text",
                f"{self.bytes_kept / 1e6:,.0f}",
                f"{self.bytes_read / 1e6:,.0f}",
            )

    def __iter__(self) -> Iterator[str]:
        """Yield the texts, pieces of one text together where they follow each other."""
        whole = self.bytes_kept == self.bytes_read
        waiting: list[bytes] = []
        for place, piece in enumerate(self._pieces):
            if waiting and not (whole and self._texts[place] == self._texts[place - 1]):
                yield b"".join(waiting).decode()
                waiting.clear()
            waiting.append(piece)
        if waiting:
            yield b"".join(waiting).decode()

    def _thin(self, limit: int) -> None:
        stay = [place for place, drawn in enumerate(self._hashes) if drawn < limit]
        self._pieces = [self._pieces[place] for place in stay]
        self._hashes = array("Q", [self._hashes[place] for place in stay])
        self._texts = array("q", [self._texts[place] for place in stay])
        self.bytes_kept = sum(map(len, self._pieces))
