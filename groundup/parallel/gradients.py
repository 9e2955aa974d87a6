"""The gradients of a step, added up over all processes, and their norm."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

__all__ = [
    "GradientsInOrder",
    "Norm",
    "OwnGradients",
    "SummedGradients",
    "WholeNorm",
    "is_plain",
    "own_norm",
]

_WHAT = "gradients are added up"


Norm = Callable[[Sequence[nn.Parameter]], float]
"""Returns the norm of all gradients of a model, of which these parameters are this process's."""


class OwnGradients:
    """Those of one process, which autograd itself has added up: nothing is to be done.

    Args:
        parameters: Those that are trained.
        norm: Of the whole model's.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], norm: Norm) -> None:
        self._parameters = parameters
        self._norm = norm

    def norm(self) -> float:
        """Return the norm of all gradients."""
        return self._norm(self._parameters)

    def collect(self) -> None:
        """Do nothing."""

    def add_up(self) -> None:
        """Do nothing."""


class SummedGradients:
    """Sums of all processes, in whichever order their exchange takes.

    Args:
        parameters: Those that are trained, in the same order everywhere.
        exchange: Replaces a tensor by the sum of those of all processes.
        norm: Of the whole model's.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        exchange: Callable[[Tensor, str], None],
        norm: Norm,
    ) -> None:
        self._parameters = parameters
        self._exchange = exchange
        self._norm = norm

    def norm(self) -> float:
        """Return the norm of all gradients."""
        return self._norm(self._parameters)

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
        norm: Of the whole model's.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        gather: Callable[[Tensor, str], Tensor],
        norm: Norm,
    ) -> None:
        self._parameters = parameters
        self._gather = gather
        self._norm = norm
        self._collected: list[Tensor] = []

    def norm(self) -> float:
        """Return the norm of all gradients."""
        return self._norm(self._parameters)

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


def own_norm(parameters: Sequence[nn.Parameter]) -> float:
    """Return the norm of all gradients of a model that this process has whole."""
    norms = torch._foreach_norm([p.grad for p in parameters if p.grad is not None])
    norm: float = torch.linalg.vector_norm(torch.stack(norms)).item()
    return norm


class WholeNorm:
    """The norm of all gradients of a model of which each process has a part.

    Args:
        repeats: Returns how many of these processes have the same numbers of a parameter.
        exchange: Replaces a tensor by the sum of those of all processes that together have the
            model once.
    """

    def __init__(
        self,
        repeats: Callable[[nn.Parameter], int],
        exchange: Callable[[Tensor, str], None],
    ) -> None:
        self._repeats = repeats
        self._exchange = exchange

    def __call__(self, parameters: Sequence[nn.Parameter]) -> float:
        """Return it; all processes call this at the same time."""
        given = [parameter for parameter in parameters if parameter.grad is not None]
        squares = torch.zeros((), dtype=torch.float64)
        if given:
            norms = torch.stack(torch._foreach_norm([_local(p.grad) for p in given])).double()
            # What several processes have is counted once: each of them counts its share of it.
            shares = [1.0 / self._repeats(parameter) for parameter in given]
            squares = (norms.square() * norms.new_tensor(shares)).sum()
        self._exchange(squares, "gradients are measured")
        return math.sqrt(squares.item())


def _local(gradient: Tensor | None) -> Tensor:
    assert gradient is not None
    if is_plain(gradient):
        return gradient
    # To import these tensors takes a second, and most runs have none.
    from torch.distributed.tensor import DTensor

    assert isinstance(gradient, DTensor)
    return gradient.to_local()


def is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor is PyTorch's own, and not one of those that are divided (DTensor)."""
    return type(tensor) in (Tensor, nn.Parameter)


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
