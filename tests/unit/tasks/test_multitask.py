"""Several tasks on one model: the loss is the sum of theirs, what is missing is masked, and weights
are learned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.contracts.tasks import EvaluationContext, Task
from groundup.core import registry
from groundup.core.settings import validate
from groundup.core.values import Batch, Evaluation, Example, Loss, Term
from groundup.data.sources.arrays import Arrays
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
        "digit/baseline_accuracy",
        "digit/baseline_loss",
        "digit/examples",
        "digit/loss_standard_error",
        "ink/loss",
        "loop/loss",
        "loop/accuracy",
        "loop/baseline_accuracy",
        "loop/baseline_loss",
        "loop/examples",
        "loop/loss_standard_error",
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
