"""Several tasks on one model: how their weights are learned, and what a run says."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_multitask import TASKS, _amount, loss_of, multitask, prepared  # noqa: F401
from torch import nn

import groundup
from groundup.data.sources.arrays import Arrays
from groundup.metrics.gradient_agreement import gradient_agreement
from groundup.models.mlp import MLPConfig
from groundup.recipe.json_schema import recipe_schema
from groundup.recipe.recipe import as_dict, load_recipe
from groundup.tasks.classify.task import Classify
from groundup.tasks.multitask.loss_weighting import (
    GradNormWeights,
    UncertaintyWeights,
    last_shared,
    trunk,
)
from groundup.tasks.multitask.task import Multitask


# ---------------------------------------------------------------------------------- learned weights
def test_uncertainty_is_as_published() -> None:
    weights = UncertaintyWeights([1.0, 0.5])
    with torch.no_grad():
        weights.log_variance.copy_(torch.tensor([0.3, -0.7]))
    totals, counts = [torch.tensor(8.0), torch.tensor(3.0)], [4.0, 2.0]
    found = weights(totals, counts, nn.Identity())
    sum(total / count for total, count in zip(found, counts, strict=True)).backward()
    s = np.array([0.3, -0.7])
    sigma, means, factors = np.exp(s / 2), np.array([2.0, 1.5]), np.array([1.0, 0.5])
    expected = factors * means / sigma**2 + np.log(sigma)
    np.testing.assert_allclose(
        [float(t.detach()) / c for t, c in zip(found, counts, strict=True)], expected, rtol=1e-6
    )
    assert weights.log_variance.grad is not None
    np.testing.assert_allclose(
        weights.log_variance.grad, 0.5 - factors * means * np.exp(-s), rtol=1e-6
    )
    assert weights.values() == pytest.approx((factors * np.exp(-s)).tolist())


@pytest.mark.slow
def test_uncertainty_settles_where_the_gradient_is_zero() -> None:
    weights = UncertaintyWeights([1.0, 0.5])
    optimizer = torch.optim.SGD(weights.parameters(), lr=0.5)
    for _ in range(300):
        optimizer.zero_grad()
        torch.stack(
            weights([torch.tensor(4.0), torch.tensor(0.1)], [1.0, 1.0], [])
        ).sum().backward()
        optimizer.step()
    torch.testing.assert_close(
        weights.log_variance.detach().exp(), torch.tensor([8.0, 0.1]), rtol=1e-3, atol=0
    )


class Toy(nn.Module):
    """Two numbers from one shared weight."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(1, 1, bias=False)])
        self.head = nn.Linear(1, 2, bias=False)


@pytest.mark.slow
def test_gradnorm_takes_weight_from_the_task_that_pulls_too_hard() -> None:
    model, weights = Toy(), GradNormWeights(2, alpha=0.0, lr=0.01)
    shared: Any = model.blocks[0]
    for _ in range(400):
        y = shared(torch.ones(1, 1)).squeeze()
        found = weights([10.0 * y, 2.0 * y], [1.0, 1.0], last_shared(model))
    values = weights.values()
    assert sum(values) == pytest.approx(2.0, abs=1e-5)
    assert values[1] / values[0] == pytest.approx(5.0, rel=0.2)  # pulls 10 w0 and 2 w1 are alike
    torch.testing.assert_close(found[0] / y, torch.tensor(10 * values[0]), rtol=0.2, atol=0)


@pytest.mark.slow
def test_gradnorm_favours_the_task_that_learns_slowly() -> None:
    for alpha, expected in ((0.0, 1.0), (1.0, 4.0)):
        weights = GradNormWeights(2, alpha=alpha, lr=0.01)
        weights.move([0, 1], torch.tensor([1.0, 1.0]), torch.ones(2))
        for _ in range(500):
            weights.move([0, 1], torch.tensor([0.8, 0.2]), torch.ones(2))
        assert weights.values()[0] / weights.values()[1] == pytest.approx(expected, rel=0.1)


def test_gradnorm_leaves_alone_what_it_cannot_judge() -> None:
    weights = GradNormWeights(3, alpha=1.0, lr=0.1)
    weights.move([0, 1], torch.tensor([torch.nan, 1.0]), torch.ones(2))
    weights([torch.ones(()), torch.zeros(()), torch.zeros(())], [1.0, 0.0, 0.0], last_shared(Toy()))
    assert weights.values() == [1.0, 1.0, 1.0]
    weights.move([0, 2], torch.tensor([1.0, 1.0]), torch.tensor([3.0, 1.0]))
    assert weights.values()[1] == 1.0
    assert weights.values()[0] < 1.0 < weights.values()[2]
    before = weights.values()
    weights.eval()(
        [torch.ones(()), torch.ones(()), torch.ones(())], [1.0, 1.0, 1.0], last_shared(Toy())
    )
    assert weights.values() == before


@pytest.mark.parametrize("weighting", ["uncertainty", "gradnorm"])
def test_learned_weights_keep_the_models_names_and_weigh_in_training_only(weighting: str) -> None:
    task = multitask(weighting=weighting)
    examples, processor, model = prepared(task)
    own = MLPConfig(hidden=(16, 8)).complete_from(processor).build().state_dict()
    assert {name for name in model.state_dict() if not name.startswith("task_weights.")} == set(own)
    assert task.loss_is_sum == (weighting == "uncertainty")
    assert len(last_shared(model)) == 2
    assert len(trunk(model)) == 4
    batch = task.encode(examples, processor)
    with torch.no_grad():
        name = "log_variance" if weighting == "uncertainty" else "weight"
        getattr(model.task_weights, name).copy_(torch.tensor([0.1, 1.9, 1.0]))
    other = copy.deepcopy(model)
    weighed = loss_of(task, model, batch, processor)
    plain = loss_of(task, other.eval(), batch, processor)
    fixed = loss_of(multitask(), other, batch, processor)
    assert all(torch.equal(plain.terms[n].total, fixed.terms[n].total) for n in TASKS)
    factor = (
        [0.1, 1.9, 1.0]
        if weighting == "gradnorm"
        else [np.exp(-0.1), 0.5 * np.exp(-1.9), np.exp(-1.0)]
    )
    added = [0.0] * 3 if weighting == "gradnorm" else [0.05, 0.95, 0.5]
    for n, f, a in zip(TASKS, factor, added, strict=True):
        expected = f * plain.terms[n].total + a * plain.terms[n].count
        torch.testing.assert_close(weighed.terms[n].total, expected.float())
    assert torch.equal(other.head.weight, model.head.weight)


# ---------------------------------------------------------------------------------------- agreement
def test_gradients_are_compared() -> None:
    east, north, west = (
        torch.tensor([2.0, 0.0]),
        torch.tensor([0.0, 1.0]),
        torch.tensor([-1.0, 0.0]),
    )
    found = gradient_agreement([[east, north, west], [east, east + north, None]], 3)
    np.testing.assert_allclose(
        found.cosine[0], [1, np.sqrt(0.5) * np.sqrt(4.5 / 5) / 2 + 0, -1], atol=0.2
    )
    np.testing.assert_allclose(found.cosine[0, 1], 0.5 * 2 / np.sqrt(5))
    np.testing.assert_allclose(found.conflict, [[0, 0, 1], [0, 0, 0], [1, 0, 0]])
    np.testing.assert_allclose(found.norm, [2, (1 + np.sqrt(5)) / 2, 1])
    assert found.batches.tolist() == [[2, 2, 1], [2, 2, 1], [1, 1, 1]]
    never = gradient_agreement([[east, None], [None, east]], 2)
    assert np.isnan(never.cosine[0, 1])
    assert never.batches.tolist() == [[1, 0], [0, 1]]


# ---------------------------------------------------------------------------------- from end to end
def write_digits(folder: Path) -> str:
    examples = Arrays().examples("train", folder)[:900]
    ink = np.array([e.inputs.mean() for e in examples], dtype=np.float64)
    ink[::4] = np.nan
    loop = np.array(["yes" if e.target in (0, 6, 8, 9) else "no" for e in examples])
    labels = {"y": [e.target for e in examples], "ink": ink, "loop": loop}
    np.savez(folder / "digits.npz", x=np.stack([e.inputs for e in examples]), **labels)
    return str(folder / "digits.npz")


def recipe(folder: Path, **task: Any) -> dict[str, Any]:
    keys = {"digit": "y", "ink": "ink", "loop": "loop"}
    return {
        **{"name": "several", "model": {"name": "mlp", "hidden": [48]}, "processor": "image"},
        **{"task": {"name": "multitask", "tasks": TASKS, **task}},
        **{
            "data": {
                "name": "arrays",
                "path": write_digits(folder),
                "labels_keys": keys,
                "fraction": 0.2,
            }
        },
        **{"optim": {"lr": 1e-2}, "training": {"batch_size": 32, "steps": 80}},
        **{
            "evaluation": {"every": 40},
            "checkpoints": {"every": 40},
            "machine": {"precision": "fp32", "compile": False, "threads": 1},
        },
    }


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["fixed", "uncertainty", "gradnorm"])
def test_from_recipe_to_prediction(tmp_path: Path, weighting: str) -> None:
    run = groundup.train(recipe(tmp_path, weighting=weighting), runs=tmp_path)
    assert load_recipe(as_dict(run.recipe)) == run.recipe
    found = groundup.evaluate(run.folder)["runs"][0]["evaluation"]
    metrics, tables = found["metrics"], {table["title"]: table for table in found["tables"]}
    assert metrics["digit/accuracy"] > 0.7  # the commonest digit is a tenth
    assert metrics["loop/accuracy"] > 0.8
    assert metrics["ink/mae"] < 0.4
    assert {"digit: Classes", "loop: Classes"} <= set(tables)
    cosine = tables["How the tasks' gradients agree: mean cosine"]
    assert list(cosine["columns"]) == ["task", "digit", "ink", "loop", "gradient norm"]
    assert [row[n] for n, row in enumerate(cosine["rows"], 1)] == [1.0, 1.0, 1.0]
    assert (f"Weights of the tasks ({weighting})" in tables) == (weighting != "fixed")
    held_out = run.recipe.data.examples("validation", tmp_path)[:3]  # type: ignore[attr-defined]
    answers = groundup.predict(run.folder, [e.inputs for e in held_out])
    assert [set(answer) for answer in answers] == [set(TASKS)] * 3
    assert abs(answers[0]["ink"] - held_out[0].inputs.mean()) < 1.5
    assert groundup.predict(run.folder, held_out[0].inputs)["digit"] == answers[0]["digit"]
    card = run.read_json("data_card.json") or {}
    assert set(card["train"]["labels"]["loop"]) == {"no", "yes"}
    assert card["train"]["labels"]["ink"]["different numbers"] > 100


@pytest.mark.slow
def test_a_run_goes_on_from_another_one(tmp_path: Path) -> None:
    first = groundup.train(
        recipe(tmp_path, weighting="gradnorm"), {"training.steps": 2}, runs=tmp_path
    )
    again = {
        "init.run": str(first.folder),
        "name": "again",
        "training.steps": 2,
        "task.weighting": "uncertainty",
    }
    trainer = groundup.trainer(recipe(tmp_path), again, runs=tmp_path)
    weights = first.checkpoints.load(2).model
    assert all(
        torch.equal(value, trainer.model.state_dict()[n])
        for n, value in weights.items()
        if "task" not in n
    )
    assert trainer.model.task_weights.log_variance.tolist() == [0.0, 0.0, 0.0]
    list(trainer.steps())
    trainer.save()
    trainer.close()
    assert groundup.evaluate(tmp_path / "again")["runs"][0]["evaluation"]["metrics"]
    plain = {**recipe(tmp_path), "task": "classify", "data": {"name": "arrays"}, "name": "plain"}
    single = groundup.trainer(
        plain, {"init.run": str(first.folder), "training.steps": 1}, runs=tmp_path
    )
    assert torch.equal(single.model.blocks[0][0].weight, weights["blocks.0.0.weight"])
    assert single.model.head.weight.shape == (10, 48)
    single.close()


@pytest.mark.slow
def test_the_schema_knows_the_task() -> None:
    names = [
        task["properties"]["name"]["const"]
        for task in recipe_schema()["properties"]["task"]["anyOf"]
    ]
    assert "multitask" in names
    assert Multitask(tasks={"a": Classify()}).tasks["a"] == Classify()
