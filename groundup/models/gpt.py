"""A decoder-only transformer: GPT-2, Llama, Mistral, Qwen2 and Qwen3 are configurations of it.

Read from top to bottom: the settings, a block, the model.

Shape legend: B rows, T positions, C width, V vocabulary, N boundaries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

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
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.generation.single_row_decoder import FastDecoder
from groundup.machine.meta_device import without_content
from groundup.models.names.gguf import gpt as gguf_names
from groundup.models.names.gguf.metadata import embedding_rows_in, lengthen
from groundup.models.names.huggingface import families, gpt2, llama
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
from groundup.nn.loss import linear_cross_entropy, linear_cross_entropy_sum, linear_log_probs
from groundup.nn.mlp import MLP, Activation
from groundup.nn.norm import RMSNorm
from groundup.nn.rope import RopeScaling, rotary_angles

__all__ = ["GPT", "Block", "GPTConfig"]


@model("gpt")
class GPTConfig(FromHuggingFace, FromGGUF):
    """The shape of a GPT. The defaults are a Llama of about 12 million parameters."""

    huggingface_model_types: ClassVar[tuple[str, ...]] = ("gpt2", *llama.FAMILIES)
    gguf_architectures: ClassVar[tuple[str, ...]] = gguf_names.ARCHITECTURES

    vocabulary_size: int = setting(0, "Tokens in the vocabulary; 0 takes the processor's", ge=0)
    vocabulary_multiple: int = setting(
        1, "Pad the embedding to a multiple of this many rows, never predicted", ge=1
    )
    context_length: int = setting(256, "The longest sequence, in tokens", ge=1)
    layers: int = setting(6, "Transformer blocks", ge=1)
    width: int = setting(384, "Channels of the residual stream", ge=1)
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
    positions: Literal["rotary", "learned"] = setting("rotary", "How a token knows where it stands")
    rope_theta: float = setting(
        10000.0, "Base of the rotary wavelengths", gt=1, applies_when={"positions": ("rotary",)}
    )
    rope_scaling: RopeScaling | None = setting(
        None,
        "How the rotary wavelengths were stretched; null: not",
        applies_when={"positions": ("rotary",)},
    )
    norm: Literal["rmsnorm", "layernorm"] = setting(
        "rmsnorm", "Normalisation; layernorm has a bias"
    )
    norm_eps: float = setting(1e-6, "Added to the variance in every norm", gt=0)
    activation: Activation = setting("swiglu", "Of the MLP; gelu_tanh is GPT-2's approximation")
    qk_norm: bool = setting(False, "RMSNorm on the queries and keys of each head")
    sliding_window: int | None = setting(
        None, "How many tokens a token sees, itself included; null: all", ge=1
    )
    tied_embeddings: bool = setting(True, "Use the embedding as the output layer too")
    bias: Literal["none", "qkv", "all"] = setting(
        "none", "Linear layers of the blocks that have a bias"
    )
    dropout: float = setting(
        0.0, "Share of embedding and residual activations dropped in training", ge=0, lt=1
    )
    init_std: float = setting(0.02, "Standard deviation of fresh weights", gt=0)

    @model_validator(mode="after")
    def _shape_is_possible(self) -> GPTConfig:
        if self.head_dim is None and self.width % self.heads:
            nearest = max(self.width // self.heads, 1) * self.heads
            raise ValueError(
                f"width {self.width} is not a multiple of heads {self.heads}. Use width {nearest}"
                " or change heads"
            )
        if self.kv_heads is not None and self.heads % self.kv_heads:
            nearest = max(n for n in range(1, self.kv_heads + 1) if self.heads % n == 0)
            raise ValueError(
                f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}."
                f" Use kv_heads {nearest} or change heads"
            )
        if self.positions == "rotary" and self.dim % 2:
            raise ValueError(
                f"head_dim {self.dim} is odd, and rotary positions turn channels in pairs."
                f" Use head_dim {self.dim + 1} or positions: learned"
            )
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
        if self.mlp_width is not None:
            return self.mlp_width
        return (
            4 * self.width
            if self.activation != "swiglu"
            else _round_up(math.ceil(8 * self.width / 3), 64)
        )

    @property
    def embedding_rows(self) -> int:
        """Rows of the embedding: the vocabulary, padded."""
        return _round_up(self.vocabulary_size, self.vocabulary_multiple)

    def complete_from(self, processor: Processor) -> GPTConfig:
        """Return the config with the processor's vocabulary size where it was 0.

        Raises:
            RecipeError: If the processor has more tokens than the model, or is no tokenizer.
        """
        found = fitted_vocabulary("gpt", processor, self.vocabulary_size)
        return self.model_copy(update={"vocabulary_size": found})

    def build(self) -> GPT:
        """Return the model with freshly initialised weights.

        Raises:
            RecipeError: If the vocabulary's size is still unknown.
        """
        require_vocabulary(self.vocabulary_size)
        return GPT(self)

    def matmul_parameters(self) -> int:
        """Return how many weights each token is multiplied with, the output layer included and
        lookups not."""
        attention = 2 * self.width * self.dim * (self.heads + self.groups)
        mlp = self.width * self.hidden * (3 if self.activation == "swiglu" else 2)
        return self.layers * (attention + mlp) + self.width * self.embedding_rows

    def flops_per_token(self, context: int) -> float:
        """Return the FLOPs of forward and backward for one token of a document of ``context``
        tokens.

        A weight costs one multiplication and one addition forward and twice that backward: 6 FLOPs.
        In attention, a token is multiplied with the keys and the values of the k tokens it sees: 2
        products x 6 x k x heads x head_dim a layer. Causally k is context / 2 on average, and w -
        w**2 / (2 context) within a window of w.

        Source:
            Chowdhery et al., PaLM, 2022 (arXiv:2204.02311), appendix B; Kaplan et al., 2020
            (arXiv:2001.08361), 2.1. Departs from PaLM, which counts the pairs that the causal mask
            removes.
        """
        seen = seen_on_average(context, self.sliding_window)
        return 6.0 * self.matmul_parameters() + 12.0 * self.layers * self.heads * self.dim * seen

    def completed(self) -> dict[str, Any]:
        """Return all settings as plain values, those that follow from others filled in."""
        follows = {"head_dim": self.dim, "kv_heads": self.groups, "mlp_width": self.hidden}
        return self.model_dump() | follows | {"vocabulary_size": self.embedding_rows}

    def to_huggingface(
        self, weights: Mapping[str, Tensor]
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return config.json's contents and the tensors as GPT-2, Llama, Mistral, Qwen2 or Qwen3
        name them."""
        family, values = gpt2 if self.positions == "learned" else llama, self.completed()
        return family.config_to_huggingface(values), family.to_huggingface(weights, values)

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that the contents of config.json stand for.

        Raises:
            CheckpointError: If it is of another family, or has a part that is not built here.
        """
        return families.config_to_groundup(config)

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
        return gguf_names.to_groundup(tensors, self.completed(), architecture)

    def to_gguf(self, weights: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the metadata and the tensors as a GGUF file names them.

        Raises:
            CheckpointError: If llama.cpp has no architecture that computes the same.
        """
        values = self.completed()
        metadata = gguf_names.config_to_gguf(values)
        return metadata, gguf_names.to_gguf(weights, values, metadata["general.architecture"])

    def for_llama_cpp(self, room: int) -> GPTConfig:
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
        with without_content():
            own = self.build().state_dict()
        read = gpt2.to_groundup if self.positions == "learned" else llama.to_groundup
        return read(tensors, self.completed(), own)

    @classmethod
    def sizes(cls) -> Mapping[str, GPTConfig]:
        """Return the named sizes."""
        return {name: cls(**values) for name, values in _SIZES.items()}


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
_SIZES: dict[str, dict[str, Any]] = {
    "nano": {"layers": 2, "width": 64, "heads": 2, "context_length": 64},
    "micro": {"layers": 4, "width": 256, "heads": 4},
    "small": {"layers": 6, "width": 384, "heads": 6},
    "gpt2": {**_GPT2, "layers": 12, "width": 768, "heads": 12},
    "gpt2-medium": {**_GPT2, "layers": 24, "width": 1024, "heads": 16},
    "gpt2-large": {**_GPT2, "layers": 36, "width": 1280, "heads": 20},
    "gpt2-xl": {**_GPT2, "layers": 48, "width": 1600, "heads": 25},
    "smollm2-135m": {
        **{
            "vocabulary_size": 49152,
            "context_length": 8192,
            "layers": 30,
            "width": 576,
            "heads": 9,
            "kv_heads": 3,
        },
        **{"mlp_width": 1536, "rope_theta": 100000.0, "norm_eps": 1e-5},
    },
    "llama3.2-1b": {
        **{
            "vocabulary_size": 128256,
            "context_length": 131072,
            "layers": 16,
            "width": 2048,
            "heads": 32,
        },
        **{"kv_heads": 8, "mlp_width": 8192, "rope_theta": 500000.0, "norm_eps": 1e-5},
        "rope_scaling": {"kind": "llama3", "factor": 32.0, "original_context": 8192},
    },
    "qwen3-0.6b": {
        **{
            "vocabulary_size": 151936,
            "context_length": 40960,
            "layers": 28,
            "width": 1024,
            "heads": 16,
            "kv_heads": 8,
        },
        **{"head_dim": 128, "mlp_width": 3072, "rope_theta": 1e6, "qk_norm": True},
    },
    "mistral-7b": {
        **{
            "vocabulary_size": 32000,
            "context_length": 32768,
            "layers": 32,
            "width": 4096,
            "heads": 32,
            "kv_heads": 8,
        },
        **{"mlp_width": 14336, "norm_eps": 1e-5, "sliding_window": 4096, "tied_embeddings": False},
    },
}


class Block(nn.Module):
    """Attention, then the MLP, each on a normalised input and added to the residual stream
    (pre-norm)."""

    def __init__(self, config: GPTConfig, *, causal: bool = True) -> None:
        super().__init__()
        shape = AttentionShape(
            *(config.width, config.heads, config.groups, config.dim),
            qk_norm_eps=config.norm_eps if config.qk_norm else None,
            window=config.sliding_window,
            input_bias=config.bias != "none",
            output_bias=config.bias == "all",
            causal=causal,
        )
        self.attention_norm = _norm(config)
        self.attention = Attention(shape)
        self.mlp_norm = _norm(config)
        self.mlp = MLP(config.width, config.hidden, config.activation, config.bias == "all")
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, where: Where, cache: LayerCache | None = None) -> Tensor:
        """Return (B, T, C) from x (B, T, C)."""
        x = x + self.dropout(self.attention(self.attention_norm(x), where, cache))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))  # type: ignore[no-any-return]


class GPT(nn.Module):
    """The model of a ``GPTConfig``.

    Source:
        Radford et al., GPT-2, 2019, section 2.3; Touvron et al., Llama, 2023 (arXiv:2302.13971),
        section 2.2. Departs from GPT-2: no dropout of attention weights, which attention over
        packed documents does not compute.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.embedding_rows, config.width)
        learned = config.positions == "learned"
        self.positions = nn.Embedding(config.context_length, config.width) if learned else None
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = _norm(config)
        tied = config.tied_embeddings
        self.head = None if tied else nn.Linear(config.width, config.embedding_rows, bias=False)
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
            else:
                nn.init.constant_(parameter, 1.0 if name.endswith("norm.weight") else 0.0)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        boundaries: Tensor | None = None,
        targets: Tensor | None = None,
        cache: KeyValueCache | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Predict the next token at every position.

        Args:
            tokens: (B, T) int64.
            positions: (B, T) int64, within each document; default 0 .. T-1, or what follows the
                cache. With a cache, -1 marks padding on the left.
            boundaries: (N,) int32, starts of packed documents over the B*T tokens, rising from 0 to
                B*T; default: each row is one document. A token sees earlier tokens of its own
                document only.
            targets: (B, T) int64, the tokens that come next, -100 where nothing is trained.
            cache: Keys and values of what was read before; this call adds to it.
            last_only: Return logits of the last position only.

        Returns:
            Without targets the logits (B, T or 1, V). With targets a scalar: the sum of -log p in
            nats over the targets in float32 (float64 in a float64 model). Its softmax runs over the
            padded embedding.
        """
        x = self.hidden(tokens, positions, boundaries, cache)
        if targets is not None:
            return linear_cross_entropy_sum(x.flatten(0, 1), self.output_weight, targets.flatten())
        logits = F.linear(x[:, -1:] if last_only else x, self.output_weight)
        return logits[..., : self.config.vocabulary_size]

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        boundaries: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Return what the output layer reads, (B, T, C). Arguments as in ``forward``."""
        positions, where = self._where(tokens, positions, boundaries, cache)
        x = self.embed(tokens)
        if self.positions is not None:
            x = x + self.positions(positions.clamp(min=0))
        x = self.dropout(x)
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

    def new_cache(self, batch: int, length: int) -> KeyValueCache:
        """Return an empty cache for ``batch`` rows of at most ``length`` tokens."""
        config, like = (
            self.config,
            next(self.norm.parameters()),
        )  # floats, also where the others are integers
        return KeyValueCache(
            config.layers, (batch, config.groups, length, config.dim), like.dtype, like.device
        )

    def logits_from(self, hidden: Tensor) -> Tensor:
        """Return logits (..., V) from hidden states (..., C)."""
        return F.linear(hidden, self.output_weight)[..., : self.config.vocabulary_size]

    def log_probs_from(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return log p in nats of targets (M,) from hidden states (M, C)."""
        return linear_log_probs(hidden, self.output_weight, targets)

    @property
    def has_decoder(self) -> bool:
        """Whether there is a quicker step for one row."""
        return True

    def decoder(self) -> FastDecoder:
        """Return what decodes one row quickly, with the same weights."""
        return FastDecoder(self)

    def parameter_count(self) -> int:
        """Return how many numbers are trained, tied ones counted once."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def output_weight(self) -> Tensor:
        """The output layer's weight, (V padded, C)."""
        return self.embed.weight if self.head is None else self.head.weight

    def _where(
        self,
        tokens: Tensor,
        positions: Tensor | None,
        boundaries: Tensor | None,
        cache: KeyValueCache | None,
    ) -> tuple[Tensor, Where]:
        positions = token_positions(tokens, positions, boundaries, cache)
        rotary = None
        if self.positions is None:
            config, wide = self.config, self.norm.weight.dtype == torch.float64
            rotary = rotary_angles(
                positions, config.dim, config.rope_theta, config.rope_scaling, wide=wide
            )
        return positions, whereabouts(
            positions, rotary, boundaries, cache, self.config.sliding_window
        )


def _norm(config: GPTConfig) -> nn.Module:
    if config.norm == "rmsnorm":
        return RMSNorm(config.width, config.norm_eps)
    return nn.LayerNorm(config.width, config.norm_eps)


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
