"""Raw recipes: nested dictionaries as YAML gives them, before anything is validated; and what they
need not say: the settings of a model's published size or of the trunk that it starts from, and what
their task sets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from groundup.core import registry
from groundup.core.errors import RecipeError, did_you_mean
from groundup.core.settings import Settings, as_path
from groundup.recipe.yaml import parse_override, parse_yaml

__all__ = [
    "PLUGINS",
    "add_task_defaults",
    "apply_overrides",
    "fill_in_size",
    "fill_trunk_section",
    "has_other_trunk",
    "parse_overrides",
    "read_raw",
    "section_of",
]

# Settings of a classifier that are the larger model's, as trunks have it.
_OWNERS = ("input_shape", "outputs")
PLUGINS: tuple[registry.Kind, ...] = ("model", "task", "data", "processor")


def read_raw(source: str | Path | dict[str, Any]) -> tuple[dict[str, Any], Path, str]:
    """Return a recipe as it was written, the folder that its paths are relative to, and its name
    for messages.

    Raises:
        RecipeError: If there is no such file, or it is no YAML with keys.
    """
    if isinstance(source, dict):
        # A copy of its own, because sections are filled in place; through JSON, so that what YAML
        # could not hold is refused here and not in the middle of a run.
        raw, folder, where = json.loads(json.dumps(source)), Path(), "recipe"
    else:
        path = as_path(source)
        raw, folder, where = _read_file(path), path.parent, str(path)
    for kind in PLUGINS:
        if isinstance(raw.get(kind), str):  # the short form: task: classify
            raw[kind] = {"name": raw[kind]}
    return raw, folder, where


_DATA = (".csv", ".tsv", ".jsonl", ".parquet", ".npz", ".xlsx")


def _read_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        nearby = [str(near) for near in sorted(path.parent.glob("*.yaml"))]
        hint = did_you_mean(str(path), nearby)
        if (path / "recipe.yaml").is_file():
            raise RecipeError(str(path), "is the folder of a run", f"Give {path / 'recipe.yaml'}")
        raise RecipeError(
            str(path),
            f"no such recipe; {hint}recipes there: {', '.join(nearby) or 'none'}",
            "Give the path of a YAML file",
        )
    if path.suffix.lower() in _DATA:
        remedy = f"Make one: groundup new my_model.yaml --data {path}"
        raise RecipeError(str(path), "is data, and no recipe", remedy)
    try:
        data = path.read_bytes()
        # as PowerShell's > and Notepad may write it, with a mark
        utf_16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        raw = parse_yaml(data.decode("utf-16" if utf_16 else "utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise RecipeError(
            str(path), f"is not UTF-8 text (byte {error.start})", "Save it as UTF-8"
        ) from None
    if not isinstance(raw, dict):
        problem = "holds no keys"
        if raw is not None:
            problem += f" but {str(raw)[:60]!r}: a key has a colon and a space behind it"
        raise RecipeError(str(path), problem, "Start from: groundup new")
    return raw


def section_of(raw: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a section of a raw recipe; an empty one where there is none, or something else, about
    which validation has the better words."""
    section = raw.get(key)
    return section if isinstance(section, dict) else {}


# ---------------------------------------------------------------------------------------- overrides
def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """Turn ``["optim.lr=3e-4"]`` into ``{"optim.lr": 0.0003}``; values are read as YAML."""
    parsed: dict[str, Any] = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise RecipeError(
                override, "is not of the form key=value", "Write for example optim.lr=3e-4"
            )
        key = key.strip()
        # the other way round, optim={...} optim.lr=1, the second only adds to the first
        before = next((name for name in parsed if f"{name}.".startswith(f"{key}.")), None)
        if before is not None:
            raise RecipeError(
                override,
                f"would undo {before}=..., which is given before it",
                "Give one of the two",
            )
        parsed[key] = parse_override(value, override)
    return parsed


def apply_overrides(raw: dict[str, Any], overrides: dict[str, Any]) -> None:
    """Set dotted keys of a raw recipe, in place.

    Raises:
        RecipeError: If a key leads through something that is no section.
    """
    for key, value in overrides.items():
        *path, last = key.split(".")
        section = raw
        for part in path:
            # An override may be the first to speak of a section.
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise RecipeError(
                    f"recipe.{key}", f"{part!r} is a value, not a section", "Check the key"
                )
        if not path and last in PLUGINS and isinstance(value, str):
            value = {"name": value}  # task=classify, as in a file
        section[last] = value


# ---------------------------------------------------------------------------------------- defaults
def fill_in_size(raw: dict[str, Any]) -> None:
    """Put the settings of the named size into the model section of a raw recipe, changed in place.

    Other keys of the section count more. What the data decides, such as the vocabulary, stays open.

    Raises:
        RecipeError: If the model has no such size.
    """
    section = section_of(raw, "model")
    if "size" not in section:
        return
    where = "recipe.model.size"
    if "name" not in section:
        raise RecipeError(where, "says nothing without a model", "Add model.name, such as gpt")
    cls = registry.lookup("model", str(section["name"]), "recipe.model.name")
    if "size" in cls.model_fields:  # a user's model has a setting of that name
        return
    sizes = cls.sizes()
    size = str(section["size"])
    if size not in sizes:
        known = ", ".join(sizes) or "none"
        near = did_you_mean(size, sizes)
        raise RecipeError(
            where,
            f"{section['name']} has no size {size!r}; {near}known: {known}",
            "Choose one of these, or give the settings themselves",
        )
    settings = sizes[size].model_dump(
        mode="json", exclude_unset=True, exclude=set(cls.decided_by_data)
    )
    own = {key: value for key, value in section.items() if key != "size"}
    raw["model"] = {**settings, **own}


def add_task_defaults(raw: dict[str, Any], sections: Mapping[str, type[Settings]]) -> None:
    """Fill what a raw recipe leaves out with the ``default_settings`` of its task, in place.

    They are written into the recipe, so that a run's own recipe says all that it was trained with.

    Args:
        raw: The recipe as it was written.
        sections: The sections that a task may have defaults for, by name.

    Raises:
        RecipeError: If a task has a default for a setting that there is not.
    """
    name = section_of(raw, "task").get("name")
    if name not in registry.names("task"):
        return  # what is wrong with it is said where the section is validated
    for key, value in registry.lookup("task", name).default_settings.items():
        part, _, setting = key.partition(".")
        if part not in sections or setting not in sections[part].model_fields:
            raise RecipeError(
                f"task {name}",
                f"has a default for {key!r}, which is no setting of a recipe's",
                "Correct its default_settings",
            )
        raw.setdefault(part, {})  # a section that is something else stays, for its error
        section_of(raw, part).setdefault(setting, value)


# -------------------------------------------------------------------------- trunks of larger models
def has_other_trunk(section: Any, base: str) -> bool:
    """Whether a recipe's model is one with a trunk, and the weights are of another model, which may
    be that trunk.

    Args:
        section: The recipe's, as it was written.
        base: The name of the model that the weights are of.
    """
    name = section.get("name") if isinstance(section, dict) else None
    if name is None or name == base or name not in registry.names("model"):
        return False
    return "backbone" in registry.lookup("model", str(name)).model_fields


def fill_trunk_section(
    raw: dict[str, Any], base: Mapping[str, Any], where: str, free: tuple[str, ...] | None = None
) -> None:
    """Fill ``model.backbone`` of a raw recipe with the classifier that the run starts from.

    Args:
        raw: The recipe, changed in place.
        base: The classifier's section.
        where: The setting that names the weights, for messages.
        free: What the recipe may say otherwise; None: anything, as shapes are compared later.

    Raises:
        RecipeError: If the trunk is another model, or is said otherwise; or an adapter is to be
            trained, for which all weights must be there.
    """
    model = raw["model"]
    kind = str(base["name"])
    given = model.get("backbone") or {}
    # What is no section is an error that the validation of the model says better.
    if not isinstance(given, dict):
        return
    if given.get("name", kind) != kind:
        raise RecipeError(
            "recipe.model.backbone.name",
            f"is {given['name']}, but the weights of {where} are of a {kind}",
            "Leave model.backbone out: it is then what the weights are",
        )
    if raw.get("adapter") is not None:
        raise RecipeError(
            "recipe.adapter",
            f"trains next to weights that are all there, but of {model['name']} only the trunk is",
            "Remove it; with init.train_layers: 0 the trunk stays as it is",
        )
    section = {key: value for key, value in base.items() if key not in _OWNERS}
    for key in given:
        there = section.get(key)
        if free is not None and key not in (*free, "name") and given[key] != there:
            raise RecipeError(
                f"recipe.model.backbone.{key}",
                f"is {given[key]}, but the weights have {there}",
                "Remove it: the weights say what the trunk is",
            )
    # With a name a section is the user's own as a whole, as a model's is.
    model["backbone"] = given if "name" in given and free is None else {**section, **given}
