"""Tensors of a model whose layers are divided: those of all stages, and those of this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from groundup.parallel.pipeline_neighbours import PipelineNeighbours

__all__ = ["StagedTensors"]

_DTYPES = {
    str(dtype): dtype
    for dtype in (
        torch.float32,
        torch.float64,
        torch.bfloat16,
        torch.float16,
        torch.int64,
        torch.int32,
        torch.int8,
        torch.uint8,
        torch.bool,
    )
}


class StagedTensors:
    """What each stage has of the tensors of a model, and of what an optimizer keeps of them.

    Args:
        model: With this process's stages; what others have is on the ``meta`` device.
        shared: Its parameters that the first and the last stage both have.
        neighbours: The processes of the pipeline.
        ranks: Their numbers in the world.
        gather: Returns what each process of the world gives, in order.
    """

    def __init__(
        self,
        model: nn.Module,
        shared: Sequence[nn.Parameter],
        neighbours: PipelineNeighbours,
        ranks: Sequence[int],
        gather: Callable[[Any, str], list[Any]],
    ) -> None:
        self._elsewhere = {name for name, each in model.state_dict().items() if each.is_meta}
        self._shared = {id(parameter) for parameter in shared}
        self._neighbours = neighbours
        self._ranks = ranks
        self._gather = gather

    def repeats(self, parameter: nn.Parameter) -> int:
        """Return how many stages have a parameter."""
        return 2 if id(parameter) in self._shared else 1

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of all stages on the first process of the world, which writes them, on
        the others those that they have; all call this at the same time.

        Args:
            tensors: By name; those of an optimizer with ``/`` and what they are behind it.
        """
        own = {name: tensor for name, tensor in tensors.items() if not tensor.is_meta}
        listed = [
            [name, list(each.shape), str(each.dtype), each.device.type]
            for name, each in own.items()
        ]
        everybody = self._gather(listed, "tensors are listed")
        # Replicas have the same: nobody would read theirs.
        if self._ranks[0] != 0:
            return own
        found = dict(own)
        near = self._neighbours
        known: set[str] = set()
        for place, rank in enumerate(self._ranks):
            for name, shape, dtype, device in everybody[rank]:
                # What several stages have is the same in all: the first one's is taken.
                if name in known:
                    continue
                known.add(name)
                if place == near.place and place != 0:
                    near.send(own[name], 0, "backward")
                elif near.place == 0 and place != 0:
                    like = torch.empty(shape, dtype=_DTYPES[dtype], device=device)
                    found[name] = near.receive(place, "backward", like.device, like)
        near.finish()
        if near.place != 0:
            return own
        # In the order of the whole model, and of the stages.
        names = [*tensors, *(name for name in found if name not in tensors)]
        return {name: found[name] for name in names}

    def own(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return of whole tensors those of this process's stages. The model's others keep their
        names, without numbers."""
        found = {}
        for name, tensor in tensors.items():
            if name in self._elsewhere:
                found[name] = torch.empty_like(tensor, device="meta")
            elif name.rpartition("/")[0] not in self._elsewhere:
                found[name] = tensor
        return found
