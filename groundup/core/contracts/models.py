"""What a model must be, and what it may offer.

Shape legend: B rows, T positions, S positions of an input, C width, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor, nn

from groundup.core.contracts.processors import Processor
from groundup.core.errors import CheckpointError
from groundup.core.settings import Settings

__all__ = [
    "EncoderDecoder",
    "Features",
    "FromGGUF",
    "FromHuggingFace",
    "Generates",
    "HasBlocks",
    "HiddenStates",
    "ModelConfig",
    "PredictsOutputs",
    "ReadsTokens",
    "SingleRowDecoding",
    "TokenLogits",
    "TokenLosses",
    "context_length_of",
]


class ModelConfig(Settings, ABC):
    """The recipe's ``model`` section. One file holds the config, the layers, the forward pass and
    named sizes."""

    @abstractmethod
    def build(self) -> nn.Module:
        """Return the model with freshly initialised weights (drawn from torch's default
        generator)."""

    @classmethod
    def sizes(cls) -> Mapping[str, ModelConfig]:
        """Return the named sizes of this family."""
        return {}

    @property
    def loss_is_sum(self) -> bool:
        """Whether each example is computed apart from the others of its micro-batch, as under batch
        norm it is not."""
        return True

    def flops_per_token(self, context: int) -> float:
        """Return forward + backward FLOPs a token, or an image: 6 x weights used in products +
        causal attention."""
        return 0.0

    def to_huggingface(
        self, weights: Mapping[str, Tensor]
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the contents of config.json and the tensors as a model of ``transformers`` names
        them.

        Raises:
            CheckpointError: If that library has no such model.
        """
        raise CheckpointError(
            "model", "no Hugging Face layout is known for it", "Keep it in the project's own layout"
        )

    def complete_from(self, processor: Processor) -> ModelConfig:
        """Return the config completed with what only the processor knows, such as the vocabulary's
        size."""
        return self


# ------------------------------------------------------------------------ what settings may offer
@runtime_checkable
class ReadsTokens(Protocol):
    """Settings of a model that reads sequences of tokens."""

    context_length: int


@runtime_checkable
class PredictsOutputs(Protocol):
    """Settings of a model whose last layer has one output a class or number; 0 takes the data's."""

    outputs: int


def context_length_of(config: object) -> int:
    """Return the longest sequence that a model reads, in tokens; 0 where it reads no sequences."""
    return config.context_length if isinstance(config, ReadsTokens) else 0


class FromHuggingFace(ABC):
    """Settings of a model that starts from weights in Hugging Face layout.

    Attributes:
        huggingface_model_types: Values of ``model_type`` in config.json that are this model's.
        free_settings: Settings that a recipe may change, because weights are not tied to them.
    """

    huggingface_model_types: ClassVar[tuple[str, ...]] = ()
    free_settings: ClassVar[tuple[str, ...]] = ("dropout", "context_length")

    @classmethod
    @abstractmethod
    def from_huggingface(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that the contents of config.json stand for.

        Raises:
            CheckpointError: If it is of another family, or has a part that is not built here.
        """

    @abstractmethod
    def weights_from_huggingface(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return this model's tensors from theirs; each is used once and none is left over.

        Raises:
            CheckpointError: If one is missing, has no place, or has another shape.
        """

    @classmethod
    def settings_begun_again(
        cls, settings: Mapping[str, Any], given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return settings that do not follow the weights, as the recipe asks for a new head."""
        return {}

    @classmethod
    def processor_from_huggingface(cls, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the processor section of preprocessor_config.json; None: it is a tokenizer."""
        return None

    def note_on_pretrained(self, config: Mapping[str, Any]) -> str:
        """Return what becomes of the pretrained weights here, in words, or an empty text."""
        return ""


class FromGGUF(ABC):
    """Settings of a model that starts from a GGUF file, and is written to one.

    Attributes:
        gguf_architectures: Values of ``general.architecture`` that are this model's.
    """

    gguf_architectures: ClassVar[tuple[str, ...]] = ()

    @classmethod
    @abstractmethod
    def from_gguf(cls, path: Path) -> dict[str, Any]:
        """Return the settings that a file is of, or raise a CheckpointError."""


# -------------------------------------------------------------------------- what models may offer
@runtime_checkable
class HasBlocks(Protocol):
    """A model that is a stack of blocks: what is frozen, compiled, sharded or cut into stages."""

    blocks: nn.ModuleList


@runtime_checkable
class TokenLosses(Protocol):
    """A language model that tells -log p of each target without ever holding all logits."""

    def token_losses(
        self,
        tokens: Tensor,
        targets: Tensor,
        positions: Tensor | None = None,
        boundaries: Tensor | None = None,
    ) -> Tensor:
        """Return -log p in nats of each target, (B, T), 0 where it is -100."""


@runtime_checkable
class HiddenStates(Protocol):
    """A language model that shows what its output layer reads, and that layer's weight."""

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        boundaries: Tensor | None = None,
        cache: Any = None,
    ) -> Tensor:
        """Return what the output layer reads, (B, T, C)."""

    @property
    def output_weight(self) -> Tensor:
        """The output layer's weight, (V, C)."""


@runtime_checkable
class Generates(Protocol):
    """A language model that writes: its forward takes ``cache`` and ``last_only``."""

    def new_cache(self, batch: int, length: int) -> Any:
        """Return an empty cache for ``batch`` rows of at most ``length`` tokens."""


@runtime_checkable
class SingleRowDecoding(Protocol):
    """A language model with a quicker step for one row on a CPU."""

    def decoder(self) -> nn.Module:
        """Return what decodes one row quickly, with the same weights."""


@runtime_checkable
class EncoderDecoder(Protocol):
    """A model that writes about an input which it reads once.

    Generation calls ``encode`` once and hands the state to every later step beside the cache, so
    that sampling, beams and caches treat it like a prompt that was read already.
    """

    def encode(self, **inputs: Tensor) -> Tensor:
        """Return the state of the encoder, (B, S, C)."""

    def decode(self, tokens: Tensor, state: Tensor, cache: Any = None) -> Tensor:
        """Return logits (B, T, V) of the next tokens."""


@runtime_checkable
class Features(Protocol):
    """A classifier that shows what its last layer reads."""

    def features(self, *args: Any, **inputs: Any) -> Tensor:
        """Return (B, C)."""


@runtime_checkable
class TokenLogits(Protocol):
    """A classifier of texts that can also predict tokens."""

    token_logits: Any
