"""The settings that all decoder-only language models have, and their way to files of others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self

from torch import Tensor

from groundup.contracts.models import FromGGUF, FromHuggingFace
from groundup.contracts.processors import Processor
from groundup.core.settings import setting
from groundup.machine.meta_device import without_content
from groundup.models.names.gguf.metadata import lengthen
from groundup.models.names.huggingface.rotary import unknown_rope_keys
from groundup.models.names.table import unknown_keys
from groundup.models.sizes_from_data import fit_vocabulary

__all__ = ["DecoderConfig", "GGUFNames", "HuggingFaceNames"]

Tensors = Mapping[str, Tensor]
Values = Mapping[str, Any]


class HuggingFaceNames(Protocol):
    """A module of ``names/huggingface``; ``config`` holds all settings, completed.

    Attributes:
        KEYS: What it reads of config.json.
    """

    KEYS: frozenset[str]

    def config_to_huggingface(self, config: Values) -> dict[str, Any]: ...

    def to_huggingface(self, tensors: Tensors, config: Values) -> dict[str, Tensor]: ...

    def to_groundup(
        self, tensors: Tensors, config: Values, own: Tensors | None = None
    ) -> dict[str, Tensor]: ...


class GGUFNames(Protocol):
    """A module of ``names/gguf``; ``config`` holds all settings, completed."""

    def config_to_gguf(self, config: Values) -> dict[str, Any]: ...

    def shapes(self, config: Values) -> dict[str, tuple[int, ...]]: ...

    def to_gguf(self, tensors: Tensors, config: Values) -> dict[str, Tensor]: ...


class DecoderConfig(FromHuggingFace, FromGGUF, ABC):
    """What the settings of every family share.

    Attributes:
        gguf_names: How GGUF files name the family's settings and tensors.
        sliding_window: How many tokens a token sees, None for all.
    """

    gguf_names: ClassVar[GGUFNames]
    free_settings: ClassVar[tuple[str, ...]] = (*FromHuggingFace.free_settings, "rope_scaling")

    vocabulary_size: int = setting(0, "Tokens in the vocabulary; 0 takes the processor's", ge=0)
    context_length: int = setting(256, "The longest sequence, in tokens", ge=1)
    layers: int = setting(6, "Transformer blocks", ge=1)
    width: int = setting(384, "Channels of the residual stream", ge=1)
    sliding_window: int | None = setting(
        None, "How many tokens a token sees, itself included; null: all", ge=1
    )
    dropout: float = setting(
        0.0, "Share of embedding and residual activations dropped in training", ge=0, lt=1
    )
    init_std: float = setting(0.02, "Standard deviation of fresh weights", gt=0)

    @property
    @abstractmethod
    def huggingface_names(self) -> HuggingFaceNames:
        """How Hugging Face's files name settings and tensors of a model with these settings."""

    @abstractmethod
    def completed(self) -> dict[str, Any]:
        """Return all settings as plain values, those that follow from others filled in."""

    @property
    def embedding_rows(self) -> int:
        """Rows of the embedding: the vocabulary."""
        return self.vocabulary_size

    def complete_from(self, processor: Processor) -> Self:
        """Return the config with the processor's vocabulary size where it was 0.

        Raises:
            RecipeError: If the processor has more tokens than the model, or is no tokenizer.
        """
        found = fit_vocabulary(self.registered_name, processor, self.vocabulary_size)
        return self.model_copy(update={"vocabulary_size": found})

    def unknown_keys(self, config: Values) -> list[str]:
        """Return the keys of config.json that nothing here reads, those of positions too."""
        return [*unknown_keys(config, self.huggingface_names.KEYS), *unknown_rope_keys(config)]

    def own_tensors(self) -> dict[str, Tensor]:
        """Return tensors of all names and shapes of the model, without content."""
        # The shapes of a model of any size, for nothing: no weight is drawn.
        with without_content():
            return self.build().state_dict()

    def to_huggingface(self, weights: Tensors) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return config.json's contents and the tensors as Hugging Face's family names them."""
        # Asked of the settings: one model may be of several families, as GPT-2 and Llama are.
        names = self.huggingface_names
        values = self.completed()
        return names.config_to_huggingface(values), names.to_huggingface(weights, values)

    def weights_from_huggingface(self, tensors: Tensors) -> dict[str, Tensor]:
        """Return this model's tensors from Hugging Face's; each is used once and none is left over.

        Raises:
            CheckpointError: If one is missing, has no place, or has another shape.
        """
        return self.huggingface_names.to_groundup(tensors, self.completed(), self.own_tensors())

    def gguf_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor that a file must have, by the file's names."""
        return self.gguf_names.shapes(self.completed())

    def to_gguf(self, weights: Tensors) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the metadata and the tensors as a GGUF file names them.

        Raises:
            CheckpointError: If llama.cpp has no architecture that computes the same.
        """
        values = self.completed()
        # The metadata first: they say whether there is an architecture that computes the same.
        return self.gguf_names.config_to_gguf(values), self.gguf_names.to_gguf(weights, values)

    def for_llama_cpp(self, room: int) -> Self:
        """Return the settings that llama.cpp decodes with, with room for more tokens."""
        return lengthen(self, self.context_length, self.sliding_window, room)

    def llama_cpp_context(self, length: int) -> int:
        """Return the longest context of at most ``length`` in which llama.cpp computes the same."""
        return min(self.context_length, length)
