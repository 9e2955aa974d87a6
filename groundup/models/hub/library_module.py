"""A module of the library ``transformers`` under groundup's names: its parts, and which of its
tensors they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

from torch import nn

from groundup.models.hub.named_parts import (
    NamedParts,
    count_matrices,
    follow_places,
    plain_linears,
    untie,
)

__all__ = ["LibraryModule"]


class LibraryModule(nn.Module, ABC):
    """The parts of a library's module, which is not registered itself.

    Args:
        config: The settings.
        tree: The library's module. Its parts are registered here under our names; the modules
            between them are not.

    Attributes:
        tree: That module.
        hf: The library's name of each of groundup's tensors, as its modules have it.
        tied: Our tensors by the library's names of their second places, such as an output layer's.
        transposed: Our names of matrices that are (in, out) there.
    """

    tree: Any

    def __init__(self, config: Any, tree: Any) -> None:
        super().__init__()
        self.config = config
        # Past nn.Module, which would register all tensors a second time.
        self.__dict__["tree"] = tree
        # Before the parts are found: it replaces some of them.
        transposed = plain_linears(tree)
        parts = self._find_parts(tree)
        self._between = parts.between
        self._places = parts.places
        self._accepts = parts.accepts
        self.embed = nn.ModuleDict(parts.groups["embed"])
        self.blocks = parts.blocks
        self.norm = nn.ModuleDict(parts.groups["norm"])
        self.head = nn.ModuleDict(parts.groups["head"])
        # A tensor in two places would be saved twice, and twice in the optimizer.
        second = untie(self)
        self.hf = {name: parts.hf(name) for name in self.state_dict()}
        self.tied = {parts.hf(name): kept for name, kept in second.items()}
        self.transposed = frozenset(name for name, hf in self.hf.items() if hf in transposed)

    @abstractmethod
    def _find_parts(self, tree: Any) -> NamedParts:
        """Return the parts of a module, which is left as it is."""

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all parts, and of what holds them together: it may drop out, too."""
        # They are not registered here, so nn.Module does not reach them.
        for module in self._between:
            module.training = mode
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        # Such as constant masks.
        for module in self._between:
            module._buffers |= {
                name: fn(value) for name, value in module._buffers.items() if value is not None
            }
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def _follow(self) -> None:
        """Let the library's module compute with the parts that are registered here."""
        follow_places(self, self._places)

    def _accepted(self, **arguments: Any) -> dict[str, Any]:
        return {name: value for name, value in arguments.items() if name in self._accepts}

    def matmul_parameters(self) -> int:
        """Return how many weights each token is multiplied with."""
        return count_matrices(self, self.tied)
