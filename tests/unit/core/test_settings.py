"""Settings are strict, say what they are about, and have an effect or are an error."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from groundup import api
from groundup.core import registry
from groundup.core.errors import RecipeError
from groundup.core.settings import Settings, setting, validate
from groundup.recipe.raw import PLUGINS
from groundup.recipe.recipe import Optim, Recipe, as_dict, load_recipe


def every_settings_class() -> list[type[Settings]]:
    """Return every class that a recipe can hold, nested ones included."""
    found: list[type[Settings]] = []

    def add(cls: type[Settings]) -> None:
        if cls not in found and cls is not Settings:
            found.append(cls)
            for inner in inner_settings(cls):
                add(inner)

    add(Recipe)
    for kind in PLUGINS:
        for name in registry.names(kind):
            add(registry.lookup(kind, name))
    return found


def inner_settings(cls: type[BaseModel]) -> Iterator[type[Settings]]:
    for field in cls.model_fields.values():
        for part in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, Settings):
                yield part


CLASSES = every_settings_class()


def conditions_of(cls: type[Settings], name: str) -> dict[str, Any]:
    extra = cls.model_fields[name].json_schema_extra
    return (
        dict(typing.cast(dict[str, Any], extra.get("applies_when", {})))
        if isinstance(extra, dict)
        else {}
    )


def test_the_classes_are_found() -> None:
    assert {"Recipe", "Optim", "Machine", "GPTConfig", "Packing", "Cleaning"} <= {
        cls.__name__ for cls in CLASSES
    }


def check_conditions(cls: type[Settings], name: str) -> None:
    for other, values in conditions_of(cls, name).items():
        assert other in cls.model_fields, name
        assert other != name
        choices = typing.get_args(cls.model_fields[other].annotation)
        if typing.get_origin(cls.model_fields[other].annotation) is typing.Literal:
            assert set(values) <= set(choices), f"{name}: a condition that never holds"
            # what is inherited may be conditional for others, which have more choices
            own = name in cls.__annotations__
            assert not own or set(values) < set(choices), f"{name}: a condition that always holds"


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_field_is_described_and_its_conditions_name_fields(cls: type[Settings]) -> None:
    for name, field in cls.model_fields.items():
        assert field.description, name
        check_conditions(cls, name)
    assert cls.model_config["extra"] == "forbid"
    assert cls.model_config["frozen"]
    assert cls.model_config["strict"]


# ------------------------------------------------------------------------------ a setting without
# effect is an error
OTHER: dict[str, Any] = {
    "name": "sgd",
    "lr": 1e-2,
    "betas": (0.5, 0.6),
    "eps": 1e-2,
    "momentum": 0.9,
    "nesterov": True,
    "layer_decay": 0.5,
    "weight_decay": 0.7,
    "clip_norm": 0.01,
    "schedule": "linear",
    "warmup_steps": 5,
    "final_lr_fraction": 0.9,
    "decay_fraction": 0.9,
    "average": "ema",
    "ema_decay": 0.1,
    "average_from": 0.1,
}
CHOICES: list[dict[str, Any]] = [
    *({"name": name} for name in ("adamw", "adam", "muon", "sgd")),
    {"name": "sgd", "momentum": 0.5},
    *({"schedule": schedule} for schedule in ("constant", "linear", "cosine", "wsd")),
    *({"average": average} for average in ("ema", "swa")),
]


def test_every_field_of_optim_is_tried() -> None:
    assert set(OTHER) == set(Optim.model_fields)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    path.write_text(
        "".join(json.dumps({"text": f"Document {i} of {i * i}."}) + "\n" for i in range(30)),
        "utf-8",
    )
    return path


def final_weights(recipe: dict[str, Any], runs: Path, name: str) -> list[float]:
    trainer = api.trainer(recipe, {"name": name}, runs=runs)
    list(trainer.steps())
    trainer.close()
    return [float(weights.double().abs().sum()) for weights in trainer.state_dict().model.values()]


@pytest.mark.slow
@pytest.mark.parametrize("field", OTHER)
def test_every_field_of_optim_has_an_effect_or_is_an_error(
    recipe: dict[str, Any], texts: Path, tmp_path: Path, field: str
) -> None:
    recipe["data"] = {"name": "text", "path": str(texts), "fraction": 0.2}
    recipe["model"] |= {"layers": 1, "width": 8, "context_length": 8, "dropout": 0.0}
    seen = 0
    for number, choice in enumerate(CHOICES):
        if field in choice:
            continue
        plain = {**recipe, "optim": {"lr": 3e-3, **choice}}
        changed = {**recipe, "optim": {**plain["optim"], field: OTHER[field]}}
        conditions = conditions_of(Optim, field)
        applies = all(
            choice.get(other, getattr(Optim(), other)) in values
            for other, values in conditions.items()
        )
        if not applies or (field == "nesterov" and "momentum" not in choice):
            with pytest.raises(RecipeError, match=f"{field} has no effect with"):
                load_recipe(changed)
            continue
        seen += 1
        loaded = load_recipe(changed)
        assert getattr(loaded.optim, field) != getattr(load_recipe(plain).optim, field)
        assert final_weights(plain, tmp_path, f"a{number}") != final_weights(
            changed, tmp_path, f"b{number}"
        ), choice
    assert seen


# ---------------------------------------------------------------------------------------- the words
class Oven(Settings):
    """Settings to try the words on."""

    mode: typing.Literal["grill", "fan"] = setting("fan", "How it heats")
    fan_speed: int = setting(3, "Turns a second", ge=1, applies_when={"mode": ("fan",)})
    name: str = setting(..., "What it is called")


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (
            {"name": "a", "mod": "fan"},
            "oven.mod: unknown key; did you mean 'mode'? allowed: mode, fan_speed, name.",
        ),
        ({"nmae": "a"}, "oven.nmae: unknown key; did you mean 'name'?"),
        ({}, "oven.name: is required and missing. Add it: name: ..."),
        (
            {"name": "a", "mode": "gril"},
            "oven.mode: got \"gril\"; allowed: 'grill' or 'fan'. Change the value.",
        ),
        (
            {"name": "a", "fan_speed": "3"},
            'oven.fan_speed: got "3"; allowed: a valid integer. Write the number without',
        ),
        (
            {"name": "a", "fan_speed": 0},
            "oven.fan_speed: got 0; allowed: greater than or equal to 1.",
        ),
        (
            {"name": "a", "mode": "grill", "fan_speed": 4},
            'oven: fan_speed has no effect with mode: "grill"; it applies',
        ),
        ({"name": 3}, "oven.name: got 3; allowed: a valid string."),
    ],
)
def test_what_is_wrong_is_said(section: dict[str, Any], expected: str) -> None:
    with pytest.raises(RecipeError) as caught:
        validate(Oven, section, "oven")
    assert str(caught.value).startswith(expected)


def test_saying_the_default_out_loud_is_no_error() -> None:
    assert validate(Oven, {"name": "a", "mode": "grill", "fan_speed": 3}, "oven").fan_speed == 3


def test_settings_without_effect_are_not_written_out(recipe: dict[str, Any]) -> None:
    recipe["optim"] = {"name": "sgd", "schedule": "constant"}
    written = as_dict(load_recipe(recipe))["optim"]
    assert not {"betas", "eps", "final_lr_fraction", "decay_fraction"} & set(written)
    assert {"momentum", "nesterov", "lr"} <= set(written)
