"""The learning-rate range test: one short training whose rate grows from far too small to too
large."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundup.core.errors import TrainingError
from groundup.recipe.recipe import Recipe, dump_recipe, load_recipe
from groundup.reports.formatting import number
from groundup.reports.line_charts import Series, draw_line_chart
from groundup.runs.run import Run
from groundup.training import build
from groundup.tuning.page import write_page

__all__ = ["suggest", "tune_learning_rate"]

# of the running mean of the loss
_MEMORY = 0.9
# times the lowest mean: larger rates tell nothing more
_DIVERGED = 4.0


def tune_learning_rate(
    source: str | Path | dict[str, Any],
    overrides: Mapping[str, Any] | None = None,
    *,
    runs: str | Path = "runs",
    steps: int = 100,
    low: float = 1e-6,
    high: float = 10.0,
) -> dict[str, Any]:
    """Train a copy of a recipe's run while its rate grows exponentially, and write
    ``NAME-tune/lr_range.html``.

    The run itself is not touched: the copy is made in a folder that is deleted afterwards.

    Args:
        source: A YAML file or a dictionary; its schedule and its budget of steps are not used.
        overrides: Dotted keys to values.
        runs: The folder of all runs.
        steps: Updates at most.
        low: The first learning rate.
        high: The last one; the test ends before it once the loss is four times its lowest.

    Returns:
        ``learning_rate`` (the suggestion), ``steps`` and ``report``.

    Raises:
        TrainingError: If the loss never fell, so that there is nothing to suggest.

    Source:
        Smith 2017, "Cyclical learning rates for training neural networks" (arXiv:1506.01186),
        section 3.3. Departs from the paper: the rate grows exponentially, and one rate is
        suggested, a tenth of that of the lowest loss.
    """
    recipe = load_recipe(source, dict(overrides or {}))
    output = Path(runs) / f"{recipe.name}-tune"
    rates, means = _train_copy(recipe, steps, low, high)
    suggestion = suggest(rates, means)
    points = [(math.log10(rate), loss) for rate, loss in zip(rates, means, strict=True)]
    marks = [(math.log10(suggestion), "suggestion")]
    lines = [Series("loss, running mean", points)]
    words = "log10 of the learning rate"
    chart = draw_line_chart(
        "Loss by learning rate", lines, unit="loss", marks=marks, clip_spikes=True, x_label=words
    )
    output.mkdir(parents=True, exist_ok=True)
    cards = [
        ("suggested learning rate", number(suggestion), "a tenth of the rate with the lowest loss")
    ]
    cards += [("steps", str(len(rates)), f"from {number(rates[0])} to {number(rates[-1])}")]
    title = f"{recipe.name}: learning-rate range test"
    page = write_page(output / "lr_range.html", title, cards, [], [chart], dump_recipe(recipe))
    return {"learning_rate": suggestion, "steps": len(rates), "report": str(page)}


def _train_copy(
    recipe: Recipe, steps: int, low: float, high: float
) -> tuple[list[float], list[float]]:
    """Train a copy; return the rates and the running means of the loss."""
    budget = recipe.training.model_copy(update={"steps": steps, "epochs": None, "samples": None})
    # averages of weights would hide what the newest rate does
    optim = recipe.optim.model_copy(update={"average": "none"})
    # the test ends where the loss is no number; that is its purpose, not an error
    machine = recipe.machine.model_copy(update={"non_finite": "skip"})
    copy = recipe.model_copy(
        update={"training": budget, "optim": optim, "machine": machine, "tune": None}
    )
    rates: list[float] = []
    means: list[float] = []
    mean = 0.0
    with tempfile.TemporaryDirectory(prefix="groundup-lr-range-") as folder:
        trainer = build.build_trainer(build.freeze(Run.create(copy, Path(folder))))
        trainer.learning_rate = lambda step: low * (high / low) ** (step / max(1, steps - 1))
        try:
            for report in trainer.steps():
                if report.skipped:
                    break
                mean = _MEMORY * mean + (1 - _MEMORY) * report.loss
                # as if the mean had begun at the first loss: Adam's correction of bias
                means.append(mean / (1 - _MEMORY ** (len(means) + 1)))
                rates.append(report.learning_rate)
                if means[-1] > _DIVERGED * min(means) and len(means) > 10:
                    break
        finally:
            trainer.close()
    return rates, means


def suggest(rates: list[float], losses: list[float]) -> float:
    """Return a tenth of the rate with the lowest loss, with two significant digits.

    Raises:
        TrainingError: If the loss never fell below its beginning.
    """
    if not losses or min(losses) >= losses[0]:
        raise TrainingError(
            "learning-rate range test",
            f"the loss never fell in {len(losses)} steps, so no rate can be suggested",
            "Check data and model, or normalise the inputs",
        )
    return float(f"{rates[losses.index(min(losses))] / 10:.2g}")
