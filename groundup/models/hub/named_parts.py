"""Another library's module, its parts under groundup's names: what comes before the blocks, the
blocks, and the rest."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from groundup.core.errors import CheckpointError

__all__ = [
    "NamedParts",
    "Place",
    "count_matrices",
    "follow_places",
    "named_parts",
    "plain_linears",
    "untie",
]


@dataclass(frozen=True)
class Place:
    """Where a part is in the tree (``holder.child``), and by which of our names
    (``group.child``)."""

    holder: nn.Module
    group: str
    child: str
    own: str


@dataclass(frozen=True)
class NamedParts:
    """The parts of a tree of modules.

    Attributes:
        groups: ``head``, what is around the model that all tasks share, and its pooler; of the
            rest ``embed``, what was made before the blocks, and all tables of vectors; ``norm``,
            what was made after them.
        blocks: The list of layers.
        between: The modules that hold the parts together: they have no parameters of their own.
        places: Where the parts of the groups are.
        prefixes: Their names in the tree, by groundup's.
        accepts: The arguments of the tree's forward.
    """

    groups: dict[str, dict[str, nn.Module]]
    blocks: nn.ModuleList
    between: list[nn.Module]
    places: list[Place]
    prefixes: dict[str, str]
    accepts: frozenset[str]

    def hf(self, name: str) -> str:
        """Return the tree's name of one of groundup's tensors."""
        own = max((own for own in self.prefixes if name.startswith(f"{own}.")), key=len)
        # Of what the tree itself holds the prefix is empty.
        return (self.prefixes[own] + name.removeprefix(own)).removeprefix(".")


def named_parts(tree: Any) -> NamedParts:
    """Return the parts of a tree, which is left as it is.

    The blocks are the outermost list of modules that holds most parameters.

    Raises:
        CheckpointError: If there is no such list, or a tensor is in none of the parts.
    """
    name = type(tree).__name__
    lists = {
        path: module for path, module in tree.named_modules() if isinstance(module, nn.ModuleList)
    }
    sizes = {path: sum(p.numel() for p in module.parameters()) for path, module in lists.items()}
    # Of lists within lists the outermost: it holds as many parameters as all its parts.
    path = max(sizes, key=lambda each: (sizes[each], -len(each)), default="")
    if not sizes.get(path):
        raise CheckpointError(
            "config.json", f"{name} has no list of layers to train", "Use another model"
        )
    groups: dict[str, dict[str, nn.Module]] = {"embed": {}, "norm": {}, "head": {}}
    between = [tree]
    places: list[Place] = []
    prefixes = {"blocks": path}
    levels: list[list[Place]] = []
    walked = ""
    for step in path.split("."):
        holder = between[-1]
        # What a new task replaces is around the model that all tasks share.
        around = holder is tree and step == tree.base_model_prefix
        passed = False
        after: list[Place] = []
        for child, module in holder.named_children():
            passed = passed or child == step
            if child == step:
                continue
            group = _group_of(child, module, passed=passed, around=around)
            # Parts of two levels may have one name: the second is then called by its whole path.
            own = child
            if child in groups[group]:
                own = f"{walked}{child}".replace(".", "_")
            place = Place(holder, group, child, own)
            prefixes[f"{group}.{own}"] = f"{walked}{child}"
            if group == "embed":
                places.append(place)
                groups[group][own] = module
            else:
                after.append(place)
        levels.append(after)
        walked += f"{step}."
        between.append(holder.get_submodule(step))
    # What is innermost is used first.
    for after in reversed(levels):
        for place in after:
            groups[place.group][place.own] = place.holder.get_submodule(place.child)
            places.append(place)
    # The last one is the list of blocks.
    between.pop()
    outside = [key for module in between for key, _ in module.named_parameters(recurse=False)]
    if outside:
        raise CheckpointError(
            "config.json", f"{name} keeps {outside[0]} outside its layers", "Use another model"
        )
    accepts = frozenset(inspect.signature(tree.forward).parameters)
    return NamedParts(groups, lists[path], between, places, prefixes, accepts)


def _group_of(child: str, module: nn.Module, *, passed: bool, around: bool) -> str:
    """Return the group of a part.

    Args:
        child: Its name.
        module: The part.
        passed: Whether it was made after the blocks.
        around: Whether it is outside the model that all tasks share.
    """
    # A pooler reads what comes out of the blocks; not all weights have it.
    if "pooler" in child or (around and any(True for _ in module.parameters())):
        return "head"
    # Tables of vectors are looked up by the blocks, wherever they were made.
    if not passed or any(isinstance(part, nn.Embedding) for part in module.modules()):
        return "embed"
    return "norm"


def plain_linears(tree: nn.Module) -> frozenset[str]:
    """Put a linear layer in place of each that stores its matrix as (in, out), and return these
    matrices' names.

    They compute the same to rounding, and adapters know linear layers only.
    """
    names = []
    for name, module in list(tree.named_modules()):
        # By name: the class is transformers', which is not imported here.
        if type(module).__name__ == "Conv1D" and module.weight.ndim == 2:
            rows: Any = module.weight.detach().T
            linear = nn.Linear(rows.shape[1], rows.shape[0], device="meta")
            linear.weight = nn.Parameter(rows.contiguous())
            linear.bias = module.bias
            holder, _, child = name.rpartition(".")
            setattr(tree.get_submodule(holder), child, linear)
            names.append(f"{name}.weight")
    return frozenset(names)


def untie(model: nn.Module) -> dict[str, str]:
    """Leave each parameter registered in its first place only; return the names of the other
    places, with the first.

    The module in the other place still computes with it. So a checkpoint holds no tensor twice.
    """
    kept: dict[int, str] = {}
    found: dict[str, str] = {}
    for name, parameter in list(model.named_parameters(remove_duplicate=False)):
        first = kept.setdefault(id(parameter), name)
        if first != name:
            found[name] = first
            holder, _, child = name.rpartition(".")
            module = model.get_submodule(holder)
            # Not the tensor itself: the module goes on computing with it.
            del module._parameters[child]
            # Past nn.Module, which would register it again.
            module.__dict__[child] = parameter
    return found


def follow_places(model: nn.Module, places: list[Place]) -> None:
    """Let a tree compute with the parts that a model has now: an adapter may have taken the place
    of one."""
    for place in places:
        place.holder._modules[place.child] = model.get_submodule(f"{place.group}.{place.own}")


def count_matrices(model: nn.Module, tied: Mapping[str, str]) -> int:
    """Return how many weights a token is multiplied with: matrices of the blocks, and of what comes
    after.

    Args:
        model: With ``blocks`` and ``head``.
        tied: The tensors' names, by the names of their second places.
    """
    parts = (model.get_submodule("blocks"), model.get_submodule("head"))
    within = sum(p.numel() for part in parts for p in part.parameters() if p.ndim >= 2)
    return within + sum(model.get_parameter(name).numel() for name in set(tied.values()))
