"""Whether tasks that share a model pull it the same way: cosines between their gradients.

Legend: K tasks, P shared parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Agreement", "gradient_agreement"]


@dataclass(frozen=True)
class Agreement:
    """How tasks' gradients agree over several batches; NaN where no batch had both tasks.

    Attributes:
        cosine: (K, K) mean cosine between the gradients, -1 to 1.
        conflict: (K, K) share of the batches in which it is negative, 0 to 1.
        norm: (K,) mean norm of each task's gradient.
        batches: (K, K) how many batches had both.
    """

    cosine: NDArray[np.float64]
    conflict: NDArray[np.float64]
    norm: NDArray[np.float64]
    batches: NDArray[np.int64]


def gradient_agreement(batches: Iterable[Sequence[Tensor | None]], tasks: int) -> Agreement:
    """Compare the tasks' gradients of each batch.

    Args:
        batches: For each batch K gradients (P,); None where it had nothing of a task.
        tasks: K.

    Source:
        Yu et al., PCGrad, 2020 (arXiv:2001.06782), definitions 1 and 2: gradients conflict where
        their cosine is negative.
    """
    cosines = np.zeros((0, tasks, tasks))
    norms = np.zeros((0, tasks))
    for gradients in batches:
        size = next((len(g) for g in gradients if g is not None), 0)
        # A task that is absent is NaN: every cosine with it is then NaN too, and not counted.
        absent = torch.full((size,), torch.nan)
        stacked = torch.stack([absent if g is None else g.detach().cpu() for g in gradients])
        length = stacked.double().norm(dim=1, keepdim=True)
        unit = stacked.double() / length.clamp(min=1e-30)
        # Clamped: rounding takes the cosine of a gradient with itself a little beyond 1.
        cosines = np.concatenate((cosines, (unit @ unit.T).clamp(-1, 1).numpy()[None]))
        norms = np.concatenate((norms, length.T.numpy()))
    both = ~np.isnan(cosines)
    counts = both.sum(0)
    known = np.where(counts == 0, np.nan, counts)
    cosine = np.where(both, cosines, 0).sum(0) / known
    conflict = (cosines < 0).sum(0) / known
    norm = np.nan_to_num(norms).sum(0) / known.diagonal()
    return Agreement(cosine, conflict, norm, counts.astype(np.int64))
