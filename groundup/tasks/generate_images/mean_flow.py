"""MeanFlow: what a model must say, so that one step goes as far as many.

Shape legend: B pictures, C channels, H rows, W columns.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from groundup.core.values import Batch
from groundup.media.augmentation.draws import Draws

__all__ = [
    "MeanFlowOutputs",
    "MeanFlowTarget",
    "adaptive_weight",
    "draw_spans",
    "mean_flow_outputs",
    "slope_along",
]

# Added to a squared error before its power is taken: appendix A of the paper.
_SMALLEST = 1e-3
_MOVING = ("inputs", "times", "spans")


class MeanFlowOutputs(NamedTuple):
    """What the model says (B, C, H, W), and what it should."""

    said: Tensor
    wanted: Tensor


@dataclass(frozen=True)
class MeanFlowTarget:
    """What a model that learns steps is asked for.

    Attributes:
        guidance: That of the directions, so that a guided picture takes one call a step.
        own: Share of a direction that is what the model says itself, and not the way of the one
            pair of noise and picture, which differs from the mean of all.
        piece: How far the model is asked ahead, instead of for a derivative; 0: that.
    """

    guidance: float = 1.0
    own: float = 0.0
    piece: float = 0.0


def draw_spans(
    draws: Draws, times: Tensor, other: Tensor, share: float, to_the_end: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return (B,) where steps start and how long they are: of a share of the samples from the
    earlier to the later of two times, of the others no way at all.

    Args:
        draws: Keyed by the samples.
        times: (B,) of each sample.
        other: (B,) a second one.
        share: Of samples with a step.
        to_the_end: Share of these whose step starts at the first time and ends at the picture.

    Source:
        Geng et al., 2025 (arXiv:2505.13447), section 4.3. Departs from it where steps go to the
        end, as those of consistency models: Song et al., 2023 (arXiv:2303.01469).
    """
    goes = torch.from_numpy(draws("span")[0] < share)
    ends = torch.from_numpy(draws("to the end")[0] < to_the_end)
    other = torch.where(ends, 1.0, other)
    # The earlier one is where the step starts, as 0 is noise.
    starts = torch.where(goes, torch.minimum(times, other), times)
    spans = torch.where(goes, (times - other).abs(), 0.0)
    return starts, spans


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
    target: MeanFlowTarget = MeanFlowTarget(),
) -> MeanFlowOutputs:
    """Return the picture that the model says, and the one that its own change along the way asks
    for.

    The mean velocity u over a span from t on obeys u = v + span du/dt, with the change along the
    way at the velocity v. Said as pictures, x = z + (1 - t) u, that is: the true picture, plus span
    times (dx/dt - v + u), in which nothing is divided by what may be 0 but for u, whose span is as
    small.

    Source:
        Geng et al., 2025 (arXiv:2505.13447), equations 6 to 11; guided, and with the model's own
        share: equations 19 to 21. Departs from it: time 0 is noise, so the sign of the change is
        the other one, and the network says pictures.
    """

    def say(rows: Tensor | slice, place: Tensor, times: Tensor, spans: Tensor) -> Tensor:
        told = {name: value[rows] for name, value in inputs.items() if name not in _MOVING}
        return model(inputs=place, times=times, spans=spans, **told)  # type: ignore[no-any-return]

    places, times, spans = inputs["inputs"], inputs["times"], inputs["spans"]
    everything = slice(None)
    with torch.no_grad():
        wanted = _ahead(model, inputs, batch["inputs"], target)
        # Without a span the change counts for nothing, and is not asked for.
        rows = (spans > 0).nonzero()[:, 0]
        if len(rows):
            at = (places[rows], times[rows], spans[rows])
            called = partial(say, rows)
            if target.piece:
                wanted[rows] = _by_piece(called, at, wanted[rows], target.piece)
            else:
                wanted[rows] = _by_slope(called, at, wanted[rows])
    # Asked again, now with a gradient: through what is wanted none goes back.
    said = say(everything, places, times, spans)
    return MeanFlowOutputs(said, wanted.to(said.dtype))


def _ahead(
    model: nn.Module, inputs: dict[str, Any], pictures: Tensor, target: MeanFlowTarget
) -> Tensor:
    """Return the pictures (B, C, H, W) that the directions go to: the true ones, and those that the
    model says."""
    own, guidance = target.own, target.guidance
    told = {name: value for name, value in inputs.items() if name != "spans"}
    # Weights of the true picture, of what is said of the class, and of what is said of none.
    weights = ((1 - own) * guidance, own, (1 - own) * (1 - guidance))
    ahead = weights[0] * pictures
    if own:
        ahead = ahead + own * model(**told)
    if guidance != 1.0:
        if "classes" in told:
            told["classes"] = torch.full_like(told["classes"], int(model.class_count))  # type: ignore[arg-type]
        if "text_lengths" in told:
            told["text_lengths"] = torch.zeros_like(told["text_lengths"])
        ahead = ahead + weights[2] * model(**told)
    return ahead


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


def _by_piece(
    say: Callable[..., Tensor], at: tuple[Tensor, ...], ahead: Tensor, longest: float
) -> Tensor:
    """Return what a step should lead to: a piece of the way in the direction, and from there what
    the model says of the rest.

    Source:
        Zhang et al., 2025 (arXiv:2510.20771), section 4: with pieces of no length it is MeanFlow.
        Departs from it: pieces have one length, and are not a share of the span.
    """
    places, times, spans = at
    left = (1 - times).clamp(min=1e-6)
    piece = spans.clamp(max=longest)
    rest = spans - piece
    velocity = (ahead - places) / _per_picture(left)
    further = places + _per_picture(piece) * velocity
    later = times + piece
    said = say(further, later, rest)
    # The rest is at most what is left, so nothing grows by this division.
    share = _per_picture(rest / (1 - later).clamp(min=1e-6))
    way = _per_picture(piece) * velocity + share * (said - further)
    return places + _per_picture(left / spans) * way


def _per_picture(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def adaptive_weight(errors: Tensor, power: float) -> Tensor:
    """Return (B,) weights that let no example with a large error (B,) decide alone.

    Source:
        Geng et al., 2025 (arXiv:2505.13447), equation 22.
    """
    return (errors.detach() + _SMALLEST) ** -power
