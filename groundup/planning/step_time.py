"""How long a step takes: products, attention, memory, and what is sent but not hidden."""

from __future__ import annotations

import math
from dataclasses import dataclass

from groundup.parallel.layout import AXES
from groundup.planning.device_table import Device
from groundup.planning.workload import Workload

__all__ = ["StepTime", "estimate_step", "sent_bytes"]

# The one figure that was fitted: the share of the best rate of products that those of a whole step
# sustain, with their mixed shapes, and clocks as the power allows. It is the mean of three
# published runs on A100 (docs/outgrowing.md); runs on H100 were only predicted with it.
_SUSTAINED = 0.76
# Of the vendors' bandwidths, what collectives and copies reach (NCCL's tests: about 360 of 450 GB/s
# over NVLink and 45 of 50 over InfiniBand).
_LINK = 0.8
_NETWORK = 0.9
_MEMORY = 0.9
# Seconds until the first byte of a collective is there, a step of its tree or ring.
_LATENCY = 10e-6
_FULL = 4
_HALF = 2
# Products of attention in its backward pass, over those of its forward pass: five and two, as the
# scores are computed again (FlashAttention).
_BACKWARD = 2.5


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step on the device that is busiest.

    Attributes:
        matmul: Products of weights.
        attention: Products of attention.
        elementwise: Reading and writing memory in between, the loss and the optimizer included.
        waiting: By axis, for what is sent and not hidden behind something else.
        bubble: For the first and last micro-batches of a pipeline.
    """

    matmul: float
    attention: float
    elementwise: float
    waiting: dict[str, float]
    bubble: float

    @property
    def total(self) -> float:
        """The whole step."""
        computed = self.matmul + self.attention + self.elementwise
        return computed + sum(self.waiting.values()) + self.bubble


def _rate(work: Workload, device: Device, axis: str) -> float:
    """Return the bytes a second that a collective along an axis moves on each device.

    A ring over several machines crosses each border once for all its members in a machine, each of
    which has its own network card.
    """
    sizes = work.layout.sizes
    inner = math.prod(sizes[other] for other in AXES[AXES.index(axis) + 1 :])
    together = max(1, min(sizes[axis], device.a_machine // inner))
    link = _LINK * device.link_rate
    if together == sizes[axis]:
        return link
    across = together * _NETWORK * device.network_rate
    return across if together == 1 else min(link, across)


def _latency(size: int) -> float:
    return _LATENCY * math.ceil(math.log2(size)) if size > 1 else 0.0


def _ring(bytes_: float, size: int) -> float:
    """Return what each device sends when all of ``bytes_`` are gathered, or added up and shared
    out."""
    return bytes_ * (size - 1) / size


def _exchanged(work: Workload) -> dict[str, float]:
    """Return the bytes that a device sends for one micro-batch along each axis."""
    shape, layout = work.shape, work.layout
    layers = shape.layers / layout.pipeline
    stream = work.tokens * shape.width * _HALF
    keys = work.micro * work.length * 2 * shape.key_width * _HALF / layout.tensor
    # Forward each block adds up twice, which is a sum that is shared out and gathered; backward so
    # again.
    passes = 8 + (4 if work.practice.recompute == "full" else 0)
    if work.practice.divided_stream:
        # What was shared out is gathered once more, for the gradients of the weights.
        passes += 2
    sent = {
        "tensor": layers * passes * _ring(stream, layout.tensor),
        # Keys and values forward and backward, and then their gradients.
        "context": layers * 3 * _ring(keys, layout.context),
        "pipeline": 0.0,
        "shard": 0.0,
    }
    if layout.pipeline > 1:
        sent["pipeline"] = 2 * work.practice.stages * stream / work.stream_parts
    if not work.practice.whole_copies:
        # In bfloat16 forward and backward; gradients in float32.
        weights = work.parameters_here
        sent["shard"] = _ring((2 * _HALF + _FULL) * weights, layout.shard)
    return sent


def sent_bytes(work: Workload) -> dict[str, float]:
    """Return the bytes that a device sends in a step, by axis, outermost first."""
    sent = {axis: work.micro_batches * each for axis, each in _exchanged(work).items()}
    if work.practice.whole_copies:
        sent["shard"] = _ring((_HALF + _FULL) * work.parameters_here, work.layout.shard)
    held = work.parameters_here / work.layout.shard
    sent["replicate"] = 2 * _ring(_FULL * held, work.layout.replicate)
    return {axis: sent[axis] for axis in AXES}


def _moved_of_block(work: Workload) -> float:
    """Return the bytes of a token that a block reads and writes between its products on one device,
    forward.

    Fused, a norm and an addition to the stream read and write each number once. Else norms go
    through float32 in seven kernels, rotary positions in three, and the activation in two.
    """
    shape = work.shape
    turned = shape.query_width + shape.key_width
    if work.practice.fused:
        stream = 20 * shape.width
        inner = 4 * turned + (6 if shape.gated else 4) * shape.mlp_width
    else:
        stream = 80 * shape.width
        inner = 20 * turned + (10 if shape.gated else 4) * shape.mlp_width
    return stream / work.stream_parts + inner / work.layout.tensor


def _compute(work: Workload, device: Device) -> tuple[float, float, float]:
    """Return the seconds of products, attention and memory of one micro-batch on one device, of
    stages that are as long as each other."""
    shape, layout, practice = work.shape, work.layout, work.practice
    layers = work.busiest
    again = {"none": 0.0, "full": 1.0}.get(practice.recompute, 0.0)
    if practice.recompute == "selective":
        again = sum(shape.products[1::2]) / shape.block_parameters
    weights = (3 + again) * layers * shape.block_parameters
    weights += 3 * shape.output_parameters / layout.pipeline
    products = 2 * work.tokens * weights / layout.tensor
    passes = 1 + _BACKWARD + (1 if practice.recompute == "full" else 0)
    scores = 4 * work.tokens * shape.seen(work.length) * shape.query_width / layout.tensor
    if not practice.balance_context and shape.window is None:
        # The last part of a text sees all of it, and the others wait for it.
        scores *= 2 - 1 / layout.context
    moved = _moved_of_block(work) * (3 if practice.recompute == "none" else 4) * layers
    # Of a logit: written, read for the loss, and its gradient the same.
    moved += 20 * shape.vocabulary / layout.pipeline / layout.tensor
    attention = practice.kernel if practice.kernel in device.attention else "flash2"
    memory = _MEMORY * device.memory_rate
    # Of few tokens the weights are read more slowly than they are multiplied.
    reading = _HALF * weights / layout.tensor / memory
    added_up = 0.0
    if work.micro_batches > 1:
        # A gradient and the sum so far are read, and the new sum is written.
        kept = work.parameters_here / (1 if practice.whole_copies else layout.shard)
        added_up = 3 * _FULL * kept / memory
    return (
        max(products / (_SUSTAINED * device.matmul * device.peak_flops), reading),
        layers * passes * scores / (device.attention[attention] * device.peak_flops),
        work.tokens * moved / memory + added_up,
    )


def _waiting_each(work: Workload, device: Device, computed: float) -> dict[str, float]:
    """Return the seconds of one micro-batch in which a device waits for others, by axis."""
    layout = work.layout
    sent = _exchanged(work)
    layers = work.shape.layers / layout.pipeline
    waits = {}
    for axis, messages in (("tensor", 8), ("context", 3)):
        size = layout.sizes[axis]
        latency = messages * layers * _latency(size)
        waits[axis] = sent[axis] / _rate(work, device, axis) + latency
    if work.practice.overlap_tensor:
        # The first of as many parts as there are devices has nothing to travel behind.
        waits["tensor"] /= layout.tensor
    travel = sent["shard"] / _rate(work, device, "shard")
    # All but the first block and the last gradient travels while others are computed.
    waits["shard"] = max(travel - computed, travel / max(layers, 1))
    return waits


def estimate_step(work: Workload, device: Device) -> StepTime:
    """Return the time of a step on these devices."""
    layout, count = work.layout, work.micro_batches
    matmul, attention, elementwise = _compute(work, device)
    computed = matmul + attention + elementwise
    each = _waiting_each(work, device, computed)
    waits = {axis: count * seconds for axis, seconds in each.items()}
    # What is exchanged once a step: while one micro-batch is computed, or while nothing is.
    sent = sent_bytes(work)
    hidden = computed if work.practice.overlap_gradients else 0.0
    replicated = sent["replicate"] / _rate(work, device, "replicate") + _latency(layout.replicate)
    waits["replicate"] = max(replicated - hidden, 0.0)
    if work.practice.whole_copies:
        waits["shard"] = max(sent["shard"] / _rate(work, device, "shard") - hidden, 0.0)
    # The first micro-batch passes through all stages, and its gradient comes back.
    hop = sent["pipeline"] / max(2 * work.practice.stages * count, 1)
    waits["pipeline"] = 2 * (layout.pipeline - 1) * hop / _rate(work, device, "pipeline")
    busy = count * (computed + sum(each.values()))
    # Weights, gradients and two moments are read, and all but the gradients written.
    held = work.parameters_here / layout.shard
    update = 7 * _FULL * held / (_MEMORY * device.memory_rate)
    return StepTime(
        count * matmul,
        count * attention,
        count * elementwise + update,
        {axis: waits[axis] for axis in AXES},
        busy * work.bubble / (1 - work.bubble),
    )
