"""Logits of a linear output layer: in what precision, how many at a time, and whole where each
process has some of them.

Shape legend: M tokens, C width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.parallel.vocabulary import gather_logits, part_of

__all__ = [
    "cap_logits",
    "cast",
    "chunk_bytes",
    "chunk_size",
    "chunks",
    "output_logits",
    "wide_dtype",
    "widen",
]

# Of float32 logits held at a time, whatever the vocabulary. A GPU needs more at once to be busy,
# and reads the weight's gradient for every chunk.
_CHUNK_BYTES = 32 * 2**20
_CHUNK_BYTES_GPU = 512 * 2**20


def output_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return logits (..., V) of states (..., C) by a weight (V, C), or a process's rows of it.

    Args:
        hidden: The states.
        weight: The output layer.
        bias: (V,), always of all tokens.
    """
    part = part_of(weight)
    if part is None:
        return F.linear(hidden, weight, bias)
    logits = gather_logits(F.linear(part.peers.copy_in(hidden), weight), part)
    return logits if bias is None else logits + bias.to(logits.dtype)


def cap_logits(logits: Tensor, cap: float | None) -> Tensor:
    """Return ``cap * tanh(logits / cap)``, or the logits as they are.

    Source:
        Gemma Team, Gemma 2, 2024 (arXiv:2408.00118), section 2.
    """
    if cap is None:
        return logits
    return cap * torch.tanh(logits / cap)


def widen(logits: Tensor) -> Tensor:
    """Return logits in float32, or in float64 where they are: a softmax in bf16 loses digits."""
    return logits.to(wide_dtype(logits))


def wide_dtype(x: Tensor) -> torch.dtype:
    """Return float32, or float64 where x is that: what sums and softmaxes are computed in."""
    return torch.promote_types(x.dtype, torch.float32)


def cast(x: Tensor) -> Tensor:
    """Apply autocast, which does not reach into operators of our own."""
    kind = x.device.type
    if not torch.is_autocast_enabled(kind):
        return x
    return x.to(torch.get_autocast_dtype(kind))


def chunks(tokens: int, rows: int, weight: Tensor) -> Iterator[slice]:
    """Yield slices of tokens whose logits are held at a time; ``rows`` as of ``chunk_size``."""
    size = chunk_size(rows, weight)
    return (slice(start, min(start + size, tokens)) for start in range(0, tokens, size))


def chunk_size(rows: int, weight: Tensor) -> int:
    """Return how many tokens' logits fit in a chunk: a power of two, at least 64.

    Args:
        rows: Of the output layer: how many logits a token has.
        weight: The layer's, for its device.
    """
    # A power of two: chunks of few sizes, whose kernels are made once.
    return 1 << max(6, (chunk_bytes(weight) // (4 * rows)).bit_length() - 1)


def chunk_bytes(weight: Tensor) -> int:
    """Return how large the float32 logits are that are held at a time."""
    return _CHUNK_BYTES if weight.device.type == "cpu" else _CHUNK_BYTES_GPU
