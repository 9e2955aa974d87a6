"""The JSON Schema of recipes, for editors to complete and check."""

from __future__ import annotations

from typing import Any

from groundup.core import registry
from groundup.recipe.raw import PLUGINS
from groundup.recipe.recipe import Recipe

__all__ = ["recipe_schema"]


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema of recipes with every built-in plugin, for editors to complete and
    check."""
    schema = Recipe.model_json_schema(ref_template="#/$defs/{model}")
    definitions = schema.setdefault("$defs", {})
    for kind in PLUGINS:
        choices = []
        for name in registry.names(kind):
            cls = registry.lookup(kind, name)
            section = cls.model_json_schema(ref_template="#/$defs/{model}")
            # References begin at the root of the whole schema, so no section can keep its own.
            definitions.update(section.pop("$defs", {}))
            section["properties"] = {"name": {"const": name}, **section.get("properties", {})}
            if kind == "model" and cls.sizes():
                about = "A published size; other settings count more"
                section["properties"]["size"] = {"enum": list(cls.sizes()), "description": about}
            section["required"] = ["name", *section.get("required", [])]
            choices.append(section)
        about = schema["properties"][kind].get("description", "")
        schema["properties"][kind] = {"description": about, "anyOf": choices}
    # Both may be left out: init then says what they are.
    schema["required"] = [
        key for key in schema.get("required", []) if key not in ("model", "processor")
    ]
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Groundup recipe"
    return schema
