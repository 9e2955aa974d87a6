"""Pretrained weights read part by part, and the base of an adapter in 4 or 8 bits, quantised as it
is read.

Of such a base the linear layers of the blocks are quantised; embeddings, norms, biases and what
follows the blocks stay as they are.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from groundup.core.contracts.models import ModelConfig
from groundup.core.errors import CheckpointError, RecipeError
from groundup.nn.lowbit.nf4 import QuantizedLinear, QuantizedWeight
from groundup.nn.part_names import BLOCK
from groundup.recipe.sections import Adapter
from groundup.runs.run import Run
from groundup.weights.load import pretrained_parts

__all__ = [
    "announce",
    "memory_of",
    "pretrained_model",
    "quantise_layers",
    "quantised_names",
    "weights_as_quantised",
]


def pretrained_model(run: Run) -> nn.Module:
    """Return a run's model with the pretrained weights it starts from in float32, quantised where
    its adapter says so.

    The model is built without content and filled a few of its layers after the other: the files are
    never in memory as a whole beside the model, and of a quantised one never more than those layers
    are in floats.

    Raises:
        RunError: If the folder holds other weights than when the run was begun.
        CheckpointError: If the files are damaged, are not this model's, or hold what is not finite.
        RecipeError: If the model has no linear layer in its blocks.
    """
    settings, name = run.recipe.adapter, str(run.recipe.init.pretrained)
    model = _empty(run.recipe.model)
    few = settings is not None and settings.quantised != ""
    layers = {f"{layer}.weight": layer for layer in _layers(model)} if few else {}
    for part in pretrained_parts(run):
        others = {}
        for key in list(part):
            tensor = part.pop(key)
            if settings is not None and key in layers:
                _replace(model, layers[key], _quantised(tensor, settings, f"{name}, tensor {key}"))
            else:  # a copy, so that the file's pages go and no change of the file reaches the model
                others[key] = tensor.to(torch.float32, copy=True).contiguous()
        model.load_state_dict(others, strict=False, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return model


def _empty(config: ModelConfig) -> nn.Module:
    """Return a model without content, to be filled with weights; one with content if that is more
    than its weights."""
    with torch.device("meta"):
        model = config.build()
    saved = model.state_dict()
    return model if all(name in saved for name, _ in model.named_buffers()) else config.build()


def quantise_layers(model: nn.Module, settings: Adapter, where: str) -> None:
    """Quantise the linear layers of a model's blocks in place, one after the other.

    Args:
        model: Changed in place.
        settings: The recipe's section.
        where: What the weights are called in errors.

    Raises:
        RecipeError: If there are none.
        CheckpointError: If a weight is not finite.
    """
    for name in _layers(model):
        weight = model.get_parameter(f"{name}.weight")
        _replace(model, name, _quantised(weight, settings, f"{where}, tensor {name}.weight"))


def weights_as_quantised(
    weights: dict[str, Tensor], config: ModelConfig, settings: Adapter
) -> dict[str, Tensor]:
    """Return a base's weights, those of its blocks' linear layers as their few bits stand for, in
    float32."""
    found = dict(weights)
    with torch.device("meta"):
        names = quantised_names(config.build())
    for key in names:
        if key in found:
            found[key] = _quantised(found[key], settings, f"tensor {key}").dequantised()
    return found


def quantised_names(model: nn.Module) -> list[str]:
    """Return the names of the weights that are quantised where a base is.

    Raises:
        RecipeError: If there are none.
    """
    return [f"{name}.weight" for name in _layers(model)]


def _layers(model: nn.Module) -> list[str]:
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and BLOCK.match(name)
    ]
    if not found:
        problem = (
            f"has no effect: {type(model).__name__} has no linear layer in blocks, and only those"
            " are quantised"
        )
        raise RecipeError("recipe.adapter.base", problem, "Remove it")
    return found


def _quantised(weight: Tensor, settings: Adapter, where: str) -> QuantizedWeight:
    if not weight.isfinite().all():
        problem = (
            "holds numbers that are not finite, and one of them spoils all that share its scale"
        )
        raise CheckpointError(where, problem, "Fetch the weights again, or set adapter.base: fp32")
    kind = cast(Literal["int8", "nf4"], settings.base)
    return QuantizedWeight(
        weight, kind, double=settings.base == "nf4" and settings.double_quantization
    )


def _replace(model: nn.Module, name: str, stored: QuantizedWeight) -> None:
    parent, _, child = name.rpartition(".")
    before = model.get_submodule(name)
    layer = QuantizedLinear(stored, cast("nn.Parameter | None", before.bias)).train(before.training)
    setattr(model.get_submodule(parent), child, layer)


# ------------------------------------------------------------------------------------------- memory
def memory_of(model: nn.Module) -> dict[str, Any]:
    """Return how many bytes a model takes with quantised layers, and would take with those in
    float32."""
    stored = [module for module in model.modules() if isinstance(module, QuantizedWeight)]
    few, plain = (
        sum(each.bytes for each in stored),
        sum(4 * each.shape[0] * each.shape[1] for each in stored),
    )
    others = sum(tensor.nbytes for tensor in model.state_dict().values())
    return {
        **{"layers": len(stored), "layers_bytes": few, "layers_bytes_fp32": plain},
        **{"model_bytes": few + others, "model_bytes_fp32": plain + others},
    }


def announce(run: Run, model: nn.Module) -> None:
    """Say in the run's log and in environment.json how its base is kept and what that saves."""
    settings = run.recipe.adapter
    assert settings is not None
    found = memory_of(model)
    facts = run.read_json("environment.json") or {}
    run.write_json(
        "environment.json", {**facts, "quantised_base": {"kind": settings.quantised, **found}}
    )
    whole, plain = found["model_bytes"], found["model_bytes_fp32"]
    layers = (
        f"{found['layers_bytes'] / 1e6:.1f} MB,"
        f" {found['layers_bytes'] / found['layers_bytes_fp32']:.3f} of fp32's"
    )
    what = (
        f"{run.folder}: {found['layers']} linear layers are kept in {settings.quantised}: {layers}"
    )
    run.event(0, f"{what}; the whole model {whole / 1e6:.1f} MB, {whole / plain:.3f} of fp32's")
