"""Two examples made into one: mixup and CutMix.

Shape legend: B samples.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from groundup.media.augmentation.boxes import boxes_around
from groundup.media.augmentation.draws import Draws
from groundup.media.augmentation.settings import Augment

__all__ = ["mix_pairs"]


def mix_pairs(settings: Augment, own: Tensor, other: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Return inputs made of two, and how much of each is its own, (B,) float32.

    Source:
        Zhang et al., 2017, "mixup: Beyond empirical risk minimization" (arXiv:1710.09412), section
        2; Yun et al., 2019, "CutMix" (arXiv:1905.04899), section 3. With both set, each sample gets
        one or the other, at equal chances.
    """
    # Where only one of the two is set, every sample gets that one.
    cut = np.full(len(own), settings.cutmix > 0)
    if settings.mixup and settings.cutmix:
        cut = draws("mixup or cutmix")[0] < 0.5
    mixes = np.ones(len(own))
    if settings.mixup:
        mixes = np.where(cut, mixes, draws.beta("mixup", settings.mixup))
    blend = torch.from_numpy(mixes).float().view(-1, *[1] * (own.dim() - 1))
    inputs = blend * own + (1 - blend) * other
    if settings.cutmix:
        height, width = own.shape[2:]
        side = np.sqrt(1 - draws.beta("cutmix", settings.cutmix)) * cut
        x, y = draws("cutmix box", 2)
        mask = boxes_around(height, width, x, y, side * width, side * height)
        inputs = torch.where(mask, other, inputs)
        # A box cut off at an edge is smaller than was drawn: what counts is what it covers.
        mixes = mixes * (1 - mask.flatten(1).sum(1).numpy() / (height * width))
    return inputs, torch.from_numpy(mixes).float()
