"""The trunk of a new model, filled with the layers of a trained classifier of pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from groundup.contracts.classifier_models import HasTrunk
from groundup.contracts.models import FromHuggingFace, ModelConfig
from groundup.core.errors import CheckpointError
from groundup.nn.part_names import HEADS

__all__ = ["fill_trunk", "trunk_in", "trunk_of"]

# How the names of the tensors begin that a model with a trunk has of a classifier.
_TRUNK = ("embed.", "blocks.")
_Announce = Callable[[str], None]


def trunk_of(model: ModelConfig, base: ModelConfig) -> ModelConfig | None:
    """Return the settings of a model's trunk, where this is what another model is; else None."""
    if not isinstance(model, HasTrunk) or model.backbone["name"] != base.registered_name:
        return None
    trunk: ModelConfig = model.trunk()
    return trunk


def trunk_in(model: ModelConfig, model_type: str) -> FromHuggingFace | None:
    """Return the settings of a model's trunk, where a folder's ``model_type`` is the trunk's and
    not the whole model's; else None."""
    if not isinstance(model, HasTrunk):
        return None
    trunk = model.trunk()
    if isinstance(trunk, FromHuggingFace) and model_type in trunk.huggingface_model_types:
        return trunk
    return None


def fill_trunk(
    model: nn.Module, weights: Mapping[str, Tensor], where: str, announce: _Announce
) -> tuple[str, ...]:
    """Copy a classifier's layers into the trunk of a model; the other parts keep their random
    numbers.

    Args:
        model: Changed in place.
        weights: The classifier's.
        where: What they are of, for messages.
        announce: Called with what was filled, what was not, and what of the classifier has no
            place.

    Returns:
        The tensors of the model's heads.

    Raises:
        CheckpointError: If the trunk is not what the classifier is.
    """
    own = model.state_dict()
    trunk = {name: tensor for name, tensor in weights.items() if name.startswith(_TRUNK)}
    # The model's names first: what it lacks is named before what it cannot use.
    for name in [*(each for each in own if each.startswith(_TRUNK)), *trunk]:
        if name not in trunk:
            raise _misfit(where, f"lacks tensor {name}, which the trunk has")
        if name not in own:
            raise _misfit(where, f"has tensor {name}, but the trunk has not")
        there = list(trunk[name].shape)
        here = list(own[name].shape)
        if there != here:
            raise _misfit(where, f"tensor {name} has shape {there}, but that of the trunk {here}")
    # In the model's order, which its reader knows.
    trunk = {name: trunk[name] for name in own if name in trunk}
    model.load_state_dict(trunk, strict=False)
    new = [name for name in own if name not in trunk]
    left = [name for name in weights if name not in trunk]
    announce(
        f"the trunk starts from {where}: {len(trunk)} tensors ({_parts(trunk)}) are filled;"
        f" {len(new)} are new, from random numbers ({_parts(new)}); {len(left)} of the classifier"
        f" have no place here ({_parts(left) or 'none'})"
    )
    return tuple(name for name in new if name.startswith(HEADS))


def _parts(names: Mapping[str, Tensor] | list[str]) -> str:
    """Return the parts of a model that tensors are of."""
    return ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))


def _misfit(where: str, problem: str) -> CheckpointError:
    return CheckpointError(
        where,
        problem,
        "Leave model.backbone out: it is then the classifier's; and give pictures of its channels,"
        " for a vit also of its size",
    )
