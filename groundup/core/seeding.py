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
    """Seed torch's default generators, which dropout and weight initialisation draw from."""
    torch.manual_seed(key(seed, purpose, *numbers))
