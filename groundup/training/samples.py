"""What a model in training is measured by: held-out batches, samples to look at, outputs."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from groundup.contracts.data import Stream
from groundup.contracts.tasks import DrawsPictures, MeasuresOutputs, Picture
from groundup.core.values import Batch, Split
from groundup.machine import devices
from groundup.runs.processor import cache_folder
from groundup.runs.run import Run
from groundup.training.averaging import Averaging
from groundup.training.components import Components, move_batch, open_stream, refill
from groundup.training.first_batch import explain

__all__ = ["HeldOut", "Sampler"]

log = logging.getLogger("groundup")


class HeldOut:
    """The held-out splits of a run, each opened once; ``objective`` is that of validations."""

    def __init__(self, run: Run, parts: Components, objective: Any) -> None:
        self._run = run
        self._parts = parts
        self._objective = objective
        # Kept open: preparing a split may take longer than validating on it.
        self._streams: dict[Split, Stream] = {}
        self._stand_ins: dict[Split, Batch] = {}

    def batches(self, split: Split, step: int, samples: int | None = None) -> Iterator[Batch]:
        """Yield this process's micro-batches of a split, from the first one on; examples that
        weights make are made anew.

        Args:
            split: Which one.
            step: Updates done.
            samples: Stop once all processes together have so many, rounded up to whole
                micro-batches; None takes the whole split.
        """
        if split not in self._streams:
            stream = open_stream(self._run, self._parts, split)
            # Each process computes as many batches: one of a divided model cannot go without the
            # others.
            name = f"the number of {split} samples"
            self._parts.world.refuse_differences(name, f"{stream.samples_per_epoch}")
            self._streams[split] = stream
        stream = self._streams[split]
        # The same micro-batches each time, so that validations compare.
        stream.load_state_dict({"samples": 0})
        machine = self._run.recipe.machine
        refill(stream, self._parts.model, step, machine, self._parts.world)
        number = samples
        if samples is not None:
            per_round = self._parts.world.data_size * machine.settled_micro_batch_size
            number = -(-samples // per_round)
        # Of the last ones some are empty: all processes get as many.
        for batch in islice(stream, number):
            if batch:
                self._stand_ins.setdefault(split, batch)
                yield batch
            elif self._parts.world.shares_layers:
                self._keep_step(split)

    def _keep_step(self, split: Split) -> None:
        """Compute something that counts for nothing: the other processes wait for parameters in
        each of their batches."""
        if split not in self._stand_ins:  # there are fewer examples than processes
            with contextlib.closing(open_stream(self._run, self._parts, split, alone=True)) as one:
                self._stand_ins[split] = next(one)
        machine = self._run.recipe.machine
        batch = move_batch(self._stand_ins[split], machine, torch.device(machine.device))
        with devices.autocast(machine):
            self._objective(self._objective.forward(self._parts.model, batch), batch)

    def close(self) -> None:
        """Stop the data workers."""
        # Closing comes after an error as often as not: that one is to be seen.
        for stream in self._streams.values():
            with contextlib.suppress(Exception):
                stream.close()


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
            with devices.eager(machine), self._predicting() as model:
                return task.measure(model, examples, parts.processor)
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
                whole = self._parts.world.whole_model(self._parts.model)
                with devices.eager(run.recipe.machine), chosen, whole as model:
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
        # The same seed at each step, so that samples differ by what was learned since.
        options = {"temperature": 0.8, "seed": recipe.seed, "max_new_tokens": max_new_tokens}
        try:
            with devices.eager(recipe.machine), self._predicting() as model:
                if recipe.machine.precision == "fp64":
                    # Tasks make float32 of raw inputs, which only a float32 model reads.
                    model = copy.deepcopy(model).float()
                return [
                    parts.task.predict(model, prompt, parts.processor, **options)
                    for prompt in prompts
                ]
        finally:
            parts.model.train()  # predict leaves it in evaluation mode

    @contextlib.contextmanager
    def _predicting(self) -> Iterator[nn.Module]:
        """Yield the model with the averaged weights, where there are any, and with all of them."""
        parts = self._parts
        with self._averaging.applied(), parts.world.whole_model(parts.model) as model:
            yield model


def _shown(predicted: Any) -> dict[str, Any]:
    """Return what a row of the log holds of a prediction."""
    if isinstance(predicted, Picture):
        return {"text": json.dumps(predicted.facts)}
    return {"text": predicted}
