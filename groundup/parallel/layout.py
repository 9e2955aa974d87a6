"""How the work of a run is laid out over its processes: the axes, and who shares what with whom."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh

from groundup.core.errors import RecipeError
from groundup.recipe.sections import Parallel

__all__ = ["AXES", "Layout", "connect", "join_group", "settle"]

# Outermost first: processes that differ in the last axis alone have neighbouring numbers, so they
# are on one machine, where exchanges of every layer are quick.
AXES = ("pipeline", "replicate", "shard", "context", "tensor")


@dataclass(frozen=True)
class Layout:
    """The sizes of the axes, and the place of one process on each.

    The samples of a batch are divided over ``replicate`` and ``shard`` alone: processes that differ
    in another axis compute parts of the same samples.

    Attributes:
        rank: This process's number in the world.
        mesh: The processes by axis, of those axes that are longer than 1; None without any but
            ``replicate``, which needs none.
        copies: The processes that have the same parameters as this one and compute other parts of
            their gradients; None for all of the world.
        readers: The processes that read other samples or other tokens than this one, and have the
            same layers; None for all of the world.
        holders: The processes that together have the model once; None for this one alone.
    """

    pipeline: int = 1
    replicate: int = 1
    shard: int = 1
    context: int = 1
    tensor: int = 1
    rank: int = 0
    mesh: DeviceMesh | None = field(default=None, compare=False)
    copies: ProcessGroup | None = field(default=None, compare=False)
    readers: ProcessGroup | None = field(default=None, compare=False)
    holders: ProcessGroup | None = field(default=None, compare=False)

    @property
    def sizes(self) -> dict[str, int]:
        """The size of each axis, outermost first."""
        return {axis: getattr(self, axis) for axis in AXES}

    @property
    def size(self) -> int:
        """How many processes there are."""
        return math.prod(self.sizes.values())

    @property
    def places(self) -> dict[str, int]:
        """This process's place on each axis, from 0."""
        places = {}
        left = self.rank
        for axis, size in reversed(self.sizes.items()):
            left, places[axis] = divmod(left, size)
        return places

    @property
    def data_rank(self) -> int:
        """Which part of every batch this process computes."""
        places = self.places
        return places["replicate"] * self.shard + places["shard"]

    @property
    def data_size(self) -> int:
        """Into how many parts a batch is divided."""
        return self.replicate * self.shard

    @property
    def copies_size(self) -> int:
        """How many processes have the same parameters as this one, and gradients of other samples
        or other tokens."""
        return self.replicate * self.context

    @property
    def holders_size(self) -> int:
        """Over how many processes a copy of the parameters is divided."""
        return self.pipeline * self.shard * self.tensor

    @property
    def reporting_ranks(self) -> list[int]:
        """For each part of a batch, in order, the process that says what it lost and counted: of
        those that share its samples the first of the last stage, which computes the loss."""
        last = (self.pipeline - 1) * self.data_size
        return [(last + part) * self.context * self.tensor for part in range(self.data_size)]

    def ranks_along(self, *axes: str) -> list[list[int]]:
        """Return all groups of processes that differ in these axes alone, each in order."""
        numbers = torch.arange(self.size).view(*self.sizes.values())
        inner = [AXES.index(axis) for axis in axes]
        outer = [place for place in range(len(AXES)) if place not in inner]
        length = math.prod(self.sizes[axis] for axis in axes)
        groups: list[list[int]] = numbers.permute(*outer, *inner).reshape(-1, length).tolist()
        return groups


def settle(parallel: Parallel, world_size: int, rank: int = 0) -> Layout:
    """Return the layout that a recipe asks for, ``replicate: auto`` settled.

    Args:
        parallel: The recipe's section.
        world_size: How many processes there are.
        rank: This process's number.

    Raises:
        RecipeError: If the product of the axes is not the number of processes, or
            ``exact`` is wanted where gradients cannot be added up in the order of the samples.
    """
    settings = parallel.model_dump()
    wanted = {axis: settings[axis] for axis in AXES}
    given = {axis: size for axis, size in wanted.items() if size not in (1, "auto")}
    whole = math.prod(given.values())
    named = " x ".join(f"{axis} {size}" for axis, size in given.items())
    there = f"there are {world_size}" if world_size > 1 else "there is 1"
    if parallel.replicate == "auto":
        wanted["replicate"], left = divmod(world_size, whole)
        if left or not wanted["replicate"]:
            raise RecipeError(
                "recipe.parallel",
                f"asks for a multiple of {whole} processes ({named}), but {there}",
                f"Start as many with groundup launch --nproc {whole}, or change the axes",
            )
    elif whole != world_size:
        asked = f"{whole} processes ({named})" if named else "1 process (replicate 1)"
        raise RecipeError(
            "recipe.parallel",
            f"asks for {asked}, but {there}",
            f"Start {whole} with groundup launch --nproc {whole}, or set replicate: auto",
        )
    others = " x ".join(f"{axis} {size}" for axis, size in given.items() if axis != "replicate")
    if others and parallel.exact:
        raise RecipeError(
            "recipe.parallel.exact",
            f"adds gradients up in the order of the samples, which {others} cannot",
            "Remove one of them: exact works with replicate alone",
        )
    return Layout(**wanted, rank=rank)


def connect(layout: Layout, device: str, timeout: timedelta) -> Layout:
    """Return a layout whose processes can exchange tensors along each axis.

    All processes of the world call this at the same time.

    Args:
        layout: As it was settled.
        device: ``cpu`` or ``cuda``, from which tensors are exchanged.
        timeout: How long to wait for an answer.
    """
    axes = [axis for axis, size in layout.sizes.items() if size > 1]
    # Copies of the whole model are the world itself, whose group is there already.
    if not set(axes) - {"replicate"}:
        return layout
    # PyTorch's own ``init_device_mesh`` would wait half an hour for an answer, whatever the recipe
    # says: groups inherit no timeout.
    groups = [join_group(layout, timeout, axis) for axis in axes]
    numbers = torch.arange(layout.size).view(*(layout.sizes[axis] for axis in axes))
    mesh = DeviceMesh.from_group(groups, device, numbers, mesh_dim_names=tuple(axes))
    copies = join_group(layout, timeout, "replicate", "context")
    holders = join_group(layout, timeout, "pipeline", "shard", "tensor")
    readers = join_group(layout, timeout, "replicate", "shard", "context")
    return replace(layout, mesh=mesh, copies=copies, readers=readers, holders=holders)


def join_group(layout: Layout, timeout: timedelta, *axes: str) -> ProcessGroup:
    """Return this process's group along some axes; everybody takes part in making all groups."""
    own: ProcessGroup | None = None
    for ranks in layout.ranks_along(*axes):
        made = dist.new_group(ranks, timeout=timeout)
        if layout.rank in ranks:
            own = made
    assert own is not None, "every process has a place on every axis"
    return own
