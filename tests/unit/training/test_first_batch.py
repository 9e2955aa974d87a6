"""What a part of one's own lacks is said before the first step, by its name."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import groundup
from groundup.contracts.tasks import Task
from groundup.core.errors import TrainingError
from groundup.core.registry import task as register
from groundup.core.values import Batch, Evaluation, Loss, Term
from groundup.training.accumulation import TaskObjective
from groundup.training.first_batch import FirstBatchCheck, check_batch, check_loss, check_names


@register("toy")
class Toy(Task):
    """A task of rows of numbers, whose parts the tests take away."""

    @property
    def batch_spec(self) -> dict[str, str]:
        return {"inputs": "float32 (B, ...)", "labels": "int64 (B,)", "places": "int64 (B, T, 2)"}

    def encode(self, examples: Any, processor: Any) -> Batch:
        return {}

    def inputs(self, batch: Batch) -> dict[str, Any]:
        return {"inputs": batch["inputs"], "places": batch["places"]}

    def loss(self, outputs: Any, batch: Batch) -> Loss:
        return Loss({"label": Term(outputs.sum(), torch.tensor(len(batch["labels"])))})

    def summarise(self, sums: Any) -> dict[str, float]:
        return {}

    def predict(self, model: nn.Module, inputs: Any, processor: Any, **options: Any) -> Any:
        return None

    def evaluate(self, context: Any) -> Evaluation:
        return Evaluation({})


BATCH = {
    "inputs": torch.zeros(4, 3),
    "labels": torch.zeros(4, dtype=torch.int64),
    "places": torch.zeros(4, 5, 2, dtype=torch.int64),
}


def changed(**tensors: Any) -> Batch:
    return {name: value for name, value in {**BATCH, **tensors}.items() if value is not None}


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (changed(labels=None), r"has no tensor 'labels', which batch_spec names; it has inputs"),
        (changed(labels=torch.zeros(4)), r"labels as float32 \(4,\), but batch_spec says int64"),
        (
            changed(labels=torch.zeros(3, dtype=torch.int64)),
            r"labels as int64 \(3,\), but batch_spec says int64 \(B,\) with B = 4\. Correct",
        ),
        (changed(places=torch.zeros(4, 5, 3, dtype=torch.int64)), r"int64 \(B, T, 2\) with B = 4"),
        (changed(places=torch.zeros(4, 5, dtype=torch.int64)), "has places as int64"),
        (changed(inputs=torch.zeros(4, 3).double()), r"inputs as float64 \(4, 3\), but"),
    ],
)
def test_a_batch_that_is_not_as_its_task_says(batch: Batch, expected: str) -> None:
    with pytest.raises(TrainingError, match=r"task toy \(Toy\), first batch: .*" + expected):
        check_batch(Toy(), batch)


def test_batches_that_are_as_their_task_says() -> None:
    before = {name: value.clone() for name, value in BATCH.items()}
    check_batch(Toy(), BATCH)
    check_batch(Toy(), {**BATCH, "more": torch.zeros(1)})
    check_batch(Toy(), changed(inputs=None, tokens=torch.zeros(4, 9)))
    check_batch(Toy(), changed(inputs=torch.zeros(4, 3).double()), widened=True)
    # looked at only
    assert BATCH.keys() == before.keys()
    assert all(torch.equal(BATCH[name], value) for name, value in before.items())


def test_a_spec_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toy, "batch_spec", {"labels": "whole numbers"})
    with pytest.raises(TrainingError, match="says 'whole numbers' of labels; allowed: a dtype"):
        check_batch(Toy(), BATCH)


class Few(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs


class Many(nn.Module):
    def forward(self, inputs: Tensor, lengths: Tensor, places: Any = None) -> Tensor:
        return inputs


class Anything(nn.Module):
    def forward(self, **inputs: Tensor) -> Tensor:
        raise ValueError("no such layer")


def test_names_that_a_forward_does_not_take_or_does_not_get() -> None:
    with pytest.raises(
        TrainingError,
        match=r"model Few, forward: takes inputs, but task toy \(Toy\) also gives places\. Add",
    ):
        check_names(Toy(), Few(), BATCH)
    with pytest.raises(
        TrainingError, match=r"needs lengths, but task toy \(Toy\) gives only inputs, places\. Give"
    ):
        check_names(Toy(), Many(), BATCH)
    with pytest.raises(
        TrainingError, match=r"task toy \(Toy\), inputs: failed with inputs .*KeyError: 'places'"
    ):
        check_names(Toy(), Few(), changed(places=None))
    check_names(Toy(), Anything(), BATCH)


def test_a_forward_or_a_loss_that_fails_is_named() -> None:
    check = FirstBatchCheck(TaskObjective(Toy(), Anything(), None), Toy(), widened=False)
    with pytest.raises(
        TrainingError, match=r"model Anything: failed with inputs float32 \(4, 3\), .*no such layer"
    ):
        check.forward(Anything(), BATCH)
    with pytest.raises(
        TrainingError, match=r"task toy \(Toy\), loss: failed with the outputs : AttributeError"
    ):
        check({}, BATCH)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (torch.tensor(1.0), r"returns float32 \(\); allowed: a Loss with one term or more"),
        (Loss({}), "returns Loss; allowed"),
        (Loss({"a": 1.0}), "has float as its term a; allowed: a Term"),  # type: ignore[dict-item]
        (
            Loss({"a": Term(torch.zeros(4, 7), torch.tensor(4))}),
            r"has float32 \(4, 7\) as the total of term a; allowed: one number, a tensor\. Sum it",
        ),
        (Loss({"a": Term(torch.tensor(1.0), torch.tensor(1))}), "depends on no trained parameter"),
    ],
)
def test_what_is_no_loss(loss: Any, expected: str) -> None:
    with pytest.raises(TrainingError, match=r"task toy \(Toy\), loss: " + expected):
        check_loss(Toy(), loss)


# ------------------------------------------------------------------- a model of one's own, end to end
BIGRAM = """
import torch
from torch import nn
from groundup.contracts.models import ModelConfig
from groundup.core.registry import model
from groundup.core.settings import setting

@model("bigram")
class BigramConfig(ModelConfig):
    vocabulary_size: int = setting(0, "Tokens")
    context_length: int = setting(16, "Tokens of a row")

    def build(self):
        return Bigram(self)

    def complete_from(self, processor):
        return self.model_copy(update={"vocabulary_size": processor.vocabulary_size})

class Bigram(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        size = config.vocabulary_size
        self.table = nn.Embedding(size, size)

    def forward(FORWARD
"""
WORKS = """self, tokens, targets=None, positions=None, boundaries=None):
        logits = self.table(tokens)
        if targets is None:
            return logits
        return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
"""


def own_model(recipe: dict[str, Any], folder: Path, forward: str) -> dict[str, Any]:
    file = folder / "bigram.py"
    name = f"bigram_{hashlib.sha256(forward.encode()).hexdigest()[:8]}"
    file.write_text(BIGRAM.replace("FORWARD", forward).replace('"bigram"', repr(name)))
    samples = {"every": 1, "prompts": ["a"]}
    training = {"batch_size": 4, "steps": 2}
    own = {"model": {"name": name}, "uses": [str(file)], "samples": samples}
    return {**recipe, **own, "training": training}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        (
            "self, tokens):\n        return self.table(tokens)",
            r"model Bigram, forward: takes tokens, but task language_modeling .* targets",
        ),
        (
            "self, tokens, targets=None, positions=None, boundaries=None):\n"
            "        return self.table(tokens)",
            r"has float32 \(4, 16, \d+\) as the total of term next_token; allowed: one number",
        ),
        (
            "self, tokens, targets=None, positions=None, boundaries=None):\n"
            "        return self.tables(tokens)",
            r"model Bigram: failed with tokens int64 .*AttributeError: .*has no attribute 'tables'",
        ),
        (
            WORKS.replace("            return logits", "            raise OSError('no logits')"),
            r"with model Bigram: cannot predict from the prompt 'a': OSError: no logits",
        ),
    ],
)
def test_a_language_model_of_ones_own_that_lacks_something(
    forward: str, expected: str, recipe: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=expected):
        groundup.train(own_model(recipe, tmp_path, forward), runs=tmp_path / "runs")


@pytest.mark.slow
def test_a_language_model_of_ones_own_trains_and_writes(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    run = groundup.train(own_model(recipe, tmp_path, WORKS), runs=tmp_path / "runs")
    assert isinstance(groundup.load(run.folder)("ab", max_new_tokens=2), str)
