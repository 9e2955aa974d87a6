"""What the library ``transformers`` knows: its architectures, and the module of a config.json."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from groundup.contracts.models import ANY_MODEL_TYPE
from groundup.core.errors import CheckpointError, RecipeError, did_you_mean
from groundup.formats.model_types import huggingface_models
from groundup.formats.transformers_library import require_transformers
from groundup.models.hub.families import (
    KINDS,
    auto_classes,
    check_encoder_decoder,
    is_encoder_decoder,
)
from groundup.models.names.huggingface.rotary import scaling_to_huggingface
from groundup.nn.rope import RopeScaling

__all__ = [
    "COUNT_PADDING",
    "change_config",
    "check_known",
    "keys_in_code",
    "known_keys",
    "make_module",
    "not_stretched",
    "parts_keys",
    "sees_all",
    "tokens_in",
]

# How the names of all kinds of dropout end.
_DROPOUT = re.compile(r"(dropout|pdrop|dropout_prob|dropout_rate)$")

# How code reads a setting that may be missing.
_ASKED = re.compile(r"""(?:getattr|hasattr)\((?:self\.)?config, ["'](\w+)["']""")

# Language models whose streams see the padding after a text.
_SEE_PADDING = ("cpmant", "prophetnet")
# Those that compress texts block by block, and count padding before one as a part of it.
COUNT_PADDING = ("deepseek_v4",)


# How many tokens there are; a translator's decoder may have some of its own.
_TOKENS = ("decoder_vocab_size", "vocab_size")


def check_known(config: Mapping[str, Any]) -> None:
    """Make sure that there is a language model, a classifier or an encoder-decoder of a
    config.json's ``model_type``.

    Raises:
        CheckpointError: If there is none.
    """
    family = str(config.get("model_type") or "")
    models = {name for kind in KINDS for name in auto_classes(kind)}
    if family in models:
        return
    here = [kind for kind in huggingface_models() if kind != ANY_MODEL_TYPE]
    named = ", ".join(map(str, config.get("architectures") or ())) or "none named"
    problem = (
        f"model_type {family or 'missing'} (architecture: {named}) is built neither here nor by"
        f" transformers {require_transformers().__version__};"
        f" {did_you_mean(family, [*here, *models])}built here: {', '.join(here)};"
        f" by transformers: {', '.join(sorted(models - set(here)))}"
    )
    remedy = "Use a model of one of these families"
    if "auto_map" in config:
        remedy += " (code that a folder names in auto_map is never run)"
    raise CheckpointError("config.json", problem, remedy)


def known_keys(config: Mapping[str, Any]) -> set[str]:
    """Return the keys that the library's settings of a config.json's family have."""
    return _keys_of(require_transformers().AutoConfig.for_model(str(config["model_type"])))


def keys_in_code(config: Mapping[str, Any]) -> set[str]:
    """Return the keys that the code of a family asks its settings for by name, as if they might be
    missing."""
    transformers = require_transformers()
    family = str(config["model_type"])
    classes = [auto_classes(kind).get(family) for kind in KINDS]
    found: set[str] = set()
    for name in filter(None, classes):
        module = inspect.getmodule(getattr(transformers, name))
        assert module is not None
        found |= set(_ASKED.findall(inspect.getsource(module)))
    return found


def parts_keys(config: Mapping[str, Any]) -> dict[str, set[str]]:
    """Return the same of the settings of what reads text within a larger model, by its name."""
    built = require_transformers().AutoConfig.for_model(str(config["model_type"]))
    text = _text_settings(built)
    return {
        name: _keys_of(text)
        for name, part in vars(built).items()
        if part is text and isinstance(config.get(name), dict)
    }


def _keys_of(built: Any) -> set[str]:
    # What was called otherwise before.
    older = {"rope_theta", "rope_scaling", "partial_rotary_factor", "rotary_pct", "rotary_emb_base"}
    return {*built.to_dict(), *type(built).attribute_map, *older, *_parameters_of(type(built))}


def _parameters_of(kind: Any) -> set[str]:
    """Return what a class of settings takes, some of which it keeps under other names."""
    return set(inspect.signature(kind.__init__).parameters) - {"self", "kwargs"}


def sees_all(config: Mapping[str, Any]) -> bool:
    """Return whether a config.json is of a model that sees more than the text before a position."""
    family = config["model_type"]
    # Encoders are registered as causal models too.
    encoder = family in {*auto_classes("MASKED_LM"), "bert-generation"}
    return family in _SEE_PADDING or (encoder and not config.get("is_decoder"))


def tokens_in(config: Mapping[str, Any]) -> int:
    """Return how many tokens a config.json's model has; 0 where it has no table of them."""
    text = _text_settings(_settings(config)).to_dict()
    return next((int(text[key]) for key in _TOKENS if text.get(key)), 0)


def change_config(
    config: Mapping[str, Any], *, tokens: int, scaling: RopeScaling | None, context: int
) -> dict[str, Any]:
    """Return the contents of config.json for a model with more tokens, or stretched positions.

    Args:
        config: Of the weights.
        tokens: How many there are; 0: as many as the weights have.
        scaling: How rotary wavelengths are stretched; None: as they are.
        context: The longest sequence of a model that is stretched.

    Raises:
        RecipeError: If positions of the family cannot be stretched, or are already.
    """
    values = dict(config)
    if not tokens and scaling is None:
        return values
    built = _settings(config)
    text = _text_settings(built)
    changed: dict[str, Any] = {}
    if tokens:
        changed |= {key: tokens for key in _TOKENS if text.to_dict().get(key)}
    if scaling is not None:
        changed["rope_parameters"] = _stretch(str(config["model_type"]), text, scaling)
        # By it transformers tells how long a text was before it was stretched.
        longest = scaling.original_context if scaling.kind == "dynamic" else context
        changed["max_position_embeddings"] = longest
    # Of older models it is a copy of the whole, and in no place of it.
    within = next((name for name, part in vars(built).items() if part is text), None)
    if within is None:
        return _replace(values, changed, text.attribute_map)
    return values | {within: _replace(values.get(within) or {}, changed, text.attribute_map)}


def _replace(
    values: Mapping[str, Any], changed: Mapping[str, Any], older: Mapping[str, str]
) -> dict[str, Any]:
    """Return values with some of them changed, under one name each."""
    # Older files may name the same otherwise; it must not be said twice.
    gone = {old for old, name in older.items() if name in changed}
    if "rope_parameters" in changed:
        gone |= {"rope_scaling", "rope_theta"}
    return {key: value for key, value in values.items() if key not in gone} | dict(changed)


def _stretch(family: str, text: Any, scaling: RopeScaling) -> dict[str, Any]:
    """Return ``rope_parameters`` with a stretching; of layers of several kinds, that of those that
    see all."""
    where = "recipe.model.rope_scaling"
    before: dict[str, Any] = text.to_dict().get("rope_parameters") or {}
    within: dict[str, Any] = before
    if before and "rope_type" not in before:
        within = before.get("full_attention") or {}
    # Falcon's with ALiBi make rotary positions, too, and do not use them.
    if not within or text.to_dict().get("alibi"):
        raise not_stretched(family)
    if within["rope_type"] != "default":
        problem = f"is {scaling.kind}, but the weights are stretched already"
        raise RecipeError(where, f"{problem} ({within['rope_type']})", "Remove it")
    after = within | scaling_to_huggingface(scaling.model_dump())
    return after if within is before else before | {"full_attention": after}


def not_stretched(family: str) -> RecipeError:
    """Return the error about a family whose positions the library does not stretch."""
    return RecipeError(
        "recipe.model.rope_scaling",
        f"has no effect: this {family} has no rotary positions that transformers stretches",
        "Remove it, and keep to the context of the weights",
    )


def _text_settings(built: Any) -> Any:
    """Return the settings of what reads text, which may be a part of a larger model."""
    return built.get_text_config(decoder=True)


def _settings(values: Mapping[str, Any]) -> Any:
    """Return the library's settings of a config.json.

    Raises:
        CheckpointError: If it does not describe a model.
    """
    transformers = require_transformers()
    check_known(values)
    family = str(values["model_type"])
    with _describing(family):
        # Never from_pretrained: that could run code that a folder names.
        kind_of = type(transformers.AutoConfig.for_model(family))
        # Files hold infinities as objects.
        return kind_of.from_dict(kind_of._decode_special_floats(dict(values)))


@contextmanager
def _describing(family: str) -> Iterator[None]:
    try:
        yield
    # Whatever a damaged config does to any of hundreds of classes.
    except Exception as error:
        problem = (
            f"describes no {family}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        )
        raise CheckpointError("config.json", problem, "Fetch the model again") from error


def make_module(
    config: Mapping[str, Any], outputs: int, dropout: float | None, tied: bool | None
) -> Any:
    """Return the library's module of a config.json, with random weights.

    Args:
        config: Its contents.
        outputs: Of a classifier; 0: a language model, or an encoder-decoder.
        dropout: The share wherever a dropout is named; None: what is said there.
        tied: Whether the embedding is the output layer too; None: what is said there.

    Raises:
        CheckpointError: If there is no such module, or the config does not describe one.
    """
    built = _settings(config)
    family = str(config["model_type"])
    auto = _auto_class(config, outputs)
    with _describing(family):
        if dropout is not None:
            for key, value in built.to_dict().items():
                if _DROPOUT.search(key) and isinstance(value, int | float):
                    setattr(built, key, dropout)
        if tied is not None:
            built.tie_word_embeddings = tied
        if outputs:
            built.num_labels = outputs
        return auto.from_config(built, dtype=torch.float32, trust_remote_code=False)


def _auto_class(config: Mapping[str, Any], outputs: int) -> Any:
    """Return the library's class that makes the module of a config.json.

    Raises:
        CheckpointError: If there is none for what is wanted.
    """
    transformers = require_transformers()
    family = str(config["model_type"])
    if not outputs and is_encoder_decoder(config):
        check_encoder_decoder(config)
        return transformers.AutoModelForSeq2SeqLM
    kind = "SEQUENCE_CLASSIFICATION" if outputs else "CAUSAL_LM"
    if family not in auto_classes(kind) or (not outputs and sees_all(config)):
        wanted, remedy = "classifier", "Use another model"
        if not outputs:
            wanted, remedy = "causal language model", "Use task classify, or another model"
        raise CheckpointError(
            "config.json", f"model_type {family} has no {wanted} in transformers", remedy
        )
    if outputs:
        return transformers.AutoModelForSequenceClassification
    return transformers.AutoModelForCausalLM
