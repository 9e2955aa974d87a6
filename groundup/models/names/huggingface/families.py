"""From a ``model_type`` of Hugging Face's to the table that knows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from groundup.contracts.models import ANY_MODEL_TYPE
from groundup.core.errors import CheckpointError, did_you_mean
from groundup.formats.model_types import huggingface_models
from groundup.models.names.huggingface import gpt2, llama

__all__ = ["config_to_groundup"]

_KNOWN = ("gpt2", *llama.FAMILIES)


def config_to_groundup(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of GPT from the contents of config.json.

    Raises:
        CheckpointError: If the model is of another family, or has a part that groundup's lacks.
    """
    family = str(config.get("model_type", ""))
    # Others may be built here too, as other models: they are listed.
    if family not in _KNOWN:
        named = ", ".join(map(str, config.get("architectures") or ())) or "none named"
        problem = f"model_type {family or 'missing'} (architecture: {named}) is not built here; "
        known = [kind for kind in huggingface_models() if kind != ANY_MODEL_TYPE]
        problem += f"{did_you_mean(family, known)}known: {', '.join(known)}"
        raise CheckpointError("config.json", problem, "Use a model of one of these families")
    return gpt2.config_to_groundup(config) if family == "gpt2" else llama.config_to_groundup(config)
