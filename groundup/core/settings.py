"""Strict, frozen settings: the base of every recipe section, and the words for what is wrong with
one."""

from __future__ import annotations

import json
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from groundup.core.errors import RecipeError, did_you_mean

__all__ = ["Settings", "conditions_of", "describe", "setting", "validate"]

SettingsClass = TypeVar("SettingsClass", bound="Settings")


def setting(
    default: Any,
    about: str,
    *,
    applies_when: dict[str, tuple[Any, ...]] | None = None,
    **bounds: Any,
) -> Any:
    """Declare one field of a recipe section.

    Args:
        default: The value when the recipe is silent; ``...`` makes the field required.
        about: One line for the JSON Schema and the documentation, with the unit.
        applies_when: Sibling fields and the values with which this one matters. Setting the field
            otherwise is an error, because it would have no effect.
        **bounds: ``gt``, ``ge``, ``lt``, ``le``, ``min_length`` ... as in pydantic.
    """
    conditions: JsonValue = {key: list(values) for key, values in (applies_when or {}).items()}
    extra: dict[str, JsonValue] | None = {"applies_when": conditions} if applies_when else None
    return Field(default, description=about, json_schema_extra=extra, **bounds)


class Settings(BaseModel):
    """A section of a recipe. Unknown keys, wrong types and settings without effect are errors."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        ser_json_inf_nan="strings",
        protected_namespaces=(),
    )
    registered_name: ClassVar[str] = ""

    @model_validator(mode="after")
    def _every_setting_has_an_effect(self) -> Settings:
        given = dict(self)
        # Only of what was written: defaults are there whether they apply or not.
        for name in self.model_fields_set:
            field = type(self).model_fields[name]
            if given[name] == field.default:
                continue
            for other, values in conditions_of(field).items():
                if given[other] not in values:
                    allowed = " or ".join(json.dumps(value) for value in values)
                    raise ValueError(
                        f"{name} has no effect with {other}:"
                        f" {json.dumps(given[other], default=str)}; it applies when {other}"
                        f" is {allowed}. Remove {name} or change {other}"
                    )
        return self


def conditions_of(field: FieldInfo) -> dict[str, Any]:
    """Return the sibling fields that a setting depends on, each with the values it applies with."""
    extra = field.json_schema_extra
    found = extra.get("applies_when") if isinstance(extra, dict) else None
    return found if isinstance(found, dict) else {}


def validate(cls: type[SettingsClass], section: dict[str, Any], where: str) -> SettingsClass:
    """Build settings from what YAML or JSON gave.

    Args:
        cls: The class of the section.
        section: Plain values: dict, list, str, int, float, bool, None.
        where: The path for messages, such as ``"recipe.optim"``.

    Raises:
        RecipeError: Naming the key, what was found, what is allowed and the nearest name.
    """
    try:
        # By way of JSON, in which strict mode takes a list for a tuple.
        return cls.model_validate_json(json.dumps(section))
    except ValidationError as failure:
        errors = failure.errors()  # a misspelt key first: it explains why another one is missing
        misspelt = [error for error in errors if error["type"] == "extra_forbidden"]
        raise RecipeError(*describe((misspelt or errors)[0], cls, where)) from None


def describe(error: ErrorDetails, cls: type[BaseModel], where: str) -> tuple[str, str, str]:
    """Put one pydantic error into (where, problem, remedy)."""
    path = ".".join([where, *(str(part) for part in error["loc"])])
    found = json.dumps(error["input"], default=str, ensure_ascii=False)
    found = found if len(found) <= 80 else found[:77] + "..."
    if error["type"] == "extra_forbidden":
        fields = _fields_at(cls, error["loc"][:-1])
        key = str(error["loc"][-1])
        return (
            path,
            f"unknown key; {did_you_mean(key, fields)}allowed: {', '.join(fields)}",
            "Correct or remove it",
        )
    if error["type"] == "missing":
        return path, "is required and missing", f"Add it: {error['loc'][-1]}: ..."
    if error["type"] == "value_error":
        problem, _, remedy = str(error["ctx"]["error"]).partition(". ")
        return path, problem, remedy
    hint = "Write true or false" if error["type"].startswith("bool") else "Change the value"
    if error["type"] in {"int_type", "float_type", "int_parsing", "float_parsing"} and isinstance(
        error["input"], str
    ):
        hint = "Write the number without quotes"
    message = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return path, f"got {found}; allowed: {message}", hint


def _fields_at(cls: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        if str(part) not in cls.model_fields:
            continue  # a key of a mapping, whose values are the class that was found last
        annotation = cls.model_fields[str(part)].annotation
        candidates = [annotation, *get_args(annotation)]
        inner = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not inner:
            return []
        cls = inner[0]
    return list(cls.model_fields)
