"""What a model must be, and what it may offer.

A built model is a ``torch.nn.Module``. The loop, the optimizers and the files of weights assume
three things of it and nothing else, so that it may also be sharded, compiled or cut into stages:

- its tensors are found by name, and the names begin as ``nn/part_names.py`` says: ``blocks.N.``,
  ``head``. A stage has the names that the whole model has, but not all of them;
- its blocks, if it has any, are what ``blocks_of`` returns: what is frozen, compiled, sharded or
  cut one by one;
- it is called (never its ``forward``, which wrappers would miss) with keywords only: those that
  ``Task.inputs`` returns.

What a model offers beyond that (the protocols below) is asked of the module that was built, before
anything wraps it, with ``isinstance``.

Shape legend: B rows, T positions, S positions of an input, C width, V vocabulary, M chosen
    positions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from torch import Tensor, nn

from groundup.contracts.processors import Processor
from groundup.core.errors import CheckpointError
from groundup.core.settings import Settings

__all__ = [
    "ANY_MODEL_TYPE",
    "EncoderDecoder",
    "FromGGUF",
    "FromHuggingFace",
    "GGUFContents",
    "Generates",
    "HasLayers",
    "HasVocabulary",
    "HiddenStates",
    "ModelConfig",
    "PredictsOutputs",
    "ReadsTokens",
    "SingleRowDecoding",
    "StretchesPositions",
    "TokenLosses",
    "blocks_of",
    "context_length_of",
]

ANY_MODEL_TYPE = "*"
"""In ``huggingface_model_types``: every ``model_type`` that no other model reads."""


class ModelConfig(Settings, ABC):
    """The recipe's ``model`` section. One file holds the config, the layers, the forward pass and
    named sizes.

    Attributes:
        decided_by_data: Settings that ``complete_from`` fills in; a named size leaves them open.
    """

    decided_by_data: ClassVar[tuple[str, ...]] = (
        "vocabulary_size",
        "padding_id",
        "input_shape",
        "outputs",
    )

    @abstractmethod
    def build(self) -> nn.Module:
        """Return the model with freshly initialised weights (drawn from torch's default
        generator)."""

    @classmethod
    def sizes(cls) -> Mapping[str, ModelConfig]:
        """Return the named sizes of this family, which a recipe names with ``size``."""
        return {}

    @property
    def loss_is_sum(self) -> bool:
        """Whether each example is computed apart from the others of its micro-batch, as under batch
        norm it is not."""
        return True

    @property
    def rows_vary(self) -> bool:
        """Whether a row is as long as its text, not as the context, so that the work of a step is
        that of the tokens that were counted."""
        return False

    def flops_per_token(self, context: int) -> float:
        """Return forward + backward FLOPs a token or image: 6 x weights in products + attention."""
        return 0.0

    def trained_flops_per_token(self, context: int, layers: int | None) -> float:
        """Return ``flops_per_token`` where only the last ``layers`` blocks are trained, None: all.
        A model that does not say is counted as if all were."""
        return self.flops_per_token(context)

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

    def to_modules(self, weights: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return ``to_huggingface``, with the names of that library's modules, not of its files."""
        return self.to_huggingface(weights)

    def renamed_tensors(self, names: Iterable[str]) -> dict[str, str]:
        """Return today's name of each tensor that checkpoints of before called otherwise."""
        return {}

    def complete_from(self, processor: Processor) -> ModelConfig:
        """Return the config completed with what only the processor knows, such as the vocabulary's
        size.

        Raises:
            RecipeError: If the model cannot read what the processor makes.
        """
        return self


# ------------------------------------------------------------------------ what settings may offer
@runtime_checkable
class ReadsTokens(Protocol):
    """Settings of a model that reads sequences of tokens."""

    context_length: int


@runtime_checkable
class StretchesPositions(Protocol):
    """Settings with ``rope_scaling``: None, or how positions are stretched (kind, factor)."""

    rope_scaling: Any


@runtime_checkable
class HasVocabulary(Protocol):
    """Settings of a model that has a vector for each token; 0 takes the processor's."""

    vocabulary_size: int


@runtime_checkable
class PredictsOutputs(Protocol):
    """Settings of a model whose last layer has one output a class or number; 0 takes the data's."""

    outputs: int


@runtime_checkable
class HasLayers(Protocol):
    """Settings of a model that is a stack of equal layers; 0 where it is not known how many."""

    @property
    def layers(self) -> int: ...


def context_length_of(config: object) -> int:
    """Return the longest sequence that a model reads, in tokens; 0 where it reads no sequences."""
    # 0 and not None: it is multiplied and compared, where tables and pictures have no context.
    return config.context_length if isinstance(config, ReadsTokens) else 0


class FromHuggingFace(ModelConfig, ABC):
    """Settings of a model that starts from weights in Hugging Face layout.

    Attributes:
        huggingface_model_types: Values of ``model_type`` in config.json that are this model's.
        free_settings: Settings that a recipe may change, because weights are not tied to them.
        pretrained_processor: The processor that comes with the weights: the tokenizer in their
            folder, or another that ``processor_from_huggingface`` describes.
        tokenizer_setting: The setting of such another processor that takes the section of the
            tokenizer in the folder; empty: it has none.
    """

    huggingface_model_types: ClassVar[tuple[str, ...]] = ()
    free_settings: ClassVar[tuple[str, ...]] = ("dropout", "context_length")
    pretrained_processor: ClassVar[str] = "tokenizer_json"
    tokenizer_setting: ClassVar[str] = ""

    @classmethod
    @abstractmethod
    def from_huggingface(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that the contents of config.json stand for.

        Raises:
            CheckpointError: If it is of another family, or has a part that is not built here.
        """

    @abstractmethod
    def weights_from_huggingface(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return groundup's tensors from Hugging Face's; each is used once and none is left over.

        What a new head replaces is left out; a new head is missing.

        Raises:
            CheckpointError: If one is missing, has no place, or has another shape.
        """

    def output_tensors(self) -> tuple[str, ...]:
        """Return how the names of tensors begin that have a row for each class."""
        return ("head.",)

    @classmethod
    def settings_begun_again(
        cls, settings: Mapping[str, Any], given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return settings that task or data decide, not the weights, from what
        ``from_huggingface`` returned and what the recipe says."""
        return {}

    @classmethod
    def from_generation_config(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that the contents of generation_config.json stand for, of a model
        that begins and writes its texts in a way of its own."""
        return {}

    def to_generation_config(self) -> dict[str, Any]:
        """Return the keys of generation_config.json that ``from_generation_config`` reads."""
        return {}

    @classmethod
    def processor_from_huggingface(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of ``pretrained_processor`` that preprocessor_config.json stands for.

        Raises:
            CheckpointError: If inputs are prepared in another way than is built here.
        """
        return {}

    def unknown_keys(self, config: Mapping[str, Any]) -> list[str]:
        """Return the keys of config.json that nothing here reads, and that may change what a model
        computes. Such weights are refused unless the recipe names the keys."""
        return []

    def note_on_pretrained(self, config: Mapping[str, Any]) -> str:
        """Return what loading changes in weights with this config.json, in words; empty: nothing.

        Raises:
            RecipeError: If the weights cannot be used with these settings.
        """
        return ""


class GGUFContents(Protocol):
    """An open GGUF file: numbers, texts and lists by name, and the table of tensors, each with a
    ``shape``."""

    @property
    def metadata(self) -> Mapping[str, Any]: ...

    @property
    def tensors(self) -> Mapping[str, Any]: ...

    def read(self, name: str) -> Any:
        """Return the numbers of a tensor as a float32 array of NumPy."""


class FromGGUF(ModelConfig, ABC):
    """Settings of a language model that starts from a GGUF file, and is written to one.

    Attributes:
        gguf_architectures: Values of ``general.architecture`` that are this model's.
        gelu_from_table: Whether llama.cpp takes the model's GELU from a table in float16, so that
            its logits differ by more than the rounding of float32.
    """

    gguf_architectures: ClassVar[tuple[str, ...]] = ()
    gelu_from_table: ClassVar[bool] = False

    @property
    @abstractmethod
    def embedding_rows(self) -> int:
        """Rows of the embedding: ``vocabulary_size``, and padding that is never predicted."""

    @classmethod
    @abstractmethod
    def from_gguf(cls, file: GGUFContents) -> dict[str, Any]:
        """Return the settings that a file is of; no weight is read.

        Raises:
            CheckpointError: If something is missing, or the model has a part that is not built.
        """

    @abstractmethod
    def gguf_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor that a file must have, by the file's names."""

    @abstractmethod
    def weights_from_gguf(
        self, tensors: Mapping[str, Tensor], architecture: str
    ) -> dict[str, Tensor]:
        """Return groundup's tensors from a file's.

        Raises:
            CheckpointError: If one of the file's has no place.
        """

    @abstractmethod
    def to_gguf(self, weights: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the metadata and the tensors as a GGUF file names them.

        Raises:
            CheckpointError: If llama.cpp has no architecture that computes the same.
        """

    @abstractmethod
    def for_llama_cpp(self, room: int) -> Self:
        """Return the settings that llama.cpp decodes with, with room for ``room`` tokens after the
        context.

        Raises:
            CheckpointError: If it would compute something else as soon as it has more room.
        """

    @abstractmethod
    def llama_cpp_context(self, length: int) -> int:
        """Return the longest context of at most ``length`` in which llama.cpp computes the same."""


# -------------------------------------------------------------------------- what models may offer
def blocks_of(model: nn.Module) -> list[nn.Module]:
    """Return the blocks that a model is a stack of, from the first; [] where it is none."""
    # Not a protocol: from Python 3.12 on ``isinstance`` does not see what a module registers.
    blocks = dict(model.named_children()).get("blocks")
    return list(blocks) if isinstance(blocks, nn.ModuleList) else []


@runtime_checkable
class TokenLosses(Protocol):
    """A language model that tells -log p of each target without ever holding all logits."""

    def token_losses(
        self, tokens: Tensor, targets: Tensor, positions: Any = None, boundaries: Any = None
    ) -> Tensor:
        """Return -log p in nats of each target, (B, T), 0 where it is -100. No gradient."""


@runtime_checkable
class HiddenStates(Protocol):
    """A language model that shows what its output layer reads, and applies that layer to it."""

    def hidden(
        self, tokens: Tensor, positions: Any = None, boundaries: Any = None, cache: Any = None
    ) -> Tensor:
        """Return what the output layer reads, (B, T, C)."""

    def logits_from(self, hidden: Tensor) -> Tensor:
        """Return logits (..., V) from hidden states (..., C)."""

    def log_probs_from(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return log p in nats of targets (M,) from hidden states (M, C), with a gradient and never
        all logits at once."""


@runtime_checkable
class Generates(Protocol):
    """A language model that writes: its forward takes ``cache`` and ``last_only``."""

    def new_cache(self, batch: int, length: int) -> Any:
        """Return an empty cache for ``batch`` rows of at most ``length`` tokens."""


@runtime_checkable
class EncoderDecoder(Protocol):
    """A model that ``Generates`` about an input, which it reads once.

    What the encoder made of it is kept in the cache: generation has nothing to carry along. In
    training forward takes the input's tensors and ``text``, and no cache.
    """

    @property
    def start_id(self) -> int:
        """The token that every text begins with, and that is none of it."""

    def encode(self, cache: Any, **inputs: Tensor) -> None:
        """Read inputs, one a row of the cache, and keep there what every later step attends to."""


@runtime_checkable
class SingleRowDecoding(Protocol):
    """A language model that may have (``has_decoder``) a quicker step for one row on a CPU."""

    @property
    def has_decoder(self) -> bool: ...

    def decoder(self) -> nn.Module:
        """Return what decodes one row quickly, with the same weights."""
