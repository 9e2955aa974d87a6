"""A part of one's own that `groundup new` writes keeps its contract and trains with the recipe at
its top."""

from __future__ import annotations

import pydoc_data.topics
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from own_parts import forget_own_parts

import groundup
from groundup.core import registry
from groundup.core.errors import RecipeError
from groundup.templates import KINDS, write_template
from groundup.testing import check_data, check_model, check_processor, check_task

PARTS = [kind for kind in KINDS if kind not in ("text", "chat")]


@pytest.fixture(params=PARTS)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """A kind, and the recipe at the top of its file, with the text that it reads."""
    path = tmp_path / "my_part.py"
    write_template(request.param, path)
    texts = tmp_path / "my_texts"
    texts.mkdir()
    for number, text in enumerate(sorted(pydoc_data.topics.topics.values())[:12]):
        (texts / f"{number}.txt").write_text(text, encoding="utf-8")
    docstring = re.match(r'"""(.*?)"""', path.read_text(encoding="utf-8"), re.DOTALL)
    assert docstring is not None
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(docstring[1].partition("\n\n")[2], encoding="utf-8")
    with forget_own_parts():
        registry.load_file(path)
        yield request.param, yaml.safe_load(recipe.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_a_part_keeps_its_contract(written: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    kind, _ = written
    quick = {"training.batch_size": 4, "training.steps": 2}
    if kind == "model":
        config = registry.lookup("model", "my_part")
        check_model(config(inputs=64, outputs=10), {"inputs": torch.randn(8, 64)})
    elif kind == "language_model":
        check_model(registry.lookup("model", "my_part")(vocabulary_size=30))
    elif kind == "processor":
        check_processor(registry.lookup("processor", "my_part"))
    elif kind == "data":
        check_data(tmp_path / "recipe.yaml", quick)
    check_task(tmp_path / "recipe.yaml", quick)


@pytest.mark.slow
def test_a_part_trains_with_the_recipe_at_its_top(
    written: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    kind, _ = written
    run = groundup.train(tmp_path / "recipe.yaml", {"training.steps": 2})
    section = "model" if kind == "language_model" else kind
    assert getattr(run.recipe, section).registered_name == "my_part"
    predictor = groundup.load(run.folder)
    texts = kind in ("language_model", "processor")
    if texts:
        assert isinstance(predictor("The ", max_new_tokens=3), str)
    else:
        examples = list(run.recipe.data.examples("validation", tmp_path))[:2]
        assert len(predictor([example.inputs for example in examples])) == 2
    groundup.evaluate(run.folder)


@pytest.mark.parametrize(
    ("kind", "name", "problem"),
    [
        ("model", "my_model.yaml", r"ends in '\.yaml', but a file of the kind 'model'"),
        ("text", "my_text.py", r"ends in '\.py', but a file of the kind 'text' ends in '\.yaml'"),
        ("task", "my-task.py", "a name has letters, digits and underscores"),
        ("tasks", "my_task.py", "did you mean 'task'"),
    ],
)
def test_what_cannot_be_written(kind: str, name: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=problem):
        write_template(kind, tmp_path / name)
    assert not (tmp_path / name).exists()
