"""What a classifier minimises, apart from PyTorch's own cross-entropy.

Legend: B examples of a batch, K classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.core.values import Batch

__all__ = ["shares_of", "soft_labels", "squared_hinge"]


def squared_hinge(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return (B,) the sum over classes of the squared distance to a margin of 1, by which a class's
    output should be above 0 where the class is true, and below it elsewhere.

    Args:
        outputs: (B, K).
        labels: (B,) int64.

    Source:
        Tang, 2013, "Deep learning using linear support vector machines" (arXiv:1306.0239), equation
        8 for one class, one against the rest.
    """
    wanted = 2 * F.one_hot(labels, outputs.shape[1]).to(outputs.dtype) - 1
    return (1 - wanted * outputs).clamp(min=0).square().sum(1)


def soft_labels(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Return targets (B, K) of true classes (B,): shares that fall by exp(-1 / smoothing) from a
    class to the next.

    Source:
        Diaz and Marathe, 2019, "Soft labels for ordinal regression", CVPR, equation 1; the distance
        there is here the number of classes between over ``smoothing``.
    """
    # Only the distance in classes counts, not what the labels say: 1 to 5 stars are one apart.
    distance = (torch.arange(classes, device=labels.device) - labels[:, None]).abs().float()
    return torch.softmax(-distance / smoothing, 1)


def shares_of(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return (B,) what each example's own label counts for, and the one that was mixed in."""
    own = batch.get("weights", torch.ones(len(batch["labels"]), device=batch["labels"].device))
    if "mix" not in batch:
        return own, torch.zeros_like(own)
    return batch["mix"] * own, (1 - batch["mix"]) * batch.get("weights_2", torch.ones_like(own))
