"""A decoder-only transformer: GPT-2, Llama, Mistral, Qwen2 and Qwen3 are configurations of it.

Here are the settings, and how the parts in ``nn/transformer.py`` are put together for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import model_validator
from torch import Tensor

from groundup.contracts.models import GGUFContents
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.generation.single_row_decoder import FastDecoder
from groundup.models.decoder_config import DecoderConfig, GGUFNames, HuggingFaceNames
from groundup.models.names.gguf import gpt as gguf_names
from groundup.models.names.gguf.metadata import embedding_rows_in
from groundup.models.names.huggingface import families, gpt2, llama
from groundup.models.sizes_from_data import require_vocabulary
from groundup.nn.attention import AttentionContext, Passage, seen_on_average
from groundup.nn.mlp import Activation, default_width, round_up
from groundup.nn.rope import RopeScaling, check_rotary, text_outgrown
from groundup.nn.transformer import (
    Bias,
    Block,
    BlockShape,
    DecoderLM,
    DecoderParts,
    Norm,
    check_heads,
    make_norm,
)

__all__ = ["GPTConfig"]


@model("gpt")
class GPTConfig(DecoderConfig):
    """The shape of a GPT. The defaults are a Llama of about 12 million parameters."""

    # Mistral is a Llama with a window, Qwen2 one with biases, Qwen3 one with normalised heads.
    huggingface_model_types: ClassVar[tuple[str, ...]] = ("gpt2", *llama.FAMILIES)
    free_settings: ClassVar[tuple[str, ...]] = (
        *DecoderConfig.free_settings,
        "tied_embeddings",
    )
    gguf_architectures: ClassVar[tuple[str, ...]] = gguf_names.ARCHITECTURES
    gguf_names: ClassVar[GGUFNames] = gguf_names

    # In the order of the architecture: vocabulary, size, attention, MLP, positions, training.
    vocabulary_multiple: int = setting(
        1, "Pad the embedding to a multiple of this many rows, never predicted", ge=1
    )
    heads: int = setting(6, "Attention heads", ge=1)
    kv_heads: int | None = setting(
        None, "Key and value heads, shared by groups of heads; null: as many as heads", ge=1
    )
    head_dim: int | None = setting(None, "Channels of a head; null: width / heads", ge=1)
    mlp_width: int | None = setting(
        None,
        "Inner width of the MLP; null: 4 x width, or 8/3 x width rounded up to a multiple of 64 for"
        " swiglu",
        ge=1,
    )
    positions: Literal["rotary", "learned"] = setting("rotary", "How a token knows where it is")
    rope_theta: float = setting(
        10000.0, "Base of the rotary wavelengths", gt=1, applies_when={"positions": ("rotary",)}
    )
    rope_scaling: RopeScaling | None = setting(
        None,
        "How the rotary wavelengths were stretched; null: not",
        applies_when={"positions": ("rotary",)},
    )
    norm: Norm = setting("rmsnorm", "Normalisation; layernorm has a bias")
    norm_eps: float = setting(1e-6, "Added to the variance in every norm", gt=0)
    activation: Activation = setting("swiglu", "Of the MLP; gelu_tanh is GPT-2's approximation")
    qk_norm: bool = setting(False, "RMSNorm on the queries and keys of each head")
    tied_embeddings: bool = setting(True, "Use the embedding as the output layer too")
    bias: Bias = setting("none", "Linear layers of the blocks that have a bias")

    @model_validator(mode="after")
    def _shape_is_possible(self) -> GPTConfig:
        # Found when the recipe is read, not at the first matrix that does not fit.
        check_heads(self.width, self.heads, self.kv_heads, self.head_dim)
        check_rotary(self.positions, self.dim)
        return self

    @property
    def dim(self) -> int:
        """Channels of a head."""
        return self.head_dim or self.width // self.heads

    @property
    def groups(self) -> int:
        """Key and value heads."""
        return self.kv_heads or self.heads

    @property
    def hidden(self) -> int:
        """Inner width of the MLP."""
        return self.mlp_width or default_width(self.width, self.activation)

    @property
    def huggingface_names(self) -> HuggingFaceNames:
        """GPT-2's with learned positions, else those of Llama, Mistral, Qwen2 and Qwen3."""
        return gpt2 if self.positions == "learned" else llama

    @property
    def embedding_rows(self) -> int:
        """Rows of the embedding: the vocabulary, padded."""
        return round_up(self.vocabulary_size, self.vocabulary_multiple)

    def block(self) -> BlockShape:
        """Return the shape of every block."""
        return BlockShape(
            self.width,
            self.heads,
            self.groups,
            self.dim,
            self.hidden,
            activation=self.activation,
            norm=self.norm,
            norm_eps=self.norm_eps,
            bias=self.bias,
            qk_norm=self.qk_norm,
            window=self.sliding_window,
            dropout=self.dropout,
        )

    def build(self) -> DecoderLM:
        """Return the model with freshly initialised weights.

        Source:
            Radford et al., GPT-2, 2019, section 2.3; Touvron et al., Llama, 2023
            (arXiv:2302.13971), section 2.2. Departs from GPT-2: no dropout of attention weights,
            which attention over packed documents does not compute.

        Raises:
            RecipeError: If the vocabulary's size is still unknown.
        """
        require_vocabulary(self.vocabulary_size)
        parts = DecoderParts(
            block=lambda layer: Block(self.block()),
            norm=lambda: make_norm(self.norm, self.width, self.norm_eps),
            contexts=self._contexts,
            cache_shape=(self.groups, self.dim),
            tied=self.tied_embeddings,
            learned_positions=self.positions == "learned",
            decoder=FastDecoder,
            outgrown=text_outgrown(self.rope_scaling),
        )
        return DecoderLM(self, parts)

    def _contexts(self, passage: Passage) -> list[AttentionContext]:
        # Learned positions are added to the embedding instead.
        rotary = None
        if self.positions == "rotary":
            rotary = passage.rotary(self.dim, self.rope_theta, self.rope_scaling)
        # One object for all layers: they attend alike.
        return [passage.context(rotary, self.sliding_window)] * self.layers

    def flops_per_token(self, context: int) -> float:
        """Return the FLOPs of forward and backward for one token of a document of ``context``
        tokens.

        Causally a token sees context / 2 tokens on average, and w - w**2 / (2 context) within a
        window of w.

        Source:
            Chowdhery et al., PaLM, 2022 (arXiv:2204.02311), appendix B; Kaplan et al., 2020
            (arXiv:2001.08361), 2.1. Departs from PaLM, which counts the pairs that the causal mask
            removes.
        """
        seen = seen_on_average(context, self.sliding_window)
        # Padded rows are multiplied too.
        output = 6.0 * self.width * self.embedding_rows
        return self.layers * self.block().flops_per_token(seen) + output

    def completed(self) -> dict[str, Any]:
        """Return all settings as plain values, those that follow from others filled in."""
        # Files of other tools name what here follows from other settings.
        follows = {"head_dim": self.dim, "kv_heads": self.groups, "mlp_width": self.hidden}
        return self.model_dump() | follows | {"vocabulary_size": self.embedding_rows}

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that the contents of config.json mean.

        Raises:
            CheckpointError: If it is of another family, or has a part that is not built here.
        """
        return families.config_to_groundup(config)

    @classmethod
    def from_gguf(cls, file: GGUFContents) -> dict[str, Any]:
        """Return the settings that an open GGUF file is of, or raise a CheckpointError."""
        return gguf_names.config_to_groundup(file.metadata, file.tensors, embedding_rows_in(file))

    def weights_from_gguf(
        self, tensors: Mapping[str, Tensor], architecture: str
    ) -> dict[str, Tensor]:
        """Return groundup's tensors from a file's; CheckpointError: one has no place."""
        return gguf_names.to_groundup(tensors, self.completed(), architecture)

    @classmethod
    def sizes(cls) -> Mapping[str, GPTConfig]:
        """Return the named sizes."""
        return {name: cls(**values) for name, values in _SIZES.items()}


# Radford et al., 2019, section 2.3, and the config.json that came with the weights. The padding to
# a multiple of 64 is for speed, and changes no prediction.
_GPT2: dict[str, Any] = {
    "vocabulary_size": 50257,
    "vocabulary_multiple": 64,
    "context_length": 1024,
    "positions": "learned",
    "norm": "layernorm",
    "norm_eps": 1e-5,
    "activation": "gelu_tanh",
    "bias": "all",
}
# The first three are not published: they fit a laptop. The others are as config.json has them.
_SIZES: dict[str, dict[str, Any]] = {
    "nano": {"layers": 2, "width": 64, "heads": 2, "context_length": 64},
    "micro": {"layers": 4, "width": 256, "heads": 4},
    "small": {"layers": 6, "width": 384, "heads": 6},
    "gpt2": {**_GPT2, "layers": 12, "width": 768, "heads": 12},
    "gpt2-medium": {**_GPT2, "layers": 24, "width": 1024, "heads": 16},
    "gpt2-large": {**_GPT2, "layers": 36, "width": 1280, "heads": 20},
    "gpt2-xl": {**_GPT2, "layers": 48, "width": 1600, "heads": 25},
    "smollm2-135m": {
        "vocabulary_size": 49152,
        "context_length": 8192,
        "layers": 30,
        "width": 576,
        "heads": 9,
        "kv_heads": 3,
        "mlp_width": 1536,
        "rope_theta": 100000.0,
        "norm_eps": 1e-5,
    },
    "llama3.2-1b": {
        "vocabulary_size": 128256,
        "context_length": 131072,
        "layers": 16,
        "width": 2048,
        "heads": 32,
        "kv_heads": 8,
        "mlp_width": 8192,
        "rope_theta": 500000.0,
        "norm_eps": 1e-5,
        "rope_scaling": {"kind": "llama3", "factor": 32.0, "original_context": 8192},
    },
    "qwen3-0.6b": {
        "vocabulary_size": 151936,
        "context_length": 40960,
        "layers": 28,
        "width": 1024,
        "heads": 16,
        "kv_heads": 8,
        # Heads together are twice as wide as the stream.
        "head_dim": 128,
        "mlp_width": 3072,
        "rope_theta": 1e6,
        "qk_norm": True,
    },
    "mistral-7b": {
        "vocabulary_size": 32000,
        "context_length": 32768,
        "layers": 32,
        "width": 4096,
        "heads": 32,
        "kv_heads": 8,
        "mlp_width": 14336,
        "norm_eps": 1e-5,
        "sliding_window": 4096,
        "tied_embeddings": False,
    },
}
