"""How pictures are made of noise.

Shape legend: B pictures, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from groundup.core.errors import DataError
from groundup.core.seeding import keyed_noise
from groundup.generation.scoring import device_of, evaluating
from groundup.tasks.generate_images.conditions import Condition
from groundup.tasks.generate_images.flow import Asked, SamplerOptions, integrate

__all__ = ["check_guidance", "check_steps", "make_pictures", "sampler_options"]

_AT_ONCE = 256  # pictures that are made together


def sampler_options(
    options: Mapping[str, Any], condition: Condition, learned: tuple[int, ...] = (), *, spans: bool
) -> SamplerOptions:
    """Return how pictures are sampled.

    Args:
        options: ``steps``, ``sampler``, ``guidance`` and ``guidance_interval``; ``count`` is
            checked along.
        condition: What the run is asked by.
        learned: In how many steps pictures can be made; empty: in any.
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
        (
            "steps",
            steps,
            steps in learned if learned else steps >= 1,
            ", ".join(map(str, learned)) or "1 or more",
        ),
        ("count", count, count >= 1, "1 or more"),
        ("sampler", sampler, sampler in ("heun", "euler"), "heun, euler"),
        ("guidance", guidance, guidance >= 0, "0 or more"),
    ):
        if not fits:
            raise DataError(name, f"is {value}; allowed: {allowed}", "Correct or remove it")
    condition.check_guidance(guidance)
    return SamplerOptions(steps, sampler, guidance, spans, options["guidance_interval"])


def check_guidance(
    guidance: float, interval: tuple[float, float], learned: float, condition: Condition
) -> None:
    """Check that settings of guidance fit each other.

    Args:
        guidance: When pictures are made.
        interval: First and last time of it.
        learned: Guidance that steps learn.
        condition: What pictures are asked for by.

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
    if learned != 1 and not condition.dropout:
        word = condition.word
        problem = f"step_guidance needs pictures without a {word}. Raise {word}_dropout"
        raise ValueError(problem)


def check_steps(steps: int, learned: tuple[int, ...]) -> None:
    """Check that steps of this length were learned.

    Args:
        steps: When pictures are made.
        learned: In how many they can be; empty: in any.

    Raises:
        ValueError: If they cannot.
    """
    if learned and steps not in learned:
        allowed = ", ".join(map(str, learned))
        raise ValueError(
            f"steps is {steps}, but with step_targets teacher other steps are learned: allowed"
            f" {allowed}. Write steps: 1 for a picture at once, or change teacher_steps and"
            " whole_share"
        )


def make_pictures(
    model: nn.Module,
    prompts: int,
    asked: Asked,
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
        prompts: How many there are.
        asked: What each asks for.
        shape: (C, H, W).
        count: Pictures of each prompt.
        seed: Of the noise.
        how: Steps, sampler, guidance.
    """
    # All prompts begin with the same noise: what differs is what was asked for.
    noise = keyed_noise(seed, "picture", np.arange(count), shape).to(device_of(model))
    places = noise.repeat(prompts, 1, 1, 1)
    # Next to each other for each prompt, as they are taken apart below.
    each = asked.to(noise.device).repeated(count)
    made = []
    with evaluating(model):
        for start in range(0, len(places), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            made.append(integrate(model, places[part], each[part], how))
    return list(torch.split(torch.cat(made), count))
