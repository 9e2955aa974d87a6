"""Recipes, data and overrides are told apart by how they look and by what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from groundup.cli.arguments import read_arguments, read_overrides, take_data_settings
from groundup.core.errors import GroundupError


@pytest.fixture(autouse=True)
def _some_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("texts").mkdir()
    Path("rows.csv").touch()
    Path("a.yaml").touch()


@pytest.mark.parametrize("path", ["texts", "texts/", "rows.csv"])
def test_what_is_there_and_is_no_recipe_is_the_data(path: str) -> None:
    assert read_arguments(["a.yaml", path, "b.yaml", "optim.lr=3e-4"]) == (
        ["a.yaml", "b.yaml"],
        {"optim.lr": 3e-4, "data.path": path},
    )


def test_what_is_not_there_is_taken_for_a_recipe() -> None:
    """So that the error names the recipes that there are."""
    assert read_arguments(["recipies/mlp", "c.yml"]) == (["recipies/mlp", "c.yml"], {})


@pytest.mark.parametrize("second", ["rows.csv", "data.path=other"])
def test_data_that_is_given_twice(second: str) -> None:
    with pytest.raises(GroundupError, match=r"^data\.path: is given twice: .* Give one file or"):
        read_arguments(["a.yaml", "texts", second])


@pytest.mark.parametrize("second", ["b.yaml", "no_such_file"])
def test_a_verb_of_one_recipe_takes_no_other(second: str) -> None:
    assert read_overrides(["texts", "seed=1"]) == {"data.path": "texts", "seed": 1}
    with pytest.raises(GroundupError, match=second):
        read_overrides([second])


def test_settings_of_the_data_are_told_from_prompts() -> None:
    given = ["x = 1", "a=b", "data.encoding=gb18030", "data.header=false"]
    assert take_data_settings(given, ("seed",)) == (
        ["x = 1", "a=b"],
        {"encoding": "gb18030", "header": False},
    )
    for argument, remedy in (
        ("max_new_tokens=8", "Write --max-new-tokens 8"),
        ("top-p=0.9", "Write --top-p 0.9"),
        ("encoding=gbk", "Write data.encoding=gbk"),
        ("task.max_tokens=9", "Remove it, or train another run with it"),
    ):
        with pytest.raises(GroundupError, match=remedy):
            take_data_settings([argument], ("max_new_tokens", "top_p"))
