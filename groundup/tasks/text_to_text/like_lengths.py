"""A batch's rows of like lengths are computed together: what is padding is computed for nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from groundup.contracts.ragged import offsets_of, take_rows
from groundup.core.values import Batch
from groundup.nn.like_lengths import PASS_ON_CPU, PASS_ON_GPU, group_like_lengths

__all__ = ["parts_of_like_lengths", "run_in_parts"]


def run_in_parts(
    model: nn.Module, batch: Batch, inputs: Callable[[Batch], dict[str, Any]], *, sums: bool
) -> Any:
    """Return a model's outputs for a batch; where they are sums over its rows, those of parts with
    like lengths, added up.

    Args:
        model: Takes what ``inputs`` returns.
        batch: Ragged rows ``source`` and ``target``.
        inputs: Pads the rows of a part.
        sums: Whether outputs are sums over rows, which no row has a place in.
    """
    if not sums:
        return model(**inputs(batch))
    outputs: list[Tensor] = [model(**inputs(part)) for part in parts_of_like_lengths(batch)]
    return outputs[0] if len(outputs) == 1 else torch.stack(outputs).sum(0)


def parts_of_like_lengths(batch: Batch) -> list[Batch]:
    """Return a batch's rows in parts in which they are about as long, cut where the tokens with
    their padding, and what each part costs, are the fewest.

    A function of the lengths alone, so that a resumed run computes the same.
    """
    source, target = (batch[offsets_of(name)].diff().cpu().numpy() for name in ("source", "target"))
    cost = PASS_ON_CPU if batch["source"].device.type == "cpu" else PASS_ON_GPU
    parts = group_like_lengths((source, target), cost)
    if len(parts) == 1:
        return [batch]
    device = batch["source"].device
    return [take_rows(batch, torch.from_numpy(part).to(device)) for part in parts]
