"""Old names of settings: an error that says the new one, and silence where a saved run has them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from groundup.core.errors import RecipeError
from groundup.recipe import renamed
from groundup.recipe.recipe import as_dict, load_recipe
from groundup.recipe.renamed import RENAMED, refuse_old_names, upgrade


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            {"every.log": 3},
            r"^recipe\.every\.log: is now called logging\.every\. Write logging\.every",
        ),
        ({"every.best": "loss"}, r"is now called checkpoints\.best_metric"),
        ({"budget.steps": 3}, r"^recipe\.budget: is now called training\."),
        ({"machine.micro_batch": 2}, r"is now called machine\.micro_batch_size"),
        ({"distil": {"teacher": "t"}}, r"^recipe\.distil: is now called distill\."),
        (
            {"tune": {"space": {"budget.batch_size": {"choices": [1]}}}},
            r"^recipe\.tune\.space\.budget\.batch_size: is now called training\.batch_size\.",
        ),
    ],
)
def test_an_old_name_is_an_error_that_says_the_new_one(
    recipe: dict[str, Any], override: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe, override)


def test_every_setting_that_was_renamed_is_upgraded_to_one_that_there_is(
    recipe: dict[str, Any],
) -> None:
    old = copy.deepcopy(as_dict(load_recipe(recipe)))
    logging, evaluation = old.pop("logging"), old.pop("evaluation")
    checkpoints, samples = old.pop("checkpoints"), old.pop("samples")
    old["budget"] = old.pop("training")
    old["machine"]["micro_batch"] = old["machine"].pop("micro_batch_size")
    old["every"] = {
        "log": logging["every"],
        "evaluate": evaluation["every"],
        "evaluate_batches": evaluation["batches"],
        "test": evaluation["test"],
        "save": checkpoints["every"],
        "keep": checkpoints["keep"],
        "best": checkpoints["best_metric"],
        "sample": samples["every"],
        "sample_prompts": samples["prompts"],
    }
    assert load_recipe(copy.deepcopy(old), complete=True) == load_recipe(recipe)
    assert "every" not in upgrade(old)


def test_plugins_values_and_sections_within_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's own plugin may call its settings as it likes."""
    table = {
        "task.name=sort": "classify",
        "task.labels=some": "several",
        "data.packing.old": "data.packing.new",
    }
    monkeypatch.setattr(renamed, "RENAMED", table)
    section = {"name": "sort", "labels": "some"}
    upgraded = {"name": "classify", "labels": "several"}
    raw = {"task": {"name": "multitask", "tasks": {"one": section}}}
    with pytest.raises(RecipeError, match=r"^recipe\.task\.tasks\.one\.name: 'sort' is now called"):
        refuse_old_names(copy.deepcopy(raw))
    assert upgrade(raw)["task"]["tasks"]["one"] == upgraded
    with pytest.raises(RecipeError, match=r"^recipe\.task\.name: 'sort' is now called 'classify'"):
        refuse_old_names({"task": "sort"})
    text = {"data": {"name": "text", "packing": {"old": 1}}}
    assert upgrade(text) == {"data": {"name": "text", "packing": {"new": 1}}}
    own: dict[str, Any] = {
        "task": {"name": "my_own", "labels": "some"},
        "data": {"name": "mine", "packing": {"old": 1}},
    }
    refuse_old_names(own)
    assert upgrade(copy.deepcopy(own)) == own


def test_names_of_tasks_and_of_what_their_labels_are() -> None:
    old = {"name": "classify", "labels": "ordered", "order_sharpness": 2.0}
    assert upgrade({"task": dict(old)})["task"] == {
        "name": "classify",
        "labels": "ordinal",
        "ordinal_smoothing": 0.5,
    }
    with pytest.raises(RecipeError, match=r"labels: 'ordered' is now called 'ordinal'\. Write ord"):
        refuse_old_names({"task": dict(old)})
    del old["labels"]
    with pytest.raises(
        RecipeError,
        match=r"^recipe\.task\.order_sharpness: is now called task\.ordinal_smoothing, which is"
        r" 1 / order_sharpness\. Write task\.ordinal_smoothing\.$",
    ):
        refuse_old_names({"task": old})
    for before, now in (
        ("label_tokens", "token_classification"),
        ("embed", "sentence_embedding"),
        ("regress", "regression"),
    ):
        assert upgrade({"task": {"name": before}})["task"]["name"] == now
        with pytest.raises(RecipeError, match=rf"task.name: '{before}' is now called '{now}'"):
            refuse_old_names({"task": before})


def test_the_table_leads_to_names_of_today() -> None:
    assert not {new for new in RENAMED.values() if new in RENAMED}


def test_the_settings_of_data_are_upgraded() -> None:
    data = {
        "name": "word_labels",
        "path": "a",
        "validation_split": None,
        "validation_path": "b",
        "test_split": None,
        "validation_fraction": 0.1,
        "split_seed": 0,
        "dataset_split": "train",
    }
    part = {"name": "text", "validation_fraction": 0.2, "limit_documents": 5, "packing": {}}
    part["packing"] = {"nothing_trained": "drop"}
    sounds = {"name": "audio", "unreadable": "set_aside", "validation_path": None}
    assert upgrade({"data": data})["data"] == {
        "name": "token_labels",
        "path": "a",
        "validation": "b",  # the fraction beside it was a default that nothing was drawn by
        "test": None,
        "seed": 0,
        "split": "train",
    }
    mixture = {"name": "mixture", "parts": {"a": part, "b": sounds}}
    assert upgrade({"data": mixture})["data"]["parts"] == {
        "a": {
            "name": "text",
            "fraction": 0.2,
            "limit": 5,
            "packing": {"on_fully_masked": "drop"},
        },
        "b": {"name": "audio", "on_unreadable": "skip", "validation": None},
    }


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "text", "validation_fraction": 0.1}, r"is now called data\.fraction\."),
        ({"name": "text", "validation_path": "a"}, r"is now called data\.validation\."),
        ({"name": "word_labels", "path": "a"}, r"'word_labels' is now called 'token_labels'"),
        ({"name": "frames", "path": "a"}, r"'frames' is now called 'sequences'"),
        ({"name": "images", "unreadable": "stop"}, r"is now called data\.on_unreadable\."),
    ],
)
def test_old_settings_of_data_are_errors(data: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        refuse_old_names({"data": data})


def test_the_changelog_has_every_new_name() -> None:
    text = (Path(__file__).parents[3] / "CHANGELOG.md").read_text(encoding="utf-8")
    for row, new in RENAMED.items():
        key, is_value, value = row.partition("=")
        line = f"| `{key}: {value}` | `{key}: {new}` |" if is_value else f"| `{row}` | `{new}`"
        assert line in text
