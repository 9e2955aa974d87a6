"""A task or a data source that does not keep its contract is told which one, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_parts import forget_own_parts
from torch import nn

from groundup.contracts.data import DataContext, DataSource, Stream
from groundup.core import registry
from groundup.core.errors import TrainingError
from groundup.core.settings import setting
from groundup.core.values import Batch, Example, Loss, Split, Term
from groundup.data.stream.in_memory import open_indexed_stream
from groundup.tasks.classify.task import Classify
from groundup.testing import ContractError, check_data, check_task

CALLS = count()


class FaultyTask(Classify):
    fault: str = setting("", "What is wrong")
    seen: tuple[float, ...] = ()

    @property
    def batch_spec(self) -> dict[str, str]:
        spec = super().batch_spec
        if self.fault == "spec":
            return spec | {"weights": "float32 (B,)"}
        return spec | {"labels": "int32 (B,)"} if self.fault == "dtype" else spec

    def encode(self, examples: Sequence[Any], processor: Any) -> Batch:
        found = super().encode(examples, processor)
        if self.fault == "batch":
            found["inputs"] = found["inputs"] / found["inputs"].std()
        return found

    def inputs(self, batch: Batch) -> dict[str, Any]:
        inputs = super().inputs(batch)
        return {"pixels": inputs["inputs"]} if self.fault == "names" else inputs

    def loss(self, outputs: Any, batch: Batch) -> Loss:
        found = super().loss(outputs.detach() if self.fault == "detached" else outputs, batch)
        term = found.terms["label"]
        if self.fault == "mean":
            term = Term(term.total / term.count, term.count)
        if self.fault == "vector":
            term = Term(term.total.expand(2), term.count)
        if self.fault == "nothing":
            term = Term(term.total, torch.zeros(()))
        if self.fault == "detached":
            term = Term(term.total + 0 * outputs.sum(), term.count)
        return Loss({"label": term}, found.metrics)

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"label": 1.0} if self.fault == "counts" else super().counts(batch)

    def summarise(self, sums: dict[str, tuple[float, float]]) -> dict[str, float]:
        found = super().summarise(sums)
        return {"error": found["loss"]} if self.fault == "no loss" else found

    def predict(self, model: nn.Module, inputs: Any, processor: Any, **options: Any) -> Any:
        found = super().predict(model, inputs, processor, **options)
        if self.fault == "one":
            return found[0] if isinstance(found, list) else found
        return [found] if self.fault == "list" and not isinstance(inputs, list) else found


class FaultySource(DataSource):
    fault: str = setting("", "What is wrong")

    def splits(self) -> tuple[Split, ...]:
        return ("train",) if self.fault == "splits" else ("train", "validation")

    def examples(self, split: Split, cache: Path) -> list[Example]:
        draws = np.random.default_rng(next(CALLS) if self.fault == "draws" else 0)
        found = []
        for number in range(40):
            values = draws.normal(0, 1, (4, 4)).astype(np.float32)
            held_out = number % 4 == 0
            if self.fault == "leak" or held_out == (split == "validation"):
                found.append(Example(f"{number}", values, "ab"[number % 2]))
        return [] if self.fault == "empty" and split == "validation" else found

    def open(self, context: DataContext) -> Stream:
        examples = self.examples(context.split, context.cache)
        stream = open_indexed_stream(examples, context)
        return {"resume": Forgets, "ends": Ends, "order": Shuffles}.get(self.fault, lambda s: s)(
            stream
        )  # type: ignore[no-any-return]


class Wrapped(Stream):
    def __init__(self, stream: Stream) -> None:
        self.stream, self.given = stream, 0

    def __next__(self) -> Batch:
        self.given += 1
        return next(self.stream)

    @property
    def samples_per_epoch(self) -> int:
        return self.stream.samples_per_epoch

    def state_dict(self) -> dict[str, int]:
        return self.stream.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.stream.load_state_dict(state)

    def close(self) -> None:
        self.stream.close()


class Forgets(Wrapped):
    def load_state_dict(self, state: dict[str, int]) -> None:
        pass


class Ends(Wrapped):
    def __next__(self) -> Batch:
        if self.given >= 4:
            raise StopIteration
        return super().__next__()


class Shuffles(Wrapped):
    def __next__(self) -> Batch:
        batch = super().__next__()
        order = torch.randperm(len(batch["inputs"]))
        return {key: values[order] for key, values in batch.items()}


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with forget_own_parts():
        registry.task("faulty")(FaultyTask)
        registry.data("faulty")(FaultySource)
        yield


def recipe(task: str = "", data: str = "", **model: Any) -> dict[str, Any]:
    return {
        "name": "faulty",
        "model": {"name": "mlp", "hidden": [8], **model},
        "task": {"name": "faulty", "fault": task},
        "data": {"name": "faulty", "fault": data},
        "processor": "image",
        "training": {"batch_size": 4, "steps": 2},
    }


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "spec",
            "has inputs, labels, guess, commonest, weights, but a batch has inputs, labels, guess,",
        ),
        ("dtype", r"'labels' is int32 \(B,\) there, but torch.int64"),
        ("names", "forward has no parameter pixels; it has inputs, categories"),
        ("vector", r"float32 \(2,\) as the total of term label"),
        ("nothing", "over 0.0. Count the examples"),
        ("counts", r"it states {'label': 1.0}, but loss\(\) counted {'label': 4.0}"),
        ("detached", "these parameters receive none: blocks.0.0.weight"),
        ("batch", "encoded the same alone and among others: 'inputs' differ by"),
        ("no loss", "it returned {'error': "),
        ("one", "it returned str for 3 inputs"),
        ("list", "alone it is list, among others str"),
        ("mean", "loss is .* in micro-batches of 1, and .* of 4. Return sums, not means"),
    ],
)
def test_a_task_with_a_fault(fault: str, message: str) -> None:
    # What a run itself refuses in its first batch is said as a run says it.
    with pytest.raises((ContractError, TrainingError), match=message):
        check_task(recipe(fault))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("splits", r"splits\(\) gives train. Hold some"),
        ("empty", "every split has examples: validation has none"),
        ("draws", r"two calls for train differ"),
        ("leak", r"no example is in two splits: Example\(name='0'.* is in train and validation"),
        ("resume", "a stream of train goes on from where it was saved: 'inputs' of batch 0 differ"),
        ("order", "the same seed gives the same batches of train"),
        ("ends", "it ended within 8 batches"),
    ],
)
def test_a_source_with_a_fault(fault: str, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_data(recipe(data=fault))


@pytest.mark.slow
def test_without_a_fault(tmp_path: Path) -> None:
    check_task(recipe(), {"model.norm": "batch"})
    check_data(recipe())
    assert list(tmp_path.iterdir()) == []
