"""What processes send each other: tensors, and whatever JSON can say.

Before anything is sent all say what they are about to send. PyTorch does not compare it: a process
of gloo that is sent more than it expects is ended by the C++ library, and two that exchange
different things wait for each other.
"""

from __future__ import annotations

import json
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

__all__ = ["Disagreement", "add_up", "gather_said", "gather_tensors"]

# Losses, counts and stops fit in, so that they take one exchange. The time of so small a one does
# not depend on its size.
_PACKET_BYTES = 1024
_LENGTH_BYTES = 8


class Disagreement(Exception):
    """Processes that were about to exchange different things.

    Args:
        said: What each of them was about to send, by rank.
    """

    def __init__(self, said: dict[int, str]) -> None:
        super().__init__("processes exchange different things")
        self.said = said


def gather_said(value: Any, what: str, group: ProcessGroup | None = None) -> list[Any]:
    """Return what each process of a group gives, in their order.

    Args:
        value: This process's: whatever JSON can say.
        what: What is exchanged.
        group: By default all processes.

    Raises:
        Disagreement: If another process exchanges something else.
    """
    return [each["value"] for each in _compare({"what": what, "value": value}, group)]


def gather_tensors(values: Tensor, what: str, group: ProcessGroup | None = None) -> Tensor:
    """Return (group, ...) the tensors of the processes of a group; all are of one shape.

    Raises:
        Disagreement: If one is of another shape, or another process exchanges something else.
    """
    _compare({"what": what, "tensor": _describe(values)}, group)
    found = values.new_empty((dist.get_world_size(group), *values.shape))
    dist.all_gather(list(found.unbind()), values.contiguous(), group=group)
    return found


def add_up(values: Tensor, what: str, group: ProcessGroup | None = None) -> None:
    """Replace a tensor by the sum over a group.

    Raises:
        Disagreement: If one is of another shape, or another process exchanges something else.
    """
    _compare({"what": what, "tensor": _describe(values)}, group)
    dist.all_reduce(values, group=group)


def _describe(values: Tensor) -> str:
    kind = str(values.dtype).removeprefix("torch.")
    return f"{kind} of shape {tuple(values.shape)}"


def _compare(own: dict[str, Any], group: ProcessGroup | None) -> list[dict[str, Any]]:
    """Return what the processes of a group say, once they agree on what it is about."""
    said: list[dict[str, Any]] = [json.loads(text) for text in _gather_texts(own, group)]
    kinds = [(each["what"], each.get("tensor", "")) for each in said]
    if len(set(kinds)) > 1:
        ranks = dist.get_process_group_ranks(group or dist.group.WORLD)
        words = [f"{what} ({tensor})" if tensor else what for what, tensor in kinds]
        raise Disagreement(dict(zip(ranks, words, strict=True)))
    return said


def _gather_texts(own: dict[str, Any], group: ProcessGroup | None) -> list[bytes]:
    # Not ``all_gather_object``, which unpickles what comes.
    content = json.dumps(own).encode()
    packed = len(content).to_bytes(_LENGTH_BYTES, "little") + content
    packets = _gather_bytes(packed[:_PACKET_BYTES], _PACKET_BYTES, group)
    lengths = [int.from_bytes(each[:_LENGTH_BYTES], "little") + _LENGTH_BYTES for each in packets]
    # PyTorch exchanges tensors of one shape, so every rest is as long as the longest.
    rest = max(lengths) - _PACKET_BYTES
    if rest > 0:
        rests = _gather_bytes(packed[_PACKET_BYTES:], rest, group)
        packets = [one + other for one, other in zip(packets, rests, strict=True)]
    return [each[_LENGTH_BYTES:length] for each, length in zip(packets, lengths, strict=True)]


def _gather_bytes(own: bytes, size: int, group: ProcessGroup | None) -> list[bytes]:
    padded = torch.frombuffer(bytearray(own.ljust(size, b"\0")), dtype=torch.uint8)
    found = padded.new_empty((dist.get_world_size(group), size))
    dist.all_gather(list(found.unbind()), padded, group=group)
    return [row.numpy().tobytes() for row in found]
