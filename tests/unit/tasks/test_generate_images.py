"""Pictures out of noise: the way there, losses, guidance, steps, and what is the same each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from known_generators import Known, asked
from tiny_runs import tiny_run, without_chance

from groundup import api
from groundup.contracts.generators import PictureGenerator
from groundup.contracts.tasks import DrawsPictures, Picture
from groundup.media.augmentation.draws import Draws
from groundup.processors.class_targets import SingleLabel
from groundup.processors.image import ImageProcessor
from groundup.processors.labelled import Labelled
from groundup.reports.run_reader import read_run
from groundup.tasks.generate_images.flow import (
    SamplerOptions,
    draw_times,
    integrate,
    interpolate,
)
from groundup.tasks.generate_images.task import GenerateImages

pytestmark = pytest.mark.xdist_group("sklearn")  # SciPy is imported by one worker
PROCESSOR = Labelled(
    ImageProcessor((1, 4, 4), None, [0.5], [0.5]), SingleLabel(["cat", "dog"], counts=[1, 1]), 0
)


def test_the_way_is_straight_and_ends_at_the_picture() -> None:
    batch = {"inputs": torch.randn(3, 1, 4, 4), "noise": torch.randn(3, 1, 4, 4)}
    at = interpolate({**batch, "times": torch.tensor([0.0, 1.0, 0.25])})
    assert torch.equal(at[0], batch["noise"][0])
    torch.testing.assert_close(at[1], batch["inputs"][1])
    torch.testing.assert_close(at[2], 0.75 * batch["noise"][2] + 0.25 * batch["inputs"][2])


def test_times_are_distributed_as_said_and_belong_to_their_samples() -> None:
    stats = pytest.importorskip("scipy.stats")
    samples = np.arange(4000)
    times = draw_times(Draws(0, samples), "logit_normal", -0.8, 0.6)
    logits = torch.logit(times.double()).numpy()
    assert stats.kstest(logits, stats.norm(-0.8, 0.6).cdf).pvalue > 0.01
    assert torch.equal(
        times[10:20], draw_times(Draws(0, samples[10:20]), "logit_normal", -0.8, 0.6)
    )
    uniform = draw_times(Draws(0, samples), "uniform", 0.0, 1.0)
    assert stats.kstest(uniform.numpy(), "uniform").pvalue > 0.01
    fixed = draw_times(Draws(-1, samples), "fixed", 0.0, 1.0)
    assert sorted(set(fixed.tolist())) == [(n + 0.5) / 16 for n in range(16)]


@pytest.mark.parametrize(("sampler", "steps", "near"), [("euler", 200, 0.03), ("heun", 40, 0.01)])
def test_the_sampler_ends_where_the_exact_one_does(sampler: Any, steps: int, near: float) -> None:
    """Of normal pictures the exact way is known: noise times their spread, plus their mean."""
    noise = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([0, 0, 1, 1, 0, 1])
    found = integrate(Known(), noise, asked(classes), SamplerOptions(steps, sampler))
    wanted = 0.5 * noise + (1.0 - classes.float())[:, None, None, None]
    assert float((found - wanted).abs().max()) < near


def test_guidance_goes_on_from_nothing_asked_for() -> None:
    noise = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    model = Known()
    classes = torch.tensor([0, 0])
    plain, guided = (
        integrate(model, noise, asked(classes), SamplerOptions(50, "euler", g)) for g in (1.0, 2.0)
    )
    without = integrate(model, noise, asked(torch.tensor([2, 2])), SamplerOptions(50, "euler"))
    # With one spread for all classes, guidance moves the mean alone.
    torch.testing.assert_close(guided - without, 2 * (plain - without), rtol=1e-3, atol=1e-3)


def test_how_often_a_model_is_asked() -> None:
    noise, classes = torch.zeros(2, 1, 4, 4), torch.tensor([0, 1])
    for how, often in (
        (SamplerOptions(10, "euler"), 20),
        (SamplerOptions(10, "heun"), 38),  # not at the end
        (SamplerOptions(10, "euler", 2.0), 40),
        (SamplerOptions(10, "euler", 2.0, interval=(0.25, 0.55)), 26),
        (SamplerOptions(10, "heun", spans=True), 20),
    ):
        model = Known()
        integrate(model, noise, asked(classes), how)
        assert model.asked == often


@pytest.mark.parametrize("weighting", ["velocity", "picture"])
def test_the_loss_is_that_of_the_velocity(weighting: Any) -> None:
    task = GenerateImages(weighting=weighting)
    drawn = torch.Generator().manual_seed(0)
    shape = (3, 2, 4, 4)
    batch = {name: torch.randn(shape, generator=drawn) for name in ("inputs", "noise")}
    batch["times"] = torch.tensor([0.1, 0.6, 0.99])
    said = torch.randn(shape, generator=drawn)
    (term,) = task.loss(said, batch).terms.values()
    errors = (said - batch["inputs"]).square().mean((1, 2, 3))
    if weighting == "velocity":
        left = (1 - batch["times"]).clamp(min=0.05)[:, None, None, None]
        velocities = [(each - interpolate(batch)) / left for each in (said, batch["inputs"])]
        errors = (velocities[0] - velocities[1]).square().mean((1, 2, 3))
    torch.testing.assert_close(term.total, errors.sum())
    assert float(term.count) == 3
    with torch.no_grad():
        sums = {"picture": (6.0, 3.0)}
        metrics = task.loss(said, batch).metrics
        sums |= {name: (float(value), 1.0) for name, value in metrics.items()}
    found = task.summarise(sums)
    assert found["loss"] == 2.0
    assert set(found) == {"loss", *(f"{n}_quarter_error" for n in ("first", "third", "last"))}


def test_what_is_drawn_belongs_to_the_sample_and_held_out_pictures_keep_their_class() -> None:
    task = GenerateImages(class_dropout=0.5, mean_flow=True)
    batch = {"inputs": torch.zeros(64, 1, 4, 4), "classes": torch.arange(64) % 2}
    samples = np.arange(64)
    whole = task.augment(batch, samples, dict, PROCESSOR, 7)
    part = {name: values[5:9] for name, values in batch.items()}
    for name, values in task.augment(part, samples[5:9], dict, PROCESSOR, 7).items():
        assert torch.equal(values, whole[name][5:9]), name
    dropped = whole["classes"] == 2
    assert 15 < int(dropped.sum()) < 49
    assert torch.equal(whole["classes"][~dropped], batch["classes"][~dropped])
    assert (whole["times"] + whole["spans"] <= 1).all()
    assert 15 < int((whole["spans"] > 0).sum()) < 49
    held_out = task.augment(batch, samples, dict, PROCESSOR, -1)
    assert torch.equal(held_out["classes"], batch["classes"])
    assert not held_out["spans"].any()


def test_the_same_seed_makes_the_same_pictures_in_any_company() -> None:
    task = GenerateImages(steps=6)
    model = Known()
    assert isinstance(model, PictureGenerator)
    assert isinstance(task, DrawsPictures)
    alone = task.make(model, ["dog"], PROCESSOR, 2, {"seed": 3})[0]
    many = task.make(model, ["cat", "dog"], PROCESSOR, 300, {"seed": 3})
    torch.testing.assert_close(many[1][:2], alone, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(task.make(model, ["dog"], PROCESSOR, 2, {"seed": 4})[0], alone)
    one = task.predict(model, "dog", PROCESSOR, seed=3)
    assert isinstance(one, Picture)
    assert one.pixels.shape == (4, 4)
    sheet, other = task.predict(model, ["dog", "cat"], PROCESSOR, seed=3, count=2)
    assert sheet.facts == {"prompt": "dog", "pictures": 2}
    assert sheet.pixels.shape == (4, 9)
    assert (sheet.pixels[:, :4] == one.pixels).all()
    assert not (other.pixels == sheet.pixels).all()


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"mean_flow": True, "times": "uniform"}])
def test_micro_batches_and_pictures_while_training(settings: Any, tmp_path: Path) -> None:
    """Gradients do not depend on the micro-batch; both sheets are there, and in the report."""
    losses = []
    for part in (16, 4):
        recipe = without_chance(tiny_run("unet", tmp_path))
        recipe["task"] |= {**settings, "steps": 2, "shown": 2, "evaluated": 20}
        recipe["machine"] |= {"micro_batch_size": part}
        recipe["samples"] = {"every": 3, "prompts": ["0", ""]}
        recipe["evaluation"] = {"batches": None}  # which are micro-batches
        changes = {"name": f"by{part}", "training.steps": 3}
        run = api.train(recipe, changes, runs=tmp_path)
        (row,) = read_run(run.folder).evaluate
        losses.append(row["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    sheets = sorted(path.name for path in (run.folder / "samples").iterdir())
    assert sheets == ["step-00000003-averaged-weights.png", "step-00000003-weights.png"]
    found = api.evaluate(run.folder)["runs"][0]["evaluation"]["metrics"]
    assert found["compared_pictures"] == 20
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert page.count('class="sheet"') >= 23  # samples, what was made, and pairs
