"""``parallel.pipeline``: the layers of a model are divided between processes.

Each process has one stage of the model, or several, and computes the micro-batches of a step in
turn with the others. For the loop they are one batch: what it asks of the objective runs the
schedule, backward passes included, and returns the loss of the whole step.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from groundup.core.errors import TrainingError
from groundup.core.seeding import reseed
from groundup.core.values import Batch, Loss, Term
from groundup.machine import devices
from groundup.parallel.objective import Objective
from groundup.parallel.pipeline_neighbours import PipelineNeighbours
from groundup.parallel.schedule import Pass, order_passes
from groundup.parallel.stages import Stage
from groundup.parallel.whole_steps import separate_batches
from groundup.parallel.world import World
from groundup.recipe.sections import Machine

__all__ = ["Pipeline", "PipelineObjective"]


class Pipeline:
    """The stages of this process, and its neighbours.

    Args:
        stages: This process's, in order.
        neighbours: The processes of the pipeline.
        shared: Parameters that several stages have: those of this process.
        machine: How to compute.
        inputs: Returns what the model reads of a batch, in place of the task's own way to ask it;
            None: it is asked as the task does.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        neighbours: PipelineNeighbours,
        shared: Sequence[nn.Parameter],
        machine: Machine,
        inputs: Callable[[Batch], dict[str, Any]] | None = None,
    ) -> None:
        self.inputs = inputs
        self.neighbours = neighbours
        self._stages = stages
        self._shared = shared
        self._machine = machine
        self._device = torch.device(machine.device)

    @property
    def has_last(self) -> bool:
        """Whether the last stage, which computes the loss, is here."""
        return self._stages[-1].is_last

    def run(
        self, objective: Objective, batches: Sequence[Batch], factors: Mapping[str, float] | None
    ) -> list[Loss]:
        """Return the losses of micro-batches, on the process with the last stage.

        Args:
            objective: What is computed.
            batches: The micro-batches; the same on all processes of the pipeline.
            factors: What each term's sum is multiplied with and back-propagated; None: nothing is.
        """
        step = _Step(self, objective, batches, factors)
        near = self.neighbours
        trains = factors is not None
        order = order_passes(near.place, near.size, len(self._stages), len(batches), trains=trains)
        for each in order:
            if each.forward:
                step.forward(each)
            else:
                step.backward(each)
        if trains:
            self._add_up_shared()
        near.finish()
        return step.losses

    def stage(self, chunk: int) -> Stage:
        """Return one of this process's stages."""
        return self._stages[chunk]

    def number(self, chunk: int) -> int:
        """Return its number among the stages of all processes."""
        return chunk * self.neighbours.size + self.neighbours.place

    def receive(self, chunk: int, *, forward: bool, like: Tensor | None = None) -> Tensor:
        """Return what comes from the stage before one, or the gradients from the one after it."""
        sender, direction = self._neighbour(chunk, before=forward, forward=forward)
        return self.neighbours.receive(sender, direction, self._device, like)

    def send(self, tensor: Tensor, chunk: int, *, forward: bool) -> None:
        """Send what a stage gives to the one after it, or gradients to the one before."""
        to, direction = self._neighbour(chunk, before=not forward, forward=forward)
        self.neighbours.send(tensor, to, direction, described=forward)

    def back_propagate(self, tensors: Sequence[Tensor], gradients: Sequence[Tensor] | None) -> None:
        """Run a backward pass, as the loop would."""
        # Autocast is for forward passes: backward ones take the precision of these.
        precise: AbstractContextManager[Any] = nullcontext()
        if self._machine.precision == "bf16":
            precise = torch.autocast(self._device.type, enabled=False)
        with precise, devices.deterministic_backward(self._machine):
            torch.autograd.backward(tensors, gradients)

    def _neighbour(self, chunk: int, *, before: bool, forward: bool) -> tuple[int, str]:
        size = self.neighbours.size
        place = self.neighbours.place + (-1 if before else 1)
        # From the last process to the first, whose next stage follows.
        wraps = not 0 <= place < size
        direction = "forward" if forward else "backward"
        return place % size, f"{direction} around" if wraps else direction

    def _add_up_shared(self) -> None:
        """Give parameters that the first and the last stage have the sum of both gradients."""
        if not self._shared:
            return
        near = self.neighbours
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._shared]
        own = torch.cat([each.flatten() for each in gradients])
        last = near.size - 1
        other = last - near.place
        # One after the other: both sending at once would wait for each other on a GPU.
        if near.place == 0:
            near.send(own, other, "forward")
            found = near.receive(other, "backward", self._device, own)
        else:
            found = near.receive(other, "forward", self._device, own)
            near.send(own, other, "backward")
        # a + b is b + a to the last bit: both have the same weights in the next step.
        sums = torch.split(own + found, [p.numel() for p in self._shared])
        for parameter, total in zip(self._shared, sums, strict=True):
            parameter.grad = total.view_as(parameter).clone()


class _Step:
    """The passes of one step on one process.

    Args:
        pipeline: Its stages and neighbours.
        objective: What is computed.
        batches: The micro-batches.
        factors: Of the terms; None: there are no backward passes.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        objective: Objective,
        batches: Sequence[Batch],
        factors: Mapping[str, float] | None,
    ) -> None:
        self.losses: list[Loss] = []
        self._pipeline = pipeline
        self._objective = objective
        self._batches = batches
        self._factors = factors
        self._seed = torch.initial_seed()
        # Until its backward pass: what a stage has read, and what it has given of it.
        self._kept: dict[tuple[int, int], tuple[Tensor | None, list[Tensor]]] = {}

    def forward(self, each: Pass) -> None:
        """Compute a stage for a micro-batch, and send on what it gives."""
        pipeline = self._pipeline
        stage = pipeline.stage(each.chunk)
        batch = self._batches[each.micro_batch]
        arrived: Tensor | None = None
        if not stage.is_first:
            arrived = pipeline.receive(each.chunk, forward=True)
            arrived.requires_grad_(self._factors is not None)
        if stage.model.training:
            # Each stage drops others, and in another order than one process would.
            reseed(self._seed, "stage", pipeline.number(each.chunk), each.micro_batch)
        outputs = stage.run(partial(self._ask, batch=batch), arrived)
        if stage.is_last:
            loss = self._objective(outputs, batch)
            given = self._scaled(loss)
            self.losses.append(_without_graph(loss))
        else:
            pipeline.send(outputs, each.chunk, forward=True)
            given = [outputs]
        if self._factors is not None:
            self._kept[each.chunk, each.micro_batch] = (arrived, given)

    def _ask(self, model: nn.Module, batch: Batch) -> Any:
        if self._pipeline.inputs is not None:
            return model(**self._pipeline.inputs(batch))
        return self._objective.forward(model, batch)

    def backward(self, each: Pass) -> None:
        """Back-propagate a stage for a micro-batch, and send the gradient of what it has read."""
        pipeline = self._pipeline
        stage = pipeline.stage(each.chunk)
        arrived, given = self._kept.pop((each.chunk, each.micro_batch))
        gradients: list[Tensor] | None = None
        if not stage.is_last:
            gradients = [pipeline.receive(each.chunk, forward=False, like=given[0])]
        # Nothing is trained below a first stage whose layers are frozen.
        if any(tensor.requires_grad for tensor in given):
            pipeline.back_propagate(given, gradients)
        if arrived is not None:
            assert arrived.grad is not None, "a stage passes gradients to what it has read"
            pipeline.send(arrived.grad, each.chunk, forward=False)

    def _scaled(self, loss: Loss) -> list[Tensor]:
        """Return what to back-propagate of a loss: its terms, each times its factor."""
        if self._factors is None:
            return []
        unknown = sorted(loss.terms.keys() - self._factors.keys())
        counts = {term.count.item() for term in loss.terms.values()}
        if unknown and len(counts) > 1:
            raise TrainingError(
                self._objective.name,
                f"does not tell the counts of {', '.join(unknown)} before the loss is computed",
                "Define counts(batch) in the task, or remove recipe.parallel.pipeline",
            )
        terms = loss.terms.items()
        return [term.total * (term.weight * self._factors.get(name, 1.0)) for name, term in terms]


class PipelineObjective:
    """The objective of a step whose micro-batches come as one batch, and run through the stages of
    several processes.

    All processes of the pipeline return the same loss. Its gradients are there by then; the
    backward pass of the loop only multiplies them with what it divides losses by.

    Args:
        objective: What is computed of each micro-batch.
        pipeline: The stages.
        world: The processes.
    """

    def __init__(self, objective: Objective, pipeline: Pipeline, world: World) -> None:
        self.name = objective.name
        self._objective = objective
        self._pipeline = pipeline
        self._world = world

    def forward(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the loss of a batch, or of all micro-batches in it, after all passes."""
        batches = separate_batches(batch)
        trains = torch.is_grad_enabled()
        factors = self._factors_of(batch) if trains else None
        losses = self._pipeline.run(self._objective, batches, factors)
        loss = _tell(losses, self._pipeline)
        if factors is None:
            return loss
        parameters = [p for p in model.parameters() if p.requires_grad]
        factors_of = [term.weight * factors.get(name, 1.0) for name, term in loss.terms.items()]
        totals = [term.total for term in loss.terms.values()]
        passed = _PassedBack.apply(  # type: ignore[no-untyped-call]
            torch.zeros((), requires_grad=True), parameters, factors_of, *totals
        )
        terms = zip(loss.terms.items(), passed, strict=True)
        return Loss(
            {name: Term(total, term.count, term.weight) for (name, term), total in terms},
            loss.metrics,
        )

    def __call__(self, outputs: Loss, batch: Batch) -> Loss:
        """Return the loss, which the forward pass has computed."""
        return outputs

    def counts(self, batch: Batch) -> dict[str, float] | None:
        """Return what the loss will count in all micro-batches."""
        sums: dict[str, float] = {}
        for each in separate_batches(batch):
            counts = self._objective.counts(each)
            if counts is None:
                return None
            for name, count in counts.items():
                sums[name] = sums.get(name, 0.0) + count
        return sums

    def _factors_of(self, batch: Batch) -> dict[str, float]:
        """Return what each term's sum is multiplied with, up to a factor that all have in common:
        the first term's count in the whole step over its own."""
        counts = self.counts(batch)
        # One term alone has no other whose count may differ.
        if counts is None or len(counts) < 2:
            return {}
        parts = self._world.gather_parts(counts, "targets are counted")
        whole = {name: sum(part[name] for part in parts) for name in counts}
        first = next(iter(whole.values())) or 1.0
        return {name: first / (count or 1.0) for name, count in whole.items()}


class _PassedBack(torch.autograd.Function):
    """Sums whose gradients are in the parameters already, but for a factor."""

    @staticmethod
    def forward(
        ctx: Any,
        anchor: Tensor,
        parameters: Sequence[nn.Parameter],
        factors: Sequence[float],
        *totals: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.parameters = parameters
        ctx.factors = factors
        return tuple(total.clone() for total in totals)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, ...]:
        # The loop asks for each term's factor times what all of them have in common: one over the
        # count that it divides by.
        pairs = zip(grads, ctx.factors, strict=True)
        common = next((grad.item() / factor for grad, factor in pairs if factor), 1.0)
        gradients = [p.grad for p in ctx.parameters if p.grad is not None]
        if common != 1.0 and gradients:
            torch._foreach_mul_(gradients, common)
        return (None,) * (3 + len(grads))


def _without_graph(loss: Loss) -> Loss:
    """Return a loss without what would be needed to back-propagate it."""
    terms = {
        name: Term(term.total.detach(), term.count.detach(), term.weight)
        for name, term in loss.terms.items()
    }
    return Loss(terms, {name: value.detach() for name, value in loss.metrics.items()})


def _tell(losses: Sequence[Loss], pipeline: Pipeline) -> Loss:
    """Return the sum of the losses that the last process has, on all of them."""
    near = pipeline.neighbours
    last = near.size - 1
    text = json.dumps(_summed(losses)).encode() if pipeline.has_last else b""
    length = torch.tensor([len(text)])
    near.broadcast(length, last)
    content = torch.zeros(int(length), dtype=torch.uint8)
    if pipeline.has_last:
        content = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    near.broadcast(content, last)
    told = json.loads(bytes(content.tolist()))
    # In fp64, as the loop adds them up: one of them may stand for thousands of micro-batches.
    terms = {
        name: Term(_number(total), _number(count), weight)
        for name, (total, count, weight) in told["terms"].items()
    }
    return Loss(terms, {name: _number(value) for name, value in told["metrics"].items()})


def _summed(losses: Sequence[Loss]) -> dict[str, Any]:
    terms: dict[str, list[float]] = {}
    metrics: dict[str, float] = {}
    for loss in losses:
        for name, term in loss.terms.items():
            total, count, _ = terms.get(name, (0.0, 0.0, 0.0))
            terms[name] = [total + term.total.item(), count + term.count.item(), term.weight]
        for name, value in loss.metrics.items():
            metrics[name] = metrics.get(name, 0.0) + value.item()
    return {"terms": terms, "metrics": metrics}


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)
