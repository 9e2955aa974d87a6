"""What pictures are asked for, and how they are made.

Shape legend: B pictures, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from groundup.core.errors import DataError, did_you_mean
from groundup.core.seeding import keyed_noise
from groundup.generation.scoring import device_of, evaluating
from groundup.media.table_values import as_category
from groundup.tasks.generate_images.flow import SamplerOptions, integrate

__all__ = ["Conditions", "check_guidance", "make_pictures"]

_AT_ONCE = 256  # pictures that are made together


@dataclass(frozen=True)
class Conditions:
    """What a run can be asked for.

    Attributes:
        labels: The classes that it knows.
        by_class: Whether it was trained to make what it is asked for.
        knows_nothing: Whether it was also trained on pictures without a class.
    """

    labels: tuple[str, ...]
    by_class: bool
    knows_nothing: bool

    def sampler_options(self, options: Mapping[str, Any], *, spans: bool) -> SamplerOptions:
        """Return how pictures are sampled.

        Args:
            options: ``steps``, ``sampler``, ``guidance`` and ``guidance_interval``; ``count`` is
                checked along.
            spans: Whether the model is told how long steps are.

        Raises:
            DataError: If one is out of range, or has no effect.
        """
        # They come from a command line or from Python, and were checked by neither.
        steps = int(options["steps"])
        sampler = options["sampler"]
        guidance = float(options["guidance"])
        count = options.get("count", 1)
        for name, value, fits, allowed in (
            ("steps", steps, steps >= 1, "1 or more"),
            ("count", count, count >= 1, "1 or more"),
            ("sampler", sampler, sampler in ("heun", "euler"), "heun, euler"),
            ("guidance", guidance, guidance >= 0, "0 or more"),
        ):
            if not fits:
                raise DataError(name, f"is {value}; allowed: {allowed}", "Correct or remove it")
        if guidance != 1.0 and not self.by_class:
            raise DataError(
                "guidance",
                f"is {guidance:g}, but the run was trained without classes to guide by",
                "Remove it, or train with task.condition: class",
            )
        if guidance != 1.0 and not self.knows_nothing:
            raise DataError(
                "guidance",
                f"is {guidance:g}, but the run was trained with class_dropout 0: the model does"
                " not know pictures without a class, which guidance compares with",
                "Remove it, or train with task.class_dropout: 0.1",
            )
        return SamplerOptions(steps, sampler, guidance, spans, options["guidance_interval"])

    def numbers(self, prompts: Sequence[Any]) -> list[int] | int:
        """Return the class number of each prompt, the one after the last for an empty text; where
        there are no classes, how many prompts there are.

        Raises:
            DataError: If there is no such class.
        """
        names = ["" if prompt is None else as_category(prompt) for prompt in prompts]
        if self.by_class:
            return [self._number_of(name) for name in names]
        for name in filter(None, names):
            raise DataError(
                name,
                "is asked for, but the run was trained without classes",
                "Ask for the empty text, or train with task.condition: class",
            )
        return len(names)

    def _number_of(self, name: str) -> int:
        if name in self.labels:
            return self.labels.index(name)
        known = ", ".join(self.labels[:12])
        if name:
            problem = f"is no class of the run; {did_you_mean(name, self.labels)}known: {known}"
            raise DataError(name, problem, "Choose one of these")
        if not self.knows_nothing:
            problem = "is empty, but the run was trained with class_dropout 0, only with a class"
            raise DataError("prompt", problem, f"Ask for one of {known}")
        return len(self.labels)


def check_guidance(
    guidance: float, interval: tuple[float, float], learned: float, class_dropout: float
) -> None:
    """Check that settings of guidance fit each other.

    Args:
        guidance: When pictures are made.
        interval: First and last time of it.
        learned: Guidance that steps learn.
        class_dropout: Share of training pictures without a class.

    Raises:
        ValueError: If they do not.
    """
    if interval[0] > interval[1]:
        first, last = interval
        raise ValueError(f"guidance_interval [{first:g}, {last:g}] is empty. Turn it round")
    if learned != 1 and guidance != 1:
        raise ValueError(
            f"step_guidance is {learned:g} and guidance {guidance:g}: pictures would be guided"
            " twice. Leave guidance at 1"
        )
    if learned != 1 and not class_dropout:
        raise ValueError("step_guidance needs pictures without a class. Raise class_dropout")


def make_pictures(
    model: nn.Module,
    asked: list[int] | int,
    shape: Sequence[int],
    count: int,
    seed: int,
    how: SamplerOptions,
) -> list[Tensor]:
    """Return (count, C, H, W) for each prompt.

    Picture n of every prompt begins with noise that is a function of seed and n alone: it is the
    same picture, but for rounding, however many are made with it.

    Args:
        model: A ``PictureGenerator``.
        asked: The class number of each prompt; or how many there are, of a model without classes.
        shape: (C, H, W).
        count: Pictures of each prompt.
        seed: Of the noise.
        how: Steps, sampler, guidance.
    """
    prompts = asked if isinstance(asked, int) else len(asked)
    # All prompts begin with the same noise: what differs is what was asked for.
    noise = keyed_noise(seed, "picture", np.arange(count), shape).to(device_of(model))
    places = noise.repeat(prompts, 1, 1, 1)
    # Next to each other for each prompt, as they are taken apart below.
    classes = None
    if not isinstance(asked, int):
        classes = torch.tensor(asked, device=noise.device).repeat_interleave(count)
    made = []
    with evaluating(model):
        for start in range(0, len(places), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            made.append(
                integrate(model, places[part], None if classes is None else classes[part], how)
            )
    return list(torch.split(torch.cat(made), count))
