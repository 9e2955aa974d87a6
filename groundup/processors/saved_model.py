"""A model that a processor encodes by, among the processor's own files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from groundup.contracts.models import ModelConfig
from groundup.core import registry
from groundup.core.errors import DataError
from groundup.core.settings import validate

__all__ = ["load_model", "save_model"]


def save_model(path: Path, config: ModelConfig, model: nn.Module) -> dict[str, Any]:
    """Write a model's weights to ``path``, and return its settings with its name."""
    # With the processor, so that a run is whole without the one that the model is from.
    weights = {name: values.contiguous() for name, values in model.state_dict().items()}
    save_file(weights, path)
    return {"name": config.registered_name, **config.model_dump(mode="json")}


def load_model(path: Path, saved: Mapping[str, Any], where: str) -> tuple[ModelConfig, nn.Module]:
    """Return the settings and the model that ``save_model`` wrote.

    Args:
        path: Of the weights.
        saved: What it returned.
        where: The file that holds that, for messages.

    Raises:
        DataError: If the weights are missing or damaged.
    """
    # Validated again: a saved file is data, and may have been edited.
    settings = dict(saved)
    name = settings.pop("name")
    config: ModelConfig = validate(registry.lookup("model", name, where), settings, where)
    model = config.build()
    try:
        model.load_state_dict(load_file(path), strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        problem = f"is missing or damaged: {str(error).splitlines()[0]}"
        raise DataError(str(path), problem, "Restore the run's folder") from None
    return config, model
