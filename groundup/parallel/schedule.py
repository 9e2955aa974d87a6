"""In which order a process of a pipeline computes the passes of a step."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Pass", "order_passes"]


@dataclass(frozen=True)
class Pass:
    """One micro-batch through one stage of this process.

    Attributes:
        forward: Forward, or backward.
        chunk: Which of this process's stages, from 0.
        micro_batch: Which micro-batch of the step, from 0.
    """

    forward: bool
    chunk: int
    micro_batch: int


def order_passes(
    place: int, size: int, chunks: int, micro_batches: int, *, trains: bool
) -> list[Pass]:
    """Return the passes of a step in the order in which this process computes them.

    After as many forward passes as it takes until the first gradient is back, forward and backward
    passes take turns, so that a process keeps the activations of a few micro-batches only, however
    many the step has. With several stages on each process, micro-batches go through them in groups
    of ``size``, and the ends of the step, where processes wait, are shorter.

    Args:
        place: Of the process in the pipeline, from 0.
        size: How many processes there are.
        chunks: How many stages each has. More than one needs a multiple of ``size`` micro-batches.
        micro_batches: Of the step.
        trains: Whether there are backward passes.

    Source:
        One chunk: Narayanan et al., PipeDream-2BW, 2020 (arXiv:2006.09503), section 3.2
        (PipeDream-Flush), known as 1F1B. Several: Narayanan et al., 2021 (arXiv:2104.04473),
        section 2.2.2, the interleaved schedule.
    """
    if not trains:
        # Of any number, as validations have them.
        every = range(micro_batches)
        return [Pass(True, chunk, each) for each in every for chunk in range(chunks)]
    total = chunks * micro_batches
    forward = [_pass_number(n, size, chunks, forward=True) for n in range(total)]
    backward = [_pass_number(n, size, chunks, forward=False) for n in range(total)]
    # Each of those that follow has a micro-batch on its way; with several chunks twice as many, and
    # those that go round.
    ahead = size - 1 - place
    if chunks > 1:
        ahead = 2 * ahead + (chunks - 1) * size
    ahead = min(ahead, total)
    order = forward[:ahead]
    for first, second in zip(forward[ahead:], backward, strict=False):
        order += [first, second]
    return order + backward[total - ahead :]


def _pass_number(number: int, size: int, chunks: int, *, forward: bool) -> Pass:
    """Return the pass with this number among those of its direction, the same on all processes."""
    if chunks == 1:
        return Pass(forward, 0, number)
    round_, within = divmod(number, size * chunks)
    chunk, micro_batch = divmod(within, size)
    # Gradients come back through the last stage first.
    return Pass(forward, chunk if forward else chunks - 1 - chunk, round_ * size + micro_batch)
