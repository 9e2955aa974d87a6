"""The trunk of a model that finds things in pictures: a classifier's layers, without its head."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import nn

from groundup.contracts.classifier_models import FeatureMaps
from groundup.contracts.models import ModelConfig
from groundup.contracts.processors import Processor
from groundup.core import registry
from groundup.core.errors import RecipeError
from groundup.core.settings import setting, validate
from groundup.models.sizes_from_data import image_shape, settle_size
from groundup.nn.norm import freeze_norms

__all__ = [
    "complete_for_pictures",
    "freeze_trunk_norms",
    "frozen_norms_setting",
    "trunk_flops",
    "trunk_settings",
]

_Config = TypeVar("_Config", bound=ModelConfig)


def frozen_norms_setting() -> Any:
    """Return the setting ``frozen_norms``."""
    return setting(
        False,
        "Keep statistics, weights and biases of the trunk's batch norms as they are: for pretrained"
        " weights",
    )


def freeze_trunk_norms(model: nn.Module) -> None:
    """Freeze the batch norms in the trunk of a built model, its ``embed`` and ``blocks``."""
    for part in (model.embed, model.blocks):
        assert isinstance(part, nn.Module)
        freeze_norms(part)


def complete_for_pictures(config: _Config, owner: str, processor: Processor) -> _Config:
    """Return a config with the data's ``input_shape`` and ``outputs``.

    Args:
        config: Of a model with a trunk.
        owner: The model's name, for messages.
        processor: The run's.

    Raises:
        RecipeError: If the processor makes no pictures, or the recipe says other sizes.
    """
    given = dict(config)
    shape, labelled = image_shape(owner, processor, given["input_shape"])
    outputs = settle_size("outputs", given["outputs"], labelled.outputs)
    return config.model_copy(update={"input_shape": shape, "outputs": outputs})


def trunk_flops(trunk: Any, context: int) -> float:
    """Return the FLOPs of a picture in a trunk, forward and backward."""
    # Its output layer is built and thrown away.
    return float(trunk.model_copy(update={"outputs": 0}).flops_per_token(context))


def trunk_settings(section: dict[str, Any], shape: tuple[int, int, int] | None, owner: str) -> Any:
    """Return the settings of a trunk.

    Args:
        section: Of a model of pictures, with its name.
        shape: Channels, height and width of the pictures, where that is known.
        owner: The model that has the trunk, for messages.

    Raises:
        RecipeError: If they are not of a model with feature maps, or one of them is wrong.
    """
    where = "recipe.model.backbone"
    rest = dict(section)
    if "name" not in rest:
        raise RecipeError(f"{where}.name", "is required and missing", "Write {name: resnet}")
    name = str(rest.pop("name"))
    for key in ("input_shape", "outputs"):
        if key in rest:
            raise RecipeError(f"{where}.{key}", f"is the {owner}'s", "Remove it")
    found: Any = validate(registry.lookup("model", name, f"{where}.name"), rest, where)
    if not isinstance(found, FeatureMaps):
        raise RecipeError(
            f"{where}.name",
            f"is {name}, which has no feature maps",
            "Choose resnet, convnext or vit",
        )
    # An output is built and thrown away: the trunk ends in maps.
    settings: Any = found
    return settings.model_copy(update={"input_shape": shape, "outputs": 1})
