"""What every task that only an encoder learns must hold, through whole runs."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch
from test_models_contract import without_gradient
from tiny_runs import ENCODER_TASKS, encoder_run, without_chance

from groundup import api
from groundup.core.settings import validate
from groundup.core.values import Batch
from groundup.runs.processor import load_processor
from groundup.training.components import open_stream


def rows_of(batch: Batch, chosen: slice) -> Batch:
    return {key: values[chosen] for key, values in batch.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODER_TASKS)
def test_contract(name: str, tmp_path: Path) -> None:
    trainer = api.trainer(without_chance(encoder_run(name, tmp_path)), runs=tmp_path / "runs")
    task, model, batch = trainer.task, trainer.model, next(trainer.stream)
    assert validate(type(task), task.model_dump(mode="json"), "recipe.task") == task
    assert set(task.batch_spec) <= set(batch)
    for key, described in task.batch_spec.items():
        dtype, _, shape = described.partition(" ")
        assert str(batch[key].dtype) == f"torch.{dtype}"
        assert batch[key].dim() == len(
            [size for size in shape.strip("() ").split(",") if size.strip()]
        )

    loss = task.loss(model(**task.inputs(batch)), batch)
    torch.stack([term.weight * term.total for term in loss.terms.values()]).sum().backward()  # type: ignore[no-untyped-call]
    # A bias that is the same for all places, among which one is chosen, has no gradient but for
    # rounding, which is another on each processor.
    idle = {"head.bias"} if name == "extractive_qa" else set()
    assert set(without_gradient(model)) <= idle

    examples = list(islice(trainer.parts.source.examples("validation", tmp_path), 5))
    together = task.encode(examples, load_processor(trainer.run.folder / "processor"))
    assert isinstance(together, dict)
    for number, example in enumerate(examples):
        alone = task.encode([example], trainer.parts.processor)
        assert isinstance(alone, dict)
        for key, values in alone.items():
            assert torch.equal(
                together[key][number][tuple(map(slice, values[0].shape))], values[0]
            ), key

    model.eval()
    inputs = [example.inputs for example in examples[:3]]
    inputs = [each for pair in inputs for each in pair] if name == "sentence_embedding" else inputs
    found = task.predict(model, inputs, trainer.parts.processor)
    assert len(found) == len(inputs)
    one = task.predict(model, inputs[1], trainer.parts.processor)
    assert found[1] == (
        pytest.approx(one, rel=1e-4, abs=1e-6) if name == "sentence_embedding" else one
    )
    if task.loss_is_sum:
        stream = open_stream(trainer.run, trainer.parts, "validation")
        batches, metrics = list(islice(stream, 2)), []
        for size in (3, 16):
            sums: dict[str, tuple[float, float]] = {}
            for part in (
                rows_of(each, slice(at, at + size)) for each in batches for at in range(0, 16, size)
            ):
                with torch.no_grad():
                    loss = task.loss(model(**task.inputs(part)), part)
                assert task.counts(part) == {
                    term: float(value.count) for term, value in loss.terms.items()
                }
                values = {
                    term: (float(value.total), float(value.count))
                    for term, value in loss.terms.items()
                }
                for term, (total, count) in (
                    values | {k: (float(v), 1.0) for k, v in loss.metrics.items()}
                ).items():
                    before = sums.get(term, (0.0, 0.0))
                    sums[term] = (before[0] + total, before[1] + count)
            metrics.append(task.summarise(sums))
        assert metrics[0] == pytest.approx(metrics[1], rel=1e-5)
        stream.close()
    trainer.close()
