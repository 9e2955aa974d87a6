"""What every model must hold that a task of labelled examples trains: through whole runs."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_models_contract import without_gradient
from tiny_runs import MODELS, tiny_run, without_chance

from groundup import api
from groundup.core.registry import names
from groundup.core.values import Batch


def rows_of(batch: Batch, chosen: slice) -> Batch:
    return {key: values[chosen] for key, values in batch.items()}


# Of what these models read, each example has no row of outputs of its own.
WITHOUT_LABELS = (
    "documents",
    "pairs",
    "spoken",
    "drawings",
    "redrawn",
    "scenes",
    "interactions",
    "games",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [name for name in names("model") if MODELS.get(name, [""])[0] not in WITHOUT_LABELS],
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
