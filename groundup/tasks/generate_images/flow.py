"""Flow matching: the straight path from noise to a picture, from which training draws, and the
sampler that follows it to make one.

Shape legend: B pictures, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from groundup.core.values import Batch
from groundup.media.augmentation.draws import Draws

__all__ = [
    "NEAR_END",
    "Asked",
    "SamplerOptions",
    "draw_times",
    "follow",
    "integrate",
    "interpolate",
    "mean_quarters",
    "sum_quarters",
    "velocity_weight",
]

NEAR_END = 0.05
"""What is left of the way counts as at least so much, where errors are divided by it: Li and He,
2025, section 4."""
# Quarters of the way whose errors a validation tells apart.
_QUARTERS = ("first", "second", "third", "last")
# Times at which validation asks, over and over again.
_FIXED_TIMES = 16


def draw_times(draws: Draws, kind: str, mean: float, std: float) -> Tensor:
    """Return (B,) float32 times between 0 and 1, each a function of its sample's number.

    Args:
        draws: Keyed by the samples.
        kind: ``uniform``, ``logit_normal``, or ``fixed``: the middles of sixteenths in turn.
        mean: Of the logits.
        std: Of the logits.

    Source:
        Esser et al., 2024 (arXiv:2403.03206), section 3.1. Departs from it: 1 is the picture here.
    """
    if kind == "fixed":
        return torch.from_numpy((draws.samples % _FIXED_TIMES + 0.5) / _FIXED_TIMES).float()
    times = draws("time")[0]
    if kind == "logit_normal":
        # The normal distribution's quantile: one number in [0, 1) makes one time.
        quantiles = torch.special.ndtri(torch.from_numpy(times).clamp(1e-9, 1 - 1e-9))
        logits: Tensor = mean + std * quantiles
        return logits.sigmoid().float()
    return torch.from_numpy(times).float()


def interpolate(batch: Batch) -> Tensor:
    """Return (B, C, H, W), at each one's time between its noise and its picture.

    Source:
        Liu et al., 2022 (arXiv:2209.03003), equation 1; Lipman et al., 2022 (arXiv:2210.02747).
    """
    # So, and not by a weighted sum: at time 1 it is the picture to the last bit.
    times = batch["times"][:, None, None, None]
    return batch["noise"] + times * (batch["inputs"] - batch["noise"])


def velocity_weight(times: Tensor) -> Tensor:
    """Return (B,) by what a picture's squared error is multiplied to be that of the velocity.

    The velocity at a place is what is left of the way over the time that is left.

    Source:
        Li and He, 2025, "Back to basics: let denoising generative models denoise", section 4: the
        network says the picture, and the loss is that of the velocity.
    """
    return (1 - times).clamp(min=NEAR_END) ** -2


def sum_quarters(errors: Tensor, times: Tensor) -> dict[str, Tensor]:
    """Return the sum of errors (B,) at times (B,) in each quarter of the way, and their number."""
    # Early errors decide what is in a picture, late ones how sharp it is.
    quarters = (times * len(_QUARTERS)).long().clamp(max=len(_QUARTERS) - 1)
    found: dict[str, Tensor] = {}
    for number, name in enumerate(_QUARTERS):
        own = quarters == number
        found |= {f"{name}_error": errors[own].sum(), f"{name}_count": own.sum()}
    return found


def mean_quarters(sums: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Return the mean error in each quarter that was asked about."""
    found = {}
    for name in _QUARTERS:
        pictures = sums.get(f"{name}_count", (0.0, 0.0))[0]
        if pictures:
            found[f"{name}_quarter_error"] = sums[f"{name}_error"][0] / pictures
    return found


@dataclass(frozen=True)
class SamplerOptions:
    """How a picture is sampled.

    Attributes:
        steps: Into how many equal steps it is cut.
        sampler: ``euler`` asks once a step; ``heun`` also at its end, and takes the mean of both
            directions, except for the last one.
        guidance: How far to go from what is said of nothing asked for to what is said of what is
            asked for; 1: that far, and only this is asked.
        spans: Whether the model is told how long the step is, as one trained by MeanFlow.
        interval: The first and the last time that are guided; at others only what is asked for is.
    """

    steps: int = 50
    sampler: Literal["euler", "heun"] = "heun"
    guidance: float = 1.0
    spans: bool = False
    interval: tuple[float, float] = (0.0, 1.0)

    def guidance_at(self, time: float) -> float:
        """Return that of one time.

        Source:
            Kynkäänniemi et al., 2024 (arXiv:2404.07724), equation 5.
        """
        first, last = self.interval
        if first <= time <= last:
            return self.guidance
        return 1.0


@dataclass(frozen=True)
class Asked:
    """What pictures are asked for, a row each by the names of the model's arguments; none of them,
    where pictures are asked for by nothing.

    Attributes:
        told: What each is asked for.
        nothing: The same of pictures that are asked for nothing, which guidance goes away from.
    """

    told: Batch = field(default_factory=dict)
    nothing: Batch = field(default_factory=dict)

    def __getitem__(self, rows: slice) -> Asked:
        """Return what some of the pictures are asked for."""
        parts = ({name: values[rows] for name, values in each.items()} for each in self.both)
        return Asked(*parts)

    @property
    def both(self) -> tuple[Batch, Batch]:
        """What is asked for, and nothing."""
        return self.told, self.nothing

    def repeated(self, count: int) -> Asked:
        """Return each row so many times, next to each other."""
        # Pictures of a prompt lie next to each other, as their noise does.
        parts = (
            {name: values.repeat_interleave(count, 0) for name, values in each.items()}
            for each in self.both
        )
        return Asked(*parts)

    def to(self, device: torch.device) -> Asked:
        """Return it on a device."""
        parts = ({name: values.to(device) for name, values in each.items()} for each in self.both)
        return Asked(*parts)


def integrate(
    model: Callable[..., Any], noise: Tensor, asked: Asked, how: SamplerOptions
) -> Tensor:
    """Return (B, C, H, W) pictures, from their noise; see ``follow``."""
    *_, picture = follow(model, noise, asked, how)
    return picture


@torch.no_grad()
def follow(
    model: Callable[..., Any], noise: Tensor, asked: Asked, how: SamplerOptions
) -> Iterator[Tensor]:
    """Yield the places (B, C, H, W) on the way from noise, after each step; the last one is the
    picture.

    Args:
        model: A ``PictureGenerator``.
        noise: (B, C, H, W).
        asked: What each is asked for.
        how: Steps, sampler, guidance.

    Source:
        Heun's rule as Karras et al., 2022 (arXiv:2206.00364), algorithm 1 without the noise;
        guidance: Ho and Salimans, 2022 (arXiv:2207.12598), equation 6, of the pictures instead of
        the noise, which is the same.
    """
    place = noise
    length = 1 / how.steps
    for step in range(how.steps):
        start = step * length
        span = length if how.spans else None
        first = _direction(model, place, start, span, asked, how.guidance_at(start))
        ahead = place + length * first
        # At the end nothing is left of the way, and no direction can be asked for there.
        if how.sampler == "heun" and not how.spans and step + 1 < how.steps:
            later = start + length
            second = _direction(model, ahead, later, None, asked, how.guidance_at(later))
            ahead = place + length * (first + second) / 2
        place = ahead
        yield place


def _direction(
    model: Callable[..., Any],
    place: Tensor,
    time: float,
    span: float | None,
    asked: Asked,
    guidance: float,
) -> Tensor:
    """Return (B, C, H, W), what is left of the way over the time that is left."""
    count = len(place)
    told = dict(asked.told)
    # Both in one pass: twice the rows take less time than two passes.
    guided = bool(told) and guidance != 1.0
    inputs = place
    if guided:
        told = {name: torch.cat([told[name], asked.nothing[name]]) for name in told}
        inputs = torch.cat([place, place])
    if span is not None:
        told["spans"] = place.new_full((len(inputs),), span)
    pictures: Tensor = model(inputs=inputs, times=place.new_full((len(inputs),), time), **told)
    if guided:
        without = pictures[count:]
        pictures = without + guidance * (pictures[:count] - without)
    return (pictures - place) / (1 - time)
