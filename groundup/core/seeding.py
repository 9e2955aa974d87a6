"""Random numbers as functions of (seed, purpose, n): a resumed run draws what the uninterrupted one
would have."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["generator", "key", "keyed_noise", "reseed", "scramble", "uniforms"]

_WORD = (1 << 64) - 1


def key(seed: int, purpose: str, *numbers: int) -> int:
    """Return a 63-bit key that is a function of its arguments alone."""
    # Not Python's ``hash``: of texts it differs from one process to the next.
    text = f"{seed}/{purpose}/" + "/".join(map(str, numbers))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, purpose: str, *numbers: int) -> torch.Generator:
    """Return a CPU generator for one purpose, such as ``generator(seed, "crop", n)``."""
    return torch.Generator().manual_seed(key(seed, purpose, *numbers))


def keyed_noise(
    seed: int, purpose: str, samples: NDArray[np.int64], shape: Sequence[int]
) -> torch.Tensor:
    """Return normal noise (B, *shape) in float32 on the CPU, each row a function of seed, purpose
    and the sample's number alone: the same however a step is cut into micro-batches.

    Args:
        seed: The run's seed.
        purpose: What it is for; other words give other noise.
        samples: (B,) the samples' numbers.
        shape: Of one sample's noise.
    """
    rows = [torch.randn(*shape, generator=generator(seed, purpose, n)) for n in samples.tolist()]
    return torch.stack(rows) if rows else torch.zeros(0, *shape)


def reseed(seed: int, purpose: str, *numbers: int) -> None:
    """Seed torch's default generators, which dropout and weight initialisation draw from.

    ``torch.manual_seed`` gives the same numbers, but takes a millisecond where CUDA is there and
    not in use: it notes each call, with a traceback, for the day when it will be.
    """
    number = key(seed, purpose, *numbers)
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(number)


def scramble(values: NDArray[Any], key: int) -> NDArray[np.uint64]:
    """Return one well-mixed 64-bit number for each value and key.

    Args:
        values: Non-negative integers, any shape.
        key: A 64-bit key.

    Returns:
        The same shape as ``values``, uniform over ``[0, 2**64)`` in all but proof.

    Source:
        The finaliser of SplitMix64: Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
        generators", https://doi.org/10.1145/2660193.2660195 (variant 13 of Stafford).
    """
    # uint64 wraps around silently in NumPy, as the finaliser wants it.
    z = values.astype(np.uint64, copy=True)
    z += np.uint64(key & _WORD)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def uniforms(
    seed: int, purpose: str, samples: NDArray[np.int64], draws: int = 1
) -> NDArray[np.float64]:
    """Return numbers in [0, 1), uniform and independent, for many samples at once.

    Args:
        seed: The run's seed.
        purpose: What they are for; other words give other numbers.
        samples: (B,) the samples' numbers.
        draws: How many each sample gets.

    Returns:
        (draws, B); a column is a function of seed, purpose and the sample's number alone.
    """
    words = np.stack([scramble(samples, key(seed, purpose, n)) for n in range(draws)])
    # 53 bits, all that a float64 holds exactly: one more, and rounding could give 1.0.
    found: NDArray[np.float64] = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return found
