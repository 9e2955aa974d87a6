"""What one step minimises: each term's mean over the whole batch of the step, times its weight,
however it is split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

from torch import Tensor

from groundup.core.errors import TrainingError
from groundup.core.values import Batch, Loss
from groundup.runs.run import Run
from groundup.training.objective import Objective

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
    collected first, where the objective's ``counts`` tells what they count. A single term needs
    none of this.

    Args:
        objective: What gives the loss.
        take: Returns the next micro-batch.
        number: How many micro-batches the step has.

    Attributes:
        sums: What the losses so far add up to.
    """

    def __init__(self, objective: Objective, take: Callable[[], Batch], number: int) -> None:
        self._name = objective.name
        self._number = number
        self.sums = Sums()
        first = take()
        rest: Iterator[Batch] = (take() for _ in range(number - 1))
        self._counts: dict[str, float] | None = None
        if number > 1:
            self._counts = objective.counts(first)
        # With a single term the count that divides is the one that the losses add up to.
        self._collected = self._counts is not None and len(self._counts) > 1
        if self._counts is not None and self._collected:
            collected = list(rest)
            for batch in collected:
                for name, count in (objective.counts(batch) or {}).items():
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
        first = 1.0
        if self._number > 1:
            first = next(iter(counts.values())) or 1.0
        return [
            term.total * (term.weight * (first / (counts[name] or 1.0)))
            for name, term in loss.terms.items()
        ]

    def _counts_of(self, loss: Loss) -> dict[str, float]:
        own = {name: term.count.item() for name, term in loss.terms.items()}
        if self._counts is None:
            if self._number > 1 and len(set(own.values())) > 1:
                problem = (
                    f"its terms have different counts {own}, but it does not tell those of a whole"
                    " step"
                )
                remedy = (
                    "Set machine.micro_batch_size to training.batch_size, or define counts(batch)"
                    " in the task"
                )
                raise TrainingError(self._name, problem, remedy)
            return own
        missing = sorted(own.keys() - self._counts.keys())
        if missing:
            problem = f"counts(batch) does not tell the count of {', '.join(missing)}"
            raise TrainingError(self._name, problem, "Return one for every term of the loss")
        if not self._collected:
            return own
        return {name: self._counts[name] for name in own}

    @property
    def divisor(self) -> float:
        """What the gradients are still to be divided by, once every loss was given."""
        if self._number == 1:
            return 1.0
        _, count = next(iter(self.sums.values.values()))
        return count or 1.0

    def means(self) -> dict[str, float]:
        """Return the mean of every term over the step.

        Raises:
            TrainingError: If the objective's counts and the loss counted differently.
        """
        if self._counts is not None and self._collected:
            for name, said in self._counts.items():
                _, counted = self.sums.values.get(name, (0.0, said))
                if counted != said:
                    problem = (
                        f"counts(batch) says {said:g} for {name}, but the loss counted {counted:g}"
                    )
                    raise TrainingError(self._name, problem, "Make both count the same")
        return {name: total / (count or 1.0) for name, (total, count) in self.sums.values.items()}


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
