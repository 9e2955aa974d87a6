"""The base of an adapter in 4 or 8 bits.

Of such a base the linear layers of the blocks are quantized; embeddings, norms, biases and what
follows the blocks stay as they are.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from groundup.contracts.models import ModelConfig
from groundup.core.errors import CheckpointError, RecipeError
from groundup.nn.lowbit.nf4 import QuantizedLinear, QuantizedWeight
from groundup.nn.part_names import BLOCK
from groundup.recipe.adapter import Adapter
from groundup.runs.run import Run

__all__ = [
    "announce",
    "build_without_content",
    "memory_of",
    "quantize_layer",
    "quantize_layers",
    "quantized_names",
    "weights_as_quantized",
]


def build_without_content(config: ModelConfig) -> nn.Module:
    """Return a model without content, to be filled with weights; one with content if that is more
    than its weights."""
    with torch.device("meta"):
        model = config.build()
    saved = model.state_dict()
    if all(name in saved for name, _ in model.named_buffers()):
        return model
    # A buffer that no file holds, such as a table of angles, has to be computed.
    return config.build()


def quantize_layers(model: nn.Module, settings: Adapter, where: str) -> None:
    """Quantize the linear layers of a model's blocks in place, one after the other.

    Args:
        model: Changed in place.
        settings: The recipe's section.
        where: What the weights are called in errors.

    Raises:
        RecipeError: If there are none.
        CheckpointError: If a weight is not finite.
    """
    for key in quantized_names(model):
        quantize_layer(model, key, model.get_parameter(key), settings, f"{where}, tensor {key}")


def quantize_layer(
    model: nn.Module, key: str, weight: Tensor, settings: Adapter, where: str
) -> None:
    """Put a quantized layer in the place of one of ``quantized_names``.

    Args:
        model: Changed in place.
        key: The name of the layer's weight.
        weight: What is quantized.
        settings: The recipe's section.
        where: What the weight is called in errors.

    Raises:
        CheckpointError: If the weight is not finite.
    """
    parent, _, child = key.removesuffix(".weight").rpartition(".")
    # quantized_names found nothing but linear layers.
    before = cast(nn.Linear, model.get_submodule(key.removesuffix(".weight")))
    layer = QuantizedLinear(_quantize(weight, settings, where), before.bias)
    setattr(model.get_submodule(parent), child, layer.train(before.training))


def weights_as_quantized(
    weights: dict[str, Tensor], config: ModelConfig, settings: Adapter
) -> dict[str, Tensor]:
    """Return a base's weights, those of its blocks' linear layers as their few bits stand for, in
    float32."""
    found = dict(weights)
    # Only for the names: with content a second whole model would be in memory.
    with torch.device("meta"):
        names = quantized_names(config.build())
    for key in names:
        if key in found:
            found[key] = _quantize(found[key], settings, f"tensor {key}").dequantized()
    return found


def quantized_names(model: nn.Module) -> list[str]:
    """Return the names of the weights that are quantized where a base is.

    Raises:
        RecipeError: If there are none.
    """
    found = [
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and BLOCK.match(name)
    ]
    if not found:
        raise RecipeError(
            "recipe.adapter.base",
            f"has no effect: {type(model).__name__} has no linear layer in blocks, and only those"
            " are quantized",
            "Remove it",
        )
    return found


def _quantize(weight: Tensor, settings: Adapter, where: str) -> QuantizedWeight:
    # Numbers in blocks share a scale: a single infinity makes zeros of its whole block.
    if not weight.isfinite().all():
        raise CheckpointError(
            where,
            "holds numbers that are not finite, and one of them spoils all that share its scale",
            "Fetch the weights again, or set adapter.base: fp32",
        )
    assert settings.base != "fp32"
    double = settings.base == "nf4" and settings.double_quantization
    return QuantizedWeight(weight, settings.base, double=double)


# ------------------------------------------------------------------------------------------- memory
def memory_of(model: nn.Module) -> dict[str, Any]:
    """Return how many bytes a model takes with quantized layers, and would take with those in
    float32."""
    stored = [module for module in model.modules() if isinstance(module, QuantizedWeight)]
    quantized = sum(each.bytes for each in stored)
    plain = sum(4 * each.shape[0] * each.shape[1] for each in stored)
    # Quantized weights are made from the base's again, so state_dict does not hold them.
    others = sum(tensor.nbytes for tensor in model.state_dict().values())
    return {
        "layers": len(stored),
        "layers_bytes": quantized,
        "layers_bytes_fp32": plain,
        "model_bytes": quantized + others,
        "model_bytes_fp32": plain + others,
    }


def announce(run: Run, model: nn.Module) -> None:
    """Say in the run's log and in environment.json how its base is kept and what that saves."""
    settings = run.recipe.adapter
    assert settings is not None
    found = memory_of(model)
    facts = run.read_json("environment.json") or {}
    run.write_json(
        "environment.json", {**facts, "quantised_base": {"kind": settings.quantized, **found}}
    )
    whole = found["model_bytes"]
    plain = found["model_bytes_fp32"]
    layers = (
        f"{found['layers_bytes'] / 1e6:.1f} MB,"
        f" {found['layers_bytes'] / found['layers_bytes_fp32']:.3f} of fp32's"
    )
    what = (
        f"{run.folder}: {found['layers']} linear layers are kept in {settings.quantized}: {layers}"
    )
    run.event(0, f"{what}; the whole model {whole / 1e6:.1f} MB, {whole / plain:.3f} of fp32's")
