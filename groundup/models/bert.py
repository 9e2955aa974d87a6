"""An encoder that sees the whole text: BERT, RoBERTa and DistilBERT are configurations of it.

Shape legend: B rows, T positions, C width, V vocabulary, O outputs, N boundaries, M scored
    positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from groundup.contracts.models import FromHuggingFace
from groundup.contracts.processors import LabelProcessor, Processor, TextProcessor
from groundup.core.errors import DataError, RecipeError
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.models.head_from_data import settle_head
from groundup.models.names.huggingface import bert as names
from groundup.models.names.huggingface import bert_tensors
from groundup.models.names.table import unknown_keys
from groundup.models.sizes_from_data import fit_vocabulary, require_vocabulary
from groundup.nn.attention import AttentionContext
from groundup.nn.encoder import MaskedHead, PostNormBlock, same_document
from groundup.nn.pooling import mean_state, within
from groundup.nn.transformer import BlockShape, check_heads, initialise_transformer

__all__ = ["BERT", "BERTConfig"]

_POOLED = {"head": ("auto", "labels", "none")}
# Of the tokens, those which the output layer of masked tokens is computed for.
_SCORED_SHARE = 0.15


@model("bert")
class BERTConfig(FromHuggingFace):
    """The shape of an encoder. The defaults are BERT-base, without the size of its vocabulary."""

    huggingface_model_types: ClassVar[tuple[str, ...]] = ("bert", "roberta", "distilbert")
    free_settings: ClassVar[tuple[str, ...]] = (
        "dropout",
        "context_length",
        "head",
        "pooling",
        "pooler",
        "outputs",
    )

    vocabulary_size: int = setting(0, "Tokens in the vocabulary; 0 takes the processor's", ge=0)
    context_length: int = setting(512, "The longest sequence, in tokens", ge=1)
    layers: int = setting(12, "Transformer blocks", ge=1)
    width: int = setting(768, "Channels of the residual stream", ge=1)
    heads: int = setting(12, "Attention heads", ge=1)
    mlp_width: int | None = setting(None, "Inner width of the MLP; null: 4 x width", ge=1)
    token_types: int = setting(
        2, "Kinds of tokens, as the first and second text of a pair; 0: none (DistilBERT)", ge=0
    )
    position_offset: int = setting(
        0, "Row of the first position in the table of positions; 2 in RoBERTa", ge=0
    )
    padding_id: int | None = setting(
        None,
        "The token that fills rows up: never seen, its vector stays; null: the processor's, if it"
        " has one",
        ge=0,
    )
    activation: Literal["gelu", "gelu_tanh"] = setting(
        "gelu", "Of the MLP and of the head of masked tokens"
    )
    norm_eps: float = setting(1e-12, "Added to the variance in every norm", gt=0)
    dropout: float = setting(
        0.1, "Share of embeddings, residual activations and pooled features dropped", ge=0, lt=1
    )
    init_std: float = setting(0.02, "Standard deviation of fresh weights", gt=0)
    head: Literal["auto", "masked", "labels", "tokens", "none"] = setting(
        "auto",
        "What is predicted: each masked token, labels of a text, labels of every token, or nothing"
        " (the states); auto: labels where the data has targets, else masked tokens",
    )
    pooling: Literal["first", "mean"] = setting(
        "first",
        "What a text's labels are read from: the first token's state, or the mean of all",
        applies_when=_POOLED,
    )
    pooler: Literal["tanh", "relu", "none"] = setting(
        "tanh",
        "Layer between that state and the labels: tanh in BERT and RoBERTa, relu in DistilBERT",
        applies_when=_POOLED,
    )
    outputs: int = setting(
        0,
        "Outputs; 0: as many as the data has classes or targets",
        ge=0,
        applies_when={"head": ("auto", "labels", "tokens")},
    )

    @model_validator(mode="after")
    def _shape_is_possible(self) -> BERTConfig:
        check_heads(self.width, self.heads)
        if self.padding_id is not None and 0 < self.vocabulary_size <= self.padding_id:
            raise ValueError(
                f"padding_id {self.padding_id} is no token of a vocabulary of"
                f" {self.vocabulary_size}. Use at most {self.vocabulary_size - 1}"
            )
        return self

    @property
    def hidden(self) -> int:
        """Inner width of the MLP."""
        return self.mlp_width or 4 * self.width

    @property
    def chosen_head(self) -> str:
        """The head, decided: with ``auto`` there are outputs where the data has targets."""
        if self.head != "auto":
            return self.head
        return "labels" if self.outputs else "masked"

    def block(self) -> BlockShape:
        """Return the shape of every block."""
        return BlockShape(
            self.width,
            self.heads,
            self.heads,
            self.width // self.heads,
            self.hidden,
            activation=self.activation,
            norm="layernorm",
            norm_eps=self.norm_eps,
            bias="all",
            dropout=self.dropout,
            causal=False,
        )

    def complete_from(self, processor: Processor) -> BERTConfig:
        """Return the config with vocabulary, padding, head and outputs where they were open.

        Raises:
            RecipeError: If the processor makes no tokens, has more of them, or longer texts; or if
                the head needs targets and there are none, or the other way round.
        """
        reader = processor.reader
        found: dict[str, Any] = {
            "vocabulary_size": fit_vocabulary("bert", reader, self.vocabulary_size)
        }
        if self.padding_id is None and isinstance(reader, TextProcessor):
            found["padding_id"] = reader.padding_id
        longest = processor.max_length if isinstance(processor, LabelProcessor) else 0
        # Learned positions end there.
        if longest > self.context_length:
            problem = f"is {self.context_length}, but the task reads up to {longest} tokens"
            remedy = f"Set task.max_tokens: {self.context_length}, or a longer context"
            raise RecipeError("recipe.model.context_length", problem, remedy)
        found |= settle_head(self.head, self.chosen_head, self.outputs, processor)
        return self.model_copy(update=found)

    def build(self) -> BERT:
        """Return the model with freshly initialised weights.

        Raises:
            RecipeError: If the size of the vocabulary or the number of outputs is still unknown.
        """
        require_vocabulary(self.vocabulary_size)
        if self.chosen_head in ("labels", "tokens") and not self.outputs:
            problem = "is 0, but no data has filled it in"
            raise RecipeError("recipe.model.outputs", problem, "Give the number")
        return BERT(self)

    def flops_per_token(self, context: int) -> float:
        """Return the FLOPs of forward and backward for one token of a text of ``context`` tokens.

        As of a GPT, with attention to all tokens. The head of labels is computed once a text, that
        of masked tokens for 15% of them. A run's rate is figured as if every text had
        ``context_length`` tokens.
        """
        width = self.width
        # As wide as the states.
        pooler = 0 if self.pooler == "none" else width
        heads = {
            "tokens": width * self.outputs,
            "masked": _SCORED_SHARE * width * (width + self.vocabulary_size),
            "labels": width * (self.outputs + pooler) / max(context, 1),
        }
        # Without a head nothing comes after the blocks.
        head = 6.0 * heads.get(self.chosen_head, 0)
        return self.layers * self.block().flops_per_token(context) + head

    def completed(self) -> dict[str, Any]:
        """Return all settings as plain values, those that follow from others filled in."""
        return self.model_dump() | {"mlp_width": self.hidden, "head": self.chosen_head}

    def to_huggingface(
        self, weights: Mapping[str, Tensor]
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return config.json's contents and the tensors as the family names them."""
        values = self.completed()
        return names.config_to_huggingface(values), bert_tensors.to_huggingface(weights, values)

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that the contents of config.json mean."""
        return names.config_to_groundup(config)

    @classmethod
    def settings_begun_again(
        cls, settings: Mapping[str, Any], given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the settings of the head, which the task of a run from pretrained weights
        decides."""
        return names.begin_head_again(settings, given)

    def unknown_keys(self, config: Mapping[str, Any]) -> list[str]:
        """Return the keys of config.json that nothing here reads."""
        return unknown_keys(config, names.KEYS)

    def weights_from_huggingface(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return this model's tensors from Hugging Face's, as ``bert_tensors.to_groundup``."""
        with torch.device("meta"):
            own = self.build().state_dict()
        return bert_tensors.to_groundup(tensors, self.completed(), own)

    @classmethod
    def sizes(cls) -> Mapping[str, BERTConfig]:
        """Return the named sizes: base and large of Devlin et al., 2018, the others of Turc et al.,
        2019."""
        return {
            name: cls(vocabulary_size=30522, layers=layers, width=width, heads=heads, padding_id=0)
            for name, (layers, width, heads) in _SIZES.items()
        }


# Layers, width and heads.
_SIZES = {
    "tiny": (2, 128, 2),
    "mini": (4, 256, 4),
    "small": (4, 512, 8),
    "medium": (8, 512, 8),
    "base": (12, 768, 12),
    "large": (24, 1024, 16),
}


class BERT(nn.Module):
    """The model of a ``BERTConfig``.

    Everything above the last block's states is called ``head`` or ``head_...``: fine-tuning for
    something else draws it again. ``head_pooler`` is BERT's pooler and the inner layer of RoBERTa's
    and DistilBERT's classifiers.

    Source:
        Devlin et al., BERT, 2018 (arXiv:1810.04805); Liu et al., RoBERTa, 2019 (arXiv:1907.11692);
        Sanh et al., DistilBERT, 2019 (arXiv:1910.01108).
        Departs from them: no dropout of attention weights; one share of dropout for all the rest.
    """

    def __init__(self, config: BERTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.embed = nn.Embedding(config.vocabulary_size, width, padding_idx=config.padding_id)
        self.positions = nn.Embedding(config.context_length + config.position_offset, width)
        self.embed_types: nn.Embedding | None = None
        if config.token_types:
            self.embed_types = nn.Embedding(config.token_types, width)
        self.embed_norm = nn.LayerNorm(width, config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(PostNormBlock(config.block()) for _ in range(config.layers))
        self.state_width = width
        self.head_pooler: nn.Linear | None = None
        if self.chosen_head in ("labels", "none") and config.pooler != "none":
            self.head_pooler = nn.Linear(width, width)
        self.head: nn.Module | None = None
        if self.chosen_head == "masked":
            self.head = MaskedHead(config.vocabulary_size, config.block())
        elif self.chosen_head != "none":
            self.head = nn.Linear(width, config.outputs)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw all weights again: matrices normal with ``init_std``, biases 0, norms 1, the
        padding's vector 0."""
        initialise_transformer(self, self.config.init_std)
        # PyTorch gives this row no gradient: it stays 0.
        if self.config.padding_id is not None:
            self.embed.weight[self.config.padding_id].zero_()

    @property
    def chosen_head(self) -> str:
        """Which head the model has."""
        return self.config.chosen_head

    def forward(
        self,
        tokens: Tensor,
        lengths: Tensor | None = None,
        token_types: Tensor | None = None,
        positions: Tensor | None = None,
        boundaries: Tensor | None = None,
        scored: Tensor | None = None,
    ) -> Tensor:
        """Return what the head makes of the states.

        Args:
            tokens: (B, T) int64.
            lengths: (B,) int64, what of each row is no padding, at least 1; default: up to the
                first ``padding_id``.
            token_types: (B, T) int64, 0 or which text of a pair a token belongs to; default 0.
            positions: (B, T) int64, within each document; default 0 .. T-1.
            boundaries: (N,) int32, starts of packed documents over the B*T tokens, rising from 0 to
                B*T, in place of ``lengths``. A token sees its own document only.
            scored: (B, T) booleans, for the head of masked tokens: only these positions are
                computed.

        Returns:
            Logits (B, T, V), or (M, V) of the scored positions, of masked tokens; (B, O) of labels,
            (B, T, O) of every token's; without a head the states (B, T, C). What is in the
            padding means nothing.

        Raises:
            DataError: If a sequence is longer than the table of positions.
        """
        if self.config.chosen_head == "labels":
            assert self.head is not None
            features = self.features(tokens, lengths, token_types)
            return self.head(self.dropout(features))  # type: ignore[no-any-return]
        x = self.states(tokens, lengths, token_types, positions, boundaries)
        if self.head is None:
            return x
        if not isinstance(self.head, MaskedHead):
            return self.head(self.dropout(x))  # type: ignore[no-any-return]
        if scored is not None:
            x = x[scored]
        return self.head(x, self.embed.weight)  # type: ignore[no-any-return]

    def features(
        self, tokens: Tensor, lengths: Tensor | None = None, token_types: Tensor | None = None
    ) -> Tensor:
        """Return one vector a text, (B, C): what labels are read from. Arguments as in
        ``forward``."""
        lengths = self._lengths(tokens, lengths)
        x = self.states(tokens, lengths, token_types)
        # The first token is one that the tokenizer adds for it: [CLS], <s>.
        first = self.config.pooling == "first"
        pooled = x[:, 0] if first else mean_state(x, within(lengths, x))
        if self.head_pooler is None:
            return pooled
        bend = torch.tanh if self.config.pooler == "tanh" else F.relu
        return bend(self.head_pooler(pooled))

    def states(
        self,
        tokens: Tensor,
        lengths: Tensor | None = None,
        token_types: Tensor | None = None,
        positions: Tensor | None = None,
        boundaries: Tensor | None = None,
    ) -> Tensor:
        """Return the last block's states, (B, T, C). Arguments as in ``forward``."""
        # Packed documents come with positions of their own.
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        # Otherwise the look-up would fail on the device, without saying where.
        longest = self.config.context_length
        if tokens.shape[1] > longest:
            problem = f"a sequence of {tokens.shape[1]}; positions end at {longest}"
            raise DataError("inputs", problem, "Cut the texts: task.max_tokens")
        x: Tensor = self.embed(tokens) + self.positions(positions + self.config.position_offset)
        if self.embed_types is not None:
            # A single text is the first text of a pair.
            if token_types is None:
                token_types = torch.zeros_like(tokens)
            x = x + self.embed_types(token_types)
        x = self.dropout(self.embed_norm(x))
        context = AttentionContext(mask=self._mask(tokens, lengths, boundaries))
        for block in self.blocks:
            x = block(x, context)
        return x

    def _lengths(self, tokens: Tensor, lengths: Tensor | None) -> Tensor | None:
        if lengths is not None or self.config.padding_id is None:
            return lengths
        # Up to the first padding; a text of padding alone still has one token, to attend to.
        counted: Tensor = (tokens != self.config.padding_id).cumprod(1).sum(1)
        return counted.clamp(min=1)

    def _mask(
        self, tokens: Tensor, lengths: Tensor | None, boundaries: Tensor | None
    ) -> Tensor | None:
        """Return what each token sees, (B, 1, T or 1, T), or None where it sees all."""
        if boundaries is not None:
            return same_document(tokens, boundaries)
        lengths = self._lengths(tokens, lengths)
        if lengths is None:
            return None
        return within(lengths, tokens)[:, None, None]
