"""Which side of a split a document is on: a keyed hash of its group, whatever else is in the
data, in any order."""

from __future__ import annotations

from hashlib import blake2b

from groundup.core.values import Split

__all__ = ["UnionFind", "position_of", "split_of"]


def position_of(group: str, seed: int = 0) -> float:
    """Return the position of a group between 0 and 1; the lowest positions are held out.

    Args:
        group: The document's name, or the name that near-duplicates share.
        seed: Another seed gives another, independent order.
    """
    digest = blake2b(group.encode(), digest_size=8, key=f"split {seed}".encode()).digest()
    return int.from_bytes(digest, "big") / 2.0**64


def split_of(group: str, fraction: float, seed: int = 0, test: float = 0.0) -> Split:
    """Return the side of a group of documents that must stay together.

    Args:
        group: The document's name, or the name that near-duplicates share.
        fraction: The share that is held out for validation, 0 to 1.
        seed: Another seed gives another, independent split.
        test: The share that is held out for the test, 0 to 1.
    """
    position = position_of(group, seed)
    # Validation takes the lowest positions and the test those above, so that asking for a test
    # split moves nothing between training and validation.
    if position < fraction:
        return "validation"
    return "test" if position < fraction + test else "train"


class UnionFind:
    """Disjoint sets over 0, 1, 2, ...; only what was joined takes memory.

    Source: Galler and Fischer, 1964, with path halving (Tarjan and van Leeuwen, 1984).
    """

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def find(self, item: int) -> int:
        """Return the smallest member of the item's set."""
        parent = self._parent
        while (above := parent.get(item, item)) != item:
            # halving the path on the way up keeps later searches short, without a second pass
            parent[item] = parent.get(above, above)
            item = above
        return item

    def join(self, one: int, other: int) -> None:
        """Make one set of the sets of two items."""
        low, high = sorted((self.find(one), self.find(other)))
        self._parent.setdefault(low, low)
        self._parent[high] = low

    def members(self) -> dict[int, list[int]]:
        """Return every set that something was joined to, by its smallest member, in ascending
        order."""
        sets: dict[int, list[int]] = {}
        for item in sorted(self._parent):
            sets.setdefault(self.find(item), []).append(item)
        return sets
