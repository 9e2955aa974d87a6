"""Language modelling beside a classifier: the same layers, the right tokens, and what is missing is
said."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import groundup
from groundup.contracts.tasks import EvaluationContext
from groundup.core.errors import RecipeError
from groundup.core.settings import validate
from groundup.core.values import Batch, Example, Loss
from groundup.models.mlp import MLPConfig
from groundup.models.transformer_classifier import TransformerClassifierConfig
from groundup.processors.image import ImageProcessor
from groundup.processors.labelled import Labelled
from groundup.processors.text.bytes import BytesConfig
from groundup.tasks.multitask.task import Multitask

BYTES = BytesConfig().fit(lambda: iter(()))
TASKS = {"kind": "classify", "text": "language_modeling"}
EXAMPLES = [
    Example(f"{n}", f"{word} {n % 7}", {"kind": word if n % 4 else None})
    for n, word in enumerate(["river", "stone", "lamp"] * 16)
]


class Recurrent(nn.Module):
    """Reads from left to right; the last state is classified, and every state predicts the next
    token."""

    def __init__(self, vocabulary: int, outputs: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, 24)
        self.blocks = nn.ModuleList([nn.GRU(24, 24, batch_first=True)])
        self.head = nn.Linear(24, outputs)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        states = self.blocks[0](self.embed(tokens))[0]
        return self.head(states[torch.arange(len(tokens)), lengths - 1])  # type: ignore[no-any-return]

    def token_logits(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return F.linear(self.blocks[0](self.embed(tokens))[0], self.embed.weight)


def task(**settings: Any) -> Multitask:
    return validate(Multitask, {"tasks": TASKS, **settings}, "recipe.task")


def loss_of(task: Multitask, model: nn.Module, batch: Batch, processor: Labelled) -> Loss:
    return task.build_objective(model, processor)(task.forward(model, batch), batch)


def prepared(**settings: Any) -> tuple[Multitask, Labelled, nn.Module]:
    made = task(**settings)
    processor = made.fit_processor(BYTES, lambda: iter(EXAMPLES))
    torch.manual_seed(0)
    model = Recurrent(processor.vocabulary_size, processor.outputs)
    made.check_model(model, processor)
    made.add_parameters(model, processor)
    return made, processor, model


def test_the_term_is_every_token_but_the_first_and_no_padding() -> None:
    made, processor, model = prepared()
    assert processor.outputs == 3
    batch = made.encode(EXAMPLES[:10], processor)
    loss = loss_of(made, model, batch, processor)
    assert made.counts(batch) == {name: float(term.count) for name, term in loss.terms.items()}
    assert float(loss.terms["text"].count) == sum(len(e.inputs) - 1 for e in EXAMPLES[:10])
    expected = torch.zeros(())
    for example in EXAMPLES[:10]:
        tokens = torch.from_numpy(BYTES.encode_batch([example.inputs])[0]).long()[None]
        logits = model.token_logits(tokens, torch.tensor([tokens.shape[1]]))[0]  # type: ignore[operator]
        expected = expected + F.cross_entropy(logits[:-1], tokens[0, 1:], reduction="sum")
    torch.testing.assert_close(loss.terms["text"].total, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "weighting",
    [
        "fixed",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("uncertainty", "gradnorm")),
    ],
)
def test_both_are_learned_judged_and_compared(weighting: str) -> None:
    made, processor, model = prepared(weighting=weighting)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    batch = made.encode(EXAMPLES, processor)
    for _ in range(60):
        loss = loss_of(made, model, batch, processor)
        optimizer.zero_grad()
        torch.stack(
            [term.weight * term.total / term.count for term in loss.terms.values()]
        ).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    held_out = [
        Example("h", "river 3", {"kind": "river"}),
        Example("i", "stone 4", {"kind": "stone"}),
    ]
    found = made.evaluate(EvaluationContext(model, processor, lambda split: held_out, 0))
    assert found.metrics["kind/accuracy"] == 1.0
    assert found.metrics["text/loss"] < math.log(3)  # over 256 bytes it began at 5.5
    assert found.metrics["text/held_out_tokens"] == 12.0
    assert found.metrics["text/bits_per_byte"] == pytest.approx(
        found.metrics["text/loss"] / math.log(2)
    )
    assert [row[0] for row in found.tables[-1].rows] == ["kind", "text"]
    unlabelled = [Example("j", "river 3")]
    without = made.evaluate(EvaluationContext(model, processor, lambda split: unlabelled, 0))
    assert without.metrics["kind/held_out_examples"] == 0.0
    assert [row[1:] for row in without.tables[-1].rows] == [(None, None), (None, 0.0)]
    assert made.predict(model, ["lamp 2"], processor) == [{"kind": "lamp"}]
    with torch.no_grad():
        loss = loss_of(made, model, batch, processor)
    sums = {name: (float(t.total), float(t.count)) for name, t in loss.terms.items()}
    sums |= {name: (float(v), 1.0) for name, v in loss.metrics.items()}
    if weighting == "fixed":
        watched = made.summarise(sums)
        assert watched["loss"] == pytest.approx(watched["kind/loss"] + watched["text/loss"])
        assert watched["text/perplexity"] == pytest.approx(math.exp(watched["text/loss"]))


def test_what_predicts_no_tokens_is_refused() -> None:
    with pytest.raises(
        RecipeError, match=r"tasks holds language_modeling alone. Add another task, or use"
    ):
        validate(Multitask, {"tasks": {"text": "language_modeling"}}, "recipe.task")
    made, processor, _ = prepared()
    plain = MLPConfig(inputs=4, outputs=3, hidden=(2,)).build()
    with pytest.raises(
        RecipeError,
        match=r"recipe.task.tasks.text: is language_modeling, but the model predicts no tok",
    ):
        made.check_model(plain, processor)
    pictures = Labelled(ImageProcessor((1, 2, 2), None, [0.0], [1.0]), processor.targets, 0)
    with pytest.raises(
        RecipeError, match=r"recipe.processor: makes no tokens, .* or remove task.tasks.text"
    ):
        made.check_model(plain, pictures)

    both_ways = {
        "layers": 1,
        "width": 8,
        "heads": 2,
        "vocabulary_size": BYTES.vocabulary_size,
        "outputs": 3,
    }
    with pytest.raises(
        RecipeError, match=r"recipe.model.causal: is false: every position sees .* Set causal: true"
    ):
        made.check_model(
            TransformerClassifierConfig(**both_ways, context_length=9).build(), processor
        )  # type: ignore[arg-type]
    frames = {
        **both_ways,
        "vocabulary_size": 0,
        "frame_width": 2,
        "causal": True,
        "context_length": 9,
    }
    with pytest.raises(
        RecipeError, match=r"recipe.model: reads frames, and next tokens are predicted"
    ):
        TransformerClassifierConfig(**frames).build().token_logits(torch.zeros(1, 1))  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("pooling", [pytest.param("last", marks=pytest.mark.slow), "mean"])
def test_the_registered_model_starts_from_a_gpt_and_predicts_as_it_does(
    recipe: dict[str, Any], tmp_path: Path, pooling: str
) -> None:
    """And learns to classify beside it, its weights those of the language model."""
    recipe["model"] |= {"dropout": 0.0, "vocabulary_multiple": 64, "context_length": 32}
    base = groundup.trainer(recipe, runs=tmp_path / "runs")
    list(base.steps())
    base.save()
    base.close()
    words = [example.inputs for example in EXAMPLES]
    np.savez(
        tmp_path / "texts.npz",
        x=np.array(words),
        kind=np.array([word.split()[0] for word in words]),
    )
    data = {"name": "arrays", "path": str(tmp_path / "texts.npz"), "labels_keys": {"kind": "kind"}}
    tasks = {"kind": {"name": "classify", "max_tokens": 32}, "text": "language_modeling"}
    plan = {
        **{
            "name": "both",
            "init": {"run": str(base.run.folder)},
            "data": data,
            "machine": recipe["machine"],
        },
        **{
            "model": {
                **recipe["model"],
                "name": "transformer_classifier",
                "causal": True,
                "pooling": pooling,
            }
        },
        **{
            "task": {"name": "multitask", "tasks": tasks},
            "training": {"batch_size": 8, "steps": 12},
        },
    }
    trainer = groundup.trainer(
        plan | {"optim": {"lr": 3e-3}}, {"machine.micro_batch_size": 4}, runs=tmp_path / "runs"
    )
    lengths = torch.tensor([9, 4])
    tokens = torch.randint(256, (2, 9))
    with torch.no_grad():
        logits = trainer.model.eval().token_logits(tokens, lengths)  # type: ignore[operator]
        expected = base.model.eval()(tokens)
    assert logits.shape == (2, 9, BYTES.vocabulary_size)
    torch.testing.assert_close(logits[0], expected[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(logits[1, :4], expected[1, :4], rtol=0, atol=1e-6)
    reports = list(trainer.steps())
    trainer.close()
    assert reports[-1].losses["text"] < reports[0].losses["text"]
    assert reports[-1].losses["kind"] < reports[0].losses["kind"]
    assert set(trainer.task.predict(trainer.model, "river 3", trainer.parts.processor)) == {"kind"}


def test_the_targets_travel_with_the_tokenizer(tmp_path: Path) -> None:
    from groundup.runs.processor import load_processor

    made, processor, _ = prepared()
    processor.save(tmp_path)
    again: Any = load_processor(tmp_path)
    assert (again.labels, again.max_length) == (processor.labels, 256)
    batches = [made.encode(EXAMPLES[:5], each) for each in (processor, again)]
    assert all(torch.equal(batches[0][key], value) for key, value in batches[1].items())
