"""Causal attention over packed documents: every document attends only to itself.

The tokens of all documents follow each other in one flat sequence (N tokens). The CPU operator runs
the flash kernel once for each run of equally long documents, so nothing is spent on pairs of tokens
in different documents. CUDA in half precision uses ``torch.nn.attention.varlen``; everything else a
boolean mask. Results are bit-identical from run to run for a given number of threads, and
``torch.compile`` never recompiles when the documents change.

Shape legend: N tokens, H heads, G key and value heads, D head dimension, S boundaries.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.machine.lazy_compiler import spare_the_compiler

__all__ = ["on_a_gpu", "packed_attention"]

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
# Tokens; longer documents are the flash kernel's also backward.
_SHORT = 512
# In bfloat16, lengths are rounded up to a multiple of this: kernels are made for each length and
# never given back.
_STEP = 64
# Tokens of the shortest document that kernels of a GPU tell apart.
_LEAST = 128
# The logarithm of a norm that makes every probability 0.
_UNSEEN = 1e4


@dataclass(frozen=True)
class _Run:
    """Adjacent documents of one length: the first token, how many, their length, and that length
    rounded up."""

    start: int
    count: int
    length: int
    padded: int

    def window(self, x: Tensor) -> Tensor:
        """View the tokens of x (N, heads, ...), and what follows to the rounded length: (count,
        heads, padded, ...)."""
        shape = (self.count, self.padded, *x.shape[1:])
        tokens = x[self.start : self.start + self.count * self.padded]
        return tokens.view(shape).transpose(1, 2)

    def write(self, part: Tensor, x: Tensor) -> None:
        """Copy a part (count, heads, padded, ...) to its tokens in x (N, heads, ...)."""
        shape = (self.count, self.length, *x.shape[1:])
        own = x[self.start : self.start + self.count * self.length].view(shape)
        own.copy_(part[:, :, : self.length].transpose(1, 2))


def packed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    boundaries: Tensor,
    window: int | None = None,
    longest: int | None = None,
) -> Tensor:
    """Return causal attention within each document.

    Args:
        query: (N, H, D), scaled by ``1 / sqrt(D)``.
        key: (N, G, D); G divides H.
        value: (N, G, D).
        boundaries: (S,) integers rising from 0 to N: the start of each document. Repeat N at the
            end as padding.
        window: How many tokens a token sees at most, itself included.
        longest: No document has more tokens; None: that is not known. A GPU starts work for so many
            tokens of every document.

    Returns:
        (N, H, D).

    Raises:
        ValueError: If the shapes or the boundaries do not fit.
    """
    if query.shape[1] % key.shape[1] or key.shape != value.shape:
        raise ValueError(
            f"query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)} do"
            " not fit"
        )
    scale = query.shape[-1] ** -0.5
    if query.device.type == "cpu":
        out: Tensor = _packed(query, key, value, boundaries, scale, window or 0)[0]
        return out
    boundaries = boundaries.to(query.device, torch.int32)
    tokens = query.shape[0]
    groups = query.shape[1] // key.shape[1]
    varlen = None
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16):
        varlen = _varlen()
    if varlen is not None:
        # To the left of a token, -1 for without limit, and to its right.
        seen = ((window or 0) - 1, 0)
        options: dict[str, Any] = {"scale": scale, "window_size": seen}
        key, value = (_repeat(x, groups) for x in (key, value))
        most = min(longest or tokens, tokens)
        starts = (boundaries, boundaries, most, most)
        out = varlen.varlen_attn(query, key, value, *starts, **options)
        return out
    mask = _document_mask(boundaries, tokens, window)
    q, k, v = (x.transpose(0, 1)[None] for x in (query, key, value))
    out = F.scaled_dot_product_attention(q, k, v, mask, scale=scale, enable_gqa=groups > 1)
    return out[0].transpose(0, 1)


def on_a_gpu(boundaries: Tensor, tokens: int) -> tuple[Tensor, int | None]:
    """Return boundaries (S,) without most of their padding, and how many tokens a document has at
    most; of a CPU as they are, where neither costs anything.

    Both are rounded up to powers of two, so that a compiled model meets few sizes. The GPU is
    waited for: call it once a forward pass.
    """
    if boundaries.device.type == "cpu":
        return boundaries, None
    return _trimmed(boundaries, tokens)


def _trimmed(boundaries: Tensor, tokens: int) -> tuple[Tensor, int]:
    found = torch.stack((boundaries.diff().max(), (boundaries < tokens).sum()))
    longest, documents = found.tolist()
    # The last boundary that is kept is N.
    kept = boundaries[: 1 << documents.bit_length()]
    return kept, max(_LEAST, 1 << (longest - 1).bit_length())


def _varlen() -> ModuleType | None:
    """Return torch's module, whose import takes seconds, or None in a torch without it: then the
    mask serves."""
    try:
        return importlib.import_module("torch.nn.attention.varlen")
    except ImportError:
        return None


def _document_mask(boundaries: Tensor, tokens: int, window: int | None) -> Tensor:
    """Return (N, N) booleans: whether a token (row) sees another (column)."""
    place = torch.arange(tokens, device=boundaries.device, dtype=torch.int32)
    document = torch.searchsorted(boundaries, place, right=True)
    distance = place[:, None] - place
    mask = (document[:, None] == document) & (distance >= 0)
    if window:
        mask &= distance < window
    return mask


def _runs(boundaries: Tensor, tokens: int, step: int) -> Iterator[_Run]:
    """Yield each run of adjacent documents of one length, alone where it is rounded up; empty ones
    are skipped."""
    # On the CPU the boundaries are read here, outside the graph: no new documents recompile it.
    starts = boundaries.tolist()
    lengths = [b - a for a, b in pairwise(starts)]
    if not starts or starts[0] != 0 or starts[-1] != tokens or min(lengths, default=0) < 0:
        raise ValueError(
            f"boundaries must rise from 0 to the number of tokens ({tokens}); got"
            f" {starts[:3]}..{starts[-1:]}"
        )
    start = 0
    # Documents of one length, as those cut from a long text, are one call.
    for length, group in groupby(n for n in lengths if n):
        count = len(list(group))
        padded = -(-length // step) * step
        if padded == length:
            yield _Run(start, count, length, length)
        else:
            # What rounds a document up is the next one's tokens, so each needs a view of its own.
            yield from (_Run(start + n * length, 1, length, padded) for n in range(count))
        start += count * length


def _step(query: Tensor) -> int:
    return _STEP if query.dtype == torch.bfloat16 else 1


def _extend(x: Tensor, step: int) -> Tensor:
    """Return x (N, heads, D) with room behind it for the last document's length rounded up."""
    if step == 1:
        return x
    return F.pad(x, (0, 0, 0, 0, 0, step - 1))


def _repeat(x: Tensor, groups: int) -> Tensor:
    """Return keys or values once for each query head that shares them; the kernel has no groups."""
    if groups == 1:
        return x
    return x.repeat_interleave(groups, dim=1)


def _band(length: int, window: int, like: Tensor) -> Tensor | None:
    """Return the additive (1, 1, length, length) mask of a sliding window, or None where plain
    causality does."""
    if not window or length <= window:
        return None
    unseen = torch.ones(length, length, dtype=torch.bool, device=like.device).triu(1)
    unseen |= torch.ones_like(unseen).tril(-window)
    mask = torch.zeros(length, length, dtype=like.dtype, device=like.device)
    return mask.masked_fill(unseen, -torch.inf)[None, None]


def _lse_dtype(query: Tensor) -> torch.dtype:
    """Return the dtype in which the kernel gives the logarithms of the norms (log-sum-exp)."""
    return torch.promote_types(query.dtype, torch.float32)


@torch.library.custom_op("groundup::packed_attention", mutates_args=(), device_types="cpu")
def _packed(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, scale: float, window: int
) -> tuple[Tensor, Tensor]:
    tokens, heads, _ = query.shape
    groups = heads // key.shape[1]
    step = _step(query)
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    lse = query.new_empty((tokens, heads), dtype=_lse_dtype(query))
    query, key, value = (_extend(x, step) for x in (query, key, value))
    for run in _runs(boundaries, tokens, step):
        q = run.window(query)
        k, v = (_repeat(run.window(x), groups) for x in (key, value))
        band = _band(run.padded, window, query)
        o, s = _flash(q, k, v, 0.0, band is None, attn_mask=band, scale=scale)
        run.write(o, out)
        run.write(s, lse)
    return out, lse


@torch.library.custom_op("groundup::packed_attention_backward", mutates_args=(), device_types="cpu")
def _packed_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    boundaries: Tensor,
    scale: float,
    window: int,
) -> tuple[Tensor, Tensor, Tensor]:
    tokens = len(query)
    groups = query.shape[1] // key.shape[1]
    step = _step(query)
    everything = (grad, query, _repeat(key, groups), _repeat(value, groups), out)
    grad, query, key, value, out = (_extend(x, step) for x in everything)
    lse = F.pad(lse, (0, 0, 0, step - 1), value=_UNSEEN)
    # The gradient of every document is written to its own place of one tensor.
    grads = [
        torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key, value)
    ]
    products = None
    if step > 1:
        products = _Products(grad, query, key, value, out, lse, scale)
    for run in _runs(boundaries, tokens, step):
        band = _band(run.padded, window, query)
        if products is not None and band is None and run.padded <= _SHORT:
            for first in range(run.start, run.start + run.count * run.length, run.length):
                products.write(slice(first, first + run.padded), run.length, grads)
            continue
        q, k, v, g, o, s = (run.window(x) for x in (query, key, value, grad, out, lse))
        if run.padded > run.length:
            # What follows the document, the next one's tokens, must have no part in it.
            g = g.clone()
            g[:, :, run.length :] = 0
            s = s.clone()
            s[:, :, run.length :] = _UNSEEN
        parts = _flash_backward(g, q, k, v, o, s, 0.0, band is None, attn_mask=band, scale=scale)
        for whole, part in zip(grads, parts, strict=True):
            run.write(part, whole)
    grad_query, grad_key, grad_value = (x[:tokens] for x in grads)
    if groups > 1:
        # Heads that share a key add up their gradients.
        shape = (tokens, -1, groups, key.shape[2])
        grad_key, grad_value = (x.view(shape).sum(2) for x in (grad_key, grad_value))
    return grad_query.contiguous(), grad_key.contiguous(), grad_value.contiguous()


class _Products:
    """The gradients of causal attention over short documents in bfloat16, by plain matrix products.

    These run at the rate of the processor's bfloat16 units, which torch 2.13's flash kernel does
    not reach backward. Scores are computed again, in float32.
    """

    def __init__(
        self,
        grad: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        out: Tensor,
        lse: Tensor,
        scale: float,
    ) -> None:
        self.scale = scale
        self.grad, self.query, self.key, self.value = (
            x.transpose(0, 1) for x in (grad, query, key, value)
        )
        self.wide_query = self.query.float()
        self.wide_key = self.key.float()
        self.norm = lse.T[..., None]  # (H, N, 1)
        # The softmax's gradient takes from each slope their mean, weighted by the probabilities,
        # which is the gradient times the output (Dao et al., FlashAttention, 2022, appendix B).
        self.drift = (grad.float() * out).sum(-1).to(query.dtype).T[..., None]
        # One buffer for each matrix, which all documents use in turn.
        size = query.shape[1] * _SHORT**2
        self.scores = query.new_empty(size, dtype=torch.float32)
        self.chances = query.new_empty(size)
        self.slopes = query.new_empty(size)

    def write(self, here: slice, own: int, grads: list[Tensor]) -> None:
        """Write the gradients of a document to grads, each (N, H, D).

        Only the first ``own`` tokens of ``here`` are the document's; the others get zeros, which
        the next documents, written after this one, replace.
        """
        query, key, value, grad, wide_query, wide_key = (
            x[:, here]
            for x in (self.query, self.key, self.value, self.grad, self.wide_query, self.wide_key)
        )
        heads, length, _ = query.shape
        scores, chances, slopes = (
            x[: heads * length**2].view(heads, length, length)
            for x in (self.scores, self.chances, self.slopes)
        )
        # The probabilities, from the scores less the logarithm of their norm.
        torch.baddbmm(
            self.norm[:, here], wide_query, wide_key.mT, beta=-1, alpha=self.scale, out=scores
        )
        chances.copy_(scores.exp_().tril_())
        # Rows beyond the document give nothing to its keys and values.
        chances[:, own:] = 0
        torch.baddbmm(self.drift[:, here], grad, value.mT, beta=-1, out=slopes)
        slopes.mul_(chances).mul_(self.scale)
        grad_query, grad_key, grad_value = (x[here].transpose(0, 1) for x in grads)
        torch.bmm(slopes, key, out=grad_query)
        torch.bmm(slopes.mT, query, out=grad_key)
        torch.bmm(chances.mT, grad, out=grad_value)


@_packed.register_fake
def _packed_shapes(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, scale: float, window: int
) -> tuple[Tensor, Tensor]:
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    return out, query.new_empty(query.shape[:2], dtype=_lse_dtype(query))


@_packed_backward.register_fake
def _packed_backward_shapes(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *others: Any
) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = (
        torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key, value)
    )
    return q, k, v


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, boundaries, ctx.scale, ctx.window = inputs
    ctx.save_for_backward(query, key, value, *output, boundaries)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    return *_packed_backward(grad, *ctx.saved_tensors, ctx.scale, ctx.window), None, None, None


_packed.register_autograd(_backward, setup_context=_remember)
spare_the_compiler(_packed)
spare_the_compiler(_packed_backward)
