"""Two towers: a vector of a user made of their id and columns, and one of an item likewise, so that
new users and items have a place by their columns.

Shape legend: B rows, N items, M candidates, C width, I numbers, K categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from groundup.contracts.models import ModelConfig
from groundup.contracts.processors import Processor
from groundup.contracts.recommendation import RecommendationSizes, score_items
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.models.sizes_of_catalogue import require_catalogue, settle_catalogue
from groundup.nn.mlp import MLP

__all__ = ["Tower", "TwoTower", "TwoTowerConfig"]


@model("two_tower")
class TwoTowerConfig(ModelConfig):
    """A tower for users and one for items. Each adds up what is known of the id and of the columns,
    and bends the sum."""

    decided_by_data: ClassVar[tuple[str, ...]] = ("catalogue",)

    width: int = setting(64, "Numbers of a vector", ge=1)
    hidden: int = setting(128, "Inner width of the layer on each tower; 0: none", ge=0)
    user_ids: bool = setting(True, "Whether a user has a vector of their own next to the columns")
    item_ids: bool = setting(True, "Whether an item has one")
    id_dropout: float = setting(
        0.1,
        "Share of ids taken for unknown ones in training, so that these are learned",
        ge=0,
        lt=1,
    )
    dropout: float = setting(0.0, "Share of the sum's numbers dropped", ge=0, lt=1)
    init_std: float = setting(0.02, "Standard deviation of fresh vectors", gt=0)
    catalogue: RecommendationSizes | None = setting(
        None, "Users, items and columns; null: as the data has"
    )

    def complete_from(self, processor: Processor) -> TwoTowerConfig:
        """Return the config with the data's sizes.

        Raises:
            RecipeError: If the processor knows no users and items.
        """
        items = self.catalogue.items if self.catalogue is not None else 0
        return self.model_copy(
            update={"catalogue": settle_catalogue("two_tower", processor, items)}
        )

    def build(self) -> TwoTower:
        """Return the model with freshly initialised weights.

        Raises:
            RecipeError: If the sizes are still unknown.
        """
        require_catalogue(self.catalogue.items if self.catalogue is not None else 0)
        return TwoTower(self)


class Tower(nn.Module):
    """Vectors (..., C) of ids and columns.

    Args:
        config: The settings.
        ids: How many are known, beside the unknown one; None: ids are not read.
        numbers: Numbers made of the columns.
        categories: Values of each categorical column.
    """

    def __init__(
        self, config: TwoTowerConfig, ids: int | None, numbers: int, categories: Sequence[int]
    ) -> None:
        super().__init__()
        width = config.width
        self.id_dropout = config.id_dropout
        self.ids = None if ids is None else nn.Embedding(ids + 1, width)
        self.numbers = nn.Linear(numbers, width, bias=False) if numbers else None
        self.categories = nn.ModuleList(nn.Embedding(size, width) for size in categories)
        self.dropout = nn.Dropout(config.dropout)
        self.layer = MLP(width, config.hidden, "gelu", bias=True) if config.hidden else None
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=config.init_std)

    def forward(self, ids: Tensor, numbers: Tensor | None, categories: Tensor | None) -> Tensor:
        """Return (..., C) of ids (...), numbers (..., I) and categories (..., K)."""
        x: Tensor | None = None
        if self.ids is not None:
            # In training every id is known, and that of a new user would never be learned.
            if self.training and self.id_dropout:
                drawn = torch.rand(ids.shape, device=ids.device)
                ids = ids.masked_fill(drawn < self.id_dropout, 0)
            x = self.ids(ids)
        if self.numbers is not None and numbers is not None:
            # Rows come in float32 whatever the weights are in.
            own = self.numbers(numbers.to(self.numbers.weight.dtype))
            x = own if x is None else x + own
        for column, embed in enumerate(self.categories):
            assert categories is not None
            own = embed(categories[..., column])
            x = own if x is None else x + own
        assert x is not None, "neither ids nor columns are read"
        # Of the sum: one column dropped whole would look like a missing one.
        x = self.dropout(x)
        return x if self.layer is None else x + self.layer(x)


class TwoTower(nn.Module):
    """The model of a ``TwoTowerConfig``.

    Source:
        Yi et al., 2019, "Sampling-bias-corrected neural modeling for large corpus item
        recommendations", section 3; without hidden layers: Kula, LightFM, 2015 (arXiv:1507.08439),
        equations 1 and 2. Departs from both: a share of ids is hidden in training, so that the
        vector of an unknown id is learned.
    """

    reads_order = False
    hides_items = False

    def __init__(self, config: TwoTowerConfig) -> None:
        super().__init__()
        assert config.catalogue is not None
        sizes = config.catalogue
        self.places_untrained_items = bool(sizes.item_numbers or sizes.item_categories)
        has_columns = bool(sizes.user_numbers or sizes.user_categories)
        users = sizes.users if config.user_ids or not has_columns else None
        items = sizes.trained_items if config.item_ids or not self.places_untrained_items else None
        self.users = Tower(config, users, sizes.user_numbers, sizes.user_categories)
        self.items = Tower(config, items, sizes.item_numbers, sizes.item_categories)
        self.bias = nn.Linear(config.width, 1)
        self.item_bias = nn.Embedding(sizes.trained_items + 1, 1)
        # Popularity is learned first, and from nothing.
        nn.init.zeros_(self.bias.weight)
        nn.init.zeros_(self.item_bias.weight)
        # Of items without training interactions the id says nothing: they share the unknown one's.
        numbers = torch.arange(sizes.items + 1)
        numbers[sizes.trained_items + 1 :] = 0
        self.register_buffer("item_ids", numbers, persistent=False)
        self.register_buffer("item_numbers", torch.zeros(sizes.items + 1, sizes.item_numbers))
        kinds = len(sizes.item_categories)
        self.register_buffer(
            "item_categories", torch.zeros(sizes.items + 1, kinds, dtype=torch.int64)
        )

    @torch.no_grad()
    def read_catalogue(self, numbers: Tensor, categories: Tensor) -> None:
        """Take the columns of all items: (N + 1, I) float32 and (N + 1, K) int64."""
        self.get_buffer("item_numbers").copy_(numbers)
        self.get_buffer("item_categories").copy_(categories)

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
        states = self.users(users, numbers, categories)
        return score_items(states, *self._items(), candidates)

    def user_states(
        self,
        users: Tensor,
        tokens: Tensor | None = None,
        lengths: Tensor | None = None,
        numbers: Tensor | None = None,
        categories: Tensor | None = None,
    ) -> Tensor:
        """Return (B, C), the vector of each user."""
        return self.users(users, numbers, categories)  # type: ignore[no-any-return]

    def _items(self) -> tuple[Tensor, Tensor]:
        ids = self.get_buffer("item_ids")
        columns = (self.get_buffer("item_numbers"), self.get_buffer("item_categories"))
        vectors = self.items(ids, *columns)
        return vectors, (self.bias(vectors) + self.item_bias(ids))[:, 0]

    def item_vectors(self) -> Tensor:
        """Return (N + 1, C), the unknown item's first."""
        return self._items()[0]

    def item_biases(self) -> Tensor:
        """Return (N + 1,)."""
        return self._items()[1]
