"""A classifier, a bigram language model and a task with a hinge loss, written by docs/extending.md
alone."""

from __future__ import annotations

import ast
import pydoc_data.topics
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from own_parts import forget_own_parts

import groundup
from groundup.core import registry
from groundup.testing import check_model, check_task

FILES = sorted((Path(__file__).parents[2] / "support" / "exercises").glob("*.py"))
pytestmark = pytest.mark.slow


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def exercise(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """The recipe of an exercise, next to its file."""
    path = Path(shutil.copy(request.param, tmp_path))
    (tmp_path / "my_texts").mkdir()
    for number, text in enumerate(sorted(pydoc_data.topics.topics.values())[:12]):
        (tmp_path / "my_texts" / f"{number}.txt").write_text(text, encoding="utf-8")
    recipe = tmp_path / "recipe.yaml"
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    recipe.write_text(str(docstring), encoding="utf-8")
    with forget_own_parts():
        registry.load_file(path)
        yield recipe


def test_it_keeps_its_contract(exercise: Path) -> None:
    if "three_layers" in registry.names("model"):
        config = registry.lookup("model", "three_layers")(inputs=64, outputs=10)
        check_model(config, {"inputs": torch.randn(8, 64)})
    if "bigram" in registry.names("model"):
        check_model(registry.lookup("model", "bigram")(vocabulary_size=30))
    check_task(exercise, {"training.batch_size": 4})


def test_it_learns_predicts_and_is_evaluated(exercise: Path) -> None:
    changes = {"optim.lr": 0.05, "optim.warmup_steps": 1}  # in 20 steps
    trainer = groundup.trainer(exercise, changes, runs=exercise.parent / "runs")
    losses = [report.loss for report in trainer.steps()]
    trainer.save()
    trainer.close()
    assert sum(losses[-5:]) / 5 < losses[0]
    run = groundup.train(exercise, changes, runs=exercise.parent / "runs")
    predictor = groundup.load(run.folder)
    if run.recipe.name == "bigram":
        assert len(predictor(["The ", "A"], max_new_tokens=3)) == 2
    else:
        examples = list(run.recipe.data.examples("validation", exercise.parent))[:5]
        assert len(predictor([example.inputs for example in examples])) == 5
    groundup.evaluate(run.folder)
