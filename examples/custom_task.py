"""A task of your own in one file: next-token prediction with smoothed labels.

Name it under ``uses:`` and choose it with ``task: {name: smoothed, smoothing: 0.1}``; see
custom.yaml.
Source: Szegedy et al. 2016, "Rethinking the Inception architecture for computer vision", section 7.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.core.registry import task
from groundup.core.settings import setting
from groundup.core.values import Batch, Loss, Term
from groundup.tasks.language_modeling import LanguageModeling


@task("smoothed")
class SmoothedLanguageModeling(LanguageModeling):
    """Give the right token 1 - smoothing and share the rest among all tokens. Validation is not
    smoothed."""

    smoothing: float = setting(0.1, "Probability shared among all tokens", ge=0, lt=1)

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Leave the targets out, so that the model returns logits (B, T, V) and not a loss."""
        return {name: batch[name] for name in ("tokens", "positions", "boundaries")}

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        """Return a SUM and its count; the trainer divides once, by the count of the whole step."""
        smoothing = self.smoothing if torch.is_grad_enabled() else 0.0
        logits, targets = outputs.flatten(0, 1).float(), batch["targets"].flatten()
        total = F.cross_entropy(
            logits, targets, ignore_index=-100, reduction="sum", label_smoothing=smoothing
        )
        return Loss({"next_token": Term(total, (targets >= 0).sum())})
