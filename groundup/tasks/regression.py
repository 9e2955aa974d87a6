"""Regression: a number, or several, to be predicted from an input.

Legend: B examples of a batch, N examples, R numbers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.contracts.processors import LabelProcessor
from groundup.contracts.tasks import EvaluationContext, Task
from groundup.core import seeding
from groundup.core.errors import DataError
from groundup.core.registry import task
from groundup.core.settings import setting
from groundup.core.values import Batch, Evaluation, Example, Figure, Loss, Table, Term
from groundup.media.column_format import AmbiguousColumn, Format, Style
from groundup.media.find_format import find_formats
from groundup.media.table_values import Row
from groundup.metrics.regression import deciles, evaluate_numbers
from groundup.metrics.standard_error import standard_error
from groundup.processors.labelled import check_pairs, with_targets
from groundup.processors.targets import RegressionTargets
from groundup.tasks.shared.forgetting import compare_before_and_after
from groundup.tasks.shared.model_outputs import model_outputs
from groundup.tasks.shared.small_data import SMALL_DATA_SETTINGS

__all__ = ["Regression"]

_SHOWN = 10
_POINTS = 500


@task("regression")
class Regression(Task):
    """Minimise the distance from the true number. The model sees targets of mean 0 and variance 1;
    users see their own.

    Several targets count alike, each in its own standard deviations.
    """

    unit: ClassVar[str] = "examples"
    file_source: ClassVar[str] = "labelled_text"
    default_settings: ClassVar[Mapping[str, Any]] = SMALL_DATA_SETTINGS
    objective: Literal["mse", "mae", "huber"] = setting(
        "mse", "Distance: squared, absolute, or Huber's (squared near, absolute far)"
    )
    delta: float = setting(
        1.0,
        "Where Huber's loss turns from squared to absolute, in standard deviations of the target",
        gt=0,
        applies_when={"objective": ("huber",)},
    )
    max_tokens: int = setting(256, "Longer texts are cut to this number of tokens", ge=1)
    decimal: Literal[".", ","] | None = setting(
        None, "Sign before the decimals of targets; silent: as the training split shows"
    )

    @property
    def batch_spec(self) -> dict[str, str]:
        """What ``inputs`` and ``loss`` read."""
        return {
            "inputs": "float32 (B, ...)",
            "targets": "float32 (B, R)",
            "scale": "float32 (B, R)",
        }

    def fit_processor(
        self, processor: Any, examples: Callable[[], Iterator[Any]]
    ) -> LabelProcessor:
        """Return the processor with the mean and standard deviation of the training split's
        targets.

        Raises:
            DataError: If a target is no number, or does not vary.
        """
        # A list, because it is gone through twice: numbers are checked before any is fitted.
        read = list(examples())
        # Several targets have names where the data gives a mapping, such as the columns of a table.
        first = read[0].target if read else None
        labels = tuple(map(str, first)) if isinstance(first, Mapping) else ()

        def fit(targets: Iterable[Any]) -> RegressionTargets:
            formats, notes = self._find_formats(read)
            numbers = _numbers(read, formats=formats)
            _refuse_constant(numbers, labels)
            return RegressionTargets.fit(numbers, labels, formats, notes)

        return with_targets(processor, lambda: iter(read), fit, self.max_tokens)

    def _find_formats(self, examples: Sequence[Example]) -> tuple[list[Format], list[str]]:
        """Return how each target is written, and what there is to say of that."""
        inputs = examples[0].inputs if examples else None
        row = inputs if isinstance(inputs, Row) else Row({}, 0)
        alone = row.target or "target"
        style = Style(decimal=self.decimal, separator=row.separator)
        columns: dict[str, Counter[Any]] = {}
        for example in examples:
            for name, value in _targets_by_name(example).items():
                # numbered where there are several without names
                place = alone
                if isinstance(name, str) or _is_list(example.target):
                    place = str(name)
                columns.setdefault(place, Counter())[value] += 1
        try:
            found = find_formats(columns, style, dict.fromkeys(columns, "numeric"))
        except AmbiguousColumn as error:
            remedy = error.remedy.format(section="task")
            raise DataError("targets", error.problem, remedy) from None
        for place, counts in columns.items():
            _refuse_words(place, counts, found[place].format)
        notes = [note for each in found.values() for note in each.notes]
        return [each.format for each in found.values()], notes

    def encode(self, examples: Sequence[Example], processor: LabelProcessor) -> Batch:
        """Return all examples' inputs and targets, stacked, and what one of the targets' units is.

        Raises:
            DataError: If an input does not fit, or a target is no number.
        """
        targets = _targets_of(processor)
        wanted = targets.encode(_numbers(examples, targets.outputs, targets.formats))
        # In the batch, because a task has no state: errors are shown in the data's own units.
        scale = torch.tensor(targets.scale).expand(len(wanted), -1)
        encoded = processor.encode_inputs([example.inputs for example in examples])
        return encoded | {"targets": wanted, "scale": scale}

    def check_model(self, model: nn.Module, processor: Any) -> None:
        """Check that the model tells apart what the processor gives it."""
        check_pairs(model, processor)

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Return what the model reads: all but the targets."""
        return {name: values for name, values in batch.items() if name not in ("targets", "scale")}

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        """Return the distances of outputs (B, R), summed over examples, their mean over targets.

        Source:
            Huber, 1964, "Robust estimation of a location parameter", equation 1.1.
        """
        losses = self.example_losses(outputs, batch)
        # Errors in the data's own units: targets and outputs have mean 0 and variance 1 here.
        error = (outputs.detach().float() - batch["targets"]) * batch["scale"]
        watched = {"squared": (error**2).mean(1).sum(), "absolute": error.abs().mean(1).sum()}
        if not torch.is_grad_enabled():
            # The mean of the training split is 0 here: what always predicting it would cost.
            losses = losses.double()  # what differs between examples may be far below the mean
            watched["loss_squares"] = (losses**2).sum()
            watched["guess"] = self.example_losses(torch.zeros_like(outputs), batch).sum()
        return Loss({"target": Term(losses.sum(), torch.tensor(float(len(losses))))}, watched)

    def example_losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return (B,) the distance of each example, the mean over its targets."""
        outputs, targets = outputs.float(), batch["targets"]
        if self.objective == "huber":
            each = F.huber_loss(outputs, targets, reduction="none", delta=self.delta)
        elif self.objective == "mae":
            each = (outputs - targets).abs()
        else:
            each = (outputs - targets) ** 2
        return each.mean(1)

    def summarise(self, sums: dict[str, tuple[float, float]]) -> dict[str, float]:
        """Return the loss, and root mean squared and mean absolute error in the data's own units;
        of held-out examples also ``baseline_loss``, that of always predicting the training split's
        mean, ``loss_standard_error``, and how many ``examples`` there are."""
        total, count = sums["target"][0], max(sums["target"][1], 1.0)
        found = {
            "loss": total / count,
            "rmse": math.sqrt(sums["squared"][0] / count),
            "mae": sums["absolute"][0] / count,
        }
        if "guess" in sums:
            found["baseline_loss"] = sums["guess"][0] / count
        if "loss_squares" in sums:
            squares = sums["loss_squares"][0]
            error = standard_error(total, squares, count)
            found |= {"loss_standard_error": error, "examples": count}
        return found

    def predict(
        self, model: nn.Module, inputs: Any, processor: LabelProcessor, **options: Any
    ) -> Any:
        """Return the number for an input, or for each of a list of inputs, in the data's own units.

        Several numbers are a dictionary by name where they have names, a list elsewhere.
        """
        rows, several = processor.as_list(inputs)
        found = [_named(row, processor.labels) for row in _predict_numbers(model, rows, processor)]
        return found if several else found[0]

    def evaluate(self, context: EvaluationContext) -> Evaluation:
        """Evaluate a model on the held-out examples: errors with intervals, by tenths of the
        predictions, and the worst.

        The baseline always predicts the mean of the training split. Where the run was fine-tuned,
        the errors before and after are compared on old data and new.
        """
        examples = list(context.examples(context.held_out))
        context.progress(f"predicting {len(examples)} held-out examples")
        targets = _targets_of(context.processor)
        predicted = _predict_numbers(
            context.model, [example.inputs for example in examples], context.processor
        )
        true = np.array(_numbers(examples, targets.outputs, targets.formats), dtype=np.float64)
        metrics = {"held_out_examples": float(len(examples))}
        tables: list[Table] = []
        figures: list[Figure] = []
        names = targets.labels or tuple(f"target_{n}" for n in range(1, targets.outputs + 1))
        for n, (name, mean) in enumerate(zip(names, targets.mean, strict=True)):
            own, right = predicted[:, n], true[:, n]
            scores = evaluate_numbers(own, right, mean, context.seed)
            of = ""
            if targets.outputs > 1:  # a single target's metrics have plain names
                scores = {f"{name}_{metric}": value for metric, value in scores.items()}
                of = f" of {name}"
            metrics |= scores
            figures.append(_scatter(f"Predicted and true{of}", own, right, context.seed))
            tables.append(_decile_table(f"Residuals{of} by tenths of the predictions", own, right))
            tables.append(_worst_table(f"Furthest off{of}", examples, own, right))
        measure = "RMSE"
        if targets.outputs > 1:
            measure = "mean over the targets of RMSE in standard deviations"
        tables += compare_before_and_after(context, measure, _rmse)
        return Evaluation(metrics, tables, figures)


def _scatter(
    title: str, predicted: NDArray[np.float64], true: NDArray[np.float64], seed: int
) -> Figure:
    """Return predicted and true values of a keyed sample of the examples."""
    order = np.random.default_rng(seeding.key(seed, "scatter")).permutation(len(true))
    chosen = np.sort(order[:_POINTS]).tolist()
    points = [[_short(predicted[i]), _short(true[i])] for i in chosen]
    note = "Each point is a held-out example; on the diagonal predictions are right."
    if len(true) > len(points):
        note += f" {len(points):,} of {len(true):,}, drawn at random."
    return Figure("scatter", title, {"points": points}, note)


def _rmse(model: nn.Module, processor: LabelProcessor, examples: Sequence[Example]) -> float:
    """Return the RMSE in the data's own units; of several targets the mean of each one's over its
    standard deviation.

    A model that predicts more than the examples have targets is evaluated on those.
    """
    predicted = _predict_numbers(model, [example.inputs for example in examples], processor)
    formats = _targets_of(processor).formats
    true = np.array(_numbers(examples, formats=formats), dtype=np.float64)
    # The base of a fine-tuned run may predict other numbers as well, or in another order.
    named = examples[0].target
    if processor.labels and isinstance(named, Mapping):
        predicted = predicted[:, [processor.labels.index(str(name)) for name in named]]
    rmse = np.sqrt(((predicted - true) ** 2).mean(0))
    if len(rmse) == 1:
        return float(rmse[0])
    spread = true.std(0)
    # A target that does not vary here, in a small held-out split, has its error as it is.
    return float((rmse / np.where(spread > 0, spread, 1.0)).mean())


def _numbers(
    examples: Sequence[Example], count: int | None = None, formats: Sequence[Format] = ()
) -> list[list[float]]:
    """Return the targets of each example as numbers, ``count`` of them, or as many as the first
    example has."""
    found = [_numbers_of(example, formats) for example in examples]
    if count is None:
        count = len(found[0]) if found else 0
    for example, numbers in zip(examples, found, strict=True):
        if len(numbers) != count:
            raise DataError(
                _place(example),
                f"has {len(numbers)} targets; allowed: {count}, as the training examples have",
                "Correct it, or remove the row",
            )
    return found


def _place(example: Example) -> str:
    return example.origin or f"example {example.name}"


def _targets_by_name(example: Example) -> Mapping[Any, Any]:
    target = example.target
    if isinstance(target, Mapping):
        return target
    return dict(enumerate(target if _is_list(target) else [target], 1))


def _refuse_words(place: str, counts: Counter[Any], form: Format) -> None:
    """Raise an error for a target of which no value is a number."""
    if all(form.read(value, "numeric") is None for value in counts):
        what = "the target" if place == "target" else f"the target {place!r}"
        first = next(iter(counts))
        remedy = "To predict classes set task: classify; or name another column"
        if (seconds := form.read(first, "time")) is not None:
            remedy = f"Write times as numbers, such as {seconds:g} seconds for {first!r}"
        raise DataError(
            "targets",
            f"no value of {what} is a number: there are {len(counts)} different ones, such as"
            f" {first!r}",
            remedy,
        )


def _numbers_of(example: Example, formats: Sequence[Format]) -> list[float]:
    """Return the targets of an example as numbers; text such as ``"3.5"`` counts as one."""
    found = []
    for n, (name, value) in enumerate(_targets_by_name(example).items()):
        # Text such as "3.5" is what a CSV file holds.
        form = formats[n] if n < len(formats) else Format()
        number = form.read(value, "numeric")
        if number is None or math.isnan(number):
            what = f"target {name!r}" if isinstance(name, str) else "the target"
            raise DataError(
                _place(example),
                f"{what} is {value!r}; allowed: a finite number",
                "Correct it, or remove the row",
            )
        found.append(number)
    return found


def _is_list(target: Any) -> bool:
    return isinstance(target, list | tuple | np.ndarray) and np.ndim(target) == 1


def _refuse_constant(rows: Sequence[Sequence[float]], labels: Sequence[str]) -> None:
    for n, values in enumerate(zip(*rows, strict=True)):
        # Its standard deviation is 0, by which targets are divided.
        if min(values) == max(values):
            name = f"target {labels[n]!r}" if labels else "the target"
            problem = f"{name} is {values[0]:g} in every training example"
            raise DataError(
                "targets",
                f"{problem}; there is nothing to predict",
                "Choose another target, or more data",
            )


def _named(row: NDArray[np.float64], labels: Sequence[str]) -> Any:
    if labels:
        return dict(zip(labels, row.tolist(), strict=True))
    return float(row[0]) if len(row) == 1 else row.tolist()


def _decile_table(title: str, predicted: NDArray[np.float64], true: NDArray[np.float64]) -> Table:
    rows: list[Any] = []
    for tenth in deciles(predicted, true):
        ends = (_short(tenth.lowest), _short(tenth.highest))
        errors = (_short(tenth.mean_residual), _short(tenth.mae), _short(tenth.rmse))
        rows.append((*ends, tenth.examples, *errors))
    columns = ("predicted from", "to", "examples", "mean residual", "MAE", "RMSE")
    return Table(title, columns, list(rows), "A residual is the true value less the predicted one")


def _worst_table(
    title: str,
    examples: Sequence[Example],
    predicted: NDArray[np.float64],
    true: NDArray[np.float64],
) -> Table:
    residual = true - predicted
    # Stable, so that the same run gives the same page.
    order = np.argsort(-np.abs(residual), kind="stable")[:_SHOWN].tolist()
    rows = [
        (examples[i].origin, _short(true[i]), _short(predicted[i]), _short(residual[i]))
        for i in order
    ]
    return Table(title, ("example", "true", "predicted", "residual"), list(rows))


def _short(value: Any) -> float:
    # Five digits: enough to compare, and a table that can be read.
    return float(f"{float(value):.5g}")


def _predict_numbers(
    model: nn.Module, inputs: Sequence[Any], processor: LabelProcessor
) -> NDArray[np.float64]:
    """Return (N, R) in the data's own units."""
    targets = _targets_of(processor)
    parts = [targets.decode(part) for part in model_outputs(model, inputs, processor)]
    return torch.cat([torch.zeros(0, processor.outputs, dtype=torch.float64), *parts]).numpy()


def _targets_of(processor: LabelProcessor) -> RegressionTargets:
    assert isinstance(processor.targets, RegressionTargets)  # as fit_processor made them
    return processor.targets
