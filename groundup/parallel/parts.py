"""Which part of a parameter a process holds, and how the whole one is put together from all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from groundup.parallel.peers import Peers

__all__ = ["Part", "divide", "note_part", "parts_of", "share"]


@dataclass(frozen=True)
class Part:
    """What one process has of a tensor that is divided along a dimension.

    Attributes:
        dim: Along which it is divided.
        lengths: Of each process's part there, in order.
        peers: The processes.
    """

    dim: int
    lengths: tuple[int, ...]
    peers: Peers = field(compare=False)

    @property
    def first(self) -> int:
        """Where this process's part begins."""
        return sum(self.lengths[: self.peers.place])

    @property
    def length(self) -> int:
        """How long it is."""
        return self.lengths[self.peers.place]

    @property
    def whole(self) -> int:
        """How long the whole tensor is."""
        return sum(self.lengths)

    def take(self, whole: Tensor) -> Tensor:
        """Return this process's part of a whole tensor, as a view."""
        return whole.narrow(self.dim, self.first, self.length)

    def gather(self, part: Tensor) -> Tensor:
        """Return the whole tensor; all processes call it at the same time."""
        return self.peers.join(part, list(self.lengths), self.dim)


# Of each module the parts by the names of its own tensors. Kept by module, because parameters are
# replaced where they are divided once more, and wrapped names keep their modules.
_KNOWN: WeakKeyDictionary[nn.Module, dict[str, Part]] = WeakKeyDictionary()


def share(length: int, peers: Peers, unit: int = 1) -> tuple[int, ...]:
    """Return how much of a length each process has: as evenly as whole units allow.

    Args:
        length: A multiple of the unit.
        peers: The processes.
        unit: What stays together, such as the pixels of a channel.
    """
    units, more = divmod(length // unit, peers.size)
    return tuple((units + (place < more)) * unit for place in range(peers.size))


def divide(module: nn.Module, name: str, part: Part) -> None:
    """Leave of one of a module's own tensors this process's part alone.

    Args:
        module: Changed in place.
        name: Of a parameter or buffer.
        part: Which.
    """
    whole = module.get_parameter(name) if name in module._parameters else module.get_buffer(name)
    # A copy: a view would keep the whole tensor in memory.
    own = part.take(whole.detach()).clone()
    if isinstance(whole, nn.Parameter):
        module.register_parameter(name, nn.Parameter(own, requires_grad=whole.requires_grad))
    else:
        module._buffers[name] = own
    note_part(module, name, part)


def note_part(module: nn.Module, name: str, part: Part) -> None:
    """Remember of what one of a module's own tensors is a part."""
    _KNOWN.setdefault(module, {})[name] = part


def parts_of(model: nn.Module) -> Mapping[str, Part]:
    """Return the parts of a model's tensors by name; those that are whole are not among them."""
    found = {}
    for prefix, module in model.named_modules():
        for name, part in _KNOWN.get(module, {}).items():
            found[f"{prefix}.{name}".removeprefix(".")] = part
    return found
