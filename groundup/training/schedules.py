"""Learning-rate schedules: pure functions of the step, so that a resume needs no schedule state."""

from __future__ import annotations

import math

from groundup.recipe.sections import Optim

__all__ = ["learning_rate_at"]


def learning_rate_at(optim: Optim, step: int, total_steps: int) -> float:
    """Return the learning rate of one update.

    Args:
        optim: Peak, warm-up and shape.
        step: Number of the update, from 0.
        total_steps: Updates in the whole run.

    Returns:
        ``lr * (step + 1) / warmup_steps`` during the warm-up; then from ``lr`` down to
        ``lr * final_lr_fraction``, which the last update gets: linearly, by half a cosine
        (Loshchilov & Hutter 2017, arXiv:1608.03983), or, for ``wsd`` (Hu et al. 2024,
        arXiv:2404.06395), flat and then linearly over the last ``decay_fraction`` of the run.
    """
    # step + 1, since an update with a learning rate of 0 would be a wasted one.
    if step < optim.warmup_steps:
        return optim.lr * (step + 1) / optim.warmup_steps
    if optim.schedule == "constant":
        return optim.lr
    begin = optim.warmup_steps
    if optim.schedule == "wsd":
        begin = max(begin, total_steps - math.ceil(optim.decay_fraction * total_steps))
    # total_steps - 1, so that the last update gets exactly the last learning rate.
    progress = min(1.0, max(0.0, (step - begin) / max(1, total_steps - 1 - begin)))
    shape = (
        0.5 * (1 + math.cos(math.pi * progress)) if optim.schedule == "cosine" else 1.0 - progress
    )
    return optim.lr * (optim.final_lr_fraction + (1.0 - optim.final_lr_fraction) * shape)
