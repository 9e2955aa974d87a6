"""Gemma 3: layers that see a window of the text between layers that see all of it, each with its
own rotary base.

Read from top to bottom: the settings, and how the model is put together for them; a block.

Shape legend: B rows, T positions, C width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import model_validator
from torch import Tensor, nn

from groundup.contracts.models import GGUFContents
from groundup.contracts.processors import Processor, TextProcessor
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.models.decoder_config import DecoderConfig, GGUFNames, HuggingFaceNames
from groundup.models.names.gguf import gemma as gguf_names
from groundup.models.names.gguf.metadata import embedding_rows_in
from groundup.models.names.huggingface import gemma
from groundup.models.sizes_from_data import require_vocabulary
from groundup.nn.attention import (
    Attention,
    AttentionContext,
    AttentionShape,
    Passage,
    seen_on_average,
)
from groundup.nn.kv_cache import LayerCache
from groundup.nn.mlp import MLP
from groundup.nn.norm import ShiftedRMSNorm
from groundup.nn.rope import RopeScaling, text_outgrown
from groundup.nn.transformer import BlockShape, DecoderLM, DecoderParts, check_heads

__all__ = ["Gemma3Block", "Gemma3Config"]

# The tokenizer of published models ends with it; those that read only text have no row for it.
_IMAGE_TOKEN = "<image_soft_token>"


@model("gemma3")
class Gemma3Config(DecoderConfig):
    """The shape of a Gemma 3 that reads text. The defaults have about 13 million parameters."""

    huggingface_model_types: ClassVar[tuple[str, ...]] = ("gemma3", "gemma3_text")
    gguf_architectures: ClassVar[tuple[str, ...]] = ("gemma3",)
    # Its MLP is a gated GELU, the others' a gated SiLU.
    gelu_from_table: ClassVar[bool] = True
    gguf_names: ClassVar[GGUFNames] = gguf_names

    heads: int = setting(4, "Attention heads", ge=1)
    kv_heads: int = setting(1, "Key and value heads, shared by groups of heads", ge=1)
    head_dim: int = setting(96, "Channels of a head, even", ge=2, multiple_of=2)
    mlp_width: int = setting(1152, "Inner width of the MLP", ge=1)
    sliding_window: int = setting(
        128, "How many tokens a token sees in local layers, itself included", ge=1
    )
    global_every: int = setting(
        6,
        "A layer whose number divides by this is global: it sees all tokens; the others are local",
        ge=1,
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

    @model_validator(mode="after")
    def _shape_is_possible(self) -> Gemma3Config:
        check_heads(self.width, self.heads, self.kv_heads, self.head_dim)
        return self

    @property
    def huggingface_names(self) -> HuggingFaceNames:
        """Gemma 3's."""
        return gemma

    def window(self, layer: int) -> int | None:
        """Return how many tokens a token sees in a layer, counted from 0; None for all."""
        # The last layer of each period is global.
        return None if (layer + 1) % self.global_every == 0 else self.sliding_window

    def complete_from(self, processor: Processor) -> Gemma3Config:
        """Return the config with the processor's vocabulary size where it was 0.

        Raises:
            RecipeError: If the processor has more tokens than the model, or is no tokenizer.
        """
        image = processor.special_id(_IMAGE_TOKEN) if isinstance(processor, TextProcessor) else None
        if image is not None and image == self.vocabulary_size == processor.vocabulary_size - 1:
            return self
        return super().complete_from(processor)

    def build(self) -> DecoderLM:
        """Return the model with freshly initialised weights.

        Source:
            Gemma Team, Gemma 3, 2025 (arXiv:2503.19786), section 2; norms before and after each
            part, and the cap on logits, which published Gemma 3 models do without: Gemma 2, 2024
            (arXiv:2408.00118), section 2.

        Raises:
            RecipeError: If the vocabulary's size is still unknown.
        """
        require_vocabulary(self.vocabulary_size)
        parts = DecoderParts(
            block=lambda layer: Gemma3Block(self, layer),
            norm=lambda: ShiftedRMSNorm(self.width, self.norm_eps),
            contexts=self._contexts,
            cache_shape=(self.kv_heads, self.head_dim),
            # Vaswani et al., 2017, section 3.4: the embedding is the output layer too, whose rows
            # are small.
            embedding_scale=math.sqrt(self.width),
            logit_cap=self.logit_cap,
            norm_weight=0.0,
            # The norm after each part sets the size of what it adds, whatever its weights'.
            scaled_residual=False,
            outgrown=text_outgrown(self.rope_scaling),
        )
        return DecoderLM(self, parts)

    def _contexts(self, passage: Passage) -> list[AttentionContext]:
        """Return for each layer what it attends by: global ones and local ones differ."""
        # Global layers turn slowly, for long texts; local ones as fast as ever.
        far = passage.rotary(self.head_dim, self.rope_theta, self.rope_scaling)
        near = passage.rotary(self.head_dim, self.local_rope_theta, None)
        everything = passage.context(far, None)
        nearby = passage.context(near, self.sliding_window)
        # Two objects for all layers.
        windows = map(self.window, range(self.layers))
        return [everything if window is None else nearby for window in windows]

    def flops_per_token(self, context: int) -> float:
        """Return the FLOPs of forward and backward for one token; see
        ``GPTConfig.flops_per_token``."""
        block = BlockShape(
            self.width, self.heads, self.kv_heads, self.head_dim, self.mlp_width, "geglu_tanh"
        )
        windows = map(self.window, range(self.layers))
        blocks = sum(block.flops_per_token(seen_on_average(context, w)) for w in windows)
        return blocks + 6.0 * self.width * self.vocabulary_size

    def completed(self) -> dict[str, Any]:
        """Return all settings as plain values, those that follow from others filled in."""
        return self.model_dump() | {"attention_scale": self.attention_scale or float(self.head_dim)}

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that the contents of config.json mean.

        Raises:
            CheckpointError: If it is of another family, or has a part that is not built here.
        """
        return gemma.config_to_groundup(config)

    @classmethod
    def from_gguf(cls, file: GGUFContents) -> dict[str, Any]:
        """Return the settings that an open GGUF file is of, or raise a CheckpointError."""
        return gguf_names.config_to_groundup(file.metadata, file.tensors, embedding_rows_in(file))

    def weights_from_gguf(
        self, tensors: Mapping[str, Tensor], architecture: str
    ) -> dict[str, Tensor]:
        """Return groundup's tensors from a file's; CheckpointError: one has no place."""
        return gguf_names.to_groundup(tensors, self.completed())

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
            config.width,
            config.heads,
            config.kv_heads,
            config.head_dim,
            qk_norm_eps=config.norm_eps,
            qk_norm=ShiftedRMSNorm,
            # Published models of 27B parameters divide by another number than head_dim.
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

    def forward(
        self, x: Tensor, context: AttentionContext, cache: LayerCache | None = None
    ) -> Tensor:
        """Return (B, T, C) from x (B, T, C)."""
        attended = self.attention(self.attention_norm(x), context, cache)
        # Gemma 2 normalises what a part puts out as well as what it reads.
        x = x + self.dropout(self.attention_out_norm(attended))
        return x + self.dropout(self.mlp_out_norm(self.mlp(self.mlp_norm(x))))  # type: ignore[no-any-return]
