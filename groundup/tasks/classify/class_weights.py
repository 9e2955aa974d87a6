"""How much an example counts in the loss where some classes are rarer than others.

Legend: B examples, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

__all__ = ["ClassWeights", "class_weights"]

ClassWeights = Literal["none", "balanced", "effective"]


def class_weights(counts: Sequence[int], how: ClassWeights, beta: float) -> Tensor:
    """Return the weight of each class (K,) float32; the mean over the training examples is 1.

    ``balanced`` goes with one over the class's number n of training examples; ``effective`` with
    one over its effective number (1 - beta^n) / (1 - beta), which is between 1 and n: near n for
    rare classes, at most 1 / (1 - beta) for common ones. A class without training examples has the
    weight 0.

    Args:
        counts: Training examples of each class.
        how: Which rule; ``none`` gives 1 to each.
        beta: Of ``effective``: 0 weighs all alike, towards 1 it comes near ``balanced``.

    Source:
        Effective number: Cui et al., 2019 (arXiv:1901.05555), section 3 and equation 4 there.
    """
    # In float64: beta ** n of a million examples is lost in float32.
    found = torch.tensor(counts, dtype=torch.float64)
    if how == "none":
        return torch.ones(len(counts))
    size = found if how == "balanced" else (1 - beta**found) / (1 - beta)
    # Both branches are computed: 1 / 0 is infinite, but where it is not chosen it does no harm.
    weights = torch.where(found > 0, 1 / size, 0.0)
    return (weights * found.sum() / (weights * found).sum()).float()
