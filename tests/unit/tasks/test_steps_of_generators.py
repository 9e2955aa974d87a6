"""Steps of any length: what MeanFlow's derivative and what a teacher ask for, against exact ways."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from known_generators import Known, asked
from torch import Tensor, nn

from groundup.contracts.data import DataContext, DataSource, Stream
from groundup.media.augmentation.draws import Draws
from groundup.processors.class_targets import SingleLabel
from groundup.processors.image import ImageProcessor
from groundup.processors.labelled import Labelled
from groundup.tasks.generate_images.flow import (
    Asked,
    SamplerOptions,
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
from groundup.tasks.generate_images.taught_steps import StepTeacher, TaughtSource, draw_pieces

PROCESSOR = Labelled(
    ImageProcessor((1, 4, 4), None, [0.5], [0.5]), SingleLabel(["cat", "dog"], counts=[1, 1]), 0
)


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


class Numbered(Stream):
    """Micro-batches of four samples, each of its own noise."""

    def __init__(self) -> None:
        self.at = 0

    def __next__(self) -> dict[str, Tensor]:
        numbers = torch.arange(self.at, self.at + 4)
        self.at += 4
        noise = numbers[:, None, None, None].float().expand(4, 1, 2, 2)
        return {"noise": noise, "times": torch.zeros(4), "spans": torch.ones(4), "number": numbers}

    @property
    def samples_per_epoch(self) -> int:
        return 1000

    def state_dict(self) -> dict[str, Any]:
        return {"samples": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["samples"]

    def close(self) -> None:
        """Nothing is open."""


def test_samples_that_come_several_times(tmp_path: Path) -> None:
    """Each as often as was said before the next block begins, in another order each time; and a
    stream that goes on from any state gives what the whole one gives."""

    class Source(DataSource):
        def examples(self, split: Any, cache: Path) -> list[Any]:
            return []

        def open(self, context: DataContext) -> Stream:
            return Numbered()

    teacher = StepTeacher(Known, SamplerOptions(2, "euler"), lambda batch: Asked())
    context = DataContext("train", list, "", 0, 0, 8, 4, 7, tmp_path)
    stream = TaughtSource.of(Source(), teacher, 3).open(context)
    assert stream.samples_per_epoch == 3000
    states, numbers = [], []
    for _ in range(100):  # a block: 16 steps of 2 micro-batches, three times over
        states.append(stream.state_dict())
        numbers.append(next(stream)["number"])
    first = torch.stack(numbers[:96]).view(3, 128)
    for each in first:
        assert torch.equal(each.sort().values, torch.arange(128))
    assert not torch.equal(first[0], first[1])
    assert min(torch.stack(numbers[96:]).flatten()) >= 128
    for place in (0, 40, 96, 98):
        other = TaughtSource.of(Source(), teacher, 3).open(context)
        other.load_state_dict(states[place] if place else {"samples": 0})
        assert torch.equal(next(other)["number"], numbers[place])
    # Held-out samples come once.
    held_out = TaughtSource.of(Source(), teacher, 3).open(replace(context, split="validation"))
    assert torch.equal(next(held_out)["number"], torch.arange(4))


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
