"""Any architecture of the library ``transformers``, trained as our own models are.

The library's own module computes; here it is given our names (``embed``, ``blocks``, ``norm``,
``head``), so that adapters, freezing, optimizers and checkpoints treat it like any other model.
Nothing that a folder brings is ever run: only architectures that the installed library itself has.

Here are the settings and the names; the model that computes is in ``hub_module``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar

import torch
from pydantic import field_validator
from torch import Tensor

from groundup.contracts.models import ANY_MODEL_TYPE, FromHuggingFace
from groundup.contracts.processors import LabelProcessor, Processor, TextProcessor
from groundup.core.errors import CheckpointError, RecipeError, did_you_mean
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.formats.model_types import huggingface_models
from groundup.formats.transformers_library import require_transformers
from groundup.models.hub.module import Hub
from groundup.models.names.table import list_some
from groundup.models.sizes_from_data import settle_size

__all__ = ["HubConfig"]

log = logging.getLogger("groundup")
# Architectures name the same thing in many ways; the first that is there counts.
_LENGTHS = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
)
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
# Tokens of context where the architecture names no limit.
_UNLIMITED = 2048
# How the names of all kinds of dropout end.
_DROPOUT = re.compile(r"(dropout|pdrop|dropout_prob|dropout_rate)$")
# What says how to load a model or where from, not what it is; some of it would fetch code.
_DROPPED = (
    "auto_map",
    "trust_remote_code",
    "attn_implementation",
    "_attn_implementation",
    "experts_implementation",
    "quantization_config",
    "dtype",
    "torch_dtype",
    "_name_or_path",
    "transformers_version",
)


@model("hub")
class HubConfig(FromHuggingFace):
    """An architecture of ``transformers``: a language model, or with ``outputs`` a classifier of
    texts."""

    huggingface_model_types: ClassVar[tuple[str, ...]] = (ANY_MODEL_TYPE,)

    config: dict[str, Any] = setting(
        ..., "What config.json says; model_type names the architecture", min_length=1
    )
    context_length: int = setting(256, "The longest sequence, in tokens", ge=1)
    outputs: int = setting(
        0, "Classes of a classifier; 0: the processor's, or a language model", ge=0
    )
    dropout: float | None = setting(
        None,
        "Share dropped wherever config.json names a dropout; null: what it says there",
        ge=0,
        lt=1,
    )

    @field_validator("config")
    @classmethod
    def _only_what_it_is(cls, config: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in config.items() if key not in _DROPPED}

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that the contents of config.json mean.

        Raises:
            CheckpointError: If ``transformers`` has no language model and no classifier of this
                ``model_type``.
        """
        _check_known(config)
        # What is kept is what the run's own recipe holds: nothing is asked of the folder again.
        kept = {key: value for key, value in config.items() if key not in _DROPPED}
        return {"config": kept, "context_length": _first(config, _LENGTHS) or _UNLIMITED}

    @property
    def layers(self) -> int:
        """How many layers config.json says there are; 0 where it does not."""
        return _first(self.config, _LAYERS) or 0

    def complete_from(self, processor: Processor) -> HubConfig:
        """Return the config with the number of classes where a classifier's processor knows it.

        Raises:
            RecipeError: If the processor makes no tokens, or more kinds of them than the model
                knows.
        """
        if (
            not isinstance(processor, LabelProcessor | TextProcessor)
            or not processor.vocabulary_size
        ):
            raise RecipeError(
                "recipe.processor",
                "makes no tokens, which model hub reads",
                "Choose a text processor",
            )
        tokens = processor.vocabulary_size
        known = self.config.get("vocab_size")
        if isinstance(known, int) and tokens > known:
            problem = f"the tokenizer has {tokens} tokens, but the model {known}"
            raise RecipeError(
                "recipe.model.config.vocab_size", problem, "Use the tokenizer that came with it"
            )
        found = processor.outputs if isinstance(processor, LabelProcessor) else 0
        return self.model_copy(update={"outputs": settle_size("outputs", self.outputs, found)})

    def build(self) -> Hub:
        """Return the model with freshly initialised weights.

        Raises:
            CheckpointError: If the architecture is unknown, or config.json does not describe it.
        """
        return Hub(self, _architecture(self))

    def flops_per_token(self, context: int) -> float:
        """Return the FLOPs of forward and backward for one token of a document of ``context``
        tokens: an estimate.

        As in ``GPTConfig``: 6 for each weight of a matrix that is no lookup, and attention to half
            the context in every
        layer. Experts that a token is not sent to are counted too, and attention where there is
        none.
        """
        found = _on_meta(self.model_dump_json())
        # Without one attention is not counted.
        width = _first(self.config, ("hidden_size", "n_embd", "d_model")) or 0
        return 6.0 * found.matmul_parameters() + 6.0 * len(found.blocks) * width * context

    def to_huggingface(
        self, weights: Mapping[str, Tensor]
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return config.json's contents and the tensors under the names of ``transformers``."""
        known = _on_meta(self.model_dump_json())
        values = {**self.config, "architectures": [type(known.tree).__name__]}
        if self.outputs:
            values["num_labels"] = self.outputs
        tensors = {}
        for name, tensor in weights.items():
            if name not in known.theirs:
                raise CheckpointError(
                    "model", f"no place for {name}", "Keep it in the project's own layout"
                )
            if name in known.transposed:
                tensor = tensor.T.contiguous()
            tensors[known.theirs[name]] = tensor
        return values, tensors

    def weights_from_huggingface(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return this model's tensors from Hugging Face's; each is used once and none is left over.

        Of a classifier the head is left out where the file has none of this shape: it begins
        again. Then the head that the file has instead, such as a language model's, is left over.

        Raises:
            CheckpointError: If one is missing, has no place, or has another shape.
        """
        known = _on_meta(self.model_dump_json())
        shapes = {name: value.shape for name, value in known.state_dict().items()}
        ours, left = _by_own_names(known, tensors)
        found = {
            name: value.T if name in known.transposed else value for name, value in ours.items()
        }
        # Missing, or of another shape.
        wrong = [name for name in shapes if name not in found or found[name].shape != shapes[name]]
        # Classes of other data need a head of their own.
        if self.outputs and any(name.startswith("head.") for name in wrong):
            found = {name: value for name, value in found.items() if not name.startswith("head.")}
            wrong = [name for name in wrong if not name.startswith("head.")]
            log.info(
                "the classifier's head begins again; left out: %s", ", ".join(left) or "nothing"
            )
            left = [name for name in left if _within(known, name)]
        remedy = "Check that config.json belongs to these weights"
        if left:
            raise CheckpointError("weights", f"no place for {list_some(left)}", remedy)
        for name in wrong:
            shape = list(reversed(shapes[name]) if name in known.transposed else shapes[name])
            here = f"tensor {known.theirs[name]} "
            if name not in found:
                raise CheckpointError("weights", f"{here}{shape} is missing", remedy)
            raise CheckpointError(
                "weights",
                f"{here}has shape {list(ours[name].shape)}; config.json says {shape}",
                remedy,
            )
        return {name: value.contiguous().clone() for name, value in found.items()}


def _by_own_names(known: Hub, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return tensors by our names, and the names that have no place.

    Files of a model without its head lack the prefix that the whole model's have. A tied tensor
    that is there twice is used once; masks and the like that old files hold are passed over, as the
    library does.
    """
    ours = {theirs: name for name, theirs in known.theirs.items()}
    prefix = known.tree.base_model_prefix
    ignored = known.tree._keys_to_ignore_on_load_unexpected or ()
    placed: dict[str, Tensor] = {}
    copies: dict[str, Tensor] = {}
    left = []
    for name, tensor in tensors.items():
        full = name
        if name not in ours and name not in known.tied:
            full = f"{prefix}.{name}"
        if full in ours:
            placed[ours[full]] = tensor
        elif full in known.tied:
            copies[known.tied[full]] = tensor
        elif not any(re.search(pattern, name) for pattern in ignored):
            left.append(name)
    return {**copies, **placed}, left


def _within(known: Hub, name: str) -> bool:
    """Whether a tensor that has no place is of a part that is here, so that more of it should be:
    not of a head."""
    prefix = f"{known.tree.base_model_prefix}."
    parts = {
        theirs.removeprefix(prefix).split(".")[0]
        for theirs in known.theirs.values()
        if theirs.startswith(prefix)
    }
    return name.removeprefix(prefix).split(".")[0] in parts - {"pooler"}


# -------------------------------------------------------------------------------------- the library
def _known(kind: str) -> Mapping[str, Any]:
    """Return the classes of a kind of model by ``model_type``."""
    auto = require_transformers().models.auto.modeling_auto
    classes: Mapping[str, Any] = vars(auto)[f"MODEL_FOR_{kind}_MAPPING_NAMES"]
    return classes


def _check_known(config: Mapping[str, Any]) -> None:
    family = str(config.get("model_type") or "")
    models = {*_known("CAUSAL_LM"), *_known("SEQUENCE_CLASSIFICATION")}
    if family in models:
        return
    here = [kind for kind in huggingface_models() if kind != ANY_MODEL_TYPE]
    named = ", ".join(map(str, config.get("architectures") or ())) or "none named"
    problem = (
        f"model_type {family or 'missing'} (architecture: {named}) is built neither here nor by"
        " transformers "
    )
    problem += (
        f"{require_transformers().__version__}; {did_you_mean(family, [*here, *models])}built"
        " here: "
    )
    problem += f"{', '.join(here)}; by transformers: {', '.join(sorted(models - set(here)))}"
    remedy = "Use a model of one of these families"
    if "auto_map" in config:
        remedy += " (code that a folder names in auto_map is never run)"
    raise CheckpointError("config.json", problem, remedy)


def _architecture(settings: HubConfig) -> Any:
    """Return the library's module of a config."""
    transformers = require_transformers()
    values = dict(settings.config)
    _check_known(values)
    family = str(values.pop("model_type"))
    kind = "SEQUENCE_CLASSIFICATION" if settings.outputs else "CAUSAL_LM"
    # Encoders are registered as causal models too, but see the whole text.
    encoder = family in _known("MASKED_LM") and not values.get("is_decoder")
    if family not in _known(kind) or (encoder and not settings.outputs):
        wanted, remedy = "classifier", "Use another model"
        if not settings.outputs:
            wanted, remedy = "causal language model", "Use task classify, or another model"
        raise CheckpointError(
            "config.json", f"model_type {family} has no {wanted} in transformers", remedy
        )
    try:
        # Never from_pretrained: that could run code that a folder names.
        config = transformers.AutoConfig.for_model(family, **values)
        if settings.dropout is not None:
            for key, value in config.to_dict().items():
                if _DROPOUT.search(key) and isinstance(value, int | float):
                    setattr(config, key, settings.dropout)
        auto = transformers.AutoModelForCausalLM
        if settings.outputs:
            auto = transformers.AutoModelForSequenceClassification
            config.num_labels = settings.outputs
        return auto.from_config(config, dtype=torch.float32, trust_remote_code=False)
    # Whatever a damaged config does to any of hundreds of classes.
    except Exception as error:
        problem = (
            f"describes no {family}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        )
        raise CheckpointError("config.json", problem, "Fetch the model again") from error


@lru_cache(maxsize=8)
def _on_meta(settings: str) -> Hub:
    """Return the model without memory, for its names and shapes."""
    with torch.device("meta"):
        known = HubConfig.model_validate_json(settings).build()
    _as_in_files(known)
    return known


def _as_in_files(known: Hub) -> None:
    """Name the library's tensors as its files do, where these have older names than its modules.

    Raises:
        CheckpointError: If its files hold other tensors than its modules, as experts one by one.
    """
    revert_weight_conversion = require_transformers().core_model_loading.revert_weight_conversion
    names = [*known.theirs.values(), *known.tied]
    try:
        # Each tensor holds its own number, by which it is found under its new name.
        numbers = {name: torch.full((1, 1), number) for number, name in enumerate(names)}
        found = revert_weight_conversion(known.tree, numbers)
        stored = {names[int(value)]: name for name, value in found.items()}
    # What it does to tensors that are not the model's.
    except Exception:
        stored = {}
    if len(stored) != len(names):
        problem = f"files of {type(known.tree).__name__} hold other tensors than it computes with"
        raise CheckpointError("config.json", problem, "Use another model")
    known.theirs = {name: stored[theirs] for name, theirs in known.theirs.items()}
    known.tied = {stored[theirs]: name for theirs, name in known.tied.items()}


def _first(config: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    return next(
        (config[key] for key in keys if isinstance(config.get(key), int) and config[key] > 0), None
    )
