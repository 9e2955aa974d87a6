"""Data order as a function: a keyed permutation of ``[0, size)`` that needs no memory."""

from __future__ import annotations

from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from groundup.core.seeding import scramble

__all__ = ["permute"]

# Four rounds of random functions make a strong pseudorandom permutation (Luby and Rackoff, 1988),
# by a bound that says little of small domains: hence more.
_ROUNDS = 8
_GOLDEN_GAMMA = 0x9E3779B97F4A7C15


@overload
def permute(n: int, size: int, key: int) -> int: ...


@overload
def permute(n: NDArray[Any], size: int, key: int) -> NDArray[np.int64]: ...


def permute(n: int | NDArray[Any], size: int, key: int) -> int | NDArray[np.int64]:
    """Return where a keyed permutation of ``[0, size)`` sends ``n``.

    The domain is written as pairs (left, right) of ``[0, a) x [0, b)`` with ``a * b`` barely above
    ``size``. Feistel rounds permute the pairs; a result outside ``[0, size)`` goes through again
    until it falls inside (cycle walking).

    Args:
        n: One index or an array of them, each in ``[0, size)``.
        size: How many there are, at least 1 and below 2**62.
        key: A 64-bit key, from ``seeding.key``.

    Returns:
        An index in ``[0, size)`` for each ``n``; different ``n`` give different results.

    Raises:
        IndexError: If an ``n`` is outside ``[0, size)``.

    Example:
        >>> sorted(permute(n, 5, 123) for n in range(5))
        [0, 1, 2, 3, 4]

    Source:
        Black, Rogaway 2002, "Ciphers with arbitrary finite domains",
        https://doi.org/10.1007/3-540-45760-7_9 (the generalised Feistel construction, cycle
        walking); Luby, Rackoff 1988, "How to construct pseudorandom permutations from pseudorandom
        functions". Departs from these: the round function is a fast mixer, no cipher.
    """
    values = np.array(n, dtype=np.int64, ndmin=1)
    if values.size and (int(values.min()) < 0 or int(values.max()) >= size):
        raise IndexError(f"index outside [0, {size})")
    result = _feistel(values.astype(np.uint64), size, key)
    outside = np.flatnonzero(result >= size)
    while outside.size:
        result[outside] = _feistel(result[outside], size, key)
        outside = outside[result[outside] >= size]
    moved = result.astype(np.int64)
    return int(moved[0]) if isinstance(n, int) else moved.reshape(np.shape(n))


def _feistel(values: NDArray[np.uint64], size: int, key: int) -> NDArray[np.uint64]:
    """Permute ``[0, a * b)``, where ``a = ceil(sqrt(size))`` and ``b = ceil(size / a)``."""
    a = _ceil_root(size)
    b = -(-size // a)
    left, right = np.divmod(values, np.uint64(b))
    for turn in range(_ROUNDS):
        round_key = key + (turn + 1) * _GOLDEN_GAMMA * 0xD1342543DE82EF95
        if turn % 2 == 0:
            left = (left + scramble(right, round_key) % np.uint64(a)) % np.uint64(a)
        else:
            right = (right + scramble(left, round_key) % np.uint64(b)) % np.uint64(b)
    return left * np.uint64(b) + right


def _ceil_root(size: int) -> int:
    root = int(np.sqrt(size))
    while root * root < size:
        root += 1
    return root
