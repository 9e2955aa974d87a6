"""What one step minimises: each term's mean over the whole batch of the step, times its weight,
however it is split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

from torch import Tensor

from groundup.core.contracts.tasks import Task
from groundup.core.errors import TrainingError
from groundup.core.values import Batch, Loss
from groundup.runs.run import Run

__all__ = ["Accumulation", "Sums", "non_finite"]


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

    def _add(self, name: str, total: float, count: float) -> None:
        before = self.values.get(name, (0.0, 0.0))
        self.values[name] = (before[0] + total, before[1] + count)


class Accumulation:
    """The loss of one step: take its ``batches``, and give the loss of each to ``of``.

    One micro-batch is the whole step: its loss is the mean. Of several the sums are
    back-propagated, and the trainer divides all gradients once by ``divisor``, the first term's
    count; a term whose count differs is scaled by the ratio of the two. Both are counts of the
    whole step. They must be known before the first backward pass, so the micro-batches are
    collected first, where ``Task.counts`` tells what they count. A single term needs none of this.

    Args:
        task: What gives the loss.
        take: Returns the next micro-batch.
        number: How many micro-batches the step has.

    Attributes:
        sums: What the losses so far add up to.
    """

    def __init__(self, task: Task, take: Callable[[], Batch], number: int) -> None:
        self._task, self._number, self.sums = task, number, Sums()
        first = take()
        self._counts = task.counts(first) if number > 1 else None
        self._collected = len(self._counts or ()) > 1
        rest: Iterator[Batch] = (take() for _ in range(number - 1))
        if self._counts is not None and self._collected:
            collected = list(rest)
            for batch in collected:
                for name, count in (task.counts(batch) or {}).items():
                    self._counts[name] = self._counts.get(name, 0.0) + count
            rest = iter(collected)
        self.batches: Iterator[Batch] = chain([first], rest)

    def of(self, loss: Loss) -> list[Tensor]:
        """Return what to back-propagate of one micro-batch: the terms' sums, each times its factor.

        Raises:
            TrainingError: If the counts of the terms differ and nothing tells those of the whole
                step.
        """
        counts = self._counts_of(loss)
        first = 1.0 if self._number == 1 else next(iter(counts.values())) or 1.0
        return [
            term.total * (term.weight * (first / (counts[name] or 1.0)))
            for name, term in loss.terms.items()
        ]

    def _counts_of(self, loss: Loss) -> dict[str, float]:
        own = {name: term.count.item() for name, term in loss.terms.items()}
        if self._counts is None:
            if self._number > 1 and len(set(own.values())) > 1:
                raise TrainingError(
                    f"task {self._task.registered_name}",
                    f"its terms have different counts {own}, and it does not tell those of a whole"
                    " step",
                    "Set machine.micro_batch_size to training.batch_size, or define counts(batch)"
                    " in the task",
                )
            return own
        if missing := sorted(own.keys() - self._counts.keys()):
            raise TrainingError(
                f"task {self._task.registered_name}",
                f"counts(batch) does not tell the count of {', '.join(missing)}",
                "Return one for every term of the loss",
            )
        return {name: self._counts[name] for name in own} if self._collected else own

    @property
    def divisor(self) -> float:
        """What the gradients are still to be divided by, once every loss was given."""
        return 1.0 if self._number == 1 else next(iter(self.sums.values.values()))[1] or 1.0

    def means(self) -> dict[str, float]:
        """Return the mean of every term over the step.

        Raises:
            TrainingError: If ``Task.counts`` and the loss counted differently.
        """
        for name, told in (self._counts or {}).items() if self._collected else ():
            counted = self.sums.values.get(name, (0.0, told))[1]
            if counted != told:
                raise TrainingError(
                    f"task {self._task.registered_name}",
                    f"counts(batch) says {told:g} for {name}, and the loss counted {counted:g}",
                    "Make both count the same",
                )
        return {name: total / (count or 1.0) for name, (total, count) in self.sums.values.items()}


def non_finite(
    run: Run, step: int, loss: float, norm: float, learning_rate: float, samples: int
) -> TrainingError:
    """Return the error that ends a run whose loss or gradient norm is not a number."""
    last = run.checkpoints.newest_intact()
    return TrainingError(
        f"{run.folder} step {step}",
        f"loss {loss} and gradient norm {norm} are not both finite (learning rate"
        f" {learning_rate:.3g}, samples up to {samples}); the weights were not updated"
        + (f", and the checkpoint of step {last} is intact" if last is not None else ""),
        "Lower optim.lr, lengthen optim.warmup_steps, or set machine.non_finite: skip",
    )
