"""What the processes that share the matrices of a layer say to each other within a step, with a
gradient.

All of them run the same model on the same samples. A tensor is either whole, then it is the same on
each and so is its gradient, or a part, of which each has its own. The four operations here lead
from one to the other; each backward pass is what the calculus of a sum over processes asks for.

Source:
    Shoeybi et al., Megatron-LM, 2019 (arXiv:1909.08053), section 3: ``copy_in`` is its f, and
    ``add_up`` its g.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

__all__ = ["Peers"]


class Peers:
    """The processes along the axis ``tensor``, seen from one of them.

    Args:
        group: They alone.
        place: This process's place among them, from 0.
        size: How many they are.
    """

    def __init__(self, group: ProcessGroup, place: int, size: int) -> None:
        self._group = group
        self.place = place
        self.size = size

    def __deepcopy__(self, memo: dict[int, Any]) -> Peers:
        """A copy of a model has the same peers; a group of processes cannot be copied."""
        return self

    # -------------------------------------------------------------------------- with a gradient
    def copy_in(self, whole: Tensor) -> Tensor:
        """Return a whole tensor as it is, where parts are computed from it: backward, what each
        part says of it is added up."""
        return _run(_CopyIn, whole, self) if _traced(whole) else whole

    def add_up(self, part: Tensor) -> Tensor:
        """Return the sum of a tensor over all peers, a whole tensor: backward, each part has its
        gradient."""
        return _run(_AddUp, part, self) if _traced(part) else self.sum(part)

    def add_up_parts(self, part: Tensor) -> Tensor:
        """Return the sum of a tensor over all peers where parts are computed from it again, as from
        a mean: backward, what these say is added up, too."""
        return self.copy_in(self.add_up(part))

    def gather(self, part: Tensor, lengths: list[int]) -> Tensor:
        """Return the parts of all peers side by side along the last dimension, a whole tensor.

        Args:
            part: This process's.
            lengths: Of the last dimension of each peer's.
        """
        if _traced(part):
            return _run(_Gather, part, self, lengths)
        return self.join(part, lengths, part.dim() - 1)

    # ------------------------------------------------------------------------ without a gradient
    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all peers, the same bits on each."""
        # Where the backend adds 16-bit numbers at all, it rounds after each of them.
        total = values.to(torch.promote_types(values.dtype, torch.float32), copy=True).contiguous()
        dist.all_reduce(total, group=self._group)
        return total.to(values.dtype)

    def largest(self, values: Tensor) -> Tensor:
        """Return the largest of all peers at each place."""
        found = values.clone()
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self._group)
        return found

    def join(self, part: Tensor, lengths: list[int], dim: int) -> Tensor:
        """Return the parts of all peers one after the other along a dimension."""
        # Exchanged are tensors of one shape: where a part is shorter, it is filled up.
        part = part.detach().movedim(dim, 0)
        filled = part.new_zeros((max(lengths), *part.shape[1:]))
        filled[: len(part)] = part
        found = [torch.empty_like(filled) for _ in lengths]
        dist.all_gather(found, filled, group=self._group)
        parts = [each[:length] for each, length in zip(found, lengths, strict=True)]
        return torch.cat(parts).movedim(0, dim).contiguous()


class _CopyIn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, whole: Tensor, peers: Peers) -> Tensor:
        ctx.peers = peers
        return whole.view_as(whole)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.peers.sum(grads[0]), None


class _AddUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, peers: Peers) -> Tensor:
        return peers.sum(part)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, peers: Peers, lengths: list[int]) -> Tensor:
        ctx.first = sum(lengths[: peers.place])
        ctx.length = lengths[peers.place]
        return peers.join(part, lengths, part.dim() - 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0].narrow(-1, ctx.first, ctx.length).contiguous(), None, None


def _traced(values: Tensor) -> bool:
    """Whether a gradient will be asked for; else autograd need not be told."""
    return torch.is_grad_enabled() and values.requires_grad


def _run(operation: type[torch.autograd.Function], *inputs: Any) -> Tensor:
    # PyTorch states no types here.
    made: Tensor = operation.apply(*inputs)  # type: ignore[no-untyped-call]
    return made
