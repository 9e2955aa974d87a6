"""Phi-3: a Llama of which a part of each head may be rotary, stretched to long texts by factors for
each channel.

Shape legend: B rows, T positions, C width, V vocabulary, N boundaries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from groundup.core.contracts.models import (
    FromGGUF,
    FromHuggingFace,
    GGUFContents,
)
from groundup.core.contracts.processors import Processor
from groundup.core.errors import CheckpointError
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.models.gpt import Block, GPTConfig
from groundup.models.names.gguf import phi3 as gguf_names
from groundup.models.names.gguf.metadata import embedding_rows_in, lengthen
from groundup.models.names.huggingface import phi3
from groundup.models.sizes_from_data import fitted_vocabulary, require_vocabulary
from groundup.nn.attention import Where, seen_on_average, token_positions, whereabouts
from groundup.nn.kv_cache import KeyValueCache
from groundup.nn.loss import linear_cross_entropy, linear_cross_entropy_sum, linear_log_probs
from groundup.nn.norm import RMSNorm
from groundup.nn.rope import LongRope, long_rotary_angles, rotary_angles

__all__ = ["Phi3", "Phi3Config"]


@model("phi3")
class Phi3Config(FromHuggingFace, FromGGUF):
    """The shape of a Phi-3, Phi-3.5 or Phi-4. The defaults have about 15 million parameters."""

    huggingface_model_types: ClassVar[tuple[str, ...]] = ("phi3",)
    gguf_architectures: ClassVar[tuple[str, ...]] = ("phi3",)

    vocabulary_size: int = setting(0, "Tokens in the vocabulary; 0 takes the processor's", ge=0)
    context_length: int = setting(256, "The longest sequence, in tokens", ge=1)
    layers: int = setting(6, "Transformer blocks", ge=1)
    width: int = setting(384, "Channels of the residual stream", ge=1)
    heads: int = setting(6, "Attention heads, each of width / heads channels", ge=1)
    kv_heads: int | None = setting(
        None, "Key and value heads, shared by groups of heads; null: as many as heads", ge=1
    )
    mlp_width: int = setting(1024, "Inner width of the MLP", ge=1)
    rope_theta: float = setting(10000.0, "Base of the rotary wavelengths", gt=1)
    rotary_share: float = setting(
        1.0, "Share of each head's channels that is rotary, from the first", gt=0, le=1
    )
    long_rope: LongRope | None = setting(
        None, "How the rotary wavelengths were stretched; null: not"
    )
    norm_eps: float = setting(1e-5, "Added to the variance in every norm", gt=0)
    sliding_window: int | None = setting(
        None, "How many tokens a token sees, itself included; null: all", ge=1
    )
    tied_embeddings: bool = setting(False, "Use the embedding as the output layer too")
    dropout: float = setting(
        0.0, "Share of embedding and residual activations dropped in training", ge=0, lt=1
    )
    init_std: float = setting(0.02, "Standard deviation of fresh weights", gt=0)

    @model_validator(mode="after")
    def _shape_is_possible(self) -> Phi3Config:
        self.block()  # which checks the heads
        if self.rotary_channels % 2 or not self.rotary_channels:
            problem = (
                f"rotary_share {self.rotary_share} makes {self.rotary_channels} of {self.dim}"
                " channels rotary"
            )
            raise ValueError(
                f"{problem}, and they turn in pairs. Change it so that their number is even"
            )
        pairs = self.rotary_channels // 2
        for name in ("short_factors", "long_factors") if self.long_rope is not None else ():
            factors = getattr(self.long_rope, name)
            if len(factors) != pairs or min(factors, default=1.0) <= 0:
                problem = (
                    f"long_rope.{name} has {len(factors)} numbers, the smallest"
                    f" {min(factors, default=None)}"
                )
                raise ValueError(
                    f"{problem}. Give one above 0 for each of the {pairs} pairs of rotary channels"
                )
        return self

    @property
    def dim(self) -> int:
        """Channels of a head."""
        return self.width // self.heads

    @property
    def groups(self) -> int:
        """Key and value heads."""
        return self.kv_heads or self.heads

    @property
    def rotary_channels(self) -> int:
        """Channels of a head that turn."""
        return int(self.dim * self.rotary_share)

    def block(self) -> GPTConfig:
        """Return the settings of the blocks: Llama's."""
        names = ("layers", "width", "heads", "mlp_width", "norm_eps", "sliding_window", "dropout")
        same = {name: getattr(self, name) for name in names}
        return GPTConfig(kv_heads=self.groups, **same)

    @property
    def embedding_rows(self) -> int:
        """Rows of the embedding: the vocabulary."""
        return self.vocabulary_size

    def complete_from(self, processor: Processor) -> Phi3Config:
        """Return the config with the processor's vocabulary size where it was 0.

        Raises:
            RecipeError: If the processor has more tokens than the model, or is no tokenizer.
        """
        found = fitted_vocabulary("phi3", processor, self.vocabulary_size)
        return self.model_copy(update={"vocabulary_size": found})

    def build(self) -> Phi3:
        """Return the model with freshly initialised weights.

        Raises:
            RecipeError: If the vocabulary's size is still unknown.
        """
        require_vocabulary(self.vocabulary_size)
        return Phi3(self)

    def flops_per_token(self, context: int) -> float:
        """Return the FLOPs of forward and backward for one token; see
        ``GPTConfig.flops_per_token``."""
        weights = (
            2 * self.width * self.dim * (self.heads + self.groups) + 3 * self.width * self.mlp_width
        )
        seen = seen_on_average(context, self.sliding_window)
        attention = 12.0 * self.layers * self.width * seen
        return 6.0 * (self.layers * weights + self.width * self.vocabulary_size) + attention

    def completed(self) -> dict[str, Any]:
        """Return all settings as plain values, those that follow from others filled in."""
        return self.model_dump() | {"kv_heads": self.groups}

    def to_huggingface(
        self, weights: Mapping[str, Tensor]
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return config.json's contents and the tensors as Phi-3 names them."""
        values = self.completed()
        return phi3.config_to_huggingface(values), phi3.to_huggingface(weights, values)

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that the contents of config.json stand for.

        Raises:
            CheckpointError: If it is of another family, or has a part that is not built here.
        """
        return phi3.config_to_groundup(config)

    @classmethod
    def from_gguf(cls, file: GGUFContents) -> dict[str, Any]:
        """Return the settings that an open GGUF file is of, or raise a CheckpointError."""
        return gguf_names.config_to_groundup(file, embedding_rows_in(file))

    def gguf_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor that a file must have, by the file's names."""
        return gguf_names.shapes(self.completed())

    def weights_from_gguf(
        self, tensors: Mapping[str, Tensor], architecture: str
    ) -> dict[str, Tensor]:
        """Return groundup's tensors from a file's; CheckpointError: one has no place."""
        return gguf_names.to_groundup(tensors, self.completed(), self._own_tensors())

    def to_gguf(self, weights: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the metadata and the tensors as a GGUF file names them.

        Raises:
            CheckpointError: If llama.cpp has no architecture that computes the same.
        """
        values = self.completed()
        metadata = gguf_names.config_to_gguf(values)
        return metadata, gguf_names.to_gguf(weights, values)

    def for_llama_cpp(self, room: int) -> Phi3Config:
        """Return the settings that llama.cpp decodes with, with room for more tokens."""
        if self.long_rope is not None:
            problem = (
                "long_rope takes its wavelengths by the length of a text, and llama.cpp by the room"
                " that it is given"
            )
            raise CheckpointError("model", problem, "Use the engine groundup")
        return lengthen(self, self.context_length, self.sliding_window, room)

    def llama_cpp_context(self, length: int) -> int:
        """Return the longest context of at most ``length`` in which llama.cpp computes the same."""
        # By its length llama.cpp chooses between the short and the long factors, and it rounds the
        # length up to a multiple of 256.
        longest = length if self.long_rope is None else self.long_rope.original_context // 256 * 256
        return min(self.context_length, length, longest)

    def weights_from_huggingface(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return this model's tensors from theirs; each is used once and none is left over.

        Raises:
            CheckpointError: If one is missing, has no place, or has another shape.
        """
        return phi3.to_groundup(tensors, self.completed(), self._own_tensors())

    def _own_tensors(self) -> dict[str, Tensor]:
        """Return tensors of all names and shapes of the model, without content."""
        with torch.device("meta"):
            return self.build().state_dict()

    @classmethod
    def sizes(cls) -> Mapping[str, Phi3Config]:
        """Return the named sizes.

        Source:
            Abdin et al., Phi-3, 2024 (arXiv:2404.14219), section 2, and the config.json that came
            with the weights.
        """
        shape: dict[str, Any] = {
            "layers": 32,
            "width": 3072,
            "heads": 32,
            "mlp_width": 8192,
            "sliding_window": 2047,
        }
        return {"phi3-mini-4k": cls(**shape, vocabulary_size=32064, context_length=4096)}


class Phi3(nn.Module):
    """The model of a ``Phi3Config``.

    Source:
        Abdin et al., 2024 (arXiv:2404.14219), section 2. Departs from the published weights in
        keeping queries, keys and values apart, and the two inputs of the MLP, which compute the
        same.
    """

    def __init__(self, config: Phi3Config) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocabulary_size, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config.block()) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)
        tied = config.tied_embeddings
        self.head = None if tied else nn.Linear(config.width, config.vocabulary_size, bias=False)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw all weights anew: normal with ``init_std``; where a layer adds to the residual, over
        sqrt(2 layers)."""
        std, depth = self.config.init_std, math.sqrt(2 * self.config.layers)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                residual = name.endswith(("attention.output.weight", "mlp.down.weight"))
                nn.init.normal_(parameter, std=std / depth if residual else std)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        boundaries: Tensor | None = None,
        targets: Tensor | None = None,
        cache: KeyValueCache | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Predict the next token at every position. Arguments and result as of ``GPT.forward``."""
        x = self.hidden(tokens, positions, boundaries, cache)
        if targets is not None:
            return linear_cross_entropy_sum(x.flatten(0, 1), self.output_weight, targets.flatten())
        return F.linear(x[:, -1:] if last_only else x, self.output_weight)

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        boundaries: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Return what the output layer reads, (B, T, C). Arguments as in ``forward``."""
        where = self._where(tokens, positions, boundaries, cache)
        x = self.dropout(self.embed(tokens))
        for index, block in enumerate(self.blocks):
            # Decoding calls ``forward`` past nn.Module.compile: its shapes change at every step.
            x = block(x, where) if cache is None else block.forward(x, where, cache.layers[index])
        return self.norm(x)  # type: ignore[no-any-return]

    def token_losses(
        self,
        tokens: Tensor,
        targets: Tensor,
        positions: Tensor | None = None,
        boundaries: Tensor | None = None,
    ) -> Tensor:
        """Return -log p in nats of each target, (B, T), 0 where it is -100. For evaluation: no
        gradient."""
        with torch.no_grad():
            x = self.hidden(tokens, positions, boundaries).flatten(0, 1)
        return linear_cross_entropy(x, self.output_weight, targets.flatten()).view_as(targets)

    def logits_from(self, hidden: Tensor) -> Tensor:
        """Return logits (..., V) from hidden states (..., C)."""
        return F.linear(hidden, self.output_weight)

    def log_probs_from(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return log p in nats of targets (M,) from hidden states (M, C)."""
        return linear_log_probs(hidden, self.output_weight, targets)

    def new_cache(self, batch: int, length: int) -> KeyValueCache:
        """Return an empty cache for ``batch`` rows of at most ``length`` tokens."""
        config, like = self.config, self.output_weight
        return KeyValueCache(
            config.layers, (batch, config.groups, length, config.dim), like.dtype, like.device
        )

    @property
    def output_weight(self) -> Tensor:
        """The output layer's weight, (V, C)."""
        return self.embed.weight if self.head is None else self.head.weight

    def _where(
        self,
        tokens: Tensor,
        positions: Tensor | None,
        boundaries: Tensor | None,
        cache: KeyValueCache | None,
    ) -> Where:
        config, wide = self.config, self.embed.weight.dtype == torch.float64
        positions = token_positions(tokens, positions, boundaries, cache)
        channels, theta = config.rotary_channels, config.rope_theta
        if config.long_rope is None:
            rotary = rotary_angles(positions, channels, theta, wide=wide)
        else:
            lengths = _lengths(positions.expand_as(tokens), boundaries, cache)
            rotary = long_rotary_angles(
                positions, lengths, channels, theta, config.long_rope, wide=wide
            )
        return whereabouts(positions, rotary, boundaries, cache, config.sliding_window)


def _lengths(
    positions: Tensor, boundaries: Tensor | None, cache: KeyValueCache | None
) -> Tensor | int:
    """Return how long the text is that each token at positions (B, T) stands in: (B, T), (B, 1), or
    one number.

    With a cache, whose keys are turned already, it is what the cache has room for, so that all keys
    of a text are turned alike. ``transformers`` turns the keys anew once a text outgrows the
    original context.
    """
    if cache is not None:
        return cache.length
    if boundaries is None:
        return positions[:, -1:] + 1
    flat = positions.flatten()
    number = torch.searchsorted(
        boundaries, torch.arange(len(flat), device=flat.device, dtype=torch.int32), right=True
    )
    return (flat[boundaries[number] - 1] + 1).view_as(positions)
