"""Steps that the weights a run starts from teach: where their own way leads in many small steps is
what one large step learns to reach at once.

Shape legend: B pictures, C channels, H rows, W columns, K steps of the teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from pydantic import PrivateAttr
from torch import Tensor, nn

from groundup.contracts.data import DataContext, DataSource, Stream
from groundup.contracts.derived_source import DerivedSource
from groundup.contracts.tasks import Start
from groundup.core import seeding
from groundup.core.errors import RecipeError
from groundup.core.values import Batch
from groundup.generation.scoring import device_of
from groundup.media.augmentation.draws import Draws
from groundup.tasks.generate_images.conditions import Condition
from groundup.tasks.generate_images.flow import Asked, SamplerOptions, follow
from groundup.tasks.generate_images.mean_flow import MOVING

__all__ = ["StepTeacher", "TaughtSource", "draw_pieces", "learned_steps", "teach"]

# Steps whose samples are kept where each of them comes several times.
_BLOCK = 16
# Standard deviation of the numbers of pictures, of which black is -1 and white 1: what random
# weights make of noise is one grey, with less than this.
_GREY = 0.02


def draw_pieces(draws: Draws, steps: int, whole: float) -> Batch:
    """Return ``times`` (B,), where steps start, and ``spans`` (B,), how long they are: from one to
    another of the places between the teacher's steps.

    Args:
        draws: Keyed by the samples.
        steps: K.
        whole: Share of the samples whose step goes all the way, from noise to the picture.
    """
    one, other = (torch.from_numpy(numbers * steps).long() for numbers in draws("span", 2))
    goes = torch.from_numpy(draws("whole")[0] < whole)
    first = torch.where(goes, 0, torch.minimum(one, other))
    # The later one ends where its piece does, so that every step has a length.
    last = torch.where(goes, steps, torch.maximum(one, other) + 1)
    return {"times": first.float() / steps, "spans": (last - first).float() / steps}


@dataclass(frozen=True)
class StepTeacher:
    """The weights that a run starts from, as they make pictures.

    Attributes:
        build: Returns the model with them, in evaluation mode.
        how: Its steps and guidance.
        ask: Returns what the pictures of a batch are asked for.
        precision: Of matrix products, by the kind of device where it is not that of the weights.
    """

    build: Callable[[], nn.Module]
    how: SamplerOptions
    ask: Callable[[Batch], Asked]
    precision: Mapping[str, torch.dtype] = field(
        default_factory=lambda: {
            kind: torch.get_autocast_dtype(kind)
            for kind in ("cpu", "cuda")
            if torch.is_autocast_enabled(kind)
        }
    )

    @cached_property
    def model(self) -> nn.Module:
        """The model; built when it is first asked, which evaluations never do."""
        return self.build().requires_grad_(False)

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with pictures and noise such that the straight way between both passes
        where the teacher's way does at the batch's times, and goes on as the mean of its steps.

        The mean velocity of a span is what MeanFlow's models say; here it is computed by the steps
        themselves, in place of a derivative.

        Source:
            Luhman and Luhman, 2021 (arXiv:2101.02388), section 3: one step learns where a
            deterministic sampler ends. Departs from it: also from any of its steps to any other, as
            the maps of Boffi et al., 2024 (arXiv:2406.07507), section 3.
        """
        device = device_of(self.model)
        noise = batch["noise"].to(device)
        asked = self.ask(batch).to(device)
        with ExitStack() as stack:
            if device.type in self.precision:
                stack.enter_context(torch.autocast(device.type, self.precision[device.type]))
            way = torch.stack([noise, *follow(self.model, noise, asked, self.how)])
        self._check(way[-1])
        times, spans = (batch[name].to(device)[:, None, None, None] for name in ("times", "spans"))
        rows = torch.arange(len(noise), device=device)
        first, last = (
            (self.how.steps * place).round().long().flatten() for place in (times, times + spans)
        )
        here, there = way[first, rows].float(), way[last, rows].float()
        pictures = here + (1 - times) / spans * (there - here)
        # A step never starts at the end, so nothing is divided by 0.
        return {**batch, "inputs": pictures, "noise": (here - times * pictures) / (1 - times)}

    def _check(self, pictures: Tensor) -> None:
        """Raise an error where there is nothing to learn from."""
        spread = float(pictures.float().std()) if len(pictures) else 1.0
        if spread < _GREY:
            raise RecipeError(
                "recipe.task.step_targets",
                "is teacher, but the weights that the run starts from make one grey of all noise:"
                f" a standard deviation of {spread:.4f}, and pictures have more than {_GREY}",
                "Train a run without mean_flow first, and start from it: init: {run: runs/NAME}",
            )


def learned_steps(steps: int, whole: float) -> tuple[int, ...]:
    """Return in how many equal steps pictures can be made: of lengths that are learned.

    Args:
        steps: K.
        whole: Share of the samples whose step goes all the way.
    """
    return tuple(n for n in range(1, steps + 1) if not steps % n) if whole < 1 else (1,)


def teach(
    source: DataSource,
    start: Start,
    steps: int,
    repeats: int,
    guided: tuple[float, tuple[float, float]],
    inputs: Callable[[Batch], Batch],
    condition: Condition,
) -> DataSource:
    """Return a source whose pictures are made by the weights that a run starts from.

    Args:
        source: The run's.
        start: These weights.
        steps: K.
        repeats: How often each picture is learned from.
        guided: Their guidance, and the first and the last time of it.
        inputs: Returns what the model reads of a batch.
        condition: What pictures are asked for by.
    """

    def ask(batch: Batch) -> Asked:
        told = {name: each for name, each in inputs(batch).items() if name not in MOVING}
        nothing = torch.ones(len(batch["noise"]), dtype=torch.bool)
        return Asked(told, condition.take_away(told, nothing, start.processor))

    how = SamplerOptions(steps, "euler", guided[0], interval=guided[1])
    return TaughtSource.of(source, StepTeacher(start.model, how, ask), repeats)


class TaughtSource(DerivedSource):
    """Another source, whose pictures are the teacher's. It is made by a task and named in no
    recipe."""

    _teacher: StepTeacher = PrivateAttr()
    _repeats: int = PrivateAttr()

    @classmethod
    def of(cls, source: DataSource, teacher: StepTeacher, repeats: int = 1) -> TaughtSource:
        """Return the source with the teacher's pictures, in training each of them several times."""
        made = cls()
        made._source = source
        made._teacher = teacher
        made._repeats = repeats
        return made

    def open(self, context: DataContext) -> Stream:
        """Open the source; its classes or captions are what the teacher is asked for."""
        stream = _Taught(self._source.open(context), self._teacher)
        if self._repeats == 1 or context.split != "train":
            return stream
        return _Repeated(stream, self._repeats, context)


class _Taught(Stream):
    """A stream whose micro-batches the teacher completes when they are delivered."""

    def __init__(self, stream: Stream, teacher: StepTeacher) -> None:
        self._stream = stream
        self._teacher = teacher

    def __next__(self) -> Batch:
        return self._teacher(next(self._stream))

    @property
    def samples_per_epoch(self) -> int:
        """How many samples one pass holds."""
        return self._stream.samples_per_epoch

    def counts(self) -> dict[str, int]:
        """Return what else the stream counts."""
        return self._stream.counts()

    def state_dict(self) -> dict[str, Any]:
        """Return the stream's: noise is a function of the sample's number, and the teacher's way
        of the noise."""
        return self._stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of the stream."""
        self._stream.load_state_dict(state)

    def close(self) -> None:
        """Stop the stream's workers."""
        self._stream.close()


class _Repeated(Stream):
    """Another stream, each of whose samples comes several times: in blocks of some steps, whose
    samples come in another order each time."""

    def __init__(self, stream: Stream, repeats: int, context: DataContext) -> None:
        self._stream = stream
        self._repeats = repeats
        self._rows = context.micro_batch_size
        # Of this rank: the others have their own samples, and put them into an order of their own.
        self._step = context.batch_size // (self._rows * context.world)  # micro-batches
        self._key = (context.seed, "taught samples", context.rank)
        self._delivered = 0  # micro-batches
        self._block: Batch = {}
        self._begin: dict[str, Any] = {}  # state of the stream before the block

    def __next__(self) -> Batch:
        count = _BLOCK * self._step
        number, place = divmod(self._delivered, count * self._repeats)
        if not self._block or not place:
            self._begin = self._stream.state_dict()
            parts = [next(self._stream) for _ in range(count)]
            self._block = {
                name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]
            }
        turn, part = divmod(place, count)
        order = torch.randperm(
            count * self._rows, generator=seeding.generator(*self._key, number, turn)
        )
        chosen = order[part * self._rows : (part + 1) * self._rows]
        self._delivered += 1
        return {name: values[chosen] for name, values in self._block.items()}

    @property
    def samples_per_epoch(self) -> int:
        """How many samples one pass over the data gives: each comes several times."""
        return self._repeats * self._stream.samples_per_epoch

    def counts(self) -> dict[str, int]:
        """Return what else the stream counts."""
        return self._stream.counts()

    def state_dict(self) -> dict[str, Any]:
        """Return what was delivered, and where the stream was before the block: its pictures are
        made again, by the same teacher."""
        at_end = self._delivered % (_BLOCK * self._step * self._repeats) == 0
        begin = self._stream.state_dict() if at_end or not self._begin else self._begin
        return {"delivered": self._delivered, "begin": begin}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state, or from the beginning."""
        self._delivered = state.get("delivered", 0)
        self._stream.load_state_dict(state.get("begin", state))
        self._block, self._begin = {}, {}

    def close(self) -> None:
        """Stop the stream's workers."""
        self._stream.close()
