"""Several tasks on one model: the loss is the sum of theirs, what is missing is masked, and weights
are learned."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import groundup
from groundup.core import registry
from groundup.core.contracts.tasks import EvaluationContext, Task
from groundup.core.settings import validate
from groundup.core.values import Batch, Evaluation, Example, Loss, Term
from groundup.data.sources.arrays import Arrays
from groundup.metrics.gradient_agreement import gradient_agreement
from groundup.models.mlp import MLPConfig
from groundup.processors.image import ImageConfig
from groundup.processors.labelled import Labelled, with_targets
from groundup.processors.targets import (
    MultiLabel,
    MultiTaskTargets,
    RegressionTargets,
    SingleLabel,
    targets_from_json,
)
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


@pytest.fixture(autouse=True)
def _amount() -> Iterator[None]:
    """Register a small regression for the length of a test."""

    @registry.task("amount")
    class Amount(Task):
        unit: ClassVar[str] = "examples"

        @property
        def batch_spec(self) -> dict[str, str]:
            return {"inputs": "float32 (B, ...)", "numbers": "float32 (B, R)"}

        def fit_processor(self, processor: Any, examples: Callable[[], Iterator[Any]]) -> Any:
            return with_targets(processor, examples, RegressionTargets.fit, 1)

        def encode(self, examples: Sequence[Any], processor: Any) -> Batch:
            encoded: Batch = processor.encode_inputs([e.inputs for e in examples])
            return encoded | {"numbers": processor.targets.encode([e.target for e in examples])}

        def inputs(self, batch: Batch) -> dict[str, Any]:
            return {"inputs": batch["inputs"]}

        def loss(self, outputs: Tensor, batch: Batch) -> Loss:
            total = F.mse_loss(outputs, batch["numbers"], reduction="sum")
            return Loss({"squared": Term(total, torch.tensor(float(batch["numbers"].numel())))})

        def summarise(self, sums: dict[str, tuple[float, float]]) -> dict[str, float]:
            total, count = sums["squared"]
            return {"loss": total / max(count, 1.0)}

        def predict(self, model: nn.Module, inputs: Any, processor: Any, **options: Any) -> Any:
            with torch.no_grad():
                return processor.targets.decode(model(**processor.encode_inputs(inputs)))[
                    :, 0
                ].tolist()

        def evaluate(self, context: EvaluationContext) -> Evaluation:
            examples = list(context.examples("validation"))
            found = self.predict(context.model, [e.inputs for e in examples], context.processor)
            return Evaluation(
                {
                    "mae": float(
                        np.mean([abs(a - e.target) for a, e in zip(found, examples, strict=True)])
                    )
                }
            )

    yield
    del registry._registered["task"]["amount"]


TASKS: dict[str, Any] = {
    "digit": {"name": "classify"},
    "ink": "amount",
    "loop": {"name": "classify"},
}


def multitask(**settings: Any) -> Multitask:
    return validate(Multitask, {"tasks": TASKS, **settings}, "recipe.task")


def digits(count: int = 120) -> list[Example]:
    """Digits with three targets; every third has no ink, and the loop is known of the first
    half."""
    found = []
    for row, example in enumerate(Arrays().examples("train", Path())[:count]):
        target = {"digit": example.target, "ink": float(example.inputs.mean()) if row % 3 else None}
        target |= (
            {"loop": "yes" if example.target in (0, 6, 8, 9) else "no"} if row < count / 2 else {}
        )
        found.append(Example(example.name, example.inputs, target, example.origin))
    return found


def loss_of(task: Multitask, model: nn.Module, batch: Batch, processor: Labelled) -> Loss:
    return task.build_objective(model, processor)(task.forward(model, batch), batch)


def prepared(task: Multitask, count: int = 120) -> tuple[list[Example], Any, nn.Module]:
    """Return examples, their processor and a model of two hidden layers."""
    examples = digits(count)
    processor = task.fit_processor(
        ImageConfig().fit(lambda: iter(examples)), lambda: iter(examples)
    )
    torch.manual_seed(0)
    model = MLPConfig(hidden=(16, 8)).complete_from(processor).build()
    task.add_parameters(model, processor)
    return examples, processor, model


def test_targets_of_several_tasks_are_kept_side_by_side() -> None:
    found = MultiTaskTargets(
        {
            "digit": SingleLabel(["3", "5", "7"]),
            "ink": RegressionTargets([1.0], [2.0]),
            "tags": MultiLabel("ab"),
        }
    )
    assert (found.outputs, found.kind) == (6, "several")
    assert found.labels == ("digit/3", "digit/5", "digit/7", "ink/0", "tags/a", "tags/b")
    assert [found.columns(name) for name in found.parts] == [slice(0, 3), slice(3, 4), slice(4, 6)]
    rows = found.encode(
        [
            {"digit": 5, "ink": 2.0, "tags": "a|b"},
            {"ink": float("nan")},
            None,
            {"digit": 7, "tags": None},
        ]
    )
    expected = [[1, 0.5, 1, 1], [np.nan] * 4, [np.nan] * 4, [2, np.nan, np.nan, np.nan]]
    np.testing.assert_array_equal(rows.numpy(), expected)
    again = targets_from_json(found.to_json())
    np.testing.assert_array_equal(
        again.encode([{"digit": 5, "ink": 3.0, "tags": ""}]).numpy(), [[1, 1, 0, 0]]
    )


def test_the_loss_is_the_sum_of_the_tasks_own_losses() -> None:
    task = multitask(weights={"ink": 0.5})
    examples, processor, model = prepared(task)
    batch = task.encode(examples, processor)
    for key, described in task.batch_spec.items():
        assert str(batch[key].dtype) == f"torch.{described.split()[0]}"
    loss = loss_of(task, model, batch, processor)
    assert task.counts(batch) == {"digit": 120.0, "ink": 80.0, "loop": 60.0}
    assert {name: (float(t.count), t.weight) for name, t in loss.terms.items()} == {
        "digit": (120.0, 1.0),
        "ink": (80.0, 0.5),
        "loop": (60.0, 1.0),
    }
    for name, columns in (("digit", slice(0, 10)), ("ink", slice(10, 11)), ("loop", slice(11, 13))):
        has = [e for e in examples if e.target.get(name) is not None]
        own = [Example(e.name, e.inputs, e.target[name]) for e in has]
        part = task.tasks[name]
        alone = part.fit_processor(processor.inputs, lambda own=own: iter(own))
        rows = part.encode(own, alone)
        whole = model(inputs=rows["inputs"])
        term = next(iter(part.loss(whole[:, columns], rows).terms.values()))
        torch.testing.assert_close(loss.terms[name].total / len(own), term.total / term.count)


def test_metrics_are_each_tasks_own() -> None:
    task = multitask(weights={"ink": 0.5})
    examples, processor, model = prepared(task)
    sums: dict[str, tuple[float, float]] = {}
    for at in range(0, 120, 30):
        batch = task.encode(examples[at : at + 30], processor)
        with torch.no_grad():
            loss = loss_of(task, model, batch, processor)
        named = {name: (float(t.total), float(t.count)) for name, t in loss.terms.items()}
        for name, (total, count) in (
            named | {name: (float(v), 1.0) for name, v in loss.metrics.items()}
        ).items():
            before = sums.get(name, (0.0, 0.0))
            sums[name] = (before[0] + total, before[1] + count)
    found = task.summarise(sums)
    assert set(found) == {
        "loss",
        "digit/loss",
        "digit/accuracy",
        "ink/loss",
        "loop/loss",
        "loop/accuracy",
    }
    assert found["loss"] == pytest.approx(
        found["digit/loss"] + 0.5 * found["ink/loss"] + found["loop/loss"]
    )
    batch = task.encode(examples, processor)
    right = (
        task.split_outputs(task.forward(model, batch), batch, model, processor)
        .by_task["loop"]
        .argmax(1)
        == batch["loop/labels"]
    )[batch["loop/present"]]
    assert found["loop/accuracy"] == pytest.approx(float(right.float().mean()))


def test_a_target_that_is_missing_changes_nothing() -> None:
    task = multitask()
    examples, processor, model = prepared(task)
    batch = task.encode(examples, processor)
    before = loss_of(task, model, batch, processor)
    batch["loop/labels"][60:] = 1
    batch["ink/numbers"][::3] = torch.nan
    after = loss_of(task, model, batch, processor)
    assert all(torch.equal(before.terms[name].total, after.terms[name].total) for name in TASKS)
    nobody = task.encode([Example("a", examples[0].inputs, None)], processor)
    with torch.no_grad():
        loss = loss_of(task, model, nobody, processor)
    assert all(float(term.total) == float(term.count) == 0 for term in loss.terms.values())
    assert task.summarise(dict.fromkeys(TASKS, (0.0, 0.0))) == {"loss": 0.0}


def test_a_head_gets_no_gradient_from_other_tasks() -> None:
    task = multitask()
    examples, processor, model = prepared(task)
    batch = task.encode(examples, processor)
    loss_of(task, model, batch, processor).terms["ink"].total.backward()
    head: Any = model.head
    assert head.weight.grad[10].abs().sum() > 0
    assert head.weight.grad[:10].abs().sum() == head.weight.grad[11:].abs().sum() == 0


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
