"""What preference tuning must hold with every objective: sums over samples, scored answers alone,
exact resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import stopped_and_resumed
from tiny_runs import preference_run, without_chance

from groundup import api
from groundup.core.errors import TrainingError
from groundup.training.accumulation import Sums
from groundup.training.trainer import Trainer

OBJECTIVES = ("dpo", "ipo", "orpo", "simpo", "kto")


def opened(folder: Path, changes: dict[str, Any] | None = None, **task: Any) -> Trainer:
    return api.trainer(
        without_chance(preference_run(folder, **task)), changes, runs=folder / "runs"
    )


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_batches_answers_and_samples(objective: str, tmp_path: Path) -> None:
    trainer = opened(tmp_path, {"machine.precision": "fp64"}, objective=objective)
    batch = next(trainer.stream)
    size = len(batch["lengths"])
    for key, described in trainer.task.batch_spec.items():
        dtype, _, shape = described.partition(" ")
        assert str(batch[key].dtype) == f"torch.{dtype}"
        assert batch[key].dim() == len(
            [each for each in shape.strip("() ").split(",") if each.strip()]
        )
        assert len(batch[key]) == size
    assert set(batch) == set(trainer.task.batch_spec)
    fed = trainer.task.inputs(batch)
    assert fed["tokens"].shape == fed["positions"].shape == (1, int(batch["lengths"].sum()))
    assert len(fed["boundaries"]) == 2 * size + 1
    _check_scores(trainer, batch, fed)
    if objective != "kto":
        _check_sums(trainer, batch)
    trainer.close()


def _check_scores(
    trainer: Trainer, batch: dict[str, torch.Tensor], fed: dict[str, torch.Tensor]
) -> None:
    """Each sequence alone, through plain logits, gives what all give together; a prompt is never
    scored."""
    together = trainer.task.forward(trainer.model, batch).split(
        batch["sequence_lengths"].flatten().tolist()
    )
    scored = fed["scored"].split(batch["sequence_lengths"].flatten().tolist())
    tokens = fed["tokens"][0].split(batch["sequence_lengths"].flatten().tolist())
    for found, wanted, sequence in zip(together, scored, tokens, strict=True):
        logits = trainer.model(sequence[None])[0].log_softmax(1)
        alone = torch.where(
            wanted >= 0, logits.gather(1, wanted.long().clamp(min=0)[:, None])[:, 0], 0.0
        )
        torch.testing.assert_close(found, alone, rtol=1e-12, atol=1e-12)
        text = trainer.parts.processor.decode(wanted[wanted >= 0].tolist(), keep_special=True)  # type: ignore[attr-defined]
        assert "digit" not in text
        assert bool((wanted[:10] < 0).all()) and int(wanted[-1]) >= 0  # noqa: PT018


def _check_sums(trainer: Trainer, batch: dict[str, torch.Tensor]) -> None:
    found = []
    for size in (4, 1):
        sums = Sums()
        for first in range(0, 4, size):
            part = {key: values[first : first + size] for key, values in batch.items()}
            sums.add(trainer.task.loss(trainer.task.forward(trainer.model, part), part))
        found.append(trainer.task.summarise(sums.values))
    assert found[1] == pytest.approx(found[0], rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["dpo", "orpo"])
def test_micro_batches_change_nothing(objective: str, tmp_path: Path) -> None:
    found = []
    for micro_batch_size in (8, 2):
        changes = {
            "name": f"m{micro_batch_size}",
            "machine.micro_batch_size": micro_batch_size,
            "training.steps": 3,
        }
        trainer = opened(tmp_path, changes, objective=objective)
        found.append([(report.loss, report.gradient_norm) for report in trainer.steps()])
        trainer.close()
    for one, other in zip(*found, strict=True):
        assert other == pytest.approx(one, rel=1e-5)


@pytest.mark.slow
def test_kto_refuses_several_micro_batches(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match="the loss of task 'preference' with this model is no sum over examples"
    ):
        opened(tmp_path, {"machine.micro_batch_size": 4}, objective="kto")


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["dpo", pytest.param("kto", marks=pytest.mark.slow)])
def test_resuming_is_exact_and_uses_the_cache_or_computes_the_same(
    objective: str, tmp_path: Path
) -> None:
    recipe = preference_run(tmp_path, objective=objective)
    recipe["training"]["steps"] = 6
    files = _references(tmp_path, recipe)
    assert len(files) == 2  # of both splits
    before = [file.read_bytes() for file in files]
    stopped_and_resumed(recipe, tmp_path / "runs", (3, 6))
    assert [file.read_bytes() for file in files] == before
    files[0].unlink()
    files[1].write_bytes(before[1][:100])
    api.trainer(recipe, runs=tmp_path / "runs" / "parts").close()  # it has trained for six steps
    assert [file.read_bytes() for file in files] == before


def _references(folder: Path, recipe: dict[str, Any]) -> list[Path]:
    api.trainer(recipe | {"name": "first"}, runs=folder / "runs").close()
    return list((folder / "cache" / "references").glob("*.npy"))
