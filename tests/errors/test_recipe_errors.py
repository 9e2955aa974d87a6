"""What is wrong with a recipe is said with its key, what was found and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from groundup.core.errors import RecipeError
from groundup.core.registry import Kind, lookup
from groundup.recipe.json_schema import recipe_schema
from groundup.recipe.raw import parse_overrides
from groundup.recipe.recipe import Recipe, as_dict, dump_recipe, load_recipe


def message(recipe: Any, overrides: dict[str, Any] | None = None) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe, overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("optim.lrr", 1e-3, "recipe.optim.lrr: unknown key; did you mean 'lr'? allowed: name, lr,"),
        ("optin", {}, "recipe.optin: unknown key; did you mean 'optim'?"),
        ("model.widht", 8, "recipe.model.widht: unknown key; did you mean 'width'?"),
        ("model.name", "gptt", "there is no model 'gptt'; did you mean 'gpt'?"),
        ("task", "language_model", "did you mean 'language_modeling'?"),
        ("optim.lr", "fast", 'recipe.optim.lr: got "fast"; allowed: a valid number'),
        ("optim.lr", -1.0, "recipe.optim.lr: got -1.0; allowed: greater than 0"),
        ("training.steps", 1.5, "recipe.training.steps: got 1.5; allowed: a valid integer"),
        (
            "machine.deterministic",
            "no",
            'recipe.machine.deterministic: got "no"; allowed: a valid boolean. Write true',
        ),
        (
            "machine.device",
            "gpu",
            "recipe.machine.device: got \"gpu\"; allowed: 'auto', 'cpu' or 'cuda'",
        ),
        (
            "optim.momentum",
            0.5,
            'momentum has no effect with name: "adamw"; it applies when name is "sgd"',
        ),
        ("optim.decay_fraction", 0.5, 'decay_fraction has no effect with schedule: "cosine"'),
        (
            "training.epochs",
            2.0,
            "exactly one of steps, epochs and samples is allowed, got ['steps', 'epochs']",
        ),
        ("model.heads", 5, "width 32 is not a multiple of heads 5. Use width 30 or change heads"),
        ("name", "a/b", 'recipe.name: got "a/b"; allowed:'),
        ("uses", ["missing.py"], "recipe.uses: no file"),
        ("init.run", "runs/none", "recipe.init.run: runs/none is not a run"),
    ],
)
def test_a_wrong_setting_is_named(
    recipe: dict[str, Any], key: str, value: Any, expected: str
) -> None:
    assert expected in message(recipe, {key: value})


@pytest.mark.parametrize("missing", ["model", "task", "data", "processor", "name", "training"])
def test_a_missing_section_is_named(recipe: dict[str, Any], missing: str) -> None:
    del recipe[missing]
    assert f"recipe.{missing}" in message(recipe)


def test_nesterov_without_momentum(recipe: dict[str, Any]) -> None:
    text = message(recipe, {"optim.name": "sgd", "optim.nesterov": True})
    assert "nesterov has no effect with momentum 0. Set momentum" in text


@pytest.mark.parametrize(
    ("yaml", "expected"),
    [
        ("", "holds no keys"),
        ("a: [1", "line 1: not valid YAML"),
        ("name: x\nname: y\n", "line 2: the key 'name' is there twice"),
        ("!!python/object/apply:os.system ['true']", "has the tag !!python/object/apply:os.system"),
        ("[" * 200_000, "line 1: is nested over 100 levels deep"),
        ("? [a]\n: b", "line 1: a key is a list or a mapping"),
    ],
)
def test_a_broken_file(tmp_path: Path, yaml: str, expected: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml, encoding="utf-8")
    assert expected in message(path)


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "pretrain.yaml").write_bytes(b"name: \xff")
    assert "is not UTF-8 text (byte 6)" in message(tmp_path / "pretrain.yaml")
    assert f"did you mean '{tmp_path / 'pretrain.yaml'}'?" in message(tmp_path / "pretrian.yaml")


def test_overrides() -> None:
    assert parse_overrides(["optim.lr=3e-4", "a=no", "b=null", "c=[1, 2]"]) == {
        "optim.lr": 3e-4,
        "a": "no",
        "b": None,
        "c": [1, 2],
    }
    with pytest.raises(RecipeError, match="is not of the form key=value"):
        parse_overrides(["optim.lr"])


def test_numbers_as_people_write_them(recipe: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        dump_recipe(load_recipe(recipe)).replace("lr: 0.003", "lr: 3e-4"), encoding="utf-8"
    )
    assert load_recipe(path).optim.lr == 3e-4


def test_an_override_into_a_value(recipe: dict[str, Any]) -> None:
    assert "'name' is a value, not a section" in message(recipe, {"name.x": 1})


def test_a_recipe_survives_writing_and_reading(recipe: dict[str, Any], tmp_path: Path) -> None:
    loaded = load_recipe(recipe)
    path = tmp_path / "r.yaml"
    path.write_text(dump_recipe(loaded), encoding="utf-8")
    assert load_recipe(path) == loaded
    assert load_recipe(as_dict(loaded)) == loaded


def test_your_own_file_is_found(recipe: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from groundup.core.registry import processor\nfrom groundup.processors.text.bytes import"
        " *\nfrom groundup.core.registry import lookup\nprocessor('mine')(type('Mine',"
        " (lookup('processor', 'bytes'),), {}))\n",
        encoding="utf-8",
    )
    path = tmp_path / "r.yaml"
    text = (
        dump_recipe(load_recipe(recipe))
        .replace("uses: []", "uses: [mine.py]")
        .replace("name: bytes", "name: mine")
    )
    path.write_text(text, encoding="utf-8")
    loaded = load_recipe(path)
    assert type(loaded.processor).__name__ == "Mine"
    elsewhere = tmp_path / "run" / "recipe.yaml"
    elsewhere.parent.mkdir()
    elsewhere.write_text(dump_recipe(loaded), encoding="utf-8")
    assert load_recipe(elsewhere) == loaded
    (tmp_path / "mine.py").write_text("1 / 0", encoding="utf-8")
    path.write_text(text.replace("mine.py", "../" + tmp_path.name + "/mine2.py"), encoding="utf-8")
    (tmp_path / "mine2.py").write_text("1 / 0", encoding="utf-8")
    assert "ZeroDivisionError: division by zero" in message(path)


@pytest.mark.slow
def test_the_schema_covers_every_plugin() -> None:
    schema = recipe_schema()
    assert set(schema["properties"]) == set(Recipe.model_fields)
    names = {
        choice["properties"]["name"]["const"] for choice in schema["properties"]["data"]["anyOf"]
    }
    assert {"text", "conversations", "python_docs", "python_questions"} <= names
    models = {
        each["properties"]["name"]["const"]: each for each in schema["properties"]["model"]["anyOf"]
    }
    assert models["gpt"]["properties"]["layers"]["description"]


def test_an_override_into_a_plugin_given_by_its_name(recipe: dict[str, Any]) -> None:
    recipe["processor"] = "bpe"
    assert load_recipe(recipe, {"processor.vocab_size": 300}).processor.vocab_size == 300  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kind", "name", "here"),
    [
        ("data", "documents", "parallel_text"),
        ("task", "translation", "text_to_text"),
        ("model", "T5", "encoder_decoder"),
    ],
)
def test_what_the_field_calls_otherwise(kind: Kind, name: str, here: str) -> None:
    with pytest.raises(RecipeError) as caught:
        lookup(kind, name)
    assert f"there is no {kind} {name!r}; did you mean {here!r}? known: " in str(caught.value)
