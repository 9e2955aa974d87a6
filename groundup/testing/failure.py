"""What a check raises."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["ContractError", "require", "require_close"]


class ContractError(AssertionError):
    """A part does not keep its contract.

    Args:
        contract: What was asked of it.
        found: What it did, without a final stop.
        remedy: What to do about it, without a final stop.
    """

    def __init__(self, contract: str, found: str, remedy: str) -> None:
        self.contract = contract
        self.found = found
        self.remedy = remedy
        super().__init__(f"{contract}: {found}. {remedy}.")


def require(kept: bool, contract: str, found: str, remedy: str) -> None:
    """Raise a ContractError unless ``kept``."""
    if not kept:
        raise ContractError(contract, found, remedy)


def require_close(
    found: Any, wanted: Any, tolerance: float, contract: str, what: str, remedy: str
) -> None:
    """Raise a ContractError unless two tensors are equal, to ``tolerance`` of their largest number.

    Args:
        found: What was computed.
        wanted: What it should be.
        tolerance: 0 asks for the same bits.
        contract: As of ContractError.
        what: What differs, as the beginning of a sentence: "outputs of other rows".
        remedy: As of ContractError.
    """
    # Arrays of numpy are compared, too: tokens come as such.
    one = torch.as_tensor(found).detach()
    other = torch.as_tensor(wanted).detach()
    require(
        one.shape == other.shape and one.dtype == other.dtype,
        contract,
        f"{what} are {_describe(one)} in place of {_describe(other)}",
        remedy,
    )
    if tolerance == 0 or not one.is_floating_point():
        require(torch.equal(one, other), contract, f"{what} differ", remedy)
        return
    # Relative to the largest number of all: a small one next to large ones carries their rounding.
    largest = float(other.abs().max()) if other.numel() else 0.0
    apart = float((one - other).abs().max()) if one.numel() else 0.0
    # "not <=" and not ">": a difference that is not a number is a difference, too.
    within = apart <= tolerance * max(largest, 1e-30)
    require(
        within, contract, f"{what} differ by {apart:.3g}, of numbers up to {largest:.3g}", remedy
    )


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
