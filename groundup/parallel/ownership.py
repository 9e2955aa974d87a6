"""Which process writes which tensor of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["share_out"]


def share_out(held: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Return who writes which tensor: one of those that have it, so that all write about as many
    bytes.

    It depends on nothing but names and sizes, so that each process finds the same.

    Args:
        held: The bytes of the tensors that each process has, or has a part of, by name.
    """
    sizes: dict[str, int] = {}
    holders: dict[str, list[int]] = {}
    for rank, own in enumerate(held):
        for name, size in own.items():
            sizes[name] = max(size, sizes.get(name, 0))
            holders.setdefault(name, []).append(rank)
    load = [0] * len(held)
    owners = {}
    # The largest first, each to whoever has the least: where all have all, at most a third more
    # than the best there is (Graham 1969).
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        owner = min(holders[name], key=lambda rank: (load[rank], rank))
        owners[name] = owner
        load[owner] += sizes[name]
    return owners
