"""What every task keeps, tried on a recipe that uses it."""

from __future__ import annotations

import inspect
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from groundup import api
from groundup.api import RecipeLike
from groundup.contracts.processors import LabelProcessor
from groundup.contracts.ragged import offsets_of, ragged_rows
from groundup.contracts.tasks import DrawsPictures, Streams, Task
from groundup.core.settings import validate
from groundup.core.values import Batch, Document, Example, TokenSequence
from groundup.testing.failure import ContractError, require, require_close
from groundup.training.components import refill
from groundup.training.trainer import Trainer

__all__ = ["check_task", "open_trainer"]

_ROUNDING = 1e-5
_MACHINE = {"device": "cpu", "precision": "fp32", "compile": False, "micro_batch_size": "auto"}
_HELD_OUT = 7  # examples that are looked at one by one


def check_task(recipe: RecipeLike, overrides: Mapping[str, Any] | None = None) -> None:
    """Check that the task of a recipe keeps what training relies on, in two steps.

    Batches are as ``batch_spec`` says, the model takes what ``inputs`` gives, losses are sums that
    do not depend on how a batch is split, each example is encoded by itself, everything that is
    trained receives a gradient, predictions are one an input, and evaluation gives numbers.

    Args:
        recipe: A recipe's file or its sections, with data to try the task on. A small model makes
            it quick. Nothing is written to its runs.
        overrides: Changes of it, such as ``{"model.width": 16}``. It runs on a CPU in fp32 unless
            they say otherwise.

    Raises:
        ContractError: With the contract, what was found, and what to do.
        GroundupError: If the recipe itself cannot be run.
    """
    with open_trainer(recipe, overrides) as trainer:
        refill(trainer.stream, trainer.model, 0, trainer.recipe.machine)
        batch = {key: values.to(trainer.device) for key, values in next(trainer.stream).items()}
        _check_batch(trainer, batch)
        _check_settings(trainer)
        _check_loss(trainer, batch)
        _check_encoding(trainer)
        # Before any step: other micro-batches are tried with the same weights below.
        wanted = trainer.evaluate()
        size = trainer.recipe.training.batch_size
        is_sum = trainer.task.loss_is_sum and trainer.recipe.model.loss_is_sum
        _check_training(trainer)
        _check_predictions(trainer)
    # One example each finds a mean of means, and halves find counts that differ between the parts.
    for part in (1, size // 2):
        if is_sum and part and size % part == 0:
            changes = {**(overrides or {}), "machine.micro_batch_size": part}
            with open_trainer(recipe, changes) as trainer:
                _check_split_of_work(trainer.evaluate(), wanted, part, size)


@contextmanager
def open_trainer(
    recipe: RecipeLike, overrides: Mapping[str, Any] | None = None
) -> Iterator[Trainer]:
    """Give the trainer of a new run that is removed afterwards, on a CPU in fp32.

    Micro-batches are whole batches unless ``overrides`` say otherwise.
    """
    changes = {f"machine.{name}": value for name, value in _MACHINE.items()} | dict(overrides or {})
    # A folder of its own: a run of that name in the user's would be gone on with.
    with tempfile.TemporaryDirectory() as folder:
        trainer = api.trainer(recipe, changes, runs=folder)
        try:
            yield trainer
        finally:
            trainer.close()


def _check_batch(trainer: Trainer, batch: Batch) -> None:
    contract = "a batch is what batch_spec says"
    spec = dict(trainer.task.batch_spec)
    processor = trainer.parts.processor
    if "inputs" in spec and isinstance(processor, LabelProcessor):
        # It stands for whatever the processor makes of raw inputs, under its own names.
        with tempfile.TemporaryDirectory() as folder:
            example = next(iter(trainer.parts.source.examples("train", Path(folder))))
        own = processor.encode_inputs([example.inputs]).keys()
        if "inputs" not in own:
            del spec["inputs"]
        batch = {key: batch[key] for key in batch if key == "inputs" or key not in own}
    require(
        set(spec) == set(batch),
        contract,
        f"batch_spec has {', '.join(spec)}, but a batch has {', '.join(batch)}",
        "Name in batch_spec what encode gives",
    )
    for key, described in spec.items():
        dtype, _, shape = described.partition(" ")
        sizes = [size for size in shape.strip("() ").split(",") if size.strip()]
        found = batch[key]
        fits = "..." in shape or len(sizes) == found.dim()
        require(
            f"torch.{dtype}" == str(found.dtype) and fits,
            contract,
            f"{key!r} is {described} there, but {found.dtype} {tuple(found.shape)} in a batch",
            "Correct batch_spec or encode",
        )
    # What a task with a forward of its own asks the model for is known to it alone.
    if type(trainer.task).forward is not Task.forward:
        return
    inputs = trainer.task.inputs(batch)
    taken = inspect.signature(trainer.model.forward).parameters
    # a forward of **anything takes every name
    anything = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in taken.values())
    unknown = [] if anything else [name for name in inputs if name not in taken]
    require(
        not unknown,
        "the model takes what the task's inputs() gives",
        f"forward has no parameter {', '.join(unknown)}; it has {', '.join(taken)}",
        "Rename the parameters of forward, or the keys of inputs()",
    )


def _check_settings(trainer: Trainer) -> None:
    task = trainer.recipe.task
    # A run's folder keeps the recipe, and every later command reads the task from there.
    again = validate(type(task), task.model_dump(mode="json"), "recipe.task")
    require(
        again == task,
        "settings are what they were after writing them",
        f"{task!r} came back as {again!r}",
        "Use types that JSON has: numbers, texts, tuples, dicts",
    )


def _check_loss(trainer: Trainer, batch: Batch) -> None:
    contract = "loss() returns sums and what they were summed over"
    task = trainer.task
    model = trainer.model
    model.zero_grad()
    # The objective without its check of the first batch, whose errors are a run's, not a
    # contract's.
    loss = trainer.validation(trainer.validation.forward(model, batch), batch)
    require(bool(loss.terms), contract, "it returned no terms", "Return Loss({'name': Term(...)})")
    for name, term in loss.terms.items():
        _check_scalar(f"the total of {name!r}", term.total)
        _check_scalar(f"the count of {name!r}", term.count)
        total = float(term.total.detach())
        require(
            float(term.count) > 0 and math.isfinite(total),
            contract,
            f"{name!r} is {total} over {float(term.count)}",
            "Count the examples or tokens of the batch",
        )
    for name, value in loss.metrics.items():
        _check_scalar(f"the metric {name!r}", value)
    # Gradients of several terms are scaled by these before the loss is known.
    stated = task.counts(batch)
    counted = {name: float(term.count) for name, term in loss.terms.items()}
    require(
        stated is None or stated == counted,
        "counts() is what loss() counts",
        f"it states {stated}, but loss() counted {counted}",
        "Correct counts(), or do not define it",
    )
    torch.stack([term.weight * term.total for term in loss.terms.values()]).sum().backward()  # type: ignore[no-untyped-call]
    without = [
        name
        for name, each in model.named_parameters()
        if each.requires_grad and (each.grad is None or not each.grad.abs().sum() > 0)
    ]
    # A bias of the keys shifts all scores of a query alike: its gradient is zero but for rounding.
    without = [name for name in without if not name.endswith("key.bias")]
    model.zero_grad()
    require(
        not without,
        "everything that is trained receives a gradient",
        f"these parameters receive none: {', '.join(without)}",
        "Use the model's outputs in the loss without detaching them",
    )


def _check_scalar(what: str, value: Any) -> None:
    scalar = isinstance(value, Tensor) and value.dim() == 0
    found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
    require(
        scalar,
        "terms and metrics of a loss are scalar tensors",
        f"{what} is {found}",
        "Sum it to a tensor of no dimensions",
    )


def _check_encoding(trainer: Trainer) -> None:
    contract = "an example is encoded the same alone and among others"
    remedy = "Use what fit_processor learned, and nothing of the other examples"
    task = trainer.task
    processor = trainer.parts.processor
    with tempfile.TemporaryDirectory() as folder:
        source = trainer.parts.source
        examples = list(islice(source.examples("validation", Path(folder)), _HELD_OUT))
    together = task.encode(examples, processor)
    alone = [task.encode([example], processor) for example in examples]
    # Token sequences are kept apart until they are packed, so they are compared one by one.
    if isinstance(together, list):
        rows = [row for each in alone for row in each if isinstance(row, TokenSequence)]
        for one, other in zip(together, rows, strict=True):
            require_close(other.tokens, one.tokens, 0.0, contract, "tokens", remedy)
            require(
                np.array_equal(_trained(one), _trained(other)),
                contract,
                "which tokens are trained differs",
                remedy,
            )
        return
    # To the longest of the batch, which no model reads: what is compared is what is there alone.
    # Pictures have as many rows of boxes as the one with the most; see ``contracts.detection``.
    padded = any(key.endswith("lengths") for key in together) or "crowd" in together
    starts = {offsets_of(key) for key in together}
    for key, values in together.items():
        if key in starts:  # where rows begin follows from those that were before
            continue
        ragged = offsets_of(key) in together
        wanted_rows = ragged_rows(together, key) if ragged else list(values)
        for number, each in enumerate(alone):
            found = each[key] if ragged else each[key][0]  # type: ignore[call-overload]
            wanted = wanted_rows[number]
            if padded and found.dim():
                wanted = wanted[tuple(map(slice, found.shape))]
            require_close(found, wanted, _ROUNDING, contract, repr(key), remedy)


def _trained(sequence: TokenSequence) -> Any:
    return [] if sequence.trained is None else sequence.trained


def _check_split_of_work(
    found: Mapping[str, float], wanted: Mapping[str, float], part: int, size: int
) -> None:
    for name, value in wanted.items():
        # Ten times the rounding of fp32 sums: what differs by a factor of counts is far beyond it.
        require(
            math.isclose(found[name], value, rel_tol=1e-4, abs_tol=1e-6),
            "a loss is a sum with its count, so metrics do not depend on the micro-batch",
            f"{name} is {found[name]:.7g} in micro-batches of {part}, and {value:.7g} of {size}",
            "Return sums, not means, and count what was summed; a loss that is no sum over examples"
            " says so in loss_is_sum",
        )


def _check_training(trainer: Trainer) -> None:
    for report in islice(trainer.steps(), 2):
        require(
            math.isfinite(report.loss),
            "losses are finite",
            f"step {report.step} has loss {report.loss}",
            "Look for a logarithm or a quotient of 0",
        )
    metrics = trainer.evaluate()
    require(
        "loss" in metrics and all(isinstance(value, float) for value in metrics.values()),
        "summarise() returns floats, one of them 'loss'",
        f"it returned {metrics}",
        "Return {'loss': total / count, ...}",
    )


def _check_predictions(trainer: Trainer) -> None:
    """Predict one input and several, where examples have inputs that predict() reads."""
    contract = "predict() returns one prediction for an input, and a list for a list"
    with tempfile.TemporaryDirectory() as folder:
        found = trainer.parts.source.examples("validation", Path(folder))
        examples = list(islice(found, 3))
    # What a conversation or a pair of answers is asked for is the task's own affair: it is not
    # tried.
    if isinstance(trainer.task, DrawsPictures):
        # Pictures are made of what they show, and two steps are enough to see that.
        asked = bool(trainer.parts.processor.labels)
        inputs = [each.target if asked else "" for each in examples]
        options: dict[str, Any] = {"steps": 2}
    elif all(isinstance(each, Example) for each in examples):
        inputs = [each.inputs for each in examples]
        options = {}
    # Of documents only a task that writes on from them: another may read marks in its inputs.
    elif isinstance(trainer.task, Streams) and all(isinstance(e, Document) for e in examples):
        # The beginning of a text is a prompt of any length, and greedy decoding draws nothing.
        inputs = [each.text[:20] for each in examples]
        options = {"max_new_tokens": 3, "temperature": 0.0}
    else:
        return
    task = trainer.task
    model = trainer.model
    processor = trainer.parts.processor
    together = task.predict(model, inputs, processor, **options)
    require(
        isinstance(together, list) and len(together) == len(inputs),
        contract,
        f"it returned {type(together).__name__} for {len(inputs)} inputs",
        "Return a list of as many",
    )
    # The last one, and not the first: that of a list which is cut to one would be right.
    alone = task.predict(model, inputs[-1], processor, **options)
    if type(alone) is not type(together[-1]):
        raise ContractError(
            contract,
            f"alone it is {type(alone).__name__}, among others {type(together[-1]).__name__}",
            "Return the same kind of value for an input, alone or in a list",
        )
    if isinstance(alone, str):
        require(
            alone == together[-1],
            "a prediction depends on its input alone",
            f"alone it is {alone!r}, among others {together[-1]!r}",
            "Predict in evaluation mode: model.eval()",
        )
