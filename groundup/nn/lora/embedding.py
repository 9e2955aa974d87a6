"""Embeddings with a small trained change: of low rank, or of a few rows.

Shape legend: V rows of the embedding, C width, R the adapter's rank, N trained rows.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.nn.lora.divided import is_divided

__all__ = ["AdaptedEmbedding", "TrainedRows"]


class _ChangedEmbedding(nn.Module, ABC):
    """An embedding W with a change that is trained in its place.

    Args:
        embedding: Its weight is shared, not copied. Freezing it is up to the caller.
    """

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.num_embeddings = embedding.num_embeddings
        self.embedding_dim = embedding.embedding_dim
        self._parameters["weight"] = embedding.get_parameter("weight")
        # what W was where the change is, while that is merged into it
        self._unmerged: Tensor | None = None

    @property
    def plain(self) -> nn.Parameter:
        """The weight as it was, (V, C), or with the change in it while merged."""
        parameter = self._parameters["weight"]
        assert parameter is not None
        return parameter

    @property
    @abstractmethod
    def weight(self) -> Tensor:
        """The weight as changed, (V, C): an output layer that shares it reads the change too."""

    @abstractmethod
    def unmerge(self) -> None:
        """Put back the weight as it was, to the last bit."""

    def restored(self) -> nn.Embedding:
        """Return the embedding as it was without the change, sharing the weight."""
        self.unmerge()
        rows, width = self.plain.shape
        embedding = nn.Embedding(rows, width, device="meta")
        embedding.weight = self.plain
        return embedding.train(self.training)


class AdaptedEmbedding(_ChangedEmbedding):
    """An embedding W whose change is learned as a product of two thin matrices, scale * B A.

    B (V, R) has a row for each token and starts at zero, A (R, C) is drawn as a linear layer's. The
    names of its tensors and what ``weight`` means are as in ``AdaptedLinear``.

    Args:
        embedding: As of ``_ChangedEmbedding``.
        rank: R.
        scale: What the change is multiplied with.
    """

    def __init__(self, embedding: nn.Embedding, rank: int, scale: float) -> None:
        super().__init__(embedding)
        self.scale = scale
        self.lora_A = nn.Parameter(embedding.weight.new_empty(rank, self.embedding_dim))
        self.lora_B = nn.Parameter(embedding.weight.new_zeros(self.num_embeddings, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    @property
    def weight(self) -> Tensor:
        """The weight as changed by the adapter, (V, C)."""
        if self._unmerged is not None or is_divided(self.plain):
            return self.plain
        with torch.autocast(self.plain.device.type, enabled=False):
            return self.plain + self.scale * (self.lora_B @ self.lora_A)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (..., C) from tokens (...)."""
        found = F.embedding(tokens, self.plain)
        if self._unmerged is not None:
            return found
        # In the weights' own precision, as an embedding is looked up.
        with torch.autocast(found.device.type, enabled=False):
            return found + self.scale * (F.embedding(tokens, self.lora_B) @ self.lora_A)

    @torch.no_grad()
    def merge(self) -> None:
        """Put the adapter into the weight; a copy of W is kept."""
        if self._unmerged is None:
            changed = self.weight
            self._unmerged = self.plain.detach().clone()
            self.plain.copy_(changed)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put back the weight as it was, to the last bit."""
        if self._unmerged is not None:
            self.plain.copy_(self._unmerged)
            self._unmerged = None


class TrainedRows(_ChangedEmbedding):
    """An embedding of which a few rows are trained, and the others stay as they are.

    ``rows`` (N, C) takes the place of the rows of these tokens, from whose values it starts.

    Args:
        embedding: As of ``_ChangedEmbedding``.
        tokens: The numbers of the N tokens, each below V.

    Source:
        The same as ``trainable_token_indices`` of the library PEFT.
    """

    slots: Tensor

    def __init__(self, embedding: nn.Embedding, tokens: Sequence[int]) -> None:
        super().__init__(embedding)
        self.tokens = tuple(tokens)
        chosen = torch.tensor(self.tokens, device=embedding.weight.device)
        self.rows = nn.Parameter(embedding.weight.detach()[chosen].clone())
        slots = torch.full((self.num_embeddings,), -1, device=embedding.weight.device)
        slots[chosen] = torch.arange(len(self.tokens), device=slots.device)
        # Which row each token has, -1 for none: looked up, as comparing with each would be slow.
        self.register_buffer("slots", slots, persistent=False)

    @property
    def weight(self) -> Tensor:
        """The weight with the trained rows, (V, C)."""
        if self._unmerged is not None or is_divided(self.plain):
            return self.plain
        return self.plain.index_copy(0, self._chosen(), self.rows)

    def _chosen(self) -> Tensor:
        return torch.tensor(self.tokens, device=self.plain.device)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (..., C) from tokens (...)."""
        found = F.embedding(tokens, self.plain)
        if self._unmerged is not None:
            return found
        slots = self.slots[tokens]
        return torch.where((slots >= 0)[..., None], self.rows[slots.clamp(min=0)], found)

    @torch.no_grad()
    def merge(self) -> None:
        """Put the rows into the weight; a copy of those of before is kept."""
        if self._unmerged is None:
            self._unmerged = self.plain.detach()[self._chosen()].clone()
            self.plain[self._chosen()] = self.rows

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put back the weight as it was, to the last bit."""
        if self._unmerged is not None:
            self.plain[self._chosen()] = self._unmerged
            self._unmerged = None
