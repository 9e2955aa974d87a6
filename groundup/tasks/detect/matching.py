"""Which query of a set-prediction detector is to find which box: one each, by the least cost.

Shape legend: N sets of predictions (B pictures of each layer), Q queries, K boxes, C classes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from groundup.core.errors import MissingExtraError
from groundup.core.values import IGNORED
from groundup.nn.box_head import to_centres
from groundup.nn.box_overlap import generalized_overlap

__all__ = ["UNMATCHED", "class_costs", "focal_class_costs", "match", "match_costs"]

UNMATCHED = -1
"""The query of a box that none is left for, and of what is no box."""

# Keeps a logarithm finite where a probability is 0 or 1.
_LEAST = 1e-8


def class_costs(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return (N, Q, K), -p of each box's class, as the paper takes it instead of -log p.

    Args:
        probabilities: (N, Q, C).
        labels: (N, K), those of what is no box whatever they are.
    """
    return -_of_labels(probabilities, labels)


def focal_class_costs(probabilities: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """Return (N, Q, K), what the focal loss of a query grows by when it is to find a box.

    Source:
        Zhu et al., Deformable DETR, 2020 (arXiv:2010.04159), appendix A.1, and the authors' code.
    """
    found = _of_labels(probabilities, labels)
    right = alpha * (1 - found) ** gamma * -(found + _LEAST).log()
    wrong = (1 - alpha) * found**gamma * -(1 - found + _LEAST).log()
    return right - wrong


def _of_labels(probabilities: Tensor, labels: Tensor) -> Tensor:
    # What is no box gets some class: its column is never looked at.
    index = labels.clamp(min=0)[:, None].expand(-1, probabilities.shape[1], -1)
    return probabilities.gather(2, index)


def match_costs(
    boxes: Tensor, targets: Tensor, sizes: Tensor, *, box_cost: float, giou_cost: float
) -> Tensor:
    """Return (N, Q, K), what it costs that a query's box is to be a target's.

    Args:
        boxes: (N, Q, 4) in pixels.
        targets: (N, K, 4) in pixels.
        sizes: (N, 2) width and height of the pictures: the L1 distance is in shares of them.
        box_cost: Weight of the L1 distance.
        giou_cost: Weight of the generalised overlap.

    Source:
        Carion et al., 2020 (arXiv:2005.12872), equations 1 and 9.
    """
    unit = sizes[:, None]
    distances = torch.cdist(to_centres(boxes, unit), to_centres(targets, unit), p=1)
    overlaps = generalized_overlap(boxes[:, :, None], targets[:, None])
    return box_cost * distances - giou_cost * overlaps


@torch.no_grad()
def match(costs: Tensor, labels: Tensor) -> Tensor:
    """Return (N, K) the query that each box is matched with, ``UNMATCHED`` where there is none.

    Each query has one box at most, and as many boxes as there are queries for are matched, so that
    the costs add up to the least possible sum.

    Args:
        costs: (N, Q, K). What is not finite is matched last: a run that diverges ends with an
            error about its loss, not with one of the assignment.
        labels: (N, K), ``IGNORED`` where there is no box.

    Source:
        Kuhn, 1955, "The Hungarian method for the assignment problem"; solved by ``scipy``.
    """
    # Imported here, in the one file that needs it: no other task waits for scipy.
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise MissingExtraError("scipy", "detect") from None

    # One transfer from the device for all layers and pictures.
    most = torch.finfo(torch.float32).max
    table = torch.nan_to_num(costs.float(), nan=most, posinf=most, neginf=most).cpu().numpy()
    present = (labels != IGNORED).cpu().numpy()
    found = np.full(present.shape, UNMATCHED, dtype=np.int64)
    for number, own in enumerate(present):
        columns = np.flatnonzero(own)
        # Columns of what is no box are not shown to the solver, which would match them too.
        queries, boxes = linear_sum_assignment(table[number][:, columns])
        found[number, columns[boxes]] = queries
    return torch.from_numpy(found).to(costs.device)
