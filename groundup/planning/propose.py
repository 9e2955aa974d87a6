"""Which layout to take: every sensible one is worked out, and the quickest that fits is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from groundup.core.errors import RecipeError
from groundup.parallel.layout import AXES, Layout
from groundup.planning.device_table import Devices
from groundup.planning.memory import estimate_memory
from groundup.planning.step_time import estimate_step
from groundup.planning.workload import DecoderShape, Practice, Workload

__all__ = ["Candidate", "Choice", "best_micro_batch", "propose"]

# Of a device's memory, what is left once the driver, NCCL and fragments have theirs.
_USABLE = 0.92
# Layouts that are as quick within this share are told apart by how simple they are.
_ALIKE = 0.05
_MICRO = (1, 2, 4, 8, 16, 32)
# Shorter parts of a text are not worth an exchange in every layer.
_SHORTEST = 512


@dataclass(frozen=True)
class Candidate:
    """A layout with what it costs."""

    work: Workload
    step_s: float
    memory_bytes: float

    @property
    def axes(self) -> dict[str, int]:
        """The axes that are longer than 1, outermost first."""
        return {axis: size for axis, size in self.work.layout.sizes.items() if size > 1}

    @property
    def name(self) -> str:
        """The axes in words."""
        return " x ".join(f"{axis} {size}" for axis, size in self.axes.items()) or "one device"


@dataclass(frozen=True)
class Choice:
    """The layout to take, and why."""

    best: Candidate
    reasons: list[str]


def _divisors(number: int, most: int) -> list[int]:
    return [each for each in range(1, min(number, most) + 1) if number % each == 0]


def _layouts(shape: DecoderShape, length: int, devices: Devices) -> Iterator[Layout]:
    """Yield every layout that the sizes of a model allow."""
    count, device = devices.count, devices.device
    for tensor in _divisors(count, device.a_machine):
        # Each device has whole heads.
        if shape.heads % tensor or shape.kv_heads % tensor or shape.mlp_width % tensor:
            continue
        for pipeline in _divisors(count // tensor, shape.layers):
            left = count // tensor // pipeline
            for context in _divisors(left, max(length // _SHORTEST, 1)):
                if length % context:
                    continue
                data = left // context
                for shard in _divisors(data, data):
                    yield Layout(pipeline, data // shard, shard, context, tensor)


def _measure(work: Workload, devices: Devices, moments: int) -> Candidate:
    memory = sum(estimate_memory(work, moments).values())
    return Candidate(work, estimate_step(work, devices.device).total, memory)


def best_micro_batch(
    make: Callable[[int], Workload], devices: Devices, moments: int, wanted: int | None
) -> Candidate | None:
    """Return a layout with the micro-batch that is quickest of those that fit; where none fits,
    with the one that needs least memory. None: its parts cannot share the batch.

    Args:
        make: Returns the step with a micro-batch of so many texts.
        devices: Where it runs.
        moments: Numbers that the optimizer keeps for each weight.
        wanted: The micro-batch of the recipe; None: any.
    """
    sizes: Iterable[int] = _MICRO if wanted is None else (wanted,)
    works = [make(micro) for micro in sizes]
    shared = [each for each in works if each.batch % (each.layout.data_size * each.micro) == 0]
    found = [_measure(each, devices, moments) for each in shared]
    if not found:
        return None
    room = _USABLE * devices.device.memory_bytes
    fitting = [each for each in found if each.memory_bytes <= room]
    if not fitting:
        return min(found, key=lambda each: each.memory_bytes)
    return min(fitting, key=lambda each: each.step_s)


def propose(
    shape: DecoderShape,
    batch: int,
    length: int,
    devices: Devices,
    practice: Callable[[Layout], Practice],
    moments: int = 2,
    micro: int | None = None,
    refused: Callable[[Layout], str] = lambda layout: "",
) -> Choice:
    """Return the layout to train a model with, and why.

    Args:
        shape: Of the model.
        batch: Texts in a step.
        length: Tokens of a text.
        devices: How many, and of which kind.
        practice: Returns how a step is computed with a layout.
        moments: Numbers that the optimizer keeps for each weight.
        micro: Texts of a micro-batch; None: any.
        refused: Returns why training would refuse a layout; empty: it would not.

    Raises:
        RecipeError: If the batch can be shared in no way, or no layout fits into the memory.
    """
    found = []
    for layout in _layouts(shape, length, devices):
        if refused(layout):
            continue

        def make(size: int, layout: Layout = layout) -> Workload:
            return Workload(shape, layout, batch, length, size, practice(layout))

        candidate = best_micro_batch(make, devices, moments, micro)
        if candidate is not None:
            found.append(candidate)
    if not found:
        raise RecipeError(
            "recipe.training.batch_size",
            f"is {batch}, which {devices.count} devices cannot share in any layout",
            "Choose a multiple of their number, or fewer devices",
        )
    room = _USABLE * devices.device.memory_bytes
    fitting = [each for each in found if each.memory_bytes <= room]
    if not fitting:
        least = min(found, key=lambda each: each.memory_bytes)
        raise RecipeError(
            "recipe.parallel",
            f"no layout fits: the least, {least.name}, needs {least.memory_bytes / 1e9:.0f} GB a"
            f" device, but of {devices.device.name} {room / 1e9:.0f} GB can be used",
            "Take more devices, or a smaller model or context",
        )
    quickest = min(each.step_s for each in fitting)
    alike = [each for each in fitting if each.step_s <= (1 + _ALIKE) * quickest]
    best = min(alike, key=lambda each: (len(each.axes), each.step_s))
    return Choice(best, [_reason(axis, best, found, room) for axis in AXES if axis in best.axes])


def _reason(axis: str, best: Candidate, found: list[Candidate], room: float) -> str:
    """Return what would be without an axis."""
    size = best.axes[axis]
    without = [each for each in found if axis not in each.axes]
    fitting = [each for each in without if each.memory_bytes <= room]
    if fitting:
        other = min(fitting, key=lambda each: each.step_s)
        longer = other.step_s / best.step_s - 1
        if longer < _ALIKE:
            return f"{axis} {size}: without it {other.name} would be as quick"
        return f"{axis} {size}: without it a step takes {longer:.0%} longer, with {other.name}"
    if without:
        other = min(without, key=lambda each: each.memory_bytes)
        return (
            f"{axis} {size}: without it nothing fits; {other.name} needs"
            f" {other.memory_bytes / 1e9:.0f} GB a device"
        )
    return f"{axis} {size}: without it the batch cannot be shared, or training refuses the layout"
