"""Recipes, data and overrides are told apart by how they look and by what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from groundup.cli.arguments import read_arguments
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
