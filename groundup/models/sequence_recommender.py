"""A transformer over the items of a history: what comes next (causal), or what is hidden within it
(masked).

Shape legend: B rows, T positions, N items, M candidates, C width.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from groundup.contracts.models import ModelConfig
from groundup.contracts.processors import Processor
from groundup.contracts.recommendation import score_items
from groundup.core.errors import DataError
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.models.sizes_of_catalogue import require_catalogue, settle_catalogue
from groundup.nn.attention import AttentionContext
from groundup.nn.encoder import PostNormBlock
from groundup.nn.pooling import within
from groundup.nn.transformer import Block, BlockShape, check_heads, initialise_transformer

__all__ = ["SequenceRecommender", "SequenceRecommenderConfig"]

_SCALE = 10.0  # what cosines are multiplied with at first


@model("sequence_recommender")
class SequenceRecommenderConfig(ModelConfig):
    """Blocks of a GPT that read a history from left to right, or of a BERT that see all of it."""

    decided_by_data: ClassVar[tuple[str, ...]] = ("items", "context_length")

    attention: Literal["causal", "masked"] = setting(
        "causal",
        "causal: each position sees what was before, as in SASRec; masked: all but what is hidden,"
        " as in BERT4Rec; it needs task.hidden_share",
    )
    layers: int = setting(2, "Transformer blocks", ge=1)
    width: int = setting(64, "Channels of the residual stream", ge=1)
    heads: int = setting(2, "Attention heads", ge=1)
    mlp_width: int | None = setting(None, "Inner width of the MLP; null: 4 x width", ge=1)
    dropout: float = setting(0.2, "Share of embeddings and activations dropped", ge=0, lt=1)
    positions: Literal["learned", "distance"] = setting(
        "learned",
        "learned: a vector for each place of a history; distance: each head looks less at what is"
        " longer ago, by a slope that is learned",
    )
    scores: Literal["product", "cosine"] = setting(
        "product",
        "product: of state and item; cosine: of their directions alone, times a number that is"
        " learned",
    )
    tied_embeddings: bool = setting(True, "Use an item's vector to read it and to score it")
    init_std: float = setting(0.02, "Standard deviation of fresh weights", gt=0)
    items: int = setting(0, "Items; 0: as many as the data has", ge=0)
    context_length: int = setting(0, "The longest history, in items; 0: as task.max_history", ge=0)

    @model_validator(mode="after")
    def _shape_is_possible(self) -> SequenceRecommenderConfig:
        check_heads(self.width, self.heads)
        return self

    def complete_from(self, processor: Processor) -> SequenceRecommenderConfig:
        """Return the config with the data's sizes where they were 0.

        Raises:
            RecipeError: If the processor knows no items, or others than the recipe says.
        """
        sizes = settle_catalogue("sequence_recommender", processor, self.items)
        context = self.context_length or sizes.max_history
        return self.model_copy(update={"items": sizes.items, "context_length": context})

    def block(self) -> BlockShape:
        """Return the shape of every block."""
        return BlockShape(
            self.width,
            self.heads,
            self.heads,
            self.width // self.heads,
            self.mlp_width or 4 * self.width,
            activation="gelu",
            norm="layernorm",
            norm_eps=1e-6,
            bias="all",
            dropout=self.dropout,
            causal=self.attention == "causal",
        )

    def build(self) -> SequenceRecommender:
        """Return the model with freshly initialised weights.

        Raises:
            RecipeError: If a size is still unknown.
        """
        require_catalogue(self.items)
        require_catalogue(self.context_length)
        return SequenceRecommender(self)

    @property
    def rows_vary(self) -> bool:
        """Rows are as long as their histories."""
        return True


class SequenceRecommender(nn.Module):
    """The model of a ``SequenceRecommenderConfig``.

    Source:
        Kang and McAuley, SASRec, 2018 (arXiv:1808.09781); Sun et al., BERT4Rec, 2019
        (arXiv:1904.06690). Departs from them: a bias for each item; the end of a history is its
        last position, and a learned start stands before its first item; GELU. Distances: Press et
        al., ALiBi, 2021 (arXiv:2108.12409), section 3, departing from it: slopes are learned, and
        begin at 1/2, 1/4 ... whatever the number of heads.
    """

    places_untrained_items = False
    reads_order = True

    def __init__(self, config: SequenceRecommenderConfig) -> None:
        super().__init__()
        self.config = config
        self.hides_items = config.attention == "masked"
        width = config.width
        # The first row stands for the start, the one behind the last item for what is hidden.
        rows = config.items + 1 + self.hides_items
        self.embed = nn.Embedding(rows, width)
        self.positions: nn.Embedding | None = None
        if config.positions == "learned":
            self.positions = nn.Embedding(config.context_length, width)
        self.dropout = nn.Dropout(config.dropout)
        # As published: BERT4Rec normalises behind each layer, SASRec before.
        kind = PostNormBlock if self.hides_items else Block
        self.blocks = nn.ModuleList(kind(config.block()) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.head: nn.Embedding | None = None
        if not config.tied_embeddings:
            self.head = nn.Embedding(config.items + 1, width)
        self.head_bias = nn.Parameter(torch.zeros(config.items + 1))
        initialise_transformer(self, config.init_std, config.layers)
        self.log_slopes: nn.Parameter | None = None
        if config.positions == "distance":
            # As logarithms: no head may come to prefer what is longest ago.
            steps = torch.arange(1.0, config.heads + 1)
            self.log_slopes = nn.Parameter(-steps * math.log(2.0))
        self.log_scale: nn.Parameter | None = None
        if config.scores == "cosine":
            self.log_scale = nn.Parameter(torch.tensor(math.log(_SCALE)))

    def forward(
        self,
        users: Tensor,
        tokens: Tensor,
        lengths: Tensor,
        numbers: Tensor | None = None,
        categories: Tensor | None = None,
        candidates: Tensor | None = None,
    ) -> Tensor:
        """Return scores at each position, (B, T, N + 1), or (B, T, M) of candidates; arguments as
        of ``Recommender``. What is in the padding means nothing.

        Raises:
            DataError: If a history is longer than the table of positions.
        """
        states = self.states(tokens, lengths)
        return score_items(states, self.item_vectors(), self.item_biases(), candidates)

    def states(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return what items are scored by, (B, T, C)."""
        longest = self.config.context_length
        if tokens.shape[1] > longest:
            problem = f"a history of {tokens.shape[1]} items; positions end at {longest}"
            raise DataError("inputs", problem, f"Set task.max_history: {longest}")
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.embed(tokens)
        if self.positions is not None:
            x = x + self.positions(places)
        x = self.dropout(x)
        context = AttentionContext(mask=self._mask(tokens, lengths, places))
        for block in self.blocks:
            x = block(x, context)
        x = self.norm(x)
        if self.log_scale is not None:
            x = F.normalize(x, dim=-1) * self.log_scale.exp()
        return x  # type: ignore[no-any-return]

    def _mask(self, tokens: Tensor, lengths: Tensor, places: Tensor) -> Tensor | None:
        """Return what each position sees, (B or 1, 1 or H, 1 or T, T), or what is added there."""
        # In causal blocks padding is behind the last item, which never sees it.
        inside = within(lengths, tokens)[:, None, None] if self.hides_items else None
        if self.log_slopes is None:
            return inside
        distance = places[:, None] - places
        bias = -self.log_slopes.exp()[:, None, None] * distance.abs()
        if inside is None:
            inside = (distance >= 0)[None, None]
        return bias[None].masked_fill(~inside, -torch.inf)

    def user_states(
        self,
        users: Tensor,
        tokens: Tensor,
        lengths: Tensor,
        numbers: Tensor | None = None,
        categories: Tensor | None = None,
    ) -> Tensor:
        """Return (B, C), the state at the end of each history."""
        states = self.states(tokens, lengths)
        return states[torch.arange(len(tokens), device=tokens.device), lengths - 1]

    def item_vectors(self) -> Tensor:
        """Return (N + 1, C), the unknown item's first."""
        vectors = self.embed.weight[: self.config.items + 1]
        if self.head is not None:
            vectors = self.head.weight
        # The length of a vector says how popular its item is; with cosines the bias alone does.
        return vectors if self.log_scale is None else F.normalize(vectors, dim=-1)

    def item_biases(self) -> Tensor:
        """Return (N + 1,)."""
        return self.head_bias
