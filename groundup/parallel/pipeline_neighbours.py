"""Tensors from one process of a pipeline to another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

__all__ = ["DIRECTIONS", "PipelineNeighbours"]

DIRECTIONS = ("forward", "backward", "forward around", "backward around")
"""In which tensors travel: to the next process and to the one before it, and between the last and
the first, where each has several stages."""

# What activations are made of; their numbers travel in front of them.
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_MOST_DIMS = 8
_HEADER = 0
_TENSOR = 1


class PipelineNeighbours:
    """The processes of a pipeline, and what they send each other.

    Args:
        ranks: Their numbers in the world, in the order of the stages.
        place: This one's place among them.
        groups: For each direction in which tensors travel a group of them: on a GPU what one
            process sends to another in a group is done in one order, so that two which send to
            each other at the same time would wait for ever.
        naming: Names the process that does not answer while something is exchanged.
    """

    def __init__(
        self,
        ranks: Sequence[int],
        place: int,
        groups: dict[str, ProcessGroup],
        naming: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self.place = place
        self.size = len(ranks)
        self._ranks = ranks
        self._groups = groups
        self._naming = naming
        self._on_the_way: deque[tuple[dist.Work, Tensor]] = deque()

    def send(self, tensor: Tensor, to: int, direction: str, *, described: bool = False) -> None:
        """Send a tensor to the process at a place, without waiting for it.

        Args:
            tensor: Not to be changed until ``finish``.
            to: The place.
            direction: In which group.
            described: Whether its shape travels in front of it, because the other does not know it.
        """
        parts = [(tensor.detach().contiguous(), _TENSOR)]
        if described:
            # From the CPU, where it is read: a GPU would be waited for.
            sizes = [_DTYPES.index(tensor.dtype), tensor.ndim, *tensor.shape]
            header = torch.zeros(2 + _MOST_DIMS, dtype=torch.int64)
            header[: len(sizes)] = torch.tensor(sizes)
            parts.insert(0, (header, _HEADER))
        with self._naming("stages exchange states"):
            for part, tag in parts:
                group = self._groups[direction]
                work = dist.isend(part, self._ranks[to], group=group, tag=tag)
                assert work is not None, "this process is one of the group"
                self._on_the_way.append((work, part))
            # What has arrived need not be kept.
            while self._on_the_way and self._on_the_way[0][0].is_completed():
                self._on_the_way.popleft()

    def receive(
        self, sender: int, direction: str, device: torch.device, like: Tensor | None = None
    ) -> Tensor:
        """Return the next tensor from the process at a place, once it is there.

        Args:
            sender: The place.
            direction: In which group.
            device: Where it is put.
            like: A tensor of its shape; None: its shape comes in front of it.
        """
        group = self._groups[direction]
        rank = self._ranks[sender]
        with self._naming("stages exchange states"):
            if like is None:
                header = torch.zeros(2 + _MOST_DIMS, dtype=torch.int64)
                dist.recv(header, rank, group=group, tag=_HEADER)
                kind, dims, *shape = header.tolist()
                found = torch.empty(shape[:dims], dtype=_DTYPES[kind], device=device)
            else:
                found = torch.empty_like(like, memory_format=torch.contiguous_format)
            dist.recv(found, rank, group=group, tag=_TENSOR)
        return found

    def finish(self) -> None:
        """Wait until everything that was sent has arrived."""
        with self._naming("stages exchange states"):
            while self._on_the_way:
                work, _ = self._on_the_way.popleft()
                work.wait()

    def broadcast(self, values: Tensor, sender: int) -> None:
        """Replace a tensor on the CPU by that of the process at a place, on all of them."""
        with self._naming("losses are told"):
            dist.broadcast(values, self._ranks[sender], group=self._groups["forward"])
