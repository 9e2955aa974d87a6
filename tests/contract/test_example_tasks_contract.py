"""What every task of labelled examples must hold, and every model that such a task trains: through
whole runs."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_models_contract import without_gradient
from tiny_runs import ENCODER_TASKS, MODELS, tiny_run, without_chance, write_several_targets

from groundup import api
from groundup.core.registry import BUILTINS, names
from groundup.core.settings import validate
from groundup.core.values import Batch
from groundup.runs.processor import load_processor
from groundup.training.components import open_stream
from groundup.training.trainer import Trainer

# In test_tasks_contract.py, test_preference_contract.py and unit/models/test_bert.py.
TEXTS = {"language_modeling", "chat", "preference", "masked_language_modeling"}
SEVERAL = {
    "digit": {"name": "classify", "class_weights": "balanced"},
    "ink": "regression",
    "loop": "classify",
}
CASES: dict[str, list[dict[str, Any]]] = {
    "classify": [
        {},
        {"class_weights": "effective", "effective_beta": 0.99, "label_smoothing": 0.1},
    ],
    "regression": [{}, {"objective": "huber", "delta": 0.5}],
    "multitask": [{"tasks": SEVERAL}, {"tasks": SEVERAL, "weighting": "uncertainty"}],
}
PAIRS = [(name, index) for name in CASES for index in range(len(CASES[name]))]


def opened(name: str, settings: dict[str, Any], folder: Path) -> Trainer:
    """Return the trainer of a run of a task on the data that it suits."""
    recipe = tiny_run("mlp", folder, reads="numbers" if name == "regression" else "pictures")
    if name == "multitask":
        recipe["data"] = write_several_targets(folder)
    recipe = without_chance(recipe | {"task": {"name": name, **settings}})
    return api.trainer(recipe, runs=folder / "runs")


def rows_of(batch: Batch, chosen: slice) -> Batch:
    return {key: values[chosen] for key, values in batch.items()}


def test_every_task_has_a_case() -> None:
    missing = (
        set(BUILTINS["task"]) - set(CASES) - TEXTS - set(ENCODER_TASKS)
    )  # in test_encoder_tasks_contract.py
    assert not missing, f"give them cases here: {sorted(missing)}"


@pytest.mark.parametrize(("name", "index"), PAIRS)
class TestContract:
    def test_batches_are_as_the_task_says(self, name: str, index: int, tmp_path: Path) -> None:
        trainer = opened(name, CASES[name][index], tmp_path)
        batch = next(trainer.stream)
        trainer.close()
        assert set(trainer.task.batch_spec) == set(batch)
        for key, described in trainer.task.batch_spec.items():
            dtype, _, shape = described.partition(" ")
            assert str(batch[key].dtype) == f"torch.{dtype}"
            assert len(batch[key]) == 16
            if "..." not in shape:
                assert batch[key].dim() == len(
                    [size for size in shape.strip("() ").split(",") if size.strip()]
                )
        assert not set(trainer.task.inputs(batch)) & (set(trainer.task.batch_spec) - {"inputs"})

    def test_the_loss_is_sums_that_do_not_depend_on_the_micro_batch(
        self, name: str, index: int, tmp_path: Path
    ) -> None:
        trainer = opened(name, CASES[name][index], tmp_path)
        stream = open_stream(trainer.run, trainer.parts, "validation")
        model, task, batches = trainer.model.eval(), trainer.task, list(islice(stream, 2))
        found: list[dict[str, float]] = []
        with torch.no_grad():
            for size in (1, 3, 16):
                sums: dict[str, tuple[float, float]] = {}
                parts = [
                    rows_of(batch, slice(at, at + size))
                    for batch in batches
                    for at in range(0, 16, size)
                ]
                for part in parts:
                    loss = trainer.objective(task.forward(model, part), part)
                    told = task.counts(part)
                    assert told is None or told == {
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
                found.append(task.summarise(sums))
        trainer.close()
        stream.close()
        assert found[0]["loss"] > 0
        for other in found[1:]:
            assert other == pytest.approx(found[0], rel=1e-5)

    def test_encoding_is_a_function_of_each_example_alone_and_of_what_was_saved(
        self, name: str, index: int, tmp_path: Path
    ) -> None:
        trainer = opened(name, CASES[name][index], tmp_path)
        examples = list(islice(trainer.parts.source.examples("validation", tmp_path), 7))
        encode: Any = trainer.task.encode
        together = encode(examples, load_processor(trainer.run.folder / "processor"))
        alone = [encode([example], trainer.parts.processor) for example in examples]
        trainer.close()
        for key, values in together.items():
            assert torch.equal(values, torch.cat([each[key] for each in alone])), key

    def test_every_parameter_learns_and_predictions_are_one_an_input(
        self, name: str, index: int, tmp_path: Path
    ) -> None:
        trainer = opened(name, CASES[name][index], tmp_path)
        model, task, batch = trainer.model, trainer.task, next(trainer.stream)
        loss = trainer.objective(task.forward(model, batch), batch)
        torch.stack([term.weight * term.total for term in loss.terms.values()]).sum().backward()  # type: ignore[no-untyped-call]
        assert without_gradient(model) == []
        inputs = [
            example.inputs
            for example in islice(trainer.parts.source.examples("validation", tmp_path), 3)
        ]
        together = task.predict(model, inputs, trainer.parts.processor)
        assert len(together) == 3
        assert together[1] == pytest.approx(task.predict(model, inputs[1], trainer.parts.processor))
        trainer.close()

    def test_the_settings_are_what_they_were_after_writing_them(
        self, name: str, index: int, tmp_path: Path
    ) -> None:
        trainer = opened(name, CASES[name][index], tmp_path)
        trainer.close()
        task = trainer.task
        assert validate(type(task), task.model_dump(mode="json"), "recipe.task") == task


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in names("model") if MODELS.get(name, [""])[0] != "documents"]
)
def test_every_model_in_a_run(name: str, tmp_path: Path) -> None:
    """Shapes, gradients, rows that do not mix, and weights that come back from a file and from a
    checkpoint."""
    assert name in MODELS, "give the model a tiny run in tests/support/tiny_runs.py"
    trainer = api.trainer(without_chance(tiny_run(name, tmp_path)), runs=tmp_path / "runs")
    model, task, batch = trainer.model, trainer.task, next(trainer.stream)
    outputs = model(**task.inputs(batch))
    assert outputs.shape == (16, trainer.parts.processor.outputs)  # type: ignore[attr-defined]
    task.loss(outputs, batch).terms["label"].total.backward()  # type: ignore[no-untyped-call]
    assert without_gradient(model) == []
    model.eval()
    with torch.no_grad():
        together = model(**task.inputs(batch))
        for row in (0, 7, 15):
            part = task.inputs(rows_of(batch, slice(row, row + 1)))
            torch.testing.assert_close(model(**part)[0], together[row], rtol=1e-5, atol=1e-5)
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()},
        tmp_path / "weights.safetensors",
    )
    list(islice(trainer.steps(), 2))
    trainer.save()
    after = trainer.model.eval()(**task.inputs(batch))
    trainer.close()
    again = api.trainer(without_chance(tiny_run(name, tmp_path)), runs=tmp_path / "runs")
    again.close()
    assert again.step == 2
    assert torch.equal(again.model.eval()(**task.inputs(batch)), after)
    again.model.load_state_dict(load_file(tmp_path / "weights.safetensors"), strict=True)
    with torch.no_grad():
        assert torch.equal(again.model(**task.inputs(batch)), together)
