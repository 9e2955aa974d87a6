"""The families of the library ``transformers``: of which kind each is, and which encoder-decoders
are not opened."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from groundup.core.errors import CheckpointError
from groundup.formats.transformers_library import require_transformers

__all__ = ["KINDS", "auto_classes", "check_encoder_decoder", "is_encoder_decoder"]

KINDS = ("CAUSAL_LM", "SEQUENCE_CLASSIFICATION", "SEQ_TO_SEQ_CAUSAL_LM")
"""The kinds of models that are opened, as the library names them."""

# Why a family of encoder-decoders is not opened.
_SHARED_EXPERTS = (
    "sends tokens to experts that take only so many (expert_capacity), so that what a token becomes"
    " depends on others, and learns to spread them by losses of its own"
)
_REFUSED = {
    "encoder-decoder": "is two models of any families, each with settings of its own",
    "fsmt": "reads by one vocabulary and writes by another, of tokenizers without a tokenizer.json",
    "nllb-moe": _SHARED_EXPERTS,
    "prophetnet": "learns several tokens ahead at once, by a loss of its own",
    "seamless_m4t": "reads and makes sounds, too",
    "seamless_m4t_v2": "reads and makes sounds, too",
    "switch_transformers": _SHARED_EXPERTS,
    "t5gemma": "keeps the settings of its encoder and its decoder apart",
    "t5gemma2": "reads pictures, too",
}


def auto_classes(kind: str) -> Mapping[str, Any]:
    """Return the names of the classes of a kind of model by ``model_type``."""
    auto = require_transformers().models.auto.modeling_auto
    classes: Mapping[str, Any] = vars(auto)[f"MODEL_FOR_{kind}_MAPPING_NAMES"]
    return classes


def is_encoder_decoder(config: Mapping[str, Any]) -> bool:
    """Return whether a config.json is of a model that reads a text by its encoder, and writes
    another by its decoder."""
    family = str(config.get("model_type") or "")
    if family not in auto_classes("SEQ_TO_SEQ_CAUSAL_LM"):
        return False
    # The decoders of some families are language models, whose files say that they are no more.
    return bool(config.get("is_encoder_decoder", _has_encoder(family)))


@lru_cache(maxsize=64)
def _has_encoder(family: str) -> bool:
    # Language models that hear are in the same list of the library.
    built = require_transformers().AutoConfig.for_model(family)
    return bool(built.is_encoder_decoder)


def check_encoder_decoder(config: Mapping[str, Any]) -> None:
    """Make sure that an encoder-decoder of a config.json can be trained here.

    Raises:
        CheckpointError: If not, with the reason.
    """
    family = str(config["model_type"])
    if family in _REFUSED:
        raise CheckpointError(
            "config.json",
            f"model_type {family} {_REFUSED[family]}",
            "Use a model of another family",
        )
    # Its encoder chooses blocks by numpy's generator, whose state it sets, and goes over to full
    # attention for good at the first short text.
    if config.get("attention_type") == "block_sparse":
        raise CheckpointError(
            "config.json",
            "attention_type is block_sparse, by which a text's states depend on the texts before",
            "Set attention_type: original_full there: the weights are the same",
        )
