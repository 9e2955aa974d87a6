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
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from torch import Tensor, nn

from groundup.contracts.processors import Processor
from groundup.core.errors import CheckpointError
from groundup.core.settings import Settings

__all__ = [
    "ANY_MODEL_TYPE",
    "ChoosesHead",
    "EncoderDecoder",
    "Features",
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
    "TokenLogits",
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

    def flops_per_token(self, context: int) -> float:
        """Return forward + backward FLOPs a token, or an image: 6 x weights used in products +
        attention."""
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
class HasVocabulary(Protocol):
    """Settings of a model that has a vector for each token; 0 takes the processor's."""

    vocabulary_size: int


@runtime_checkable
class PredictsOutputs(Protocol):
    """Settings of a model whose last layer has one output a class or number; 0 takes the data's."""

    outputs: int


@runtime_checkable
class HasLayers(Protocol):
    """Settings of a model that is a stack of equal layers."""

    @property
    def layers(self) -> int:
        """How many; 0 where it is not known."""


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
    """

    huggingface_model_types: ClassVar[tuple[str, ...]] = ()
    free_settings: ClassVar[tuple[str, ...]] = ("dropout", "context_length")
    pretrained_processor: ClassVar[str] = "tokenizer_json"

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

        What a new head replaces is left out, and so is a new head from what is returned.

        Raises:
            CheckpointError: If one is missing, has no place, or has another shape.
        """

    @classmethod
    def settings_begun_again(
        cls, settings: Mapping[str, Any], given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return settings that a run does not take from the weights, because its task or data
        decide them, from what ``from_huggingface`` returned and what the recipe says."""
        return {}

    @classmethod
    def processor_from_huggingface(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of ``pretrained_processor`` that preprocessor_config.json stands for.

        Raises:
            CheckpointError: If inputs are prepared in another way than is built here.
        """
        return {}

    def note_on_pretrained(self, config: Mapping[str, Any]) -> str:
        """Return what loading changes in weights with this config.json, in words; empty: nothing.

        Raises:
            RecipeError: If the weights cannot be used with these settings.
        """
        return ""


class GGUFContents(Protocol):
    """An open GGUF file."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Numbers, booleans, texts, and lists of these, by name."""

    @property
    def tensors(self) -> Mapping[str, Any]:
        """What the table of tensors says, by name; each has a ``shape``."""

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
        self,
        tokens: Tensor,
        targets: Tensor,
        positions: Tensor | None = None,
        boundaries: Tensor | None = None,
    ) -> Tensor:
        """Return -log p in nats of each target, (B, T), 0 where it is -100. No gradient."""


@runtime_checkable
class HiddenStates(Protocol):
    """A language model that shows what its output layer reads, and applies that layer to it."""

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        boundaries: Tensor | None = None,
        cache: Any = None,
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

    What the encoder made of the input is kept in the cache, a row for a row, like a prompt that was
    read already. So generation has nothing to carry along: the cache drops, repeats and reorders
    rows, whether texts are sampled, end early or are searched with beams. In training forward takes
    the input's tensors next to the tokens, and no cache.
    """

    def encode(self, cache: Any, **inputs: Tensor) -> None:
        """Read inputs, one a row of the cache, and keep there what every later step attends to."""


@runtime_checkable
class SingleRowDecoding(Protocol):
    """A language model that may have a quicker step for one row on a CPU."""

    @property
    def has_decoder(self) -> bool:
        """Whether it has one."""

    def decoder(self) -> nn.Module:
        """Return what decodes one row quickly, with the same weights."""


@runtime_checkable
class Features(Protocol):
    """A classifier that shows what its last layer reads."""

    def features(self, *args: Any, **inputs: Any) -> Tensor:
        """Return (B, C)."""


@runtime_checkable
class ChoosesHead(Protocol):
    """A model with one of several heads: for ``masked`` tokens, ``labels`` of a text, ``tokens``
    (outputs for every token) or ``none`` (the states)."""

    @property
    def chosen_head(self) -> str:
        """Which one."""


@runtime_checkable
class TokenLogits(Protocol):
    """A classifier of texts that can also predict tokens."""

    def token_logits(self, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return what each position predicts of the token after it, (B, T, V).

        Raises:
            RecipeError: If the model cannot as it is set, because positions see later tokens.
        """
