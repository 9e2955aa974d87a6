"""The matrices that the library PEFT has for one module: checked, and as groundup's layers have
them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from groundup.core.errors import CheckpointError
from groundup.nn.lora.starts import STARTS
from groundup.weights.peft_layout import WEIGHTS, PeftTensor

__all__ = [
    "OTHER_MODEL",
    "add_start",
    "check_floats",
    "check_matrices",
    "check_part",
    "join_ranks",
    "split_by_layer",
]

OTHER_MODEL = "Use the model that it was trained for"


def add_start(
    kind: str, weights: Sequence[Tensor], part: Mapping[str, Tensor], scale: float
) -> dict[str, Tensor]:
    """Return an adapter that does what this one does to a base from which its start was taken off:
    scale * (B A - B0 A0), as one of twice the rank.

    Args:
        kind: A name in ``STARTS``.
        weights: Of the module's layers; without content, the result's numbers are zeros.
        part: Its matrices.
        scale: What their product is multiplied with.
    """
    rank, inputs = part["lora_A"].shape
    outputs = len(part["lora_B"])
    if any(weight.is_meta for weight in weights):
        most = min(2 * rank, inputs, outputs)
        a, b = part["lora_A"].new_zeros(most, inputs), part["lora_B"].new_zeros(outputs, most)
    else:
        weight = torch.cat([weight.to(torch.float32) for weight in weights])
        a0, b0 = STARTS[kind](weight, rank, scale)
        a, b = join_ranks([part["lora_A"].to(a0), a0], [part["lora_B"].to(b0), -b0])
    return {**part, "lora_A": a, "lora_B": b}


def join_ranks(a_parts: Sequence[Tensor], b_parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return A and B whose product is the sum of the products of several, A (rank, inputs) and
    B (outputs, rank)."""
    a, b = torch.cat(list(a_parts)), torch.cat(list(b_parts), dim=1)
    rank, inputs = a.shape
    # A small layer has no such rank; its whole change is a matrix and an identity.
    if inputs < rank and inputs <= len(b):
        return torch.eye(inputs, device=a.device), b @ a
    if len(b) < rank:
        return b @ a, torch.eye(len(b), device=a.device)
    return a, b


def check_floats(where: str, module: str, part: Mapping[str, Tensor]) -> None:
    """Make sure that tensors hold floats.

    Raises:
        CheckpointError: Naming the first that does not.
    """
    unfit = next((key for key, value in part.items() if not value.is_floating_point()), None)
    if unfit is not None:
        raise CheckpointError(
            where, f"has {unfit} of {module} as {part[unfit].dtype}, no float", "Restore it"
        )


def check_matrices(where: str, module: str, part: Mapping[str, Tensor], name: str) -> None:
    """Make sure that the matrices of a module fit each other; arguments as of ``check_part``.

    Raises:
        CheckpointError: If one is missing, unknown or of another shape.
    """

    def wrong(problem: str) -> CheckpointError:
        return CheckpointError(where, problem, "Restore it")

    wanted = {"lora_A", "lora_B"}
    if name == "dora":
        wanted.add("magnitude")
    if missing := sorted(wanted - set(part)):
        raise wrong(f"lacks {', '.join(missing)} of {module}")
    if odd := sorted(set(part) - wanted):
        raise wrong(f"has an unknown {odd[0]} of {module}")
    bent = any(value.ndim != (1 if key == "magnitude" else 2) for key, value in part.items())
    if bent or len(part["lora_A"]) != part["lora_B"].shape[1]:
        shapes = ", ".join(f"{key} {list(value.shape)}" for key, value in sorted(part.items()))
        raise wrong(f"has {shapes} of {module}; allowed: A (rank, inputs), B (outputs, rank)")
    check_floats(where, module, part)


def check_part(
    where: str,
    place: PeftTensor,
    part: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    name: str,
) -> None:
    """Make sure that the matrices of a module fit it.

    Args:
        where: The folder.
        place: The module.
        part: Its matrices, and with DoRA their lengths.
        weights: The model's by groundup's names.
        name: ``lora`` or ``dora``.

    Raises:
        CheckpointError: If one is missing, unknown or of another shape.
    """

    module = place.module
    check_matrices(where, module, part, name)
    sizes = [weights[own].shape for own in place.own]
    # Layers that are one module there read the same input, so the first speaks for all.
    inputs = sizes[0][1]
    outputs = sum(size[0] for size in sizes)
    there = (part["lora_A"].shape[1], part["lora_B"].shape[0])
    if "magnitude" in part and len(part["magnitude"]) != there[1]:
        found = f"{len(part['magnitude'])} lengths for {module}"
        problem = f"has {found}; allowed: {there[1]}, one an output"
        raise CheckpointError(where, problem, "Restore it")
    if there != (inputs, outputs):
        raise CheckpointError(
            where,
            f"adapts {module} from {there[0]} numbers to {there[1]}; this model's is from {inputs}"
            f" to {outputs}",
            OTHER_MODEL,
        )


def split_by_layer(
    where: str,
    place: PeftTensor,
    part: Mapping[str, Tensor],
    rows: Sequence[int],
    ranks: list[int] | None,
) -> dict[str, dict[str, Tensor]]:
    """Return the adapter of each of groundup's layers: one that was joined here is taken apart,
    another's A is shared by all.

    Args:
        where: The folder.
        place: The module.
        part: Its matrices.
        rows: Outputs of each layer.
        ranks: Of each layer, where they were joined here.

    Raises:
        CheckpointError: If the ranks are not those of the matrices.
    """
    a_parts: Sequence[Tensor] = [part["lora_A"]] * len(rows)
    b_parts: list[Tensor] = list(torch.split(part["lora_B"], list(rows)))
    if ranks is not None and (len(ranks) != len(rows) or sum(ranks) != len(part["lora_A"])):
        raise CheckpointError(
            f"{where}/{WEIGHTS}",
            f"stacked in its header gives {place.module} the ranks {ranks}; it has"
            f" {len(part['lora_A'])} in all",
            "Restore the file",
        )
    # Joined by write_peft, the parts of B are blocks along a diagonal: the rest is zeros.
    if ranks is not None:
        a_parts = torch.split(part["lora_A"], ranks)
        b_parts = [torch.split(b, ranks, dim=1)[number] for number, b in enumerate(b_parts)]
    lengths: Sequence[Tensor] = ()
    if "magnitude" in part:
        lengths = torch.split(part["magnitude"], list(rows))
    pieces: dict[str, dict[str, Tensor]] = {}
    for number, (name, a) in enumerate(zip(place.layers, a_parts, strict=True)):
        # Rank 0 is how a joined module says that one of its layers has no adapter.
        if a.shape[0]:
            pieces[name] = {"lora_A": a, "lora_B": b_parts[number]}
            if lengths:
                pieces[name]["magnitude"] = lengths[number]
    return pieces
