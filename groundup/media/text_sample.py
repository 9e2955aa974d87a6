"""A sample of texts, of bounded size, for what is learned from their statistics alone."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from hashlib import blake2b

__all__ = ["ALL", "TextSample"]

ALL = 1 << 64  # the limit of a sample that has everything

# characters; a library of one book each would otherwise be a handful of items to draw from
_PIECE = 100_000


class TextSample:
    """Texts, or pieces of them that are drawn evenly where all of them would be too many.

    A piece is drawn by a hash of what it says: the sample does not depend on the order of the
    texts, and what is drawn from a part of them is what that part adds to the sample of all.

    Args:
        most_bytes: How many bytes of UTF-8 are kept in memory at most. Of more, the share of pieces
            that are drawn is halved until they fit.

    Attributes:
        bytes_read: The bytes of all texts.
        bytes_kept: The bytes of the sample.
        limit: Pieces whose hash is below are drawn, of 2 ** 64: all.
    """

    def __init__(self, most_bytes: int) -> None:
        self.bytes_read = 0
        self.bytes_kept = 0
        self.limit = ALL
        self._most = most_bytes
        self._pieces: list[bytes] = []
        # plain numbers, as there may be millions of tweets
        self._hashes = array("Q")
        self._texts = array("q")

    @classmethod
    def of(cls, texts: Iterable[str], most_bytes: int) -> TextSample:
        """Return a sample of texts, which are gone through once."""
        sample = cls(most_bytes)
        for number, text in enumerate(texts):
            sample.add(text, number)
        return sample

    def add(self, text: str, number: int) -> None:
        """Draw from one more text, with a number of its own."""
        for start in range(0, max(len(text), 1), _PIECE):
            piece = text[start : start + _PIECE].encode()
            self.bytes_read += len(piece)
            drawn = int.from_bytes(blake2b(piece, digest_size=8).digest(), "little")
            if drawn >= self.limit:
                continue
            self._pieces.append(piece)
            self._hashes.append(drawn)
            self._texts.append(number)
            self.bytes_kept += len(piece)
        while self.bytes_kept > self._most:
            self.limit //= 2
            self._thin()

    def __iter__(self) -> Iterator[str]:
        """Yield the texts; pieces, where not all of them are drawn."""
        return (text for _, text in self.numbered())

    def numbered(self) -> Iterator[tuple[int, str]]:
        """Yield the texts, or pieces of them, each with the text's number."""
        waiting: list[bytes] = []
        for place, piece in enumerate(self._pieces):
            before = self._texts[place - 1]
            if waiting and not (self.limit == ALL and self._texts[place] == before):
                yield before, b"".join(waiting).decode()
                waiting.clear()
            waiting.append(piece)
        if waiting:
            yield self._texts[-1], b"".join(waiting).decode()

    def _thin(self) -> None:
        stay = [place for place, drawn in enumerate(self._hashes) if drawn < self.limit]
        self._pieces = [self._pieces[place] for place in stay]
        self._hashes = array("Q", [self._hashes[place] for place in stay])
        self._texts = array("q", [self._texts[place] for place in stay])
        self.bytes_kept = sum(map(len, self._pieces))
