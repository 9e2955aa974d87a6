"""Which texts can be divided between processes, and what a part of them is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import tiny_run

from groundup.core.errors import RecipeError, TrainingError
from groundup.core.values import Batch, Loss, Term
from groundup.parallel.context import DividedTexts, TextPartObjective, check_texts
from groundup.recipe.recipe import load_recipe
from groundup.recipe.sections import Distill
from groundup.tasks.shared.next_token_task import PACKED_ROWS

# Two rows of six tokens: documents of 2 and 4, then of 6.
BATCH: Batch = {
    "tokens": torch.arange(12).view(2, 6),
    "targets": torch.arange(12).view(2, 6) + 1,
    "positions": torch.tensor([[0, 1, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5]]),
    "boundaries": torch.tensor([0, 2, 6, 12, 12], dtype=torch.int32),
}


class _SeenBatch:
    """An objective whose outputs are the batch that it got."""

    name = "seen"

    def forward(self, model: Any, batch: Batch) -> Batch:
        return batch

    def __call__(self, outputs: Any, batch: Batch) -> Loss:
        return Loss({"token": Term(batch["targets"].sum().float(), torch.tensor(1.0))})

    def counts(self, batch: Batch) -> dict[str, float] | None:
        return {"token": float(batch["targets"].numel())}


def _texts(place: int, size: int) -> DividedTexts:
    return DividedTexts(None, place, size, naming=lambda what: pytest.fail(what))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("place", "boundaries"), [(0, [0, 2, 3, 6, 6, 6, 6]), (1, [0, 3, 6, 6, 6, 6, 6])]
)
def test_a_part_of_a_batch(place: int, boundaries: list[int]) -> None:
    """Positions stay those in whole documents; each row begins one of its own for the layers."""
    objective = TextPartObjective(_SeenBatch(), _texts(place, 2), PACKED_ROWS)
    model = torch.nn.Linear(1, 1).eval()
    part = objective.forward(model, BATCH)
    columns = slice(3 * place, 3 * place + 3)
    for name in ("tokens", "targets", "positions"):
        assert part[name].equal(BATCH[name][:, columns])
    assert part["boundaries"].tolist() == boundaries
    assert part["boundaries"].dtype == torch.int32
    # Of whole texts: what divides the loss is counted once.
    assert objective.counts(BATCH) == {"token": 12.0}


def test_rows_that_cannot_be_divided_evenly() -> None:
    objective = TextPartObjective(_SeenBatch(), _texts(0, 4), PACKED_ROWS)
    with pytest.raises(TrainingError, match="texts of 6 tokens, which 4 processes cannot divide"):
        objective.forward(torch.nn.Linear(1, 1).eval(), BATCH)


@pytest.mark.parametrize(
    ("model", "changes", "said"),
    [
        ("vit", {}, "is 2, but the texts of model 'vit' cannot be divided between processes;"),
        ("bert", {}, "is 2, but task 'classify' reads inputs, labels, guess, commonest, which is"),
        ("gpt", {"model": {"context_length": 15}}, "15 tokens of recipe.model.context_length can"),
        (
            "gpt",
            {"model": {"rope_scaling": {"kind": "dynamic", "factor": 2.0}}},
            "is 2, but with recipe.model.rope_scaling the angles of a token depend on how long",
        ),
    ],
)
def test_what_cannot_be_divided(
    tmp_path: Path, model: str, changes: dict[str, Any], said: str
) -> None:
    """A sentence that names the key."""
    recipe = tiny_run(model, tmp_path)
    for section, settings in changes.items():
        recipe[section] = recipe.get(section, {}) | settings
    with pytest.raises(RecipeError, match=r"recipe\.parallel\.context") as raised:
        check_texts(load_recipe(recipe), 2)
    assert said in str(raised.value)


def test_a_teacher_reads_whole_texts(tmp_path: Path) -> None:
    recipe = load_recipe(tiny_run("gpt", tmp_path))
    recipe = recipe.model_copy(update={"distill": Distill(teacher="runs/teacher")})
    with pytest.raises(RecipeError, match=r"context: is 2, but the teacher of recipe\.distill"):
        check_texts(recipe, 2)


def test_what_can_be_divided(tmp_path: Path) -> None:
    check_texts(load_recipe(tiny_run("gpt", tmp_path)), 2)
    check_texts(load_recipe(tiny_run("phi3", tmp_path)), 4)
