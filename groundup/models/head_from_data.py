"""Which head a model of texts has, where its recipe leaves that to the task."""

from __future__ import annotations

from typing import Any

from groundup.contracts.processors import LabelProcessor, Processor
from groundup.core.errors import RecipeError
from groundup.models.sizes_from_data import settle_size

__all__ = ["settle_head"]


def settle_head(head: str, chosen: str, outputs: int, processor: Processor) -> dict[str, Any]:
    """Return the settings of the head that a task decides: ``outputs``, and also ``head`` and
    ``pooler`` where it reads no labels of whole texts.

    Args:
        head: As the recipe has it, or ``auto``.
        chosen: What that is without a processor.
        outputs: As the recipe has them; 0: as the data has.
        processor: The run's.

    Raises:
        RecipeError: If the head needs targets and there are none, or the other way round.
    """
    labels = processor if isinstance(processor, LabelProcessor) else None
    if labels is not None and labels.head:
        if head not in ("auto", labels.head):
            raise RecipeError(
                "recipe.model.head",
                f"is {head}, but the task of this recipe needs {labels.head}",
                "Remove head, or choose a task that fits",
            )
        if labels.head == "none":
            return {"head": "none", "pooler": "none"}
        return {
            "head": labels.head,
            "outputs": settle_size("outputs", outputs, labels.outputs),
        }
    # A head that was asked for must fit the task; auto takes what fits.
    unfit = ("labels", "tokens") if labels is None else ("masked",)
    if chosen in unfit and (labels is None or head != "auto"):
        found = "no targets" if labels is None else "targets"
        raise RecipeError(
            "recipe.model.head",
            f"is {head} with {outputs} outputs, but the task of this recipe has {found}",
            "Remove head and outputs, or choose a task that fits",
        )
    if labels is None or head == "none":
        return {}
    return {"outputs": settle_size("outputs", outputs, labels.outputs)}
