"""MeanFlow: what a model must say, so that one step goes as far as many.

Shape legend: B pictures, C channels, H rows, W columns.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from groundup.core.values import Batch
from groundup.media.augmentation.draws import Draws

__all__ = [
    "MOVING",
    "MeanFlowOutputs",
    "adaptive_weight",
    "draw_spans",
    "mean_flow_outputs",
    "slope_along",
]

# Added to a squared error before its power is taken: appendix A of the paper.
_SMALLEST = 1e-3
MOVING = ("inputs", "times", "spans")
"""What a model is told of a step; the rest is what is asked for."""


class MeanFlowOutputs(NamedTuple):
    """What the model says (B, C, H, W), and what it should."""

    said: Tensor
    wanted: Tensor


def draw_spans(draws: Draws, times: Tensor, other: Tensor, share: float) -> Batch:
    """Return ``times`` (B,), where steps start, and ``spans`` (B,), how long they are: of a share
    of the samples from the earlier to the later of two times, of the others no way at all.

    Args:
        draws: Keyed by the samples.
        times: (B,) of each sample.
        other: (B,) a second one.
        share: Of samples with a step.

    Source:
        Geng et al., 2025 (arXiv:2505.13447), section 4.3.
    """
    goes = torch.from_numpy(draws("span")[0] < share)
    # The earlier one is where the step starts, as 0 is noise.
    starts = torch.where(goes, torch.minimum(times, other), times)
    return {"times": starts, "spans": torch.where(goes, (times - other).abs(), 0.0)}


def slope_along(
    say: Callable[..., Tensor], at: tuple[Tensor, ...], change: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """Return what a function says at a place, and how that changes where the place changes so: by a
    forward derivative, at about the cost of a second call."""
    with warnings.catch_warnings():
        # PyTorch scripts some of its own formulas at the first call, which it has deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        found, slope = torch.func.jvp(say, at, change)  # type: ignore[misc]
    return found, slope


def mean_flow_outputs(
    model: nn.Module,
    inputs: dict[str, Any],
    batch: Batch,
    guidance: float = 1.0,
) -> MeanFlowOutputs:
    """Return the picture that the model says, and the one that its own change along the way asks
    for.

    The mean velocity u over a span from t on obeys u = v + span du/dt, with the change along the
    way at the velocity v. Said as pictures, x = z + (1 - t) u, that is: the true picture, plus span
    times (dx/dt - v + u), in which nothing is divided by what may be 0 but for u, whose span is as
    small.

    Args:
        model: A ``PictureGenerator``.
        inputs: What it reads.
        batch: Whose pictures are the true ones.
        guidance: That of the directions, so that a guided picture takes one call a step.

    Source:
        Geng et al., 2025 (arXiv:2505.13447), equations 6 to 11; guided: equation 19. Departs from
        it: time 0 is noise, so the sign of the change is the other one, and the network says
        pictures.
    """

    def say(rows: Tensor | slice, place: Tensor, times: Tensor, spans: Tensor) -> Tensor:
        told = {name: value[rows] for name, value in inputs.items() if name not in MOVING}
        return model(inputs=place, times=times, spans=spans, **told)  # type: ignore[no-any-return]

    places, times, spans = inputs["inputs"], inputs["times"], inputs["spans"]
    everything = slice(None)
    with torch.no_grad():
        wanted = _ahead(model, inputs, batch["inputs"], guidance)
        # Without a span the change counts for nothing, and is not asked for.
        rows = (spans > 0).nonzero()[:, 0]
        if len(rows):
            at = (places[rows], times[rows], spans[rows])
            wanted[rows] = _by_slope(partial(say, rows), at, wanted[rows])
    # Asked again, now with a gradient: through what is wanted none goes back.
    said = say(everything, places, times, spans)
    return MeanFlowOutputs(said, wanted.to(said.dtype))


def _ahead(model: nn.Module, inputs: dict[str, Any], pictures: Tensor, guidance: float) -> Tensor:
    """Return the pictures (B, C, H, W) that the directions go to: the true ones, further away from
    what the model says of nothing asked for."""
    if guidance == 1.0:
        return pictures.clone()
    told = {name: value for name, value in inputs.items() if name != "spans"}
    if "classes" in told:
        told["classes"] = torch.full_like(told["classes"], int(model.class_count))  # type: ignore[arg-type]
    if "text_lengths" in told:
        told["text_lengths"] = torch.zeros_like(told["text_lengths"])
    without: Tensor = model(**told)
    return guidance * pictures + (1 - guidance) * without


def _by_slope(say: Callable[..., Tensor], at: tuple[Tensor, ...], ahead: Tensor) -> Tensor:
    """Return what a step should lead to, by the derivative along the way."""
    places, times, spans = at
    left = _per_picture((1 - times).clamp(min=1e-6))
    velocity = (ahead - places) / left
    # The end stays where it is, so a later start shortens the span.
    change = (velocity, torch.ones_like(times), -torch.ones_like(spans))
    found, slope = slope_along(say, at, change)
    mean = (found - places) / left
    return ahead + _per_picture(spans) * (slope - velocity + mean)


def _per_picture(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def adaptive_weight(errors: Tensor, power: float) -> Tensor:
    """Return (B,) weights that let no example with a large error (B,) decide alone.

    Source:
        Geng et al., 2025 (arXiv:2505.13447), equation 22.
    """
    return (errors.detach() + _SMALLEST) ** -power
