"""Pictures out of noise: the way there, losses, guidance, steps, and what is the same each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import tiny_run, without_chance
from torch import Tensor, nn

from groundup import api
from groundup.contracts.generators import PictureGenerator
from groundup.contracts.tasks import DrawsPictures, Picture
from groundup.media.augmentation.draws import Draws
from groundup.processors.class_targets import SingleLabel
from groundup.processors.image import ImageProcessor
from groundup.processors.labelled import Labelled
from groundup.reports.run_reader import read_run
from groundup.tasks.generate_images.flow import (
    Asked,
    SamplerOptions,
    draw_times,
    follow,
    integrate,
    interpolate,
)
from groundup.tasks.generate_images.mean_flow import (
    adaptive_weight,
    draw_spans,
    mean_flow_outputs,
    slope_along,
)
from groundup.tasks.generate_images.task import GenerateImages
from groundup.tasks.generate_images.taught_steps import StepTeacher, draw_pieces

pytestmark = pytest.mark.xdist_group("sklearn")  # SciPy is imported by one worker
PROCESSOR = Labelled(
    ImageProcessor((1, 4, 4), None, [0.5], [0.5]), SingleLabel(["cat", "dog"], counts=[1, 1]), 0
)


def asked(classes: Tensor) -> Asked:
    """Return what pictures are asked for, where 2 stands for nothing."""
    return Asked({"classes": classes}, {"classes": torch.full_like(classes, 2)})


class Known(nn.Module):
    """Says the best that can be said where pictures of class k are all 1 - k, with noise of their
    own: known in closed form."""

    def __init__(self, spread: float = 0.5) -> None:
        super().__init__()
        self.spread = spread
        self.class_count = 2
        self.reads_text = False
        self.asked = 0
        self.scale = nn.Parameter(torch.ones(()))

    def forward(
        self,
        inputs: Tensor,
        times: Tensor,
        spans: Tensor | None = None,
        classes: Tensor | None = None,
    ) -> Tensor:
        self.asked += len(inputs)
        mean = 0.0 if classes is None else (1.0 - classes.float()) * (classes < 2)
        mean = torch.as_tensor(mean).expand(len(inputs))[:, None, None, None]
        t = times[:, None, None, None]
        share = t * self.spread**2 / (t**2 * self.spread**2 + (1 - t) ** 2)
        return self.scale * (mean + share * (inputs - t * mean))


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


def test_a_step_of_any_length_asks_for_what_the_exact_one_is() -> None:
    """A model that says where the exact way ends is what MeanFlow asks for, at any span."""

    class Ends(nn.Module):
        class_count = 0

        def forward(self, inputs: Tensor, times: Tensor, spans: Tensor) -> Tensor:
            # Pictures are one and the same: from anywhere the way is straight to it.
            return torch.full_like(inputs, 0.3)

    drawn = torch.Generator().manual_seed(0)
    noise = torch.randn(4, 1, 4, 4, generator=drawn)
    times, spans = torch.rand(2, 4, generator=drawn) / 2
    pictures = torch.full_like(noise, 0.3)
    batch = {"inputs": pictures, "noise": noise, "times": times, "spans": spans}
    inputs = {"inputs": interpolate(batch), "times": times, "spans": spans}
    said, wanted = mean_flow_outputs(Ends(), inputs, batch)
    torch.testing.assert_close(wanted, said, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        integrate(Ends(), noise, Asked(), SamplerOptions(1, spans=True)), pictures
    )
    weights = adaptive_weight(torch.tensor([0.0, 1.0, 3.0]), 1.0)
    torch.testing.assert_close(weights, 1 / torch.tensor([0.001, 1.001, 3.001]))


class Going(Known):
    """Says where the exact way of ``Known`` ends after any span: of normal pictures it is known."""

    def forward(
        self,
        inputs: Tensor,
        times: Tensor,
        spans: Tensor | None = None,
        classes: Tensor | None = None,
    ) -> Tensor:
        if spans is None or not spans.any():
            return super().forward(inputs, times, None, classes)
        mean = torch.as_tensor(0.0 if classes is None else (1.0 - classes.float()) * (classes < 2))
        mean = mean.expand(len(inputs))[:, None, None, None]
        start, span = times[:, None, None, None], spans[:, None, None, None]
        end = start + span
        # The way keeps the place in units of the spread of its time.
        spreads = [((each * self.spread) ** 2 + (1 - each) ** 2).sqrt() for each in (start, end)]
        there = end * mean + (inputs - start * mean) * spreads[1] / spreads[0]
        return inputs + (1 - start) * (there - inputs) / span.clamp(min=1e-6)


def test_the_exact_model_of_steps_obeys_the_equation() -> None:
    """The mean velocity is the velocity plus the span times its change on the way, with the velocity
    that of the exact directions; said as pictures, as what is asked for is computed."""
    drawn = torch.Generator().manual_seed(0)
    times, spans = (torch.rand(2, 64, generator=drawn) / 2.1 + 0.02).double()
    places = torch.randn(64, 1, 2, 2, generator=drawn).double()
    model, classes = Going(), torch.arange(64) % 3
    left = (1 - times)[:, None, None, None]
    with torch.no_grad():
        ahead = Known.forward(model, places, times, None, classes)
        velocity = (ahead - places) / left

        def say(place: Tensor, start: Tensor, span: Tensor) -> Tensor:
            found: Tensor = model(place, start, span, classes)
            return found

        one = torch.ones(64).double()
        said, slope = slope_along(say, (places, times, spans), (velocity, one, -one))
        mean = (said - places) / left
        wanted = ahead + spans[:, None, None, None] * (slope - velocity + mean)
    torch.testing.assert_close(wanted, said, rtol=1e-6, atol=1e-6)


def test_guidance_is_in_the_directions() -> None:
    """Of samples without a span: the way of the pair, away from what the model says of nothing."""
    drawn = torch.Generator().manual_seed(0)
    batch = {name: torch.randn(4, 1, 2, 2, generator=drawn) for name in ("inputs", "noise")}
    times, classes = torch.rand(4, generator=drawn), torch.tensor([0, 1, 0, 2])
    inputs = {"inputs": interpolate({**batch, "times": times}), "times": times}
    inputs |= {"spans": torch.zeros(4), "classes": classes}
    model = Known()
    _, wanted = mean_flow_outputs(model, inputs, batch, 1.5)
    with torch.no_grad():
        nothing = model(inputs["inputs"], times, None, torch.full((4,), 2))
    torch.testing.assert_close(wanted, 1.5 * batch["inputs"] - 0.5 * nothing)


def test_steps_of_the_derivative_start_at_the_earlier_time() -> None:
    draws = Draws(0, np.arange(400))
    times, other = torch.rand(2, 400, generator=torch.Generator().manual_seed(0))
    starts, spans = draw_spans(draws, times, other, 0.75).values()
    assert torch.equal(starts[spans == 0], times[spans == 0])
    torch.testing.assert_close(starts + spans, torch.where(spans > 0, times.maximum(other), times))
    assert 0.65 < float((spans > 0).float().mean()) < 0.85


@pytest.mark.parametrize("whole", [0.0, 0.4, 1.0])
def test_steps_between_those_of_the_teacher(whole: float) -> None:
    times, spans = draw_pieces(Draws(0, np.arange(800)), 4, whole).values()
    for places in (4 * times, 4 * (times + spans)):
        assert torch.equal(places, places.round())
    assert (spans > 0).all()
    assert (times + spans <= 1).all()
    # Of two places of four each, two of sixteen pairs reach from the first to the last.
    expected = whole + (1 - whole) * 2 / 16
    assert float((spans == 1).float().mean()) == pytest.approx(expected, abs=0.05)


def test_the_teacher_says_where_its_own_steps_lead() -> None:
    """What a step is asked for, taken from where it starts, ends on the teacher's way: guided, at the
    times of its guidance, and of pictures asked for by nothing as well."""
    drawn = torch.Generator().manual_seed(0)
    noise = torch.randn(4, 1, 4, 4, generator=drawn)
    how = SamplerOptions(8, "euler", 2.0, interval=(0.1, 0.5))
    built: list[nn.Module] = []

    def build() -> nn.Module:
        built.append(Known())
        return built[-1]

    classes = torch.tensor([0, 1, 0, 2])
    teacher = StepTeacher(build, how, lambda batch: asked(batch["classes"]))
    assert not built  # evaluations never ask for it
    batch = {"noise": noise, "classes": classes, "inputs": torch.zeros_like(noise)}
    batch |= {"times": torch.tensor([0.0, 0.25, 0.5, 0.0])}
    batch |= {"spans": torch.tensor([1.0, 0.75, 0.25, 0.125])}
    teacher(batch)
    found = teacher(batch)
    assert len(built) == 1
    way = [noise, *follow(Known(), noise, asked(classes), how)]
    starts = interpolate(found)
    left, spans = ((1 - batch["times"])[:, None, None, None], batch["spans"][:, None, None, None])
    ends = starts + spans * (found["inputs"] - starts) / left
    for row, (first, last) in enumerate([(0, 8), (2, 8), (4, 6), (0, 1)]):
        torch.testing.assert_close(starts[row], way[first][row], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ends[row], way[last][row], rtol=1e-5, atol=1e-5)


def test_a_teacher_computes_as_the_run_does() -> None:
    how = SamplerOptions(2, "euler")
    assert StepTeacher(Known, how, lambda batch: asked(batch["classes"])).precision == {}
    with torch.autocast("cpu", torch.bfloat16):
        teacher = StepTeacher(Known, how, lambda batch: asked(batch["classes"]))
    assert teacher.precision == {"cpu": torch.bfloat16}


def test_one_step_of_what_a_teacher_taught_is_the_exact_one() -> None:
    """Of normal pictures it is known where noise ends; a model of one weight and one number learns it
    from the teacher's ways, and one step of it then makes what the teacher needs many for."""

    class Line(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.shift = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(2))

        def forward(self, inputs: Tensor, times: Tensor, spans: Tensor, classes: Tensor) -> Tensor:
            return self.weight * inputs + self.shift[classes][:, None, None, None]

    task = GenerateImages(mean_flow=True, step_targets="teacher", teacher_steps=64, steps=1)
    how = SamplerOptions(64, "euler")
    teacher = StepTeacher(Known, how, lambda batch: asked(batch["classes"]))
    model = Line()
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    classes = torch.arange(32) % 2
    for step in range(60):
        samples = np.arange(32) + 32 * step
        pictures = {"inputs": torch.zeros(32, 1, 2, 2), "classes": classes}
        batch = teacher(task.augment(pictures, samples, dict, PROCESSOR, 7) | {"classes": classes})
        (term,) = task.loss(task.forward(model, batch), batch).terms.values()
        (term.total / term.count).backward()
        optimizer.step()
        optimizer.zero_grad()
    # Euler's 64 steps end a little inside of the exact spread of one half.
    assert model.weight.item() == pytest.approx(0.5, abs=0.03)
    assert model.shift.tolist() == pytest.approx([1.0, 0.0], abs=0.03)
    noise = torch.randn(6, 1, 2, 2)
    one = integrate(model, noise, asked(classes[:6]), SamplerOptions(1, "euler", spans=True))
    many = integrate(Known(), noise, asked(classes[:6]), how)
    assert float((one - many).abs().max()) < 0.1


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
