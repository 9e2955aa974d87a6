"""What a model in training predicts: samples to look at, and outputs that are measured."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from groundup.contracts.tasks import DrawsPictures, MeasuresOutputs, Picture
from groundup.core.values import Split
from groundup.machine import devices
from groundup.runs.processor import cache_folder
from groundup.runs.run import Run
from groundup.training.averaging import Averaging
from groundup.training.components import Components
from groundup.training.first_batch import explain

__all__ = ["Sampler"]

log = logging.getLogger("groundup")


class Sampler:
    """Lets a model in training predict from the recipe's prompts.

    Args:
        run: The run, its recipe settled.
        parts: Its live parts.
        averaging: Gives the weights to predict with.
    """

    def __init__(self, run: Run, parts: Components, averaging: Averaging) -> None:
        self._run = run
        self._parts = parts
        self._averaging = averaging
        self._measured: dict[Split, list[Any]] = {}

    def measure(self, split: Split, samples: int | None) -> dict[str, float]:
        """Return what the task measures of the outputs for the first examples of a split; nothing,
        where it measures none.

        Args:
            split: The validation or the test split.
            samples: Of how many the loss was computed: no more are measured.
        """
        task = self._parts.task
        if not isinstance(task, MeasuresOutputs) or not task.measured:
            return {}
        if split not in self._measured:
            # The same ones each time, so that validations compare.
            found = self._parts.source.examples(split, cache_folder())
            self._measured[split] = list(islice(found, task.measured))
        machine = self._run.recipe.machine
        examples = self._measured[split][:samples]
        parts = self._parts
        try:
            with devices.eager(machine), self._averaging.applied():
                return task.measure(parts.model, examples, parts.processor)
        finally:
            parts.model.train()  # writing leaves it in evaluation mode

    def sample(self, step: int) -> list[dict[str, Any]]:
        """Return a row for each prompt, or for each sheet of pictures; none where the task fails,
        which ends no training."""
        prompts = self._run.recipe.samples.prompts
        try:
            if isinstance(self._parts.task, DrawsPictures):
                return self._draw(self._parts.task, step)
            texts = self._predict(prompts, max_new_tokens=64)
        except Exception as error:
            # It may be a user's own task that fails, after hours: everything else goes on.
            name = self._parts.task.registered_name
            self._run.event(
                step,
                f"{self._run.folder}: no samples at step {step}, training goes on: predict of task"
                f" {name} failed: {type(error).__name__}: {error}",
            )
            log.debug("predict of task %s failed", name, exc_info=error)
            return []
        rows = zip(prompts, texts, strict=True)
        return [
            {"kind": "sample", "step": step, "prompt": prompt, **_shown(found)}
            for prompt, found in rows
        ]

    def _draw(self, task: DrawsPictures, step: int) -> list[dict[str, Any]]:
        """Return a row for a sheet by the weights themselves, and one by their average."""
        run = self._run
        # Next to each other: an average that lags behind, or was taken of nothing, shows.
        weights: dict[str, AbstractContextManager[None]] = {"weights": nullcontext()}
        if self._averaging.count:
            weights["averaged weights"] = self._averaging.applied()
        rows = []
        for name, chosen in weights.items():
            try:
                with devices.eager(run.recipe.machine), chosen:
                    model = self._parts.model
                    if run.recipe.machine.precision == "fp64":
                        model = copy.deepcopy(model).float()
                    prompts = run.recipe.samples.prompts
                    sheet = task.draw_sheet(model, prompts, self._parts.processor, run.recipe.seed)
            finally:
                self._parts.model.train()
            # Files next to the log, not in it: a line of the log stays a line to read.
            path = Path("samples") / f"step-{step:08d} {name}.png".replace(" ", "-")
            (run.folder / path).parent.mkdir(exist_ok=True)
            run.storage.write_parts(run.folder / path, [sheet])
            row = {"kind": "sample", "step": step, "prompt": name, "picture": path.as_posix()}
            rows.append({**row, "asked": list(prompts)})
        return rows

    def rehearse(self, validate: Callable[[], object]) -> None:
        """Validate once at the start, and predict one token from the first prompt: parts of the
        user's own would else fail late.

        Args:
            validate: Computes the metrics of a micro-batch.

        Raises:
            TrainingError: Naming the task and the model.
        """
        parts = self._parts
        names = f"task {parts.task.registered_name} with model {type(parts.model).__name__}"
        with explain(names, "cannot be validated", "Fix the one that is your own"):
            validate()
        if self._run.recipe.samples.every is None:
            return
        # One token of one prompt: a broken task shows, and no start waits for whole texts.
        for prompt in self._run.recipe.samples.prompts[:1]:
            what = f"cannot predict from the prompt {prompt!r}"
            with explain(names, what, "Fix the one that is your own"):
                self._predict([prompt], max_new_tokens=1)

    def _predict(self, prompts: Sequence[str], max_new_tokens: int) -> list[Any]:
        recipe = self._run.recipe
        parts = self._parts
        model = parts.model
        # The same seed at each step, so that samples differ by what was learned since.
        options = {"temperature": 0.8, "seed": recipe.seed, "max_new_tokens": max_new_tokens}
        try:
            with devices.eager(recipe.machine), self._averaging.applied():
                if recipe.machine.precision == "fp64":
                    # Tasks make float32 of raw inputs, which only a float32 model reads.
                    model = copy.deepcopy(model).float()
                return [
                    parts.task.predict(model, prompt, parts.processor, **options)
                    for prompt in prompts
                ]
        finally:
            parts.model.train()  # predict leaves it in evaluation mode


def _shown(predicted: Any) -> dict[str, Any]:
    """Return what a row of the log holds of a prediction."""
    if isinstance(predicted, Picture):
        return {"text": json.dumps(predicted.facts)}
    return {"text": predicted}
