"""The costs of a recipe on devices that are not here, from its settings alone."""

from __future__ import annotations

from typing import Any

from groundup.contracts.models import context_length_of
from groundup.core.errors import RecipeError
from groundup.parallel.context import check_texts
from groundup.parallel.divide_layers import check_stages
from groundup.parallel.layout import AXES, Layout, settle
from groundup.planning.device_table import Device, Devices, known_devices, parse_devices
from groundup.planning.memory import estimate_memory
from groundup.planning.propose import Candidate, Choice, best_micro_batch, propose
from groundup.planning.step_time import estimate_step, sent_bytes
from groundup.planning.workload import DecoderShape, Practice, Workload, shape_of
from groundup.recipe.recipe import Recipe

__all__ = ["plan_on_paper"]

_GB = 1e9
_DAY_S = 86_400
# Numbers that an optimizer keeps for each weight; Muon for a matrix, which nearly all are in.
_MOMENTS = {"muon": 1, "sgd": 1}


def plan_on_paper(recipe: Recipe, devices: str) -> dict[str, Any]:
    """Return what a step of a recipe costs, as plain values: memory and traffic of a device, time,
    and the layout that would be quickest. Nothing is built, read or prepared.

    Args:
        recipe: Of a decoder-only language model, its vocabulary's size set. Where ``parallel``
            leaves all axes open, the quickest layout that fits is taken.
        devices: ``1024xH100``; ``here`` in place of a name measures this machine.

    Raises:
        GroundupError: If the devices are unknown, the model is no such model, or nothing fits.
    """
    there = parse_devices(devices, recipe.machine.precision)
    # A tokenizer that is trained has as many tokens as its section says.
    shape = shape_of(recipe.model, dict(recipe.processor).get("vocab_size", 0))
    batch, length = recipe.training.batch_size, context_length_of(recipe.model)
    micro = recipe.machine.micro_batch_size
    wanted = None if micro == "auto" else micro
    moments = _MOMENTS.get(recipe.optim.name, 2)

    def practice(layout: Layout) -> Practice:
        return _practice(recipe, layout)

    # The checks of training ask a recipe whose choices are made: here any micro-batch is possible.
    machine = recipe.machine.model_copy(update={"micro_batch_size": wanted or 1})
    settled = recipe.model_copy(update={"machine": machine})

    def refused(layout: Layout) -> str:
        return _refusal(settled, layout)

    try:
        chosen = propose(shape, batch, length, there, practice, moments, wanted, refused)
    except RecipeError as error:
        # Of a layout that the recipe gives, it is said how far it is from fitting.
        if _is_open(recipe):
            raise
        proposal = {"reasons": [str(error)]}
    else:
        taken = chosen.best
        proposal = _propose(chosen)
    if not _is_open(recipe):
        layout = settle(recipe.parallel, there.count)
        _check_axes(shape, layout, length, recipe.parallel.interleave)

        def make(size: int) -> Workload:
            return Workload(shape, layout, batch, length, size, practice(layout))

        taken = _own(best_micro_batch(make, there, moments, wanted), batch, layout, wanted)
    plan = _describe(recipe, taken, there, moments)
    if said := refused(taken.work.layout):
        plan["refused"] = said
    return plan | {"proposal": proposal, "assumptions": _assumptions(recipe, there.device)}


def _propose(chosen: Choice) -> dict[str, Any]:
    return {
        "layout": chosen.best.axes,
        "micro_batch_size": chosen.best.work.micro,
        "step_s": round(chosen.best.step_s, 4),
        "reasons": chosen.reasons,
    }


def _refusal(recipe: Recipe, layout: Layout) -> str:
    """Return why training would refuse a layout, as far as settings alone tell; empty: it would
    not."""
    axes = {axis: size for axis, size in layout.sizes.items() if axis in ("shard", "tensor")}
    if recipe.optim.name == "muon" and max(axes.values()) > 1:
        divided = " x ".join(f"{axis} {size}" for axis, size in axes.items() if size > 1)
        return f"recipe.optim.name: is muon, which needs whole matrices, but {divided} divides them"
    try:
        if layout.context > 1:
            check_texts(recipe, layout.context)
        if layout.pipeline > 1:
            check_stages(recipe, layout)
    except RecipeError as error:
        return str(error)
    return ""


def _check_axes(shape: DecoderShape, layout: Layout, length: int, interleave: int) -> None:
    """Refuse axes that a model of these sizes cannot be divided along.

    Raises:
        RecipeError: Naming the axis.
    """
    whole = {
        "heads": ("tensor", shape.heads),
        "kv_heads": ("tensor", shape.kv_heads),
        "context_length": ("context", length),
    }
    for setting, (axis, number) in whole.items():
        if number % layout.sizes[axis]:
            raise RecipeError(
                f"recipe.parallel.{axis}",
                f"is {layout.sizes[axis]}, which does not divide the {number} of model.{setting}",
                f"Use a divisor of {number}, or change model.{setting}",
            )
    stages = layout.pipeline * interleave
    if layout.pipeline > 1 and stages > shape.layers:
        raise RecipeError(
            "recipe.parallel.pipeline",
            f"is {layout.pipeline}, which with interleave {interleave} is {stages} stages, but"
            f" model.layers is {shape.layers}, and each stage has a layer",
            f"Use at most {shape.layers} stages",
        )


def _is_open(recipe: Recipe) -> bool:
    axes = [getattr(recipe.parallel, axis) for axis in AXES]
    return all(size in (1, "auto") for size in axes)


def _own(candidate: Candidate | None, batch: int, layout: Layout, wanted: int | None) -> Candidate:
    if candidate is None:
        part = f" in micro-batches of {wanted}" if wanted else ""
        raise RecipeError(
            "recipe.training.batch_size",
            f"is {batch}, which {layout.data_size} parts (replicate {layout.replicate} x shard"
            f" {layout.shard}) cannot share{part}",
            "Choose a multiple of their number",
        )
    return candidate


def _practice(recipe: Recipe, layout: Layout) -> Practice:
    """Return how groundup computes a step of a recipe."""
    stages = recipe.parallel.interleave if layout.pipeline > 1 else 1
    return Practice(fused=recipe.machine.compile is not False, stages=stages)


def _describe(recipe: Recipe, taken: Candidate, devices: Devices, moments: int) -> dict[str, Any]:
    work, device = taken.work, devices.device
    memory = {name: value / _GB for name, value in estimate_memory(work, moments).items()}
    if recipe.optim.average != "none":
        memory["average"] = memory["weights"]
    step = estimate_step(work, device)
    tokens = work.batch * work.length
    flops = work.shape.flops_per_token(work.length) * tokens
    per_device = flops / step.total / devices.count
    waiting = {axis: round(seconds, 4) for axis, seconds in step.waiting.items() if seconds}
    plan: dict[str, Any] = {
        "name": recipe.name,
        "devices": f"{devices.count} x {device.name}",
        "parameters": work.shape.parameters,
        "layout": work.layout.sizes,
        "micro_batch_size": work.micro,
        "micro_batches": work.micro_batches,
        "memory_gb": {name: round(value, 2) for name, value in memory.items()},
        "memory_gb_in_all": round(sum(memory.values()), 2),
        "memory_gb_of_device": device.memory_bytes / _GB,
        "sent_gb_per_step": {
            axis: round(value / _GB, 3) for axis, value in sent_bytes(work).items() if value
        },
        "seconds": {
            "products": round(step.matmul, 4),
            "attention": round(step.attention, 4),
            "memory": round(step.elementwise, 4),
            "waiting": waiting,
            "bubble": round(step.bubble, 4),
        },
        "bubble": round(work.bubble, 4),
        "step_s": round(step.total, 4),
        "tokens_per_s": round(tokens / step.total),
        "tflops_per_device": round(per_device / 1e12, 3),
        "mfu": round(per_device / device.peak_flops, 4),
    }
    if recipe.training.steps is not None:
        plan["days"] = round(recipe.training.steps * step.total / _DAY_S, 3)
    return plan


def _assumptions(recipe: Recipe, device: Device) -> list[str]:
    found = [
        "FLOPs as in training: 6 a weight in products, attention to earlier tokens alone; weights"
        " and optimizer in fp32, nothing computed again",
        "every process has its part of a batch at once, and none fails",
    ]
    if recipe.machine.precision in ("fp32", "fp64") and device.name in known_devices():
        found.append(
            f"machine.precision is {recipe.machine.precision}, but rates are those of bf16"
        )
    return [*found, *(f"{device.name}: {source}" for source in device.sources)]
