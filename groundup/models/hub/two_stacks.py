"""The parts of a library module that has an encoder and a decoder, under groundup's names."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from groundup.core.errors import CheckpointError
from groundup.models.hub.named_parts import NamedParts, Place

__all__ = ["two_stack_parts"]

# What the module itself holds, of no child's: numbers that are added to the logits.
_OUTSIDE = "outside"


def two_stack_parts(tree: Any) -> NamedParts:
    """Return the parts of a tree with an encoder and a decoder, which is left as it is.

    The blocks are the encoder's layers, then the decoder's. The norm after the encoder's is among
    ``embed``: it comes before the decoder's layers, which are the last ones.

    Raises:
        CheckpointError: If one of them has no list of layers, or a parameter is in none of the
            parts.
    """
    name = type(tree).__name__
    paths = {id(module): path for path, module in tree.named_modules()}
    stacks = (paths[id(tree.get_encoder())], paths[id(tree.get_decoder())])
    lists = [_list_of_layers(tree, stack, name) for stack in stacks]
    between = _holders(tree, lists)
    outside = [key for module in between for key, _ in module.named_parameters(recurse=False)]
    if outside:
        problem = f"{name} keeps {outside[0]} outside its layers"
        raise CheckpointError("config.json", problem, "Use another model")
    groups: dict[str, dict[str, nn.Module]] = {"embed": {}, "norm": {}, "head": {}}
    places: list[Place] = []
    prefixes: dict[str, str] = {}
    for holder in between:
        before = True
        for child, module in holder.named_children():
            path = f"{paths[id(holder)]}.{child}".removeprefix(".")
            before = before and path not in lists
            if path in lists or module in between:
                continue
            group = _group_of(path, module, stacks, before=before)
            own = path.removeprefix(f"{tree.base_model_prefix}.").replace(".", "_")
            groups[group][own] = module
            places.append(Place(holder, group, child, own))
            prefixes[f"{group}.{own}"] = path
    blocks = nn.ModuleList()
    for path in lists:
        layers = tree.get_submodule(path)
        for child, layer in layers.named_children():
            own = str(len(blocks))
            places.append(Place(layers, "blocks", child, own))
            prefixes[f"blocks.{own}"] = f"{path}.{child}"
            blocks.append(layer)
    # Not trained, but a part of the files.
    if tree._buffers:
        kept = nn.Module()
        kept._buffers |= tree._buffers
        groups["head"][_OUTSIDE] = kept
        prefixes[f"head.{_OUTSIDE}"] = ""
    accepts = frozenset(inspect.signature(tree.forward).parameters)
    return NamedParts(groups, blocks, between, places, prefixes, accepts)


def _list_of_layers(tree: nn.Module, stack: str, name: str) -> str:
    """Return where in a tree the layers of one of its stacks are: the outermost list of modules
    that holds most parameters."""
    sizes = {
        f"{stack}.{path}": sum(p.numel() for p in module.parameters())
        for path, module in tree.get_submodule(stack).named_modules()
        if isinstance(module, nn.ModuleList)
    }
    found = max(sizes, key=lambda path: (sizes[path], -len(path)), default="")
    if not sizes.get(found):
        problem = f"{name} has no list of layers to train in {stack}"
        raise CheckpointError("config.json", problem, "Use another model")
    return found


def _holders(tree: nn.Module, lists: list[str]) -> list[nn.Module]:
    """Return the modules on the way from a tree to its lists of layers, each once."""
    found: dict[str, nn.Module] = {"": tree}
    for path in lists:
        steps = path.split(".")[:-1]
        for end in range(1, len(steps) + 1):
            holder = ".".join(steps[:end])
            found[holder] = tree.get_submodule(holder)
    return list(found.values())


def _group_of(path: str, module: nn.Module, stacks: tuple[str, str], *, before: bool) -> str:
    """Return the group of a part.

    Args:
        path: Where it is in the tree.
        module: The part.
        stacks: Where the encoder and the decoder are.
        before: Whether it was made before the layers of its stack.
    """
    encoder, decoder = stacks
    # BART makes the norm of what is embedded after the layers.
    of_embedding = "embedding" in path or any(isinstance(p, nn.Embedding) for p in module.modules())
    if path.startswith(f"{encoder}.") or of_embedding:
        return "embed"
    if path.startswith(f"{decoder}."):
        return "embed" if before else "norm"
    return "head"
