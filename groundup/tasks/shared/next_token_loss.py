"""What language modelling and chats share: losses of next tokens by a model's logits.

Legend: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from groundup.core.values import Batch
from groundup.nn.loss import widen

__all__ = ["logit_inputs", "next_token_losses", "next_token_sum"]


def logit_inputs(batch: Batch) -> dict[str, Tensor]:
    """Return what makes a language model return logits (B, T, V): all but the targets."""
    return {name: batch[name] for name in ("tokens", "positions", "boundaries")}


def next_token_sum(logits: Tensor, batch: Batch) -> Tensor:
    """Return the sum of -log p in nats of the targets, a scalar, by logits (B, T, V)."""
    # Only rows that are trained on: a copy of all logits in float32 would be far larger.
    kept = batch["targets"] >= 0
    return F.cross_entropy(widen(logits[kept]), batch["targets"][kept], reduction="sum")


def next_token_losses(logits: Tensor, batch: Batch) -> Tensor:
    """Return (B,) the sum of -log p in nats of each row's targets, by logits (B, T, V)."""
    each = F.cross_entropy(
        widen(logits).transpose(1, 2), batch["targets"], reduction="none"
    )  # 0 where a target is -100
    return each.sum(1)
