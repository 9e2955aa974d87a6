"""What a device holds in memory while a step is computed."""

from __future__ import annotations

from groundup.planning.workload import Workload

__all__ = ["estimate_memory"]

# Weights, their gradients, and Adam's two moments, in float32; what is multiplied in bfloat16.
_FULL = 4
_HALF = 2
# Logits in float32 that are held at once where the loss is computed in chunks (nn/loss.py).
_CHUNK = 512 * 2**20


def estimate_memory(work: Workload, moments: int = 2) -> dict[str, float]:
    """Return the bytes of a device at the fullest moment of a step, by what they are.

    Args:
        work: One step.
        moments: Numbers that the optimizer keeps for each weight.
    """
    held = work.parameters_here / work.layout.shard
    gradients = _FULL * held
    if work.practice.whole_copies and work.layout.shard > 1:
        # Added up over micro-batches before they are shared out.
        gradients = _FULL * work.parameters_here
    return {
        "weights": _FULL * held,
        "gradients": gradients,
        "optimizer": moments * _FULL * held,
        "activations": _activations(work),
        "temporary": _gathered(work) + _passing(work),
    }


def _kept_of_block(work: Workload) -> float:
    """Return the bytes of a token that the forward pass of a block leaves for the backward pass on
    one device, where nothing is computed again.

    Source:
        Korthikanti et al., 2022 (arXiv:2205.05198), section 4, without the scores of attention,
        which fused attention does not keep.
    """
    shape = work.shape
    residual = work.practice.residual_bytes
    # What the two norms read, and what they give to the products behind them.
    stream = 2 * shape.width * (residual + _HALF)
    # Queries, keys and values, what attention gives, and a number in float32 for each head.
    inner = _HALF * (2 * shape.query_width + 2 * shape.key_width) + _FULL * shape.heads
    # What goes into the activation, and what comes out of it.
    inner += _HALF * shape.mlp_width * (3 if shape.gated else 2)
    if not work.practice.fused:
        # Each norm keeps what it has divided, and rotary positions what they have turned.
        stream += 2 * shape.width * residual
        inner += _HALF * (shape.query_width + shape.key_width)
    return stream / work.stream_parts + inner / work.layout.tensor


def _kept_with_recompute(work: Workload) -> float:
    shape = work.shape
    stream = shape.width * work.practice.residual_bytes
    if work.practice.recompute == "full":
        return stream / work.stream_parts
    # Every second product from the first on, as torchtitan does it: queries, values, the first of
    # the MLP's and its last; and what attention gives.
    inner = shape.query_width + shape.key_width + shape.mlp_width + shape.query_width
    stream += _HALF * shape.width if shape.gated else 0
    inner = _HALF * inner + _FULL * shape.heads
    return stream / work.stream_parts + inner / work.layout.tensor


def _activations(work: Workload) -> float:
    keep = _kept_of_block if work.practice.recompute == "none" else _kept_with_recompute
    of_block = work.tokens * keep(work)
    stages = work.layout.pipeline
    # The first stage is that many micro-batches ahead of the last one.
    ahead = stages * (1 + (stages - 1) / (stages * work.practice.stages))
    if work.practice.stages == 1:
        ahead = stages
    in_flight = min(work.micro_batches * 1.0, ahead)
    return of_block * work.shape.layers / stages * in_flight


def _gathered(work: Workload) -> float:
    """Return the bytes of weights that are there in bfloat16 for a while."""
    # Nothing is gathered, but autocast keeps a copy of every weight until the step is done.
    if work.layout.shard == 1 or work.practice.whole_copies:
        return _HALF * work.parameters_here
    block = work.shape.block_parameters / work.layout.tensor
    output = work.shape.output_parameters / work.layout.tensor
    # One block is computed and the next one on its way; a gradient waits to be shared out.
    return (2 * _HALF + _FULL) * max(block, 0.0) + _HALF * output


def _passing(work: Workload) -> float:
    """Return the bytes of logits, or of a block that is computed again: they do not meet."""
    logits = work.tokens * work.shape.vocabulary / work.layout.tensor
    loss = min(_FULL * logits, float(_CHUNK))
    if work.practice.loss_bytes:
        loss = work.practice.loss_bytes * logits
    again = 0.0
    if work.practice.recompute != "none":
        again = work.tokens * _kept_of_block(work)
    return max(loss, again)
