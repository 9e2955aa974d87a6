"""The gradients of a step, added up over all processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

__all__ = ["GradientsInOrder", "OwnGradients", "SummedGradients"]

_WHAT = "gradients are added up"


class OwnGradients:
    """Those of one process, which autograd itself has added up: nothing is to be done."""

    def collect(self) -> None:
        """Do nothing."""

    def add_up(self) -> None:
        """Do nothing."""


class SummedGradients:
    """Sums of all processes, in whichever order their exchange takes.

    Args:
        parameters: Those that are trained, in the same order everywhere.
        exchange: Replaces a tensor by the sum of those of all processes.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], exchange: Callable[[Tensor, str], None]
    ) -> None:
        self._parameters = parameters
        self._exchange = exchange

    def collect(self) -> None:
        """Leave it to autograd, which adds up the micro-batches of this process."""

    def add_up(self) -> None:
        """Add up over all processes, in one exchange."""
        flat = _flatten(self._parameters)
        self._exchange(flat, _WHAT)
        _spread(flat, self._parameters)


class GradientsInOrder:
    """Sums over the micro-batches of a step in the order of their samples, whoever computed them:
    bit for bit the same for any number of processes.

    Args:
        parameters: Those that are trained, in the same order everywhere.
        gather: Returns (size, ...) the tensors of all processes.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], gather: Callable[[Tensor, str], Tensor]
    ) -> None:
        self._parameters = parameters
        self._gather = gather
        self._collected: list[Tensor] = []

    def collect(self) -> None:
        """Keep the gradients of one micro-batch apart from those of the others."""
        # Autograd would add the next one to it, in an order that depends on who computes what.
        self._collected.append(_flatten(self._parameters))
        for parameter in self._parameters:
            parameter.grad = None

    def add_up(self) -> None:
        """Add up micro-batch by micro-batch: micro-batch k of rank r is number k * size + r."""
        total: Tensor | None = None
        for own in self._collected:
            for part in self._gather(own, _WHAT).unbind():
                total = part.clone() if total is None else total.add_(part)
        self._collected = []
        assert total is not None, "a step has at least one micro-batch"
        _spread(total, self._parameters)


def _flatten(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return all gradients in one row, and behind them for each whether there is one."""
    parts = [
        torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters
    ]
    # What no sample of the step reached has no gradient: the optimizer leaves it alone, where one
    # of zeros would still decay it.
    there = [float(p.grad is not None) for p in parameters]
    return torch.cat([*parts, parts[0].new_tensor(there)])


def _spread(flat: Tensor, parameters: Sequence[nn.Parameter]) -> None:
    """Put a row of gradients back in their places."""
    there = flat[-len(parameters) :].tolist()
    rows = torch.split(flat[: -len(parameters)], [p.numel() for p in parameters])
    for parameter, row, known in zip(parameters, rows, there, strict=True):
        if not known:
            parameter.grad = None
        elif parameter.grad is None:
            parameter.grad = row.view_as(parameter).clone()
        else:
            parameter.grad.copy_(row.view_as(parameter))
