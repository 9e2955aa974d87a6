"""Gemma 3: layers that see a window of the text between layers that see all of it, each with its
own rotary base.

Read from top to bottom: the settings, a block, the model.

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
from groundup.core.contracts.processors import Processor, TextProcessor
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.models.names.gguf import gemma as gguf_names
from groundup.models.names.gguf.metadata import embedding_rows_in, lengthen
from groundup.models.names.huggingface import gemma
from groundup.models.sizes_from_data import fitted_vocabulary, require_vocabulary
from groundup.nn.attention import (
    Attention,
    AttentionShape,
    Where,
    seen_on_average,
    token_positions,
    whereabouts,
)
from groundup.nn.kv_cache import KeyValueCache, LayerCache
from groundup.nn.loss import (
    linear_cross_entropy,
    linear_cross_entropy_sum,
    linear_log_probs,
    softcapped,
)
from groundup.nn.mlp import MLP
from groundup.nn.norm import ShiftedRMSNorm
from groundup.nn.rope import RopeScaling, rotary_angles

__all__ = ["Gemma3", "Gemma3Block", "Gemma3Config"]

_PICTURE = (  # the tokenizer of published models ends with it; text-only ones have no row for it
    "<image_soft_token>"
)


@model("gemma3")
class Gemma3Config(FromHuggingFace, FromGGUF):
    """The shape of a Gemma 3 that reads text. The defaults have about 13 million parameters."""

    huggingface_model_types: ClassVar[tuple[str, ...]] = ("gemma3", "gemma3_text")
    gguf_architectures: ClassVar[tuple[str, ...]] = ("gemma3",)
    gelu_from_table: ClassVar[bool] = True

    vocabulary_size: int = setting(0, "Tokens in the vocabulary; 0 takes the processor's", ge=0)
    context_length: int = setting(256, "The longest sequence, in tokens", ge=1)
    layers: int = setting(6, "Transformer blocks", ge=1)
    width: int = setting(384, "Channels of the residual stream", ge=1)
    heads: int = setting(4, "Attention heads", ge=1)
    kv_heads: int = setting(1, "Key and value heads, shared by groups of heads", ge=1)
    head_dim: int = setting(96, "Channels of a head, even", ge=2, multiple_of=2)
    mlp_width: int = setting(1152, "Inner width of the MLP", ge=1)
    sliding_window: int = setting(
        128, "How many tokens a token sees in local layers, itself included", ge=1
    )
    global_every: int = setting(
        6, "Each so-many-th layer is global: it sees all tokens; the others are local", ge=1
    )
    rope_theta: float = setting(1e6, "Base of the rotary wavelengths of global layers", gt=1)
    local_rope_theta: float = setting(1e4, "Base of the rotary wavelengths of local layers", gt=1)
    rope_scaling: RopeScaling | None = setting(
        None, "How the rotary wavelengths of global layers were stretched; null: not"
    )
    attention_scale: float | None = setting(
        None, "Products of queries and keys are divided by the root of it; null: head_dim", gt=0
    )
    logit_cap: float | None = setting(
        None, "Bends logits to stay between minus and plus this; null: not", gt=0
    )
    norm_eps: float = setting(1e-6, "Added to the variance in every norm", gt=0)
    dropout: float = setting(
        0.0, "Share of embedding and residual activations dropped in training", ge=0, lt=1
    )
    init_std: float = setting(0.02, "Standard deviation of fresh weights", gt=0)

    @model_validator(mode="after")
    def _shape_is_possible(self) -> Gemma3Config:
        if self.heads % self.kv_heads:
            nearest = max(n for n in range(1, self.kv_heads + 1) if self.heads % n == 0)
            raise ValueError(
                f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}."
                f" Use kv_heads {nearest} or change heads"
            )
        return self

    def window(self, layer: int) -> int | None:
        """Return how many tokens a token sees in a layer, counted from 0; None for all."""
        return None if (layer + 1) % self.global_every == 0 else self.sliding_window

    @property
    def embedding_rows(self) -> int:
        """Rows of the embedding: the vocabulary."""
        return self.vocabulary_size

    def complete_from(self, processor: Processor) -> Gemma3Config:
        """Return the config with the processor's vocabulary size where it was 0.

        Raises:
            RecipeError: If the processor has more tokens than the model, or is no tokenizer.
        """
        picture = processor.special_id(_PICTURE) if isinstance(processor, TextProcessor) else None
        if picture is not None and picture == self.vocabulary_size == processor.vocabulary_size - 1:
            return self
        found = fitted_vocabulary("gemma3", processor, self.vocabulary_size)
        return self.model_copy(update={"vocabulary_size": found})

    def build(self) -> Gemma3:
        """Return the model with freshly initialised weights.

        Raises:
            RecipeError: If the vocabulary's size is still unknown.
        """
        require_vocabulary(self.vocabulary_size)
        return Gemma3(self)

    def flops_per_token(self, context: int) -> float:
        """Return the FLOPs of forward and backward for one token; see
        ``GPTConfig.flops_per_token``."""
        weights = (
            2 * self.width * self.head_dim * (self.heads + self.kv_heads)
            + 3 * self.width * self.mlp_width
        )
        seen = sum(seen_on_average(context, self.window(layer)) for layer in range(self.layers))
        attention = 12.0 * self.heads * self.head_dim * seen
        return 6.0 * (self.layers * weights + self.width * self.vocabulary_size) + attention

    def completed(self) -> dict[str, Any]:
        """Return all settings as plain values, those that follow from others filled in."""
        return self.model_dump() | {"attention_scale": self.attention_scale or float(self.head_dim)}

    def to_huggingface(
        self, weights: Mapping[str, Tensor]
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return config.json's contents and the tensors as Gemma 3 names them."""
        values = self.completed()
        return gemma.config_to_huggingface(values), gemma.to_huggingface(weights, values)

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that the contents of config.json stand for.

        Raises:
            CheckpointError: If it is of another family, or has a part that is not built here.
        """
        return gemma.config_to_groundup(config)

    @classmethod
    def from_gguf(cls, file: GGUFContents) -> dict[str, Any]:
        """Return the settings that an open GGUF file is of, or raise a CheckpointError."""
        return gguf_names.config_to_groundup(file.metadata, file.tensors, embedding_rows_in(file))

    def gguf_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor that a file must have, by the file's names."""
        return gguf_names.shapes(self.completed())

    def weights_from_gguf(
        self, tensors: Mapping[str, Tensor], architecture: str
    ) -> dict[str, Tensor]:
        """Return groundup's tensors from a file's; CheckpointError: one has no place."""
        return gguf_names.to_groundup(tensors, self.completed())

    def to_gguf(self, weights: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the metadata and the tensors as a GGUF file names them.

        Raises:
            CheckpointError: If llama.cpp has no architecture that computes the same.
        """
        values = self.completed()
        metadata = gguf_names.config_to_gguf(values)
        return metadata, gguf_names.to_gguf(weights, values)

    def for_llama_cpp(self, room: int) -> Gemma3Config:
        """Return the settings that llama.cpp decodes with, with room for more tokens."""
        return lengthen(self, self.context_length, self.sliding_window, room)

    def llama_cpp_context(self, length: int) -> int:
        """Return the longest context of at most ``length`` in which llama.cpp computes the same."""
        return min(self.context_length, length)

    def weights_from_huggingface(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return this model's tensors from theirs; each is used once and none is left over.

        Raises:
            CheckpointError: If one is missing, has no place, or has another shape.
        """
        with torch.device("meta"):
            own = self.build().state_dict()
        return gemma.to_groundup(tensors, self.completed(), own)

    @classmethod
    def sizes(cls) -> Mapping[str, Gemma3Config]:
        """Return the named sizes.

        Source:
            Gemma Team, Gemma 3, 2025 (arXiv:2503.19786), tables 1 and 2, and the config.json that
            came with the weights.
        """
        small: dict[str, Any] = {
            "vocabulary_size": 262144,
            "context_length": 32768,
            "sliding_window": 512,
            "head_dim": 256,
        }
        return {
            "gemma3-270m": cls(**small, layers=18, width=640, mlp_width=2048),
            "gemma3-1b": cls(**small, layers=26, width=1152, mlp_width=6912),
        }


class Gemma3Block(nn.Module):
    """Attention, then the MLP, each on a normalised input, normalised again, and added to the
    residual stream."""

    def __init__(self, config: Gemma3Config, layer: int) -> None:
        super().__init__()
        shape = AttentionShape(
            *(config.width, config.heads, config.kv_heads, config.head_dim),
            qk_norm_eps=config.norm_eps,
            qk_norm=ShiftedRMSNorm,
            scale=None if config.attention_scale is None else config.attention_scale**-0.5,
            window=config.window(layer),
        )
        self.attention_norm = ShiftedRMSNorm(config.width, config.norm_eps)
        self.attention = Attention(shape)
        self.attention_out_norm = ShiftedRMSNorm(config.width, config.norm_eps)
        self.mlp_norm = ShiftedRMSNorm(config.width, config.norm_eps)
        self.mlp = MLP(config.width, config.mlp_width, "geglu_tanh", bias=False)
        self.mlp_out_norm = ShiftedRMSNorm(config.width, config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, where: Where, cache: LayerCache | None = None) -> Tensor:
        """Return (B, T, C) from x (B, T, C)."""
        attended = self.attention(self.attention_norm(x), where, cache)
        x = x + self.dropout(self.attention_out_norm(attended))
        return x + self.dropout(self.mlp_out_norm(self.mlp(self.mlp_norm(x))))  # type: ignore[no-any-return]


class Gemma3(nn.Module):
    """The model of a ``Gemma3Config``.

    Source:
        Gemma Team, Gemma 3, 2025 (arXiv:2503.19786), section 2; norms before and after each part,
        and the cap on logits, which published Gemma 3 models do without: Gemma 2, 2024
        (arXiv:2408.00118), section 2.
    """

    def __init__(self, config: Gemma3Config) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocabulary_size, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Gemma3Block(config, layer) for layer in range(config.layers))
        self.norm = ShiftedRMSNorm(config.width, config.norm_eps)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw all matrices anew: normal with ``init_std``; norms begin with a factor of 1, which
        is a weight of 0."""
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=self.config.init_std)
            else:
                nn.init.zeros_(parameter)

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
        x, cap = self.hidden(tokens, positions, boundaries, cache), self.config.logit_cap
        if targets is not None:
            return linear_cross_entropy_sum(
                x.flatten(0, 1), self.output_weight, targets.flatten(), cap
            )
        return softcapped(F.linear(x[:, -1:] if last_only else x, self.output_weight), cap)

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        boundaries: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Return what the output layer reads, (B, T, C). Arguments as in ``forward``."""
        everything, near = self._where(tokens, positions, boundaries, cache)
        x = self.dropout(self.embed(tokens) * math.sqrt(self.config.width))
        for layer, block in enumerate(self.blocks):
            where = everything if self.config.window(layer) is None else near
            # Decoding calls ``forward`` past nn.Module.compile: its shapes change at every step.
            x = block(x, where) if cache is None else block.forward(x, where, cache.layers[layer])
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
        losses = linear_cross_entropy(
            x, self.output_weight, targets.flatten(), self.config.logit_cap
        )
        return losses.view_as(targets)

    def logits_from(self, hidden: Tensor) -> Tensor:
        """Return logits (..., V) from hidden states (..., C)."""
        return softcapped(F.linear(hidden, self.output_weight), self.config.logit_cap)

    def log_probs_from(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return log p in nats of targets (M,) from hidden states (M, C)."""
        return linear_log_probs(hidden, self.output_weight, targets, self.config.logit_cap)

    def new_cache(self, batch: int, length: int) -> KeyValueCache:
        """Return an empty cache for ``batch`` rows of at most ``length`` tokens."""
        config, like = self.config, self.output_weight
        return KeyValueCache(
            config.layers,
            (batch, config.kv_heads, length, config.head_dim),
            like.dtype,
            like.device,
        )

    @property
    def output_weight(self) -> Tensor:
        """The output layer's weight, (V, C): the embedding's."""
        return self.embed.weight

    def _where(
        self,
        tokens: Tensor,
        positions: Tensor | None,
        boundaries: Tensor | None,
        cache: KeyValueCache | None,
    ) -> tuple[Where, Where]:
        """Return where the tokens stand for global layers, and for local ones."""
        config, wide = self.config, self.embed.weight.dtype == torch.float64
        positions = token_positions(tokens, positions, boundaries, cache)
        far = rotary_angles(
            positions, config.head_dim, config.rope_theta, config.rope_scaling, wide=wide
        )
        near = rotary_angles(positions, config.head_dim, config.local_rope_theta, wide=wide)
        return (
            whereabouts(positions, far, boundaries, cache, None),
            whereabouts(positions, near, boundaries, cache, config.sliding_window),
        )
