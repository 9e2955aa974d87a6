"""Phi-3: a Llama of which a part of each head may be rotary, stretched to long texts by factors for
each channel.

Shape legend: B rows, T positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import model_validator
from torch import Tensor

from groundup.contracts.models import GGUFContents
from groundup.core.errors import CheckpointError
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.models.decoder_config import DecoderConfig, GGUFNames, HuggingFaceNames
from groundup.models.names.gguf import phi3 as gguf_names
from groundup.models.names.gguf.metadata import embedding_rows_in
from groundup.models.names.huggingface import phi3
from groundup.models.sizes_from_data import require_vocabulary
from groundup.nn.attention import AttentionContext, Passage, seen_on_average
from groundup.nn.norm import RMSNorm
from groundup.nn.rope import LongRope, long_rotary_angles
from groundup.nn.transformer import Block, BlockShape, DecoderLM, DecoderParts, check_heads

__all__ = ["Phi3Config"]


@model("phi3")
class Phi3Config(DecoderConfig):
    """The shape of a Phi-3, Phi-3.5 or Phi-4. The defaults have about 15 million parameters."""

    huggingface_model_types: ClassVar[tuple[str, ...]] = ("phi3",)
    free_settings: ClassVar[tuple[str, ...]] = ("dropout", "context_length", "tied_embeddings")
    gguf_architectures: ClassVar[tuple[str, ...]] = ("phi3",)
    gguf_names: ClassVar[GGUFNames] = gguf_names

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
    tied_embeddings: bool = setting(False, "Use the embedding as the output layer too")

    @model_validator(mode="after")
    def _shape_is_possible(self) -> Phi3Config:
        check_heads(self.width, self.heads, self.kv_heads)
        if self.rotary_channels % 2 or not self.rotary_channels:
            problem = (
                f"rotary_share {self.rotary_share} makes {self.rotary_channels} of {self.dim}"
                " channels rotary"
            )
            raise ValueError(
                f"{problem}, but they turn in pairs. Change it so that their number is even"
            )
        # Each pair of channels has a factor of its own.
        pairs = self.rotary_channels // 2
        for name, factors in self._factors().items():
            # Both lists are checked alike.
            if len(factors) != pairs or min(factors, default=1.0) <= 0:
                problem = (
                    f"long_rope.{name} has {len(factors)} numbers, the smallest"
                    f" {min(factors, default=None)}"
                )
                raise ValueError(
                    f"{problem}. Give one above 0 for each of the {pairs} pairs of rotary channels"
                )
        return self

    def _factors(self) -> dict[str, tuple[float, ...]]:
        if self.long_rope is None:
            return {}
        return {
            "short_factors": self.long_rope.short_factors,
            "long_factors": self.long_rope.long_factors,
        }

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

    @property
    def huggingface_names(self) -> HuggingFaceNames:
        """Phi-3's."""
        return phi3

    def block(self) -> BlockShape:
        """Return the shape of every block: Llama's."""
        return BlockShape(
            self.width,
            self.heads,
            self.groups,
            self.dim,
            self.mlp_width,
            norm_eps=self.norm_eps,
            window=self.sliding_window,
            dropout=self.dropout,
        )

    def build(self) -> DecoderLM:
        """Return the model with freshly initialised weights.

        Source:
            Abdin et al., 2024 (arXiv:2404.14219), section 2. Departs from the published weights in
            keeping queries, keys and values apart, and the two inputs of the MLP, which compute the
            same.

        Raises:
            RecipeError: If the vocabulary's size is still unknown.
        """
        require_vocabulary(self.vocabulary_size)
        parts = DecoderParts(
            block=lambda layer: Block(self.block()),
            norm=lambda: RMSNorm(self.width, self.norm_eps),
            contexts=self._contexts,
            cache_shape=(self.groups, self.dim),
            tied=self.tied_embeddings,
            outgrown=self.outgrown,
        )
        return DecoderLM(self, parts)

    def outgrown(self, read: int, length: int) -> bool:
        """Return whether a text that grew from one length to another has to be read again."""
        # The first token beyond the original context makes the text a long one.
        return self.long_rope is not None and read <= self.long_rope.original_context < length

    def _contexts(self, passage: Passage) -> list[AttentionContext]:
        positions, channels, theta = passage.positions, self.rotary_channels, self.rope_theta
        if self.long_rope is None:
            rotary = passage.rotary(channels, theta, None)
        else:
            rotary = long_rotary_angles(
                positions, passage.lengths(), channels, theta, self.long_rope, wide=passage.wide
            )
        return [passage.context(rotary, self.sliding_window)] * self.layers

    def flops_per_token(self, context: int) -> float:
        """Return the FLOPs of forward and backward for one token; see
        ``GPTConfig.flops_per_token``."""
        seen = seen_on_average(context, self.sliding_window)
        output = 6.0 * self.width * self.vocabulary_size
        return self.layers * self.block().flops_per_token(seen) + output

    def completed(self) -> dict[str, Any]:
        """Return all settings as plain values, those that follow from others filled in."""
        return self.model_dump() | {"kv_heads": self.groups}

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that the contents of config.json mean.

        Raises:
            CheckpointError: If it is of another family, or has a part that is not built here.
        """
        return phi3.config_to_groundup(config)

    @classmethod
    def from_gguf(cls, file: GGUFContents) -> dict[str, Any]:
        """Return the settings that an open GGUF file is of, or raise a CheckpointError."""
        return gguf_names.config_to_groundup(file, embedding_rows_in(file))

    def weights_from_gguf(
        self, tensors: Mapping[str, Tensor], architecture: str
    ) -> dict[str, Tensor]:
        """Return groundup's tensors from a file's; CheckpointError: one has no place."""
        return gguf_names.to_groundup(tensors, self.completed(), self.own_tensors())

    def for_llama_cpp(self, room: int) -> Phi3Config:
        """Return the settings that llama.cpp decodes with, with room for more tokens."""
        # Not a matter of precision: other wavelengths are another model.
        if self.long_rope is not None:
            raise CheckpointError(
                "model",
                "long_rope takes its wavelengths by the length of a text, and llama.cpp by the room"
                " that it is given",
                "Use the engine groundup",
            )
        return super().for_llama_cpp(room)

    def llama_cpp_context(self, length: int) -> int:
        """Return the longest context of at most ``length`` in which llama.cpp computes the same."""
        # By its length llama.cpp chooses between the short and the long factors, and it rounds the
        # length up to a multiple of 256.
        longest = length if self.long_rope is None else self.long_rope.original_context // 256 * 256
        return super().llama_cpp_context(min(length, longest))

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
