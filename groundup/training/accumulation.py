"""What one step minimises: how a batch becomes outputs and outputs a loss, and of it each term's
mean over the whole batch of the step, times its weight, however it is split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from groundup.contracts.tasks import PredictsTokens, Task
from groundup.core.errors import TrainingError
from groundup.core.values import Batch, Loss
from groundup.recipe.recipe import Recipe
from groundup.runs.run import Run
from groundup.training.components import Gradients, Processes

__all__ = [
    "Accumulation",
    "ComparedWithGuessing",
    "Objective",
    "Sums",
    "TaskObjective",
    "compare_with_guessing",
    "count_micro_batches",
    "non_finite",
]

# samples in which tokens are counted: frequencies of rare ones change the loss little
_COUNTED = 400


class Objective(Protocol):
    """What the loop asks for each micro-batch."""

    name: str
    """What it is called in errors."""

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        """Return the outputs that a call takes."""

    def __call__(self, outputs: Any, batch: Batch) -> Loss:
        """Return sums and counts; the loop divides once, by the count of the whole step."""

    def counts(self, batch: Batch) -> dict[str, float] | None:
        """Return what the loss will count for each of its terms, as far as the batch alone tells;
        see ``Task.counts``."""


class TaskObjective:
    """The task's own.

    Args:
        task: The run's.
        model: The run's, which a task may ask again or find parameters of its own in.
        processor: The run's.
    """

    def __init__(self, task: Task, model: nn.Module, processor: Any) -> None:
        self.name = f"task {task.registered_name}"
        self._task = task
        self._loss = task.build_objective(model, processor)

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        """Run the model as the task does."""
        return self._task.forward(model, batch)

    def __call__(self, outputs: Any, batch: Batch) -> Loss:
        """Return the task's loss."""
        return self._loss(outputs, batch)

    def counts(self, batch: Batch) -> dict[str, float] | None:
        """Return the task's counts."""
        return self._task.counts(batch)


def compare_with_guessing(
    objective: Objective, task: Task, batches: Callable[[int], Iterator[Batch]]
) -> Objective:
    """Return the objective of validations, with the metric ``guess`` where tokens are predicted.

    Args:
        objective: The task's own.
        task: The run's.
        batches: Opens the run's first training micro-batches, of about so many samples.
    """
    if isinstance(task, PredictsTokens):
        return ComparedWithGuessing(objective, task, batches)
    return objective


class ComparedWithGuessing:
    """An objective that also says what the frequencies of the training split's tokens cost.

    They are counted at the first validation, in the first training steps of the run: a resumed run
    and one with other micro-batches count the same ones.
    """

    def __init__(
        self,
        objective: Objective,
        task: PredictsTokens,
        batches: Callable[[int], Iterator[Batch]],
    ) -> None:
        self.name = objective.name
        self._objective = objective
        self._task = task
        self._batches = batches
        self._costs: Tensor | None = None

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        """Run the model as the task does."""
        return self._objective.forward(model, batch)

    def __call__(self, outputs: Any, batch: Batch) -> Loss:
        """Return the task's loss, with the metric ``guess``: nats, summed over the targets."""
        loss = self._objective(outputs, batch)
        targets = self._task.target_tokens(batch)
        if self._costs is None:
            self._costs = self._count()
        # Tokens beyond the largest that was counted are as rare as one that never came.
        known = targets.clamp(max=len(self._costs) - 1)
        return Loss(loss.terms, {**loss.metrics, "guess": self._costs[known].sum()})

    def counts(self, batch: Batch) -> dict[str, float] | None:
        """Return the task's counts."""
        return self._objective.counts(batch)

    def _count(self) -> Tensor:
        """Return (V + 1,) what each token costs in nats; the last is of tokens that never came."""
        targets = torch.cat([self._task.target_tokens(batch) for batch in self._batches(_COUNTED)])
        device = targets.device
        # Half an occurrence where there is none, as where classes are guessed.
        counts = torch.bincount(targets.cpu()).double().clamp(min=0.5)
        counts = torch.cat([counts, counts.new_full((1,), 0.5)])
        return -(counts / counts.sum()).log().float().to(device)


class Sums:
    """Totals and counts by name over the micro-batches of a step or an evaluation, in fp64."""

    def __init__(self) -> None:
        self.values: dict[str, tuple[float, float]] = {}

    def add(self, loss: Loss) -> None:
        """Add the terms and the watched metrics of a micro-batch; a metric counts 1."""
        for name, term in loss.terms.items():
            self._add(name, term.total.item(), term.count.item())
        for name, value in loss.metrics.items():
            self._add(name, value.item(), 1.0)

    def add_up(self, world: Processes) -> None:
        """Add what was summed of the other parts of the batch."""
        gathered = world.gather_parts(self.values, "losses are added up")
        self.values = {}
        for values in gathered:
            for name, (total, count) in values.items():
                self._add(name, total, count)

    def _add(self, name: str, total: float, count: float) -> None:
        # Python's floats are fp64: in fp32 the sums of a long evaluation would lose the small ones.
        before = self.values.get(name, (0.0, 0.0))
        self.values[name] = (before[0] + total, before[1] + count)


class Accumulation:
    """The loss of one step: take its ``batches``, and give the loss of each to ``of``.

    One micro-batch is the whole step: its loss is the mean. Of several the sums are
    back-propagated, and the trainer divides all gradients once by ``divisor``, the first term's
    count; a term whose count differs is scaled by the ratio of the two. Both are counts of the
    whole step. They must be known before the first backward pass, so the micro-batches are
    collected first, where the objective's ``counts`` tells what they count. A single term needs
    none of this.

    Args:
        objective: What gives the loss.
        take: Returns the next micro-batch.
        number: How many micro-batches the step has on this process.
        world: The processes, each of which has as many.

    Attributes:
        sums: What the losses so far add up to; of the whole step once it is done.
    """

    def __init__(
        self, objective: Objective, take: Callable[[], Batch], number: int, world: Processes
    ) -> None:
        self._name = objective.name
        self._world = world
        self._number = number * world.data_size
        self.sums = Sums()
        first = take()
        # One at a time: where nothing has to be counted first, a single micro-batch is in memory.
        rest: Iterator[Batch] = (take() for _ in range(number - 1))
        self._counts: dict[str, float] | None = None
        if self._number > 1:
            self._counts = objective.counts(first)
        # With a single term the count that divides is the one that the losses add up to.
        self._collected = self._counts is not None and len(self._counts) > 1
        if self._counts is not None and self._collected:
            collected = list(rest)
            for batch in collected:
                for name, count in (objective.counts(batch) or {}).items():
                    self._counts[name] = self._counts.get(name, 0.0) + count
            counted = world.gather_parts(self._counts, "targets are counted")
            self._counts = {name: sum(each[name] for each in counted) for name in self._counts}
            rest = iter(collected)
        self.batches: Iterator[Batch] = chain([first], rest)

    def of(self, loss: Loss) -> list[Tensor]:
        """Return what to back-propagate of one micro-batch: the terms' sums, each times its factor.

        Raises:
            TrainingError: If the counts of the terms differ and nothing tells those of the whole
                step.
        """
        counts = self._counts_of(loss)
        first = 1.0
        if self._number > 1:
            first = next(iter(counts.values())) or 1.0
        # A term without targets in this step counts 0, and its sum is 0 as well.
        return [
            term.total * (term.weight * (first / (counts[name] or 1.0)))
            for name, term in loss.terms.items()
        ]

    def _counts_of(self, loss: Loss) -> dict[str, float]:
        own = {name: term.count.item() for name, term in loss.terms.items()}
        if self._counts is None:
            if self._number > 1 and len(set(own.values())) > 1:
                raise TrainingError(
                    self._name,
                    f"its terms have different counts {own}, but it does not tell those of a whole"
                    " step",
                    "Set machine.micro_batch_size to training.batch_size, or define counts(batch)"
                    " in the task",
                )
            return own
        missing = sorted(own.keys() - self._counts.keys())
        if missing:
            raise TrainingError(
                self._name,
                f"counts(batch) does not tell the count of {', '.join(missing)}",
                "Return one for every term of the loss",
            )
        if not self._collected:
            return own
        return {name: self._counts[name] for name in own}

    def end(self, gradients: Gradients) -> None:
        """Add up gradients and losses of all processes, once every loss was given here."""
        gradients.add_up()
        self.sums.add_up(self._world)

    @property
    def divisor(self) -> float:
        """What the gradients are still to be divided by, once the step is at its end."""
        if self._number == 1:
            return 1.0
        _, count = next(iter(self.sums.values.values()))
        return count or 1.0

    def means(self) -> dict[str, float]:
        """Return the mean of every term over the step.

        Raises:
            TrainingError: If the objective's counts and the loss counted differently.
        """
        # A wrong count would scale one term's gradients in every step, and nothing else would show
        # it.
        if self._counts is not None and self._collected:
            for name, said in self._counts.items():
                _, counted = self.sums.values.get(name, (0.0, said))
                if counted != said:
                    raise TrainingError(
                        self._name,
                        f"counts(batch) says {said:g} for {name}, but the loss counted {counted:g}",
                        "Make both count the same",
                    )
        return {name: total / (count or 1.0) for name, (total, count) in self.sums.values.items()}


def count_micro_batches(recipe: Recipe, world: Processes) -> tuple[int, int]:
    """Return how many batches a step of a settled recipe has on each process, and the samples of
    each: micro-batches, or all of them as one.

    Raises:
        TrainingError: If they would change the loss.
    """
    number = recipe.training.batch_size // recipe.machine.settled_micro_batch_size
    if world.data_size > 1 and not (recipe.task.loss_is_sum and recipe.model.loss_is_sum):
        raise TrainingError(
            "recipe.parallel.replicate",
            f"the loss of task {recipe.task.registered_name!r} with this model is no sum over"
            f" examples, so to share a batch between {world.data_size} processes would change it",
            "Start it on one, or take a model without batch norm",
        )
    # Batch norm, for one, makes the loss of an example depend on the others of its micro-batch.
    if number > 1 and not (recipe.task.loss_is_sum and recipe.model.loss_is_sum):
        raise TrainingError(
            "recipe.machine.micro_batch_size",
            f"the loss of task {recipe.task.registered_name!r} with this model is no sum over"
            " examples, so micro-batches would change it",
            "Set micro_batch_size to training.batch_size",
        )
    if world.joins_micro_batches:
        return 1, recipe.training.batch_size // world.data_size
    return number // world.data_size, recipe.machine.settled_micro_batch_size


def non_finite(
    run: Run, step: int, loss: float, norm: float, learning_rate: float, samples: int
) -> TrainingError:
    """Return the error that ends a run whose loss or gradient norm is not a number."""
    problem = (
        f"loss {loss} and gradient norm {norm} are not both finite (learning rate"
        f" {learning_rate:.3g}, samples up to {samples}); the weights were not updated"
    )
    last = run.checkpoints.newest_intact()
    if last is not None:
        problem += f", and the checkpoint of step {last} is intact"
    return TrainingError(
        f"{run.folder} step {step}",
        problem,
        "Lower optim.lr, lengthen optim.warmup_steps, or set machine.non_finite: skip",
    )
