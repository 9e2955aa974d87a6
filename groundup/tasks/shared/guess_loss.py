"""What predicting classes without looking at the inputs costs.

Legend: K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["guess_loss"]


def guess_loss(counts: Sequence[int]) -> Tensor:
    """Return (K,) the cross-entropy of each class for who knows the training split's shares
    alone."""
    # Half an example where there is none: a base run's classes need not all occur in this data.
    shares = torch.tensor(counts, dtype=torch.float64).clamp(min=0.5)
    return -(shares / shares.sum()).log().float()
