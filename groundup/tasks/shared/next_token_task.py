"""What language modelling and chats share: the loss of every next token, over packed documents.

Legend: B rows, T positions, N boundaries, V vocabulary.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from groundup.contracts.tasks import Task
from groundup.core.values import Batch, Loss, Term
from groundup.metrics.compression import bits_per_byte, perplexity
from groundup.nn.logits import widen

__all__ = ["PACKED_ROWS", "NextTokenTask"]

# Several documents in one row, each at its own positions and seen by itself.
PACKED_ROWS = {
    "tokens": "int64 (B, T)",
    "targets": "int64 (B, T)",
    "positions": "int64 (B, T)",
    "boundaries": "int32 (N,)",
}


class NextTokenTask(Task, ABC):
    """A task that minimises -log p of next tokens.

    ``term`` is what its loss is called among the sums of a step.
    """

    term: ClassVar[str]

    @property
    def batch_spec(self) -> dict[str, str]:
        """What ``inputs`` and ``loss`` read."""
        return PACKED_ROWS

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Return the batch: with targets in it, the model returns the sum of -log p."""
        return {name: batch[name] for name in PACKED_ROWS}

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        """Return the sum of -log p in nats and the number of targets."""
        # A sum, not a mean: micro-batches hold different numbers of targets.
        return Loss({self.term: Term(outputs, self.predicted(batch).sum())})

    def target_tokens(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return (N,) the tokens that are predicted."""
        targets = batch["targets"]
        return targets[targets >= 0]

    def summarise(self, sums: dict[str, tuple[float, float]]) -> dict[str, float]:
        """Return loss in nats a token, perplexity and, where the bytes were counted, bits per
        byte; of held-out texts also ``baseline_loss``, that of guessing tokens by frequency."""
        # A split without a single target has a loss of 0, and no quotient by 0.
        total, count = sums[self.term]
        mean = total / max(count, 1.0)
        found = {"loss": mean, "perplexity": perplexity(mean)}
        if "guess" in sums:
            found["baseline_loss"] = sums["guess"][0] / max(count, 1.0)
        if "bytes" in sums:
            found["bits_per_byte"] = bits_per_byte(total, int(sums["bytes"][0]))
        return found

    # ------------------------------------------------------- by logits: for teachers and privacy
    @property
    def distils(self) -> str:
        """What a teacher must predict."""
        return "next tokens"

    def prediction_inputs(self, batch: Batch) -> dict[str, Any]:
        """Return the batch without its targets: the model then returns logits (B, T, V)."""
        return {name: batch[name] for name in PACKED_ROWS if name != "targets"}

    def predicted(self, batch: Batch) -> Tensor:
        """Return (B, T) which logits are trained."""
        return batch["targets"] >= 0

    def prediction_loss(self, logits: Tensor, batch: Batch) -> Loss:
        """Return what ``loss`` does, by logits."""
        # Only rows that are trained on: a copy of all logits in float32 would be far larger.
        kept = self.predicted(batch)
        total = F.cross_entropy(widen(logits[kept]), batch["targets"][kept], reduction="sum")
        return self.loss(total, batch)

    def example_losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return (B,) the sum of -log p of each row, by logits; a packed row is one example."""
        # 0 where a target is -100.
        logits = widen(outputs).transpose(1, 2)
        return F.cross_entropy(logits, batch["targets"], reduction="none").sum(1)
