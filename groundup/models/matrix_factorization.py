"""Matrix factorization: a vector for each user and each item, whose product is the score.

Shape legend: B rows, N items, M candidates, C width.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from groundup.contracts.models import ModelConfig
from groundup.contracts.processors import Processor
from groundup.contracts.recommendation import score_items
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.models.sizes_of_catalogue import require_catalogue, settle_catalogue

__all__ = ["MatrixFactorization", "MatrixFactorizationConfig"]


@model("matrix_factorization")
class MatrixFactorizationConfig(ModelConfig):
    """Vectors of users and items. A user that training has not seen gets the biases alone."""

    decided_by_data: ClassVar[tuple[str, ...]] = ("users", "items")

    width: int = setting(64, "Numbers of a vector", ge=1)
    biases: bool = setting(True, "A bias for each user and each item")
    dropout: float = setting(0.0, "Share of the numbers of a user's vector dropped", ge=0, lt=1)
    init_std: float = setting(0.02, "Standard deviation of fresh vectors", gt=0)
    users: int = setting(0, "Users; 0: as many as the training data has", ge=0)
    items: int = setting(0, "Items; 0: as many as the data has", ge=0)

    def complete_from(self, processor: Processor) -> MatrixFactorizationConfig:
        """Return the config with the data's sizes where they were 0.

        Raises:
            RecipeError: If the processor knows no users and items, or others than the recipe says.
        """
        sizes = settle_catalogue("matrix_factorization", processor, self.items, self.users)
        return self.model_copy(update={"users": sizes.users, "items": sizes.items})

    def build(self) -> MatrixFactorization:
        """Return the model with freshly initialised weights.

        Raises:
            RecipeError: If a size is still unknown.
        """
        require_catalogue(self.items, self.users)
        return MatrixFactorization(self)


class MatrixFactorization(nn.Module):
    """The model of a ``MatrixFactorizationConfig``.

    Source:
        Koren, Bell and Volinsky, 2009, "Matrix factorization techniques for recommender systems",
        equation 4, without the mean, which the task adds.
    """

    places_untrained_items = False
    reads_order = False
    hides_items = False

    def __init__(self, config: MatrixFactorizationConfig) -> None:
        super().__init__()
        # The row of the unknown stays 0: of it nothing is known but the biases of the others.
        self.embed_users = nn.Embedding(config.users + 1, config.width, padding_idx=0)
        self.embed_items = nn.Embedding(config.items + 1, config.width, padding_idx=0)
        self.user_bias: nn.Embedding | None = None
        self.item_bias: nn.Embedding | None = None
        # Without them a vector has to say how popular its item is.
        if config.biases:
            self.user_bias = nn.Embedding(config.users + 1, 1, padding_idx=0)
            self.item_bias = nn.Embedding(config.items + 1, 1, padding_idx=0)
        self.dropout = nn.Dropout(config.dropout)
        with torch.no_grad():
            for vectors in (self.embed_users, self.embed_items):
                vectors.weight.normal_(std=config.init_std)[0] = 0.0
            for bias in (self.user_bias, self.item_bias):
                if bias is not None:
                    bias.weight.zero_()

    def forward(
        self,
        users: Tensor,
        tokens: Tensor | None = None,
        lengths: Tensor | None = None,
        numbers: Tensor | None = None,
        categories: Tensor | None = None,
        candidates: Tensor | None = None,
    ) -> Tensor:
        """Return scores (B, N + 1), or (B, M) of candidates; arguments as of ``Recommender``."""
        states = self.user_states(users)
        scores = score_items(states, self.item_vectors(), self.item_biases(), candidates)
        if self.user_bias is not None:
            scores = scores + self.user_bias(users)
        return scores

    def user_states(
        self,
        users: Tensor,
        tokens: Tensor | None = None,
        lengths: Tensor | None = None,
        numbers: Tensor | None = None,
        categories: Tensor | None = None,
    ) -> Tensor:
        """Return (B, C), the vector of each user."""
        return self.dropout(self.embed_users(users))  # type: ignore[no-any-return]

    def item_vectors(self) -> Tensor:
        """Return (N + 1, C), the unknown item's first."""
        return self.embed_items.weight

    def item_biases(self) -> Tensor:
        """Return (N + 1,)."""
        if self.item_bias is None:
            return self.embed_items.weight.new_zeros(len(self.embed_items.weight))
        return self.item_bias.weight[:, 0]

    def squared_norms(self, users: Tensor, items: Tensor) -> Tensor:
        """Return a scalar: the squares of what is known of users (B,) and of items (B, M), each
        vector with its bias, added up."""
        total: Tensor = (
            self.embed_users(users).square().sum() + self.embed_items(items).square().sum()
        )
        if self.user_bias is not None and self.item_bias is not None:
            total = total + self.user_bias(users).square().sum()
            total = total + self.item_bias(items).square().sum()
        return total
