"""The one training loop. ``steps()`` is the loop; ``fit()`` is its usual consumer: log, evaluate,
sample, save."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from itertools import chain
from typing import Any

import torch

from groundup.contracts.data import Stream
from groundup.core.errors import Interrupted, RecipeError
from groundup.core.seeding import reseed
from groundup.core.values import Batch, Report, Split
from groundup.machine import devices
from groundup.runs.checkpoint import Checkpoint
from groundup.runs.run import Run, count_steps
from groundup.training.accumulation import (
    Accumulation,
    Objective,
    Sums,
    TaskObjective,
    compare_with_guessing,
    count_micro_batches,
    non_finite,
)
from groundup.training.averaging import Averaging, model_inputs
from groundup.training.components import (
    Components,
    experience_of,
    first_batches,
    held_out_samples,
    move_batch,
    open_stream,
    refill,
    restore_stream,
    take_batch,
)
from groundup.training.distillation import DistillationObjective
from groundup.training.early_stopping import BestSoFar
from groundup.training.first_batch import FirstBatchCheck
from groundup.training.layer_freezing import TrainedLayers
from groundup.training.optimizers import build_optimizers
from groundup.training.samples import HeldOut, Sampler
from groundup.training.schedules import learning_rate_at
from groundup.training.throughput import Meter, Observer, StopRequest, Unobserved
from groundup.weights.restore import check_names, load_weights

__all__ = ["Trainer"]


class Trainer:
    """Trains one run from where it is.

    Args:
        run: The run's folder, its recipe complete.
        parts: Its live parts, as ``build.assemble`` makes them.

    Attributes:
        step: Updates done.
        total_steps: Updates in the whole run.
        model: The model; train or inspect it as you like between steps.
        learning_rate: The learning rate of an update, from its number.
        watch: Called by ``fit`` with every row that is logged; what it raises ends the run there.
        observe: Opens what shows a run while ``fit`` trains it.
    """

    def __init__(self, run: Run, parts: Components) -> None:
        self.run = run
        self.recipe = run.recipe
        self.device = torch.device(self.recipe.machine.device)
        self.parts = parts
        self.model = parts.model
        self.task = parts.task
        objective: Objective = TaskObjective(self.task, self.model, parts.processor)
        widened = self.recipe.machine.precision == "fp64"
        batches = partial(first_batches, run, parts)
        compared = compare_with_guessing(objective, self.task, batches)
        self.validation = parts.share(FirstBatchCheck(compared, self.task, widened=widened))
        if parts.teacher is not None:
            objective = DistillationObjective(self.task, parts.teacher)
        self.objective = parts.share(FirstBatchCheck(objective, self.task, widened=widened))
        self.stream: Stream = open_stream(run, self.parts, "train")
        # Once: what joins later (gradual unfreezing) requires a gradient from the start.
        self.trained = parts.world.trained(self.model)
        products = devices.product_dtype(run.recipe.machine)
        self.optimizer = build_optimizers(
            run.recipe.optim, self.trained, run.recipe.adapter, products
        )
        self.samples_per_epoch = self.stream.samples_per_epoch
        self.total_steps = count_steps(self.recipe.training, self.samples_per_epoch)
        self.learning_rate: Callable[[int], float] = lambda step: learning_rate_at(
            self.recipe.optim, step, self.total_steps
        )
        self.watch: Callable[[dict[str, Any]], None] = lambda row: None
        self.observe: Callable[[], AbstractContextManager[Observer]] = Unobserved
        inputs = partial(model_inputs, self.task, batches)
        self.averaging = Averaging(self.model, self.trained, self.recipe, self.total_steps, inputs)
        self.sampler = Sampler(run, self.parts, self.averaging)
        self.best = BestSoFar(self.recipe.checkpoints.best_metric, self.recipe.training)
        self._held_out = HeldOut(run, parts, self.validation)
        self.world = parts.world
        self.accumulate, self.batch_size = count_micro_batches(self.recipe, parts.world)
        own = [parameter for _, parameter in self.trained]
        exact = self.recipe.parallel.exact
        self.gradients = parts.world.gradients(own, exact=exact, micro_batches=self.accumulate)
        adapted = run.recipe.adapter is not None
        self.layers = TrainedLayers(
            self.model, run.recipe.init, self.total_steps, run.event, adapted=adapted
        )
        self.step = 0
        self.samples_seen = 0
        self.elapsed_s = 0.0
        # Last: what was built above must see the layers as they were written.
        if self.recipe.machine.compile:
            devices.compile_layers(self.model)

    # --------------------------------------------------------------------------------- the consumer
    def fit(self) -> None:
        """Train to the end: log, evaluate, sample and save as often as the recipe says.

        Raises:
            Interrupted: After Ctrl-C or SIGTERM, once everything was saved.
            TrainingError: If a step went wrong for good.
            RecipeError: If ``checkpoints.best_metric`` is unknown, or there is no test split.
        """
        if self.recipe.uses:
            self.sampler.rehearse(lambda: self.evaluate(1))
        # Not after hours: there may be nothing to validate on, or no such metric.
        self.best.check(self.evaluate(1))
        if self.recipe.evaluation.test and "test" not in self.parts.source.splits():
            raise RecipeError(
                "recipe.evaluation.test", "the data has no test split of its own", "Remove it"
            )
        checkpoints = self.recipe.checkpoints
        meter = Meter(self.recipe, self.device, self.elapsed_s)
        with StopRequest() as stop, self.observe() as observer:
            for report in self.steps():
                meter.add(report)
                self.elapsed_s = meter.elapsed_s
                try:
                    rows = self._measure(report, meter, observer)
                except Exception:  # a metric that fails must not cost the steps behind it
                    if self._due(checkpoints.every) and self.world.size == 1:
                        self.save()
                    raise
                # Once: what comes after saving is for the next step. Whoever was asked, all stop.
                stopped_by = max(self.world.gather(stop.requested, "a stop is asked for"))
                if self._due(checkpoints.every) or self.best.step == self.step or stopped_by:
                    self.save(wait=self.finished or bool(stopped_by))
                self.parts.saver.check()
                for row in chain(rows, self._look_closer()):
                    self.run.log(row)
                    observer.show(row)
                    self.watch(row)
                if stopped_by and not self.finished:
                    where = f"after step {self.step} of {self.total_steps}"
                    problem = f"stopped by {stopped_by} {where}; everything is saved"
                    remedy = f"Go on with: groundup train --resume {self.run.folder}"
                    raise Interrupted(str(self.run.folder), problem, remedy)
                # The rates are those of training: validation, samples and saving are left out.
                meter.restart_step()

    def _measure(self, report: Report, meter: Meter, observer: Observer) -> list[dict[str, Any]]:
        """Return the rows of a step that its checkpoint depends on: what a validation found decides
        which is the best, and whether to stop."""
        rows = []
        if self._due(self.recipe.evaluation.every):
            rows.append(self._validate(self.recipe.evaluation.batches))
        line = self._due(self.recipe.logging.every) or report.skipped
        if line or observer.due:
            values = meter.measure(report, self.step, line=line)
            observer.update(values)
            if line:
                rows.insert(0, {"kind": "train", **values})
        return rows

    def _look_closer(self) -> Iterator[dict[str, Any]]:
        """Yield the rows that nothing depends on, once the checkpoint is safe: test and samples."""
        samples = self.recipe.samples
        if self.recipe.evaluation.test and self.finished:
            yield {"kind": "test", "step": self.step, **self.evaluate(split="test")}
        if samples.every is not None and self._due(samples.every):
            yield from self.sampler.sample(self.step)

    @property
    def finished(self) -> bool:
        """Whether the last step is done, or early stopping made the one before the last."""
        return self.step >= self.total_steps or self.best.stopped != ""

    def _due(self, every: int | str, after: int = 0) -> bool:
        step = self.step + after
        if isinstance(every, int):
            return step % every == 0 or step >= self.total_steps or self.finished
        batch_size = self.recipe.training.batch_size  # a pass ended within the last N samples
        return (
            step * batch_size % self.samples_per_epoch < batch_size
            or step >= self.total_steps
            or self.finished
        )

    def _validate(self, batches: int | None) -> dict[str, Any]:
        metrics = self.evaluate(batches)
        self.best.consider(self.step, metrics)
        if self.best.stopped:
            self.run.event(
                self.step,
                f"stopped after step {self.step} of {self.total_steps}: {self.best.stopped}",
            )
        return {"kind": "evaluate", "step": self.step, **metrics}

    # ------------------------------------------------------------------------------------- the loop
    def steps(self) -> Iterator[Report]:
        """Train, yielding a report after every update. The run may be saved at every yield.

        Raises:
            TrainingError: If loss or gradient is not a number and the recipe says to stop.
        """
        # 1. Initialise: the weights are as __init__ or load_state_dict left them; no gradient is
        # left over.
        self.model.train()
        self.optimizer.zero_grad()
        machine = self.recipe.machine
        while not self.finished:
            # Before anything of the step is read: it may be made by these very weights.
            refill(self.stream, self.model, self.step, machine, self.world)
            self.layers.release(self.step)
            self.world.place = f"step {self.step}, samples from {self.samples_seen}"
            number, part = self.accumulate, self.batch_size
            accumulated = Accumulation(self.objective, self._next_batch, number, self.world)
            for batch in accumulated.batches:
                # Keyed, so that a resumed run drops what the uninterrupted one would have dropped.
                first = self.samples_seen + self.world.data_rank * part
                reseed(self.recipe.seed, "dropout", self.step, first)
                self.samples_seen += self.world.data_size * part
                with devices.autocast(machine):
                    # 2. Forward: from inputs to outputs, next to a teacher's where there is one.
                    outputs = self.objective.forward(self.model, batch)
                    # 3. Loss: a SUM over tokens; the mean is taken once, below.
                    loss = self.objective(outputs, batch)
                # 4. Backward: gradients of sums add up over micro-batches; of one: of its mean.
                with devices.deterministic_backward(machine):
                    torch.autograd.backward(accumulated.of(loss))
                self.gradients.collect()
                accumulated.sums.add(loss)
            accumulated.end(self.gradients)
            # 5. Update: divide once by the global count, clip, and let the optimizer move the
            # weights.
            report = self._update(accumulated)
            self.optimizer.zero_grad()
            self.step += 1
            yield report
            # 6. Repeat.

    def _next_batch(self) -> Batch:
        return move_batch(take_batch(self.stream), self.recipe.machine, self.device)

    def _update(self, accumulated: Accumulation) -> Report:
        losses = accumulated.means()
        term, (_, count) = next(iter(accumulated.sums.values.items()))
        gradients = [p.grad for _, p in self.trained if p.grad is not None]
        clip = self.recipe.optim.clip_norm
        norm = math.nan
        # A norm costs one pass over all gradients: of a small model's step a tenth.
        watched = clip is not None or self._looks_at_gradients()
        if watched:
            norm = self.gradients.norm() / accumulated.divisor
        learning_rate = self.learning_rate(self.step)
        loss = losses[term]
        samples = self.samples_seen
        finite = math.isfinite(loss) and (math.isfinite(norm) or not watched)
        if finite:
            scale = 1.0 / accumulated.divisor
            if clip is not None:  # in one pass with the division, so that no gradient is read twice
                scale = min(1.0, clip / (norm + 1e-6)) / accumulated.divisor
            if scale != 1.0:
                torch._foreach_mul_(gradients, scale)
            self.optimizer.set_lr(learning_rate)
            self.optimizer.step()
            self.averaging.update(self.step)
        elif self.recipe.machine.non_finite == "stop":
            raise non_finite(self.run, self.step, loss, norm, learning_rate, samples)
        return Report(
            self.step, loss, losses, learning_rate, norm, round(count), samples, skipped=not finite
        )

    def _looks_at_gradients(self) -> bool:
        """Without clipping the norm costs a small model much: it is taken where it is used."""
        recipe = self.recipe
        sections = (recipe.logging, recipe.evaluation, recipe.checkpoints)
        return recipe.machine.non_finite == "skip" or any(
            self._due(section.every, after=1) for section in sections
        )

    # ----------------------------------------------------------------------------------- evaluation
    @torch.no_grad()
    def evaluate(self, batches: int | None = None, split: Split = "validation") -> dict[str, float]:
        """Return the task's metrics on a split, of losses and of what is written.

        Args:
            batches: Stop after N micro-batches; None takes the whole split.
            split: The validation split, or the test split where the data has one.
        """
        sums = Sums()
        byte_count = 0.0
        samples = held_out_samples(self.run, batches)
        self.model.eval()
        try:
            with devices.eager(self.recipe.machine), self.averaging.applied():
                for batch in self._held_out.batches(split, self.step, samples):
                    byte_count += self.task.count_bytes(batch, self.parts.processor)
                    on_device = move_batch(batch, self.recipe.machine, self.device)
                    with devices.autocast(self.recipe.machine):
                        outputs = self.validation.forward(self.model, on_device)
                        sums.add(self.validation(outputs, on_device))
        finally:
            self.model.train()
        if byte_count:
            sums.values["bytes"] = (byte_count, 1.0 / self.world.data_size)
        sums.add_up(self.world)
        return self.task.summarise(sums.values) | self.sampler.measure(split, samples)

    # ---------------------------------------------------------------------------------------- state
    def state_dict(self, *, shared_out: bool = False) -> Checkpoint:
        """Return everything that the rest of the run depends on; with ``shared_out`` of tensors
        what this process writes, and the shapes of the others."""
        whole = partial(self.world.whole, shared_out=shared_out)
        state = {
            "finished": self.finished,
            "samples_seen": self.samples_seen,
            "stream": self.stream.state_dict(),
            "samples_per_epoch": self.stream.samples_per_epoch,
            "averaged": self.averaging.count,
            "total_steps": self.total_steps,
            "elapsed_s": self.elapsed_s,
            **self.best.state_dict(),
            **self.parts.base.state(),
        }
        if self.parts.teacher is not None:
            state["teacher"] = self.parts.teacher.reference
        with self.averaging.applied():
            weights = whole(self.parts.base.leave_out(self.model.state_dict()))
        weights = {name: value.detach().contiguous() for name, value in weights.items()}
        moments = whole(self.optimizer.state_dict() | self.averaging.state_dict())
        return Checkpoint(self.step, weights, moments, state, experience_of(self.stream))

    def load_state_dict(self, checkpoint: Checkpoint) -> None:
        """Restore what ``state_dict`` returned.

        Raises:
            RunError: If the data is not what the checkpoint was trained on.
            CheckpointError: If it is of an adapter, for another base than the run's.
        """
        where = str(self.run.checkpoints.path(checkpoint.step))
        own = self.parts.take_own(checkpoint)
        checkpoint = self.parts.base.complete(own, self.model, where)
        state: dict[str, Any] = checkpoint.state
        if self.parts.teacher is not None:
            self.parts.teacher.check_same(state, where)
        restore_stream(self.run, self.stream, checkpoint)
        weights, moments = self.averaging.load(checkpoint, state["averaged"])
        check_names(self.recipe.model, weights, where)
        load_weights(self.model, self.world.fit(weights), where)
        self.optimizer.load_state_dict(moments)
        self.step = checkpoint.step
        self.samples_seen = state["samples_seen"]
        self.elapsed_s = state["elapsed_s"]
        self.best.load_state_dict(state)

    def save(self, *, wait: bool = True) -> None:
        """Write a checkpoint of this moment, and wait for it, or see to it that it is written."""
        keep = self.recipe.checkpoints.keep
        self.parts.saver.save(self.state_dict(shared_out=True), keep, self.best.step, wait=wait)

    def resume(self) -> bool:
        """Go on from the newest intact checkpoint of the run, if there is one, and say so."""
        newest = self.parts.saver.newest_intact()
        if newest is None:
            return False
        self.load_state_dict(self.run.checkpoints.load(newest, verified=True))
        where = f"the checkpoint of step {newest} of {self.total_steps}"
        self.run.event(newest, f"{self.run.folder}: resumed from {where}")
        return True

    def close(self) -> None:
        """Stop the data workers, and let a checkpoint that is being written come to its end."""
        # Closing comes after an error as often as not: that one is to be seen.
        with contextlib.suppress(Exception):
            self.stream.close()
        self._held_out.close()
        self.parts.saver.close()
