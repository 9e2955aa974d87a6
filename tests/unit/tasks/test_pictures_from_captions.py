"""Pictures asked for by texts: what is told, what is dropped, and what is the same each time."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from picture_runs import captioned_digits, from_captions_run
from tiny_runs import without_chance

from groundup import api
from groundup.models.unet import UNetConfig
from groundup.processors.captioned_pictures import CaptionedPictures, CaptionedPicturesConfig
from groundup.reports.run_reader import read_run
from groundup.tasks.generate_images.task import GenerateImages

TASK = GenerateImages(condition="text", caption_dropout=0.5, steps=3)


@pytest.fixture(scope="module")
def processor() -> CaptionedPictures:
    pictures = {"name": "image", "normalise": "given", "mean": [0.5], "std": [0.5]}
    config = CaptionedPicturesConfig(tokenizer={"name": "characters"}, pictures=pictures)
    return config.fit(lambda: iter(captioned_digits()))


def test_captions_are_taken_away_by_the_sample(processor: CaptionedPictures) -> None:
    batch: Any = TASK.encode(captioned_digits(), processor)
    samples = np.arange(60)
    whole = TASK.augment(batch, samples, lambda which=0: {}, processor, 7)
    part = {name: values[5:9] for name, values in batch.items()}
    for name, values in TASK.augment(part, samples[5:9], lambda which=0: {}, processor, 7).items():
        assert torch.equal(values, whole[name][5:9]), name
    dropped = whole["text_lengths"] == 0
    assert 18 < int(dropped.sum()) < 42
    assert torch.equal(whole["text_lengths"][~dropped], batch["text_lengths"][~dropped])
    assert torch.equal(whole["text"], batch["text"])
    held_out = TASK.augment(batch, samples, lambda which=0: {}, processor, -1)
    assert torch.equal(held_out["text_lengths"], batch["text_lengths"])
    # No more is read than the longest that is told.
    short = {name: values[dropped] for name, values in whole.items()}
    assert TASK.inputs(short)["text"].shape[1] == 1


@pytest.mark.slow
def test_the_same_seed_makes_the_same_picture_in_any_company(
    processor: CaptionedPictures, caplog: pytest.LogCaptureFixture
) -> None:
    settings = UNetConfig(widths=(4, 8), groups=2, head_width=4).complete_from(processor)
    torch.manual_seed(0)
    model = settings.build()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    alone = TASK.make(model, ["a one"], processor, 2, {"seed": 3, "guidance": 2.0})[0]
    prompts = ["a seven, written by hand", "a one", ""]
    many = TASK.make(model, prompts, processor, 90, {"seed": 3, "guidance": 2.0})
    torch.testing.assert_close(many[1][:2], alone, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(many[0][:2], alone, atol=1e-3)
    # Nothing asked for is what guidance goes away from: it is never guided.
    plain = TASK.make(model, [""], processor, 2, {"seed": 3})[0]
    torch.testing.assert_close(many[2][:2], plain, rtol=1e-4, atol=1e-4)
    with caplog.at_level(logging.WARNING, "groundup"):
        TASK.predict(model, "a 7", processor)
    assert "'a 7': no caption of the training split has '7'" in caplog.text


@pytest.mark.slow
def test_micro_batches_resuming_and_evaluation(tmp_path: Path) -> None:
    losses = []
    for part in (16, 4):
        recipe = without_chance(from_captions_run(tmp_path, steps=2, shown=2, evaluated=9))
        recipe["machine"] |= {"micro_batch_size": part}
        recipe["samples"] = {"every": 4, "prompts": ["a seven, written by hand", ""]}
        recipe["evaluation"] = {"batches": None}  # which are micro-batches
        changes = {"name": f"by{part}", "training.steps": 4, "checkpoints.every": 2}
        run = api.train(recipe, changes, runs=tmp_path)
        losses.append(read_run(run.folder).evaluate[-1]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert len(list((run.folder / "samples").iterdir())) == 2
    found = api.evaluate(run.folder)["runs"][0]["evaluation"]["metrics"]
    # As many as there are different captions.
    assert found["captions"] == 1 / found["chance"] <= 9
    assert {"nearest_accuracy_at_1", "baseline_nearest_accuracy_at_1", "copied_pictures"} <= set(
        found
    )
    picture = api.load(run.folder)("a seven, written by hand", seed=1)
    assert picture.facts == {"prompt": "a seven, written by hand"}


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [None, {"rank": 4}])
def test_a_run_goes_on_from_another(adapter: dict[str, Any] | None, tmp_path: Path) -> None:
    base = api.train(from_captions_run(tmp_path, "dit"), {"training.steps": 3}, runs=tmp_path)
    recipe = from_captions_run(tmp_path)
    for section in ("model", "processor"):
        del recipe[section]
    recipe |= {"name": "more", "init": {"run": str(base.folder)}}
    if adapter is not None:
        recipe["adapter"] = adapter
    run = api.train(recipe, {"training.steps": 2}, runs=tmp_path)
    assert api.load(run.folder)("a seven").pixels.shape == (8, 8)
