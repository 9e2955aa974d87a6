"""The settings of a tokenizer inside those of another processor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from groundup.contracts.processors import ProcessorConfig
from groundup.core import registry
from groundup.core.errors import RecipeError
from groundup.core.settings import validate

__all__ = ["read_tokenizer_section"]


def read_tokenizer_section(values: Mapping[str, Any], where: str) -> ProcessorConfig:
    """Return the settings that a section describes.

    Args:
        values: As the recipe's section ``processor`` has them, ``name`` included.
        where: The section's place in the recipe, for messages.

    Raises:
        RecipeError: If they are not of a tokenizer, or one of them is wrong.
    """
    section = dict(values)
    if "name" not in section:
        raise RecipeError(
            f"{where}.name", "is required and missing", "Name a tokenizer, such as characters"
        )
    name = str(section.pop("name"))
    cls = registry.lookup("processor", name, f"{where}.name")
    if cls.reads != "texts":
        raise RecipeError(
            f"{where}.name", f"is {name}, which reads no texts", "Name a tokenizer, such as bpe"
        )
    made: ProcessorConfig = validate(cls, section, where)
    return made
