"""Any architecture of the library ``transformers``, trained as our own models are.

The library's own module computes; here it is given our names (``embed``, ``blocks``, ``norm``,
``head``), so that adapters, freezing, optimizers and checkpoints treat it like any other model.
Nothing that a folder brings is ever run: only architectures that the installed library itself has.

Here are the settings and the names; the model that computes is in ``hub_module``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, ClassVar

import torch
from pydantic import field_validator
from torch import Tensor

from groundup.contracts.models import ANY_MODEL_TYPE, FromHuggingFace
from groundup.contracts.processors import LabelProcessor, Processor, TextProcessor
from groundup.contracts.two_tokenizers import HasTwoTokenizers
from groundup.core.errors import CheckpointError, RecipeError
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.models.hub.encoder_decoder import HubEncoderDecoder
from groundup.models.hub.families import (
    auto_classes,
    check_encoder_decoder,
    is_encoder_decoder,
)
from groundup.models.hub.library import (
    change_config,
    check_known,
    keys_in_code,
    known_keys,
    make_module,
    not_stretched,
    parts_keys,
    tokens_in,
)
from groundup.models.hub.module import Hub
from groundup.models.hub.positions import rotary_positions
from groundup.models.hub.tensors import FileTensors
from groundup.models.names.huggingface.rotary import unknown_rope_keys
from groundup.models.names.table import unknown_keys
from groundup.models.sizes_from_data import settle_size
from groundup.nn.rope import RopeScaling

__all__ = ["HubConfig"]

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
    """An architecture of ``transformers``: a language model, an encoder-decoder, or with
    ``outputs`` a classifier of texts."""

    huggingface_model_types: ClassVar[tuple[str, ...]] = (ANY_MODEL_TYPE,)
    free_settings: ClassVar[tuple[str, ...]] = (
        *FromHuggingFace.free_settings,
        "tied_embeddings",
        "rope_scaling",
        "start_id",
    )

    config: dict[str, Any] = setting(
        ..., "What config.json says; model_type names the architecture", min_length=1
    )
    vocabulary_size: int = setting(
        0, "Tokens in the vocabulary; 0: as many as config.json says", ge=0
    )
    context_length: int = setting(256, "The longest sequence, in tokens", ge=1)
    rope_scaling: RopeScaling | None = setting(
        None, "How rotary wavelengths are stretched; null: as config.json says"
    )
    outputs: int = setting(
        0, "Classes of a classifier; 0: the processor's, or a language model", ge=0
    )
    start_id: int | None = setting(
        None,
        "The token before every output of an encoder-decoder; null: decoder_start_token_id of"
        " config.json",
        ge=0,
    )
    tied_embeddings: bool | None = setting(
        None, "Use the embedding as the output layer too; null: what config.json says"
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
            CheckpointError: If ``transformers`` has no language model, no encoder-decoder and no
                classifier of this ``model_type``, or it is one that cannot be trained here.
        """
        check_known(config)
        family = config["model_type"]
        # Of others a classifier may be wanted: what is built decides.
        if is_encoder_decoder(config) and family not in auto_classes("SEQUENCE_CLASSIFICATION"):
            check_encoder_decoder(config)
        # What is kept is what the run's own recipe holds: nothing is asked of the folder again.
        kept = {key: value for key, value in config.items() if key not in _DROPPED}
        return {
            "config": kept,
            "vocabulary_size": tokens_in(kept),
            "context_length": _first(config, _LENGTHS) or _UNLIMITED,
        }

    @classmethod
    def from_generation_config(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the token before every output, where generation_config.json says it."""
        start = values.get("decoder_start_token_id")
        return {"start_id": start} if isinstance(start, int) else {}

    def to_generation_config(self) -> dict[str, Any]:
        """Return the token before every output of an encoder-decoder."""
        return {"decoder_start_token_id": self.first_token()} if self.reads_inputs else {}

    @property
    def reads_inputs(self) -> bool:
        """Whether an encoder reads an input, which the decoder writes about."""
        return not self.outputs and is_encoder_decoder(self.config)

    @property
    def rows_vary(self) -> bool:
        """Inputs and outputs of an encoder-decoder are as long as their texts."""
        return self.reads_inputs

    def first_token(self) -> int:
        """Return the token before every output of an encoder-decoder.

        Raises:
            RecipeError: If neither the recipe nor the weights say it, or it is no token.
        """
        where = "recipe.model.start_id"
        found = self.start_id
        if found is None:
            found = self.config.get("decoder_start_token_id")
        tokens = self.vocabulary_size or tokens_in(self.config)
        if not isinstance(found, int):
            problem = "is not given, and config.json has no decoder_start_token_id"
            remedy = "Set it to the token that comes before every output, often the end token"
            raise RecipeError(where, problem, remedy)
        if found >= tokens:
            problem = f"is {found}, but the vocabulary has {tokens} tokens"
            raise RecipeError(where, problem, f"Use at most {tokens - 1}")
        return found

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
            problem = "makes no tokens, which model hub reads"
            if isinstance(processor, HasTwoTokenizers):
                problem = "has two tokenizers, but model hub has one vocabulary for both sides"
            raise RecipeError("recipe.processor", problem, "Choose a text processor")
        tokens = processor.vocabulary_size
        known = self.vocabulary_size or tokens_in(self.config)
        if 0 < known < tokens:
            raise RecipeError(
                "recipe.model.vocabulary_size",
                f"the tokenizer has {tokens} tokens, but the model {known}",
                f"Use vocabulary_size {tokens}, or the tokenizer that came with it",
            )
        found = processor.outputs if isinstance(processor, LabelProcessor) else 0
        return self.model_copy(update={"outputs": settle_size("outputs", self.outputs, found)})

    def build(self) -> Hub | HubEncoderDecoder:
        """Return the model with freshly initialised weights.

        Raises:
            CheckpointError: If the architecture is unknown, or config.json does not describe it.
            RecipeError: If its positions cannot be stretched, or nobody says how outputs begin.
        """
        values = self._described()
        try:
            tree = make_module(values, self.outputs, self.dropout, self.tied_embeddings)
        # Stretching asks the library for what config.json alone did not.
        except CheckpointError as error:
            if self.rope_scaling is None:
                raise
            where = "recipe.model.rope_scaling"
            raise RecipeError(where, error.problem, "Remove it, or use another kind") from error
        if self.rope_scaling and not rotary_positions(tree, (self.rope_scaling.kind,)):
            raise not_stretched(str(self.config["model_type"]))
        if self.reads_inputs:
            return HubEncoderDecoder(self, tree, self.first_token())
        return Hub(self, tree)

    def flops_per_token(self, context: int) -> float:
        """Return the FLOPs of forward and backward for one token of a document of ``context``
        tokens: an estimate.

        As in ``GPTConfig``: 6 for each weight of a matrix that is no lookup, and attention to half
            the context in every
        layer. Experts that a token is not sent to are counted too, and attention where there is
        none.
        """
        found = _on_meta(self._key())
        # Without one attention is not counted.
        width = _first(self.config, ("hidden_size", "n_embd", "d_model")) or 0
        attention = 6.0
        if self.reads_inputs:
            # Encoders see all of an input; decoders half of an output on average, and the input.
            attention = (12.0 + 18.0) / 2
        blocks = len(found.blocks)
        return 6.0 * found.matmul_parameters() + attention * blocks * width * context

    def to_huggingface(
        self, weights: Mapping[str, Tensor]
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return config.json's contents and the tensors under the names of ``transformers``."""
        files = _file_tensors(self._key())
        return self._values(files), files.write(weights)

    def to_modules(self, weights: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the same with the tensors as the modules of ``transformers`` hold them in
        memory."""
        files = _file_tensors(self._key())
        return self._values(files), files.modules_tensors(weights)

    def _described(self) -> dict[str, Any]:
        """Return the contents of config.json with what the settings change."""
        return change_config(
            self.config,
            tokens=self.vocabulary_size,
            scaling=self.rope_scaling,
            context=self.context_length,
        )

    def _key(self) -> str:
        # Not pydantic's JSON, which writes an infinity as a text.
        return json.dumps(self.model_dump())

    def _values(self, files: FileTensors) -> dict[str, Any]:
        values = self._described() | {"architectures": [type(files.known.tree).__name__]}
        if self.outputs:
            values["num_labels"] = self.outputs
        if self.tied_embeddings is not None:
            values["tie_word_embeddings"] = self.tied_embeddings
        if self.reads_inputs:
            values["decoder_start_token_id"] = self.first_token()
        return values

    def weights_from_huggingface(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return this model's tensors from Hugging Face's; each is used once, or named as left out.

        Of a classifier's head what is missing, or of another shape, is missing from what is
        returned too: it begins again. Heads that this model has not are left out.

        Raises:
            CheckpointError: If another one is missing, has no place, or has another shape.
        """
        return _file_tensors(self._key()).read(tensors)

    def unknown_keys(self, config: Mapping[str, Any]) -> list[str]:
        """Return the keys of config.json that the library's settings of the family have not."""
        found = unknown_keys(config, {*known_keys(config), *_LENGTHS, *_LAYERS})
        if found:
            # Some are asked for in the code alone, such as DeBERTa's share_att_key.
            found = unknown_keys(config, {*config} - {*found} | keys_in_code(config))
        found += unknown_rope_keys(config)
        for name, known in parts_keys(config).items():
            part = config[name]
            odd = unknown_keys(part, known) + unknown_rope_keys(part)
            found += [f"{name}.{key}" for key in odd]
        return found

    def renamed_tensors(self, names: Iterable[str]) -> dict[str, str]:
        """Return today's name of each tensor of a checkpoint made when parts were told by where the
        library makes them: DeBERTa's vectors of distances were in the head, XLM-R's head was not.
        """
        own = _on_meta(self._key()).state_dict()
        places = Counter(name.partition(".")[2] for name in own)
        today = {name.partition(".")[2]: name for name in own}
        return {
            name: today[rest]
            for name, rest in ((each, each.partition(".")[2]) for each in names)
            if name not in own and places[rest] == 1
        }

    def output_tensors(self) -> tuple[str, ...]:
        """Return the names of the tensors that are shaped by the number of classes."""
        shapes = [
            {name: tensor.shape for name, tensor in known.state_dict().items()}
            for known in (
                _on_meta(self.model_copy(update={"outputs": self.outputs + more})._key())
                for more in (0, 1)
            )
        ]
        return tuple(name for name, shape in shapes[0].items() if shape != shapes[1][name])


@lru_cache(maxsize=8)
def _on_meta(settings: str) -> Hub | HubEncoderDecoder:
    """Return the model without memory, for its names and shapes."""
    with torch.device("meta"):
        return HubConfig(**json.loads(settings)).build()


@lru_cache(maxsize=8)
def _file_tensors(settings: str) -> FileTensors:
    return FileTensors(_on_meta(settings))


def _first(config: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    return next(
        (config[key] for key in keys if isinstance(config.get(key), int) and config[key] > 0), None
    )
