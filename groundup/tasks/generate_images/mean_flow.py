"""MeanFlow: what a model must say, so that one step goes as far as many.

Shape legend: B pictures, C channels, H rows, W columns.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from groundup.core.values import Batch
from groundup.media.augmentation.draws import Draws

__all__ = [
    "MeanFlowOutputs",
    "adaptive_weight",
    "draw_spans",
    "mean_flow_outputs",
    "slope_along",
]

# Added to a squared error before its power is taken: appendix A of the paper.
_SMALLEST = 1e-3


class MeanFlowOutputs(NamedTuple):
    """What the model says (B, C, H, W), and what it should."""

    said: Tensor
    wanted: Tensor


def draw_spans(draws: Draws, times: Tensor, other: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Return (B,) where steps start and how long they are: of a share of the samples from the
    earlier to the later of two times, of the others no way at all.

    Source:
        Geng et al., 2025 (arXiv:2505.13447), section 4.3.
    """
    goes = torch.from_numpy(draws("span")[0] < share)
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


def mean_flow_outputs(model: nn.Module, inputs: dict[str, Any], batch: Batch) -> MeanFlowOutputs:
    """Return the picture that the model says, and the one that its own change along the way asks
    for.

    The mean velocity u over a span from t on obeys u = v + span du/dt, with the change along the
    way at the velocity v. Said as pictures, x = z + (1 - t) u, that is: the true picture, plus span
    times (dx/dt - v + u), in which nothing is divided by what may be 0 but for u, whose span is as
    small.

    Source:
        Geng et al., 2025 (arXiv:2505.13447), equations 6 to 11. Departs from it: time 0 is noise,
        so the sign of the change is the other one, and the network says pictures.
    """
    # Of the way of this one pair; the model's mean over all pairs follows from training.
    velocity = batch["inputs"] - batch["noise"]
    told = {name: value for name, value in inputs.items() if name == "classes"}

    def say(place: Tensor, times: Tensor, spans: Tensor) -> Tensor:
        return model(inputs=place, times=times, spans=spans, **told)  # type: ignore[no-any-return]

    at = (inputs["inputs"], inputs["times"], inputs["spans"])
    # The end stays where it is, so a later start shortens the span.
    change = (velocity, torch.ones_like(at[1]), -torch.ones_like(at[2]))
    with torch.no_grad():
        found, slope = slope_along(say, at, change)
        left = (1 - at[1]).clamp(min=1e-6)[:, None, None, None]
        mean = (found - at[0]) / left
        spans = at[2][:, None, None, None]
        wanted = batch["inputs"] + spans * (slope - velocity + mean)
    # Asked again, now with a gradient: through the slope none goes back.
    return MeanFlowOutputs(say(*at), wanted.to(found.dtype))


def adaptive_weight(errors: Tensor, power: float) -> Tensor:
    """Return (B,) weights that let no example with a large error (B,) decide alone.

    Source:
        Geng et al., 2025 (arXiv:2505.13447), equation 22.
    """
    return (errors.detach() + _SMALLEST) ** -power
