"""The first batch of a run, checked before a step is trained on it: what fails in a part that
someone wrote is named then, and not hours later.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from groundup.contracts.tasks import Task
from groundup.core.errors import GroundupError, TrainingError
from groundup.core.values import Batch, Loss, Term
from groundup.training.accumulation import Objective

__all__ = ["FirstBatchCheck", "check_batch", "check_loss", "check_names", "explain"]

_SPEC = re.compile(r"(\w+) \(([^()]*)\)")


class FirstBatchCheck:
    """An objective that looks closely at the first batch that it gets, and at no other.

    Args:
        objective: What is computed.
        task: The run's.
        widened: Whether batches come in float64 where the task makes float32, as the run computes.
    """

    def __init__(self, objective: Objective, task: Task, *, widened: bool) -> None:
        self._widened = widened
        self.name = objective.name
        self._objective = objective
        self._task = task
        self._checked = False

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        """Return the outputs for a batch.

        Raises:
            TrainingError: If the first batch is not what the task says it is, the model does not
                take it, or fails with it.
        """
        if self._checked:
            return self._objective.forward(model, batch)
        check_batch(self._task, batch, widened=self._widened)
        check_names(self._task, model, batch)
        what = f"failed with {_describe(batch)}"
        remedy = "Fix its forward, or the task's; --debug shows where it failed"
        with explain(f"model {type(model).__name__}", what, remedy):
            return self._objective.forward(model, batch)

    def __call__(self, outputs: Any, batch: Batch) -> Loss:
        """Return the loss of a batch.

        Raises:
            TrainingError: If the task fails with the first one, or returns what is no loss.
        """
        if self._checked:
            return self._objective(outputs, batch)
        what = f"failed with the outputs {_describe(outputs)}"
        remedy = "Fix it, or the model's forward; --debug shows where it failed"
        with explain(f"{_name(self._task)}, loss", what, remedy):
            loss = self._objective(outputs, batch)
        check_loss(self._task, loss)
        self._checked = True
        return loss

    def counts(self, batch: Batch) -> dict[str, float] | None:
        """Return what the loss will count."""
        # Counts are asked for before the first forward, so they may be the first to see a bad
        # batch.
        if not self._checked:
            check_batch(self._task, batch, widened=self._widened)
        return self._objective.counts(batch)


@contextmanager
def explain(where: str, what: str, remedy: str) -> Iterator[None]:
    """Turn what a part of a run raises into an error that names the part.

    Raises:
        TrainingError: In place of anything but a GroundupError, which explains itself.
    """
    try:
        yield
    except GroundupError:
        raise
    except Exception as error:
        # Some exceptions have no text, and those of torch go on for many lines.
        message = (str(error).splitlines() or [""])[0]
        raise TrainingError(where, f"{what}: {type(error).__name__}: {message}", remedy) from error


def check_batch(task: Task, batch: Batch, *, widened: bool = False) -> None:
    """Make sure that a batch has the tensors that ``task.batch_spec`` names, of these dtypes and
    shapes.

    A letter is one size in all shapes of a task, B in all of the batch. ``inputs`` stands for
    whatever the processor makes of raw inputs, under its own names.

    Raises:
        TrainingError: Naming the first that is missing or differs.
    """
    sizes: dict[tuple[str, str], int] = {}
    for name, spec in task.batch_spec.items():
        found = batch.get(name)
        if found is None and name == "inputs":
            continue
        if not isinstance(found, Tensor):
            raise TrainingError(
                f"{_name(task)}, first batch",
                f"has no tensor {name!r}, which batch_spec names; it has {', '.join(batch)}",
                "Return it from encode, or take it out of batch_spec",
            )
        parsed = _SPEC.fullmatch(spec)
        if parsed is None:
            raise TrainingError(
                f"{_name(task)}, batch_spec",
                f"says {spec!r} of {name}; allowed: a dtype and a shape, as 'int64 (B, T)'",
                "Correct it",
            )
        dims = [dim.strip() for dim in parsed[2].split(",") if dim.strip()]
        of_part = name.rpartition("/")[0]  # where a task consists of several
        dtype = _dtype(found)
        if widened and dtype == "float64":
            dtype = "float32"
        if parsed[1] != dtype or not _fits(found, dims, of_part, sizes):
            known = ", ".join(f"{letter} = {size}" for (_, letter), size in sizes.items())
            problem = f"has {name} as {_describe(found)}, but batch_spec says {spec}"
            problem += f" with {known}" if known else ""
            raise TrainingError(
                f"{_name(task)}, first batch",
                problem,
                "Correct what encode or augment returns, or batch_spec",
            )


def _fits(tensor: Tensor, dims: list[str], part: str, sizes: dict[tuple[str, str], int]) -> bool:
    """Whether a tensor has a shape; sizes of letters that are new are noted."""
    open_ended = dims[-1:] == ["..."]
    named = dims[:-1] if open_ended else dims
    if tensor.ndim < len(named) or (tensor.ndim > len(named) and not open_ended):
        return False
    for dim, size in zip(named, tensor.shape, strict=False):
        if dim.isdigit():
            known = int(dim)
        else:
            # The parts of a multitask share the rows of a batch, but each has lengths of its own.
            known = sizes.setdefault(("" if dim == "B" else part, dim), size)
        if known != size:
            return False
    return True


def check_names(task: Task, model: nn.Module, batch: Batch) -> None:
    """Make sure that the model's forward takes what ``task.inputs`` returns, by name.

    A task with a ``forward`` of its own calls the model as it likes.

    Raises:
        TrainingError: Naming both classes and what is missing.
    """
    # What such a task asks the model for is known to it alone.
    if type(task).forward is not Task.forward:
        return
    remedy = "Correct it, or have encode return what it needs"
    with explain(f"{_name(task)}, inputs", f"failed with {_describe(batch)}", remedy):
        given = task.inputs(batch)
    parameters = inspect.signature(model.forward).parameters.values()
    takes = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    needs = [p.name for p in parameters if p.default is p.empty and p.name in takes]
    takes_any = any(p.kind == p.VAR_KEYWORD for p in parameters)
    where = f"model {type(model).__name__}, forward"
    unknown = [name for name in given if name not in takes and not takes_any]
    if unknown:
        raise TrainingError(
            where,
            f"takes {', '.join(takes)}, but {_name(task)} also gives {', '.join(unknown)}",
            "Add them as arguments, if only to ignore them; inputs of the task says what each is",
        )
    missing = [name for name in needs if name not in given]
    if missing:
        raise TrainingError(
            where,
            f"needs {', '.join(missing)}, but {_name(task)} gives only {', '.join(given)}",
            "Give these arguments a default, or choose a task or processor that makes them",
        )


def check_loss(task: Task, loss: Any) -> None:
    """Make sure that what a task returned can be minimised.

    Raises:
        TrainingError: Saying what it is instead.
    """
    where = f"{_name(task)}, loss"
    if not isinstance(loss, Loss) or not loss.terms:
        raise TrainingError(
            where,
            f"returns {_describe(loss)}; allowed: a Loss with one term or more",
            "Return Loss({'name': Term(total, count)})",
        )
    for name, term in loss.terms.items():
        if not isinstance(term, Term):
            raise TrainingError(
                where,
                f"has {_describe(term)} as its term {name}; allowed: a Term",
                "Return Loss({'name': Term(total, count)})",
            )
        for part, value in (("total", term.total), ("count", term.count)):
            if not isinstance(value, Tensor) or value.numel() != 1:
                found = _describe(value)
                raise TrainingError(
                    where,
                    f"has {found} as the {part} of term {name}; allowed: one number, a tensor",
                    "Sum it over the batch; if it is what the model returned, let its forward"
                    " return what the task takes",
                )
    # One term may be constant, as that of a task of which no example of this batch has a target.
    learned = any(term.total.requires_grad for term in loss.terms.values())
    if torch.is_grad_enabled() and not learned:
        raise TrainingError(
            where,
            f"depends on no trained parameter ({', '.join(loss.terms)})",
            "Compute it from the model's outputs, without detach, item or no_grad",
        )


def _name(task: Task) -> str:
    return f"task {task.registered_name} ({type(task).__name__})"


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _describe(value: Any) -> str:
    """Return what a value is, in a few words: a tensor's dtype and shape, a mapping's entries."""
    if isinstance(value, Tensor):
        return f"{_dtype(value)} {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_describe(each)}" for name, each in value.items())
    return type(value).__name__
