"""What every text task must hold, whatever it trains on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.contracts.data import DataContext
from groundup.contracts.tasks import Task
from groundup.core.registry import lookup, names
from groundup.core.values import Conversation, Document, Message
from groundup.data.stream.packing import Packing
from groundup.data.stream.token_stream import open_token_stream
from groundup.models.gpt import GPTConfig
from groundup.processors.text.bytes import BytesConfig

PROCESSOR = BytesConfig().fit(lambda: iter(()))
EXAMPLES: dict[str, list[Any]] = {
    "language_modeling": [Document(f"d{i}", "some text " * (i + 1)) for i in range(9)],
    "chat": [
        Conversation(
            f"c{i}",
            (
                Message("user", f"What is {i}?"),
                Message("assistant", "It is a number. " * (i % 3 + 1)),
            ),
        )
        for i in range(9)
    ],
}


def batches(
    task: Task, name: str, cache: Path, micro_batch_size: int
) -> list[dict[str, torch.Tensor]]:
    context = DataContext(
        split="validation",
        encode=lambda examples: task.encode(examples, PROCESSOR),
        encode_key=name,
        end_id=PROCESSOR.end_id,
        sequence_length=128,
        batch_size=4,
        micro_batch_size=micro_batch_size,
        seed=0,
        cache=cache,
    )
    return list(open_token_stream(lambda: EXAMPLES[name], name, context, Packing()))


@pytest.fixture(params=[name for name in names("task") if lookup("task", name).unit == "tokens"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def task(name: str) -> Task:
    assert name in EXAMPLES, f"give the task {name!r} examples here"
    return lookup("task", name)()  # type: ignore[no-any-return]


def test_batches_are_as_the_task_says(task: Task, name: str, tmp_path: Path) -> None:
    batch = batches(task, name, tmp_path, 2)[0]
    for key, described in task.batch_spec.items():
        dtype, _, shape = described.partition(" ")
        assert str(batch[key].dtype) == f"torch.{dtype}"
        assert batch[key].dim() == len(shape.strip("() ,").split(","))


def test_the_loss_is_sums_that_do_not_depend_on_the_micro_batch(
    task: Task, name: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = GPTConfig(
        layers=1, width=16, heads=2, context_length=128, vocabulary_size=PROCESSOR.vocabulary_size
    )
    model = config.build().double().eval()
    found: list[dict[str, float]] = []
    for micro_batch_size in (1, 2, 4):
        sums: dict[str, tuple[float, float]] = {}
        for batch in batches(task, name, tmp_path, micro_batch_size):
            loss = task.loss(model(**task.inputs(batch)), batch)
            for term, value in loss.terms.items():
                total, count = sums.get(term, (0.0, 0.0))
                sums[term] = (total + float(value.total.detach()), count + float(value.count))
        found.append(task.summarise(sums))
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], rel=1e-12)
    assert found[0]["loss"] == pytest.approx(found[2]["loss"], rel=1e-12)
    assert found[0]["perplexity"] > 1


def test_encoding_is_a_function_of_each_example_alone(task: Task, name: str) -> None:
    together = task.encode(EXAMPLES[name], PROCESSOR)
    for example, sequence in zip(EXAMPLES[name], together, strict=True):
        alone = task.encode([example], PROCESSOR)[0]
        assert alone.tokens.tolist() == sequence.tokens.tolist()
        assert (alone.trained is None) == (sequence.trained is None)
        assert alone.tokens.dtype.name == "int32"
