"""Strict, frozen settings: the base of every recipe section, and the words for what is wrong with
one."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from groundup.core.errors import RecipeError, did_you_mean

__all__ = [
    "PathText",
    "Settings",
    "as_path",
    "conditions_of",
    "describe",
    "expand_path",
    "name_lookalikes",
    "setting",
    "validate",
]

SettingsClass = TypeVar("SettingsClass", bound="Settings")


def expand_path(path: str | os.PathLike[str]) -> str:
    """Return a path with ``~`` as the home folder and ``$NAME`` as the environment has it, in the
    Unicode form that is there; a name that the environment lacks stays."""
    found = os.path.expanduser(os.path.expandvars(path))
    if not found.isascii() and not os.path.exists(found):
        # archives made on a Mac hold NFD
        for other in (unicodedata.normalize("NFC", found), unicodedata.normalize("NFD", found)):
            if os.path.exists(other):
                return other
    return found


def as_path(path: str | os.PathLike[str]) -> Path:
    """Return the same as ``expand_path``, as what a user gave besides a recipe."""
    return Path(expand_path(path))


# What a setting that names a file or folder is declared as.
PathText = Annotated[str, AfterValidator(expand_path)]


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
        allow_inf_nan=False,
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
        first = (misspelt or errors)[0]
        path, problem, remedy = describe(first, cls, where)
        # of a setting that takes several kinds of values, each has its own error
        others = [each for each in errors if each is not first and _loc(each) == _loc(first)]
        problem += "".join(f" or {_allowed(each)}" for each in others)
        raise RecipeError(path, problem, remedy) from None


# What pydantic puts behind the path of a setting that takes several kinds of values.
_MEMBER = re.compile(r"constrained-\w+|bool|int|float|str|(literal|tuple|dict|list)\[.*")


def _loc(error: ErrorDetails) -> tuple[int | str, ...]:
    loc = error["loc"]
    return loc[:-1] if loc and _MEMBER.fullmatch(str(loc[-1])) else loc


def _allowed(error: ErrorDetails) -> str:
    return error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")


def describe(error: ErrorDetails, cls: type[BaseModel], where: str) -> tuple[str, str, str]:
    """Put one pydantic error into (where, problem, remedy)."""
    path = ".".join([where, *(str(part) for part in _loc(error))])
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
    return path, f"got {found}; allowed: {_allowed(error)}", _hint(error["type"], error["input"])


# Signs that other keyboards have where recipes want those of ASCII.
_LOOKALIKES = re.compile(
    r"[\u00a0\u2000-\u200b\u2012-\u2015\u2018-\u201f\u202f\u2060\u2212\u3000"
    r"\u3001\u300c\u300d\ufeff\uff01-\uff5e]"
)


def name_lookalikes(text: str) -> str:
    """Return the signs in a text that only look like those of ASCII, by name; empty without any."""
    found = dict.fromkeys(_LOOKALIKES.findall(text))
    return ", ".join(f"U+{ord(c):04X} ({unicodedata.name(c, '?').lower()})" for c in found)


def _hint(kind: str, given: Any) -> str:
    """Return what to write in place of a value of the wrong kind."""
    if given == "None":
        return "Write null, or leave it out"
    if isinstance(given, str) and (odd := name_lookalikes(given)):
        return f"It holds {odd}: write it with the signs of ASCII"
    if kind.startswith("bool"):
        return "Write true or false"
    if kind.startswith("int") and isinstance(given, float) and given.is_integer():
        return f"Write {given:.0f}"
    if kind.startswith(("int", "float")) and isinstance(given, str):
        return _number_hint(given.strip())
    if kind == "string_type" and isinstance(given, dict):
        return "Put the text in quotes: a colon with a space behind it makes keys of it"
    if kind == "string_type" and isinstance(given, int | float):
        return f'Put it in quotes: "{given}"'
    if kind in ("model_type", "dict_type") and isinstance(given, str):
        return "Write keys with values; a space belongs behind each colon"
    if kind in ("tuple_type", "list_type"):
        return "Write a list: [...]"
    return "Change the value"


def _number_hint(text: str) -> str:
    if re.fullmatch(r"[-+]?0[0-9_]+", text):
        return f"Write {int(text)}: a number with a leading zero is a word"
    if re.fullmatch(r"0[xXoObB][0-9a-fA-F]+", text):
        return "Write it as a decimal number"
    if re.fullmatch(r"[-+]?[1-9]\d{0,2}(,\d{3})+", text):
        return f"Write {text.replace(',', '')}"
    if re.fullmatch(r"[-+]?\d+,\d+", text):
        return f"Write a decimal point: {text.replace(',', '.')}"
    if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", text, re.IGNORECASE):
        return "Write the number without quotes"
    return "Write a plain number, such as 16 or 3e-4"


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
