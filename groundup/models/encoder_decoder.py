"""A transformer that reads one text and writes another: T5, BART and Marian are configurations of
it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import model_validator
from torch import Tensor

from groundup.contracts.models import FromHuggingFace
from groundup.contracts.processors import LabelProcessor, Processor
from groundup.contracts.two_tokenizers import tokenizers_of
from groundup.core.errors import CheckpointError, RecipeError
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.generation.two_stack_decoder import TwoStackDecoder
from groundup.machine.meta_device import without_content
from groundup.models.encoder_decoder_sizes import SIZES
from groundup.models.names.huggingface import bart, t5
from groundup.models.names.table import unknown_keys
from groundup.models.sizes_from_data import fit_two_vocabularies, require_vocabulary
from groundup.nn.encoder_decoder import EncoderDecoderTransformer
from groundup.nn.encoder_decoder_block import EncoderDecoderShape, Positions
from groundup.nn.mlp import AnyActivation, default_width
from groundup.nn.rope import check_rotary
from groundup.nn.transformer import Bias, BlockShape, Norm, check_heads

__all__ = ["EncoderDecoderConfig"]


@model("encoder_decoder")
class EncoderDecoderConfig(FromHuggingFace):
    """The shape of an encoder and a decoder. The defaults are two stacks of Llama's blocks."""

    huggingface_model_types: ClassVar[tuple[str, ...]] = ("t5", *bart.FAMILIES)
    free_settings: ClassVar[tuple[str, ...]] = (
        *FromHuggingFace.free_settings,
        "tied_embeddings",
    )
    decided_by_data: ClassVar[tuple[str, ...]] = (
        "vocabulary_size",
        "source_vocabulary_size",
        "padding_id",
        "start_id",
    )

    vocabulary_size: int = setting(0, "Tokens in the vocabulary; 0 takes the processor's", ge=0)
    source_vocabulary_size: int = setting(
        0,
        "Tokens of the inputs, where these have a tokenizer and an embedding of their own; 0: as"
        " the processor has them",
        ge=0,
    )
    context_length: int = setting(256, "The longest input, and the longest output, in tokens", ge=1)
    layers: int = setting(3, "Blocks of the encoder", ge=1)
    decoder_layers: int | None = setting(
        None, "Blocks of the decoder; null: as many as the encoder has", ge=1
    )
    width: int = setting(256, "Channels of the residual stream", ge=1)
    heads: int = setting(4, "Attention heads", ge=1)
    head_dim: int | None = setting(None, "Channels of a head; null: width / heads", ge=1)
    mlp_width: int | None = setting(
        None,
        "Inner width of the MLP; null: 4 x width, or 8/3 x width rounded up to a multiple of 64 for"
        " swiglu",
        ge=1,
    )
    positions: Positions = setting(
        "rotary",
        "How a token knows where it is; relative: a bias of attention, as in T5; sinusoidal: as in"
        " Marian; learned: as in BART",
    )
    rope_theta: float = setting(
        10000.0, "Base of the rotary wavelengths", gt=1, applies_when={"positions": ("rotary",)}
    )
    relative_buckets: int = setting(
        32,
        "Distances that attention tells apart, the larger ones in ranges",
        ge=4,
        applies_when={"positions": ("relative",)},
    )
    relative_distance: int = setting(
        128,
        "From this distance on, all are alike",
        ge=3,
        applies_when={"positions": ("relative",)},
    )
    position_offset: int = setting(
        0,
        "Row of the first position in the tables of positions; 2 in BART",
        ge=0,
        applies_when={"positions": ("learned",)},
    )
    norm: Norm = setting("rmsnorm", "Normalisation; layernorm has a bias")
    norm_eps: float = setting(1e-6, "Added to the variance in every norm", gt=0)
    norm_placement: Literal["pre", "post"] = setting(
        "pre", "Normalise what goes into attention and MLP, or the sums after them"
    )
    activation: AnyActivation = setting(
        "swiglu", "Of the MLP; swiglu and geglu_tanh have a second matrix, a gate"
    )
    bias: Bias = setting("none", "Linear layers of the blocks that have a bias")
    attention_scale: float | None = setting(
        None,
        "What products of queries and keys are multiplied with; null: 1 / sqrt(head_dim); T5: 1",
        gt=0,
    )
    embedding_scale: bool = setting(False, "Multiply embeddings with sqrt(width)")
    embedding_norm: bool = setting(False, "Normalise embeddings, as BART does")
    tied_embeddings: bool = setting(True, "Use the embedding as the output layer too")
    output_scale: bool = setting(
        False, "Multiply the last states with 1 / sqrt(width), as T5 with tied embeddings does"
    )
    output_bias: bool = setting(
        False, "A number for each token is added to its logit, as in BART and Marian; not trained"
    )
    copying: bool = setting(
        False,
        "Tokens are written from the vocabulary or copied from the input, a mixture at every"
        " position; for names and rare words",
    )
    start_id: int | None = setting(
        None, "The token before every output; null: the tokenizer's start token, or its end", ge=0
    )
    padding_id: int | None = setting(
        None, "A token whose embedding is not trained as an input; null: none", ge=0
    )
    dropout: float = setting(
        0.1, "Share of embeddings and residual activations dropped in training", ge=0, lt=1
    )
    init_std: float = setting(0.02, "Standard deviation of fresh weights", gt=0)

    @model_validator(mode="after")
    def _shape_is_possible(self) -> EncoderDecoderConfig:
        # Found when the recipe is read, not at the first matrix that does not fit.
        check_heads(self.width, self.heads, None, self.head_dim)
        check_rotary(self.positions, self.dim)
        if self.positions == "sinusoidal" and self.width % 2:
            raise ValueError(
                f"width {self.width} is odd, but sinusoidal positions are sines and as many"
                f" cosines. Use width {self.width + 1} or positions: learned"
            )
        if self.positions == "relative" and self.relative_distance <= self.relative_buckets // 2:
            raise ValueError(
                f"relative_distance {self.relative_distance} leaves no range for the larger half of"
                f" relative_buckets {self.relative_buckets}."
                f" Use relative_distance {self.relative_buckets // 2 + 1} or more"
            )
        for name, token in (("start_id", self.start_id), ("padding_id", self.padding_id)):
            if token is not None and 0 < self.vocabulary_size <= token:
                raise ValueError(
                    f"{name} {token} is no token of a vocabulary of {self.vocabulary_size}."
                    f" Use at most {self.vocabulary_size - 1}"
                )
        if self.padding_id is not None and 0 < self.source_vocabulary_size <= self.padding_id:
            raise ValueError(
                f"padding_id {self.padding_id} is no token of the inputs' vocabulary of"
                f" {self.source_vocabulary_size}. Use at most {self.source_vocabulary_size - 1}"
            )
        return self

    @model_validator(mode="after")
    def _copying_is_possible(self) -> EncoderDecoderConfig:
        if self.copying and self.source_vocabulary_size:
            raise ValueError(
                "copying needs one vocabulary: a token of the input is none of the outputs'. Remove"
                " source_vocabulary_size, or set copying: false"
            )
        # The published models that have either copy nothing, and the mixture reads plain states.
        if self.copying and (self.output_scale or self.output_bias):
            name = "output_scale" if self.output_scale else "output_bias"
            raise ValueError(f"copying is not built with {name}. Remove one of them")
        return self

    @property
    def dim(self) -> int:
        """Channels of a head."""
        return self.head_dim or self.width // self.heads

    @property
    def first_token(self) -> int:
        """The token before every output."""
        return self.start_id or 0

    def shape(self) -> EncoderDecoderShape:
        """Return what the settings come to."""
        # What is null in the recipe has its number here, so that no layer decides a size itself.
        values = self.completed()
        block = BlockShape(
            self.width,
            self.heads,
            self.heads,
            self.dim,
            values["mlp_width"],
            activation=self.activation,
            norm=self.norm,
            norm_eps=self.norm_eps,
            bias=self.bias,
            dropout=self.dropout,
        )
        return EncoderDecoderShape(
            block,
            self.layers,
            values["decoder_layers"],
            self.vocabulary_size,
            self.context_length,
            self.positions,
            start_id=self.first_token,
            rope_theta=self.rope_theta,
            relative=(self.relative_buckets, self.relative_distance),
            position_offset=self.position_offset,
            post_norm=self.norm_placement == "post",
            attention_scale=self.attention_scale,
            embedding_scale=math.sqrt(self.width) if self.embedding_scale else 1.0,
            embedding_norm=self.embedding_norm,
            output_scale=1 / math.sqrt(self.width) if self.output_scale else 1.0,
            output_bias=self.output_bias,
            tied=self.tied_embeddings,
            padding_id=self.padding_id,
            copies=self.copying,
            source_vocabulary_size=self.source_vocabulary_size,
            init_std=self.init_std,
        )

    @property
    def rows_vary(self) -> bool:
        """Inputs and outputs are as long as their texts."""
        return True

    def flops_per_token(self, context: int) -> float:
        """Return the FLOPs of forward and backward for one token of an output of ``context`` tokens
        about an input of as many.

        A token of the input passes the encoder, sees all of the input, and is made keys and values
        of in every block of the decoder; a token of the output sees half of the output on average,
        and all of the input.

        Source:
            As of ``GPTConfig.flops_per_token``.
        """
        return self.trained_flops_per_token(context, None)

    def trained_flops_per_token(self, context: int, layers: int | None) -> float:
        """Return these where only the last ``layers`` blocks are trained, of which the decoder's
        come first: a matrix costs a third forwards, a third where it passes a gradient on, and a
        third where it gets one."""
        block = self.shape().block
        decoder_layers = self.decoder_layers or self.layers
        width = self.width
        attended = self.heads * self.dim
        encoder = block.flops_per_token(context)
        # The four matrices of attention once more; two of them are of the input.
        cross = 6.0 * 4 * width * attended + 12.0 * attended * context
        decoder = block.flops_per_token(context / 2) + cross
        # The bias of the logits is a channel more: ``EncoderDecoderTransformer.forward``.
        output = 2.0 * (width + self.output_bias) * self.vocabulary_size
        if layers is None:
            blocks = self.layers * encoder + decoder_layers * decoder
            return blocks + 3 * output + self._copying_flops(context, reads=True, weighs=True)
        written = min(layers, decoder_layers)
        read = min(layers - written, self.layers)
        still = (self.layers - read) * encoder + (decoder_layers - written) * decoder
        found = still / 3 + read * encoder + written * decoder
        if not read:
            # Keys and values of the input, which gets no gradient.
            found -= written * 2.0 * 2 * width * attended
        post = self.norm_placement == "post"
        # There nothing that is trained comes before the queries of the lowest block of a stack.
        found -= post * ((layers > 0) + (read > 0)) * 2.0 * 3 * width * attended
        own = not self.tied_embeddings
        found += (1 + (layers > 0 or not post) + own) * output
        return found + self._copying_flops(context, reads=read > 0, weighs=own)

    def _copying_flops(self, context: int, *, reads: bool, weighs: bool) -> float:
        """Return what copying costs a token; ``reads``: the states of the input get a gradient,
        ``weighs``: the output layer does."""
        if not self.copying:
            return 0.0
        width = self.width
        matrices = 6.0 * (2 * width**2 + width) - 2.0 * width**2 * (not reads)
        # Products with the positions' keys and with their tokens' output weights; and the sums of
        # what is copied from equal tokens, through which no gradient passes to the comparison.
        products = 6.0 * width * context + 2.0 * (2 + weighs) * width * context
        return matrices + products + 4.0 * context**2

    def complete_from(self, processor: Processor) -> EncoderDecoderConfig:
        """Return the config with vocabulary and start token where they were open.

        Raises:
            RecipeError: If the processor has more tokens than the model, or is no tokenizer; or the
                task asks for labels.
        """
        if isinstance(processor, LabelProcessor):
            problem = "encoder_decoder writes texts, but the task asks for labels or numbers"
            remedy = "Set task: text_to_text; or for a classifier of pretrained weights model: hub"
            raise RecipeError("recipe.model", problem, remedy)
        given = (self.source_vocabulary_size, self.vocabulary_size)
        source, target = fit_two_vocabularies(processor, given, copies=self.copying)
        found: dict[str, Any] = {"source_vocabulary_size": source, "vocabulary_size": target}
        # Without it a decoder would begin with token 0, which is a word in many tokenizers.
        if self.start_id is None:
            found["start_id"] = tokenizers_of(processor)[1].begin_id
        return self.model_copy(update=found)

    def build(self) -> EncoderDecoderTransformer:
        """Return the model with freshly initialised weights.

        Source:
            Raffel et al., T5, 2020 (arXiv:1910.10683); Lewis et al., BART, 2020
            (arXiv:1910.13461); Junczys-Dowmunt et al., Marian, 2018 (arXiv:1804.00344). Departs
            from them: no dropout of attention weights or inside the MLP; one share of dropout for
            all the rest.

        Raises:
            RecipeError: If the vocabulary's size is still unknown.
        """
        require_vocabulary(self.vocabulary_size)
        return EncoderDecoderTransformer(self, self.shape(), TwoStackDecoder)

    def completed(self) -> dict[str, Any]:
        """Return all settings as plain values, those that follow from others filled in."""
        follows = {
            "head_dim": self.dim,
            "mlp_width": self.mlp_width or default_width(self.width, self.activation),
            "decoder_layers": self.decoder_layers or self.layers,
            "start_id": self.first_token,
        }
        return self.model_dump() | follows

    def to_huggingface(
        self, weights: Mapping[str, Tensor]
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return config.json's contents and the tensors as T5, BART or Marian names them.

        Raises:
            CheckpointError: If none of them has this combination of parts.
        """
        values = self.completed()
        if self.copying:
            raise CheckpointError(
                "model",
                "none of T5, BART and Marian copies tokens of its input",
                "Keep it in the project's own layout",
            )
        for names in (t5, bart):
            config = names.config_to_huggingface(values)
            if config is not None:
                return config, names.to_huggingface(weights, values)
        others = t5.differences(values) | bart.differences(values)
        nearest = min(others, key=lambda family: len(others[family]))
        raise CheckpointError(
            "model",
            f"neither T5 nor BART nor Marian has these parts; {nearest}, the nearest, has"
            f" {', '.join(others[nearest])}",
            "Train one with these settings, or keep it in the project's own layout",
        )

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that the contents of config.json mean.

        Raises:
            CheckpointError: If it has a part that is not built here.
        """
        if config["model_type"] == "t5":
            return t5.config_to_groundup(config)
        return bart.config_to_groundup(config)

    def unknown_keys(self, config: Mapping[str, Any]) -> list[str]:
        """Return the keys of config.json that nothing here reads."""
        return unknown_keys(config, t5.KEYS if config["model_type"] == "t5" else bart.KEYS)

    def weights_from_huggingface(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return this model's tensors from Hugging Face's; each is used once and none is left over.

        Raises:
            CheckpointError: If one is missing, has no place, or has another shape.
        """
        # Only names and shapes are compared, for which no memory is needed.
        with without_content():
            own = self.build().state_dict()
        if self.source_vocabulary_size and any(name.endswith("shared.weight") for name in tensors):
            raise CheckpointError(
                "weights",
                "inputs and outputs share an embedding, but the processor has a tokenizer for each",
                "Use the tokenizer of the weights: processor: tokenizer_json",
            )
        if self.positions == "relative":
            return t5.to_groundup(tensors, self.completed(), own)
        return bart.to_groundup(tensors, self.completed(), own)

    @classmethod
    def sizes(cls) -> Mapping[str, EncoderDecoderConfig]:
        """Return the named sizes."""
        return {name: cls(**values) for name, values in SIZES.items()}
