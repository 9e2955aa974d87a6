"""Random numbers as functions of (seed, purpose, n): a resumed run draws what the uninterrupted one would have."""

from __future__ import annotations

import hashlib

import torch

__all__ = ["generator", "key", "reseed"]


def key(seed: int, purpose: str, *numbers: int) -> int:
    """Return a 63-bit key that is a function of its arguments alone."""
    text = f"{seed}/{purpose}/" + "/".join(map(str, numbers))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, purpose: str, *numbers: int) -> torch.Generator:
    """Return a CPU generator for one purpose, such as ``generator(seed, "crop", n)``."""
    return torch.Generator().manual_seed(key(seed, purpose, *numbers))


def reseed(seed: int, purpose: str, *numbers: int) -> None:
    """Seed torch's default generators, which dropout and weight initialisation draw from.

    ``torch.manual_seed`` gives the same numbers, but takes a millisecond where CUDA is there and not in use: it notes
    each call, with a traceback, for the day when it will be.
    """
    number = key(seed, purpose, *numbers)
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(number)
