"""What tasks offer beyond the contract: losses of each example, logits for a teacher, and noise
that is keyed by the sample."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import tiny_run
from torch import Tensor, nn

from groundup import api
from groundup.contracts.example_losses import PerExampleLoss
from groundup.contracts.tasks import Chats, Distils, SeveralSequences, Streams
from groundup.core.registry import lookup, names
from groundup.core.seeding import keyed_noise
from groundup.core.settings import validate
from groundup.core.values import IGNORED, Batch
from groundup.models.gpt import GPTConfig
from groundup.processors.class_targets import MultiLabel
from groundup.processors.image import ImageProcessor
from groundup.processors.labelled import Labelled
from groundup.tasks.classify.task import Classify
from groundup.training.components import open_stream

TOKENS = torch.randint(0, 50, (3, 8), generator=torch.Generator().manual_seed(0))


def texts() -> Batch:
    """Return three rows of tokens; the second is of two documents, the last has nothing to learn
    in its second half."""
    targets = TOKENS.roll(-1, 1)
    targets[2, 4:] = IGNORED
    return {
        "tokens": TOKENS,
        "targets": targets,
        "positions": torch.stack((torch.arange(8), torch.arange(8) % 4, torch.arange(8))),
        "boundaries": torch.tensor([0, 8, 12, 16, 24], dtype=torch.int32),
    }


def examples(**more: Tensor) -> Batch:
    torch.manual_seed(1)
    return {"inputs": torch.zeros(3, 2), **more}


LABELS = torch.tensor([0, 3, 1])
MIXED = {
    "labels_2": torch.tensor([2, 2, 0]),
    "mix": torch.tensor([0.3, 1.0, 0.6]),
    "weights": torch.tensor([1.0, 2.0, 0.5]),
    "weights_2": torch.tensor([3.0, 1.0, 1.0]),
}
NUMBERS = {
    "targets": torch.tensor([[0.5, 2.0], [-1.0, 0.0], [3.0, 1.0]]),
    "scale": torch.ones(3, 2),
}
SEVERAL = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 0, 1]])
CASES: list[tuple[str, dict[str, Any], Batch, int]] = [
    ("classify", {}, examples(labels=LABELS), 4),
    ("classify", {"label_smoothing": 0.2}, examples(labels=LABELS, **MIXED), 4),
    ("classify", {"labels": "ordinal"}, examples(labels=LABELS), 4),
    ("classify", {"labels": "multi_label"}, examples(labels=SEVERAL), 4),
    ("regression", {}, examples(**NUMBERS), 2),
    ("regression", {"objective": "mae"}, examples(**NUMBERS), 2),
    ("regression", {"objective": "huber"}, examples(**NUMBERS), 2),
]


@pytest.mark.parametrize("case", CASES)
def test_losses_of_the_examples_add_up_to_the_loss(case: Any) -> None:
    name, settings, batch, outputs = case
    task = validate(lookup("task", name), settings, "recipe.task")
    assert isinstance(task, PerExampleLoss)
    predicted = torch.randn(3, outputs, generator=torch.Generator().manual_seed(2))
    (term,) = task.loss(predicted, batch).terms.values()
    each = task.example_losses(predicted, batch)
    assert each.shape == (3,)
    torch.testing.assert_close(each.sum(), term.total)
    assert task.prediction_inputs(batch).keys() == task.inputs(batch).keys()
    for row in range(3):
        alone = {key: value[row : row + 1] for key, value in batch.items()}
        (term,) = task.loss(predicted[row : row + 1], alone).terms.values()
        torch.testing.assert_close(each[row], term.total)


@pytest.mark.parametrize("name", ["language_modeling", "chat"])
def test_losses_of_texts_add_up_to_the_sum_that_the_model_returns(name: str) -> None:
    task = lookup("task", name)()
    torch.manual_seed(0)
    model = GPTConfig(vocabulary_size=50, context_length=8, layers=1, width=8, heads=2).build()
    batch = texts()
    (term,) = task.loss(task.forward(model, batch), batch).terms.values()
    logits = model(**task.prediction_inputs(batch))
    each = task.example_losses(logits, batch)
    torch.testing.assert_close(each.sum(), term.total)
    (by_logits,) = task.prediction_loss(logits, batch).terms.values()
    torch.testing.assert_close(by_logits.total, term.total)
    assert by_logits.count == term.count == task.predicted(batch).sum() == 20
    changed = {**batch, "targets": batch["targets"].clone()}
    changed["targets"][2] = IGNORED
    assert torch.equal(task.example_losses(logits, changed)[:2], each[:2])
    assert task.example_losses(logits, changed)[2] == 0


def test_losses_of_rows_with_hidden_tokens_add_up() -> None:
    task = lookup("task", "masked_language_modeling")()
    batch = texts()
    batch["targets"][0, ::2] = IGNORED
    batch["targets"][1] = IGNORED
    hidden = int((batch["targets"] != IGNORED).sum())
    logits = torch.randn(hidden, 50, generator=torch.Generator().manual_seed(2))
    each = task.example_losses(logits, batch)
    (term,) = task.loss(logits, batch).terms.values()
    torch.testing.assert_close(each.sum(), term.total)
    assert each[1] == 0
    first = {key: value[:1] for key, value in batch.items()}
    torch.testing.assert_close(each[0], task.loss(logits[:4], first).terms["hidden_token"].total)


def test_which_task_offers_what() -> None:
    made = {name: lookup("task", name) for name in names("task")}
    offered = {
        capability: {name for name, task in made.items() if issubclass(task, capability)}
        for capability in (Streams, Chats, SeveralSequences)
    }
    assert offered == {
        Streams: {"language_modeling", "chat", "preference", "grpo"},
        Chats: {"chat", "preference", "grpo"},
        SeveralSequences: {"preference"},
    }
    # protocols with properties take instances alone
    distils = {n for n, task in made.items() if n != "multitask" and isinstance(task(), Distils)}
    assert distils == {"language_modeling", "chat", "classify", "text_to_text"}
    assert Classify().distils == "classes"
    assert Classify(labels="multi_label").distils == ""


# ------------------------------------------------------------------------------------------- noise
class Denoising(Classify):
    """Reads its inputs with noise, as a model of diffusion does."""

    @property
    def augments(self) -> bool:
        return True

    @property
    def augments_held_out(self) -> bool:
        return True

    def augment(
        self, batch: Batch, samples: Any, partners: Any, processor: Any, seed: int
    ) -> Batch:
        noise = keyed_noise(seed, "noise", samples, batch["inputs"].shape[1:])
        return {**batch, "inputs": batch["inputs"] + noise}


@pytest.mark.parametrize("split", ["train", "validation"])
def test_noise_does_not_depend_on_the_micro_batch(split: Any, tmp_path: Path) -> None:
    found = []
    for micro_batch in (16, 4):
        recipe = tiny_run("mlp", tmp_path)
        recipe["machine"] = {**recipe["machine"], "micro_batch_size": micro_batch}
        trainer = api.trainer({**recipe, "name": f"by{micro_batch}"}, runs=tmp_path / "runs")
        plain = next(open_stream(trainer.run, trainer.parts, split))["inputs"]
        parts = dataclasses.replace(trainer.parts, task=Denoising())
        stream = open_stream(trainer.run, parts, split)
        inputs = torch.cat([next(stream)["inputs"] for _ in range(16 // micro_batch)])
        found.append(inputs)
        assert not torch.equal(plain, inputs[:micro_batch])
        trainer.close()
    assert torch.equal(*found)


def test_noise_is_normal_and_another_for_every_sample_purpose_and_seed() -> None:
    samples = np.arange(200)
    noise = keyed_noise(0, "noise", samples, (5, 20))
    assert noise.shape == (200, 5, 20)
    assert abs(float(noise.mean())) < 0.03
    assert abs(float(noise.std()) - 1) < 0.03
    assert torch.equal(keyed_noise(0, "noise", samples[7:9], (5, 20)), noise[7:9])
    assert not torch.equal(noise[0], noise[1])
    assert not torch.equal(keyed_noise(0, "time", samples[:1], (5, 20)), noise[:1])
    assert not torch.equal(keyed_noise(1, "noise", samples[:1], (5, 20)), noise[:1])
    assert keyed_noise(0, "noise", samples[:0], (5,)).shape == (0, 5)


# -------------------------------------------------------------------------------------- thresholds
class Logits(nn.Module):
    """Gives its inputs as logits."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(1) * self.scale


def test_labels_are_predicted_from_one_half_on() -> None:
    """In predicting, in the loss's metrics and among mistakes alike."""
    processor = Labelled(
        ImageProcessor((1, 1, 3), None, [0.0], [1.0]), MultiLabel(["a", "b", "c"]), 0
    )
    task = Classify(labels="multi_label")
    chances = torch.tensor([0.45, 0.5, 0.55], dtype=torch.float64)
    picture = torch.logit(chances)[None].float().numpy()
    found = task.predict(Logits(), [picture], processor)
    assert [sorted(labels) for labels in found] == [["b", "c"]]
    batch = {"inputs": torch.zeros(1, 3), "labels": torch.tensor([[0.0, 1.0, 1.0]])}
    with torch.no_grad():
        loss = task.loss(torch.logit(chances)[None].float(), batch)
    assert float(loss.metrics["right"]) == 1.0
