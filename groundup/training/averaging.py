"""Averages of the weights over training: what is validated, predicted with and kept, while training
goes on raw."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from groundup.contracts.tasks import Task
from groundup.core.values import Batch
from groundup.machine import devices
from groundup.recipe.recipe import Recipe
from groundup.runs.checkpoint import Checkpoint

__all__ = ["Averaging", "model_inputs"]

_RAW = "/raw"


class Averaging:
    """The average of a model's weights over its updates.

    ``ema`` moves the average towards the weights by ``1 - decay`` after every update. The decay
    grows from the start, ``min(ema_decay, (1 + n) / (10 + n))`` after n updates, so that the random
    initial weights are soon forgotten. ``swa`` is the plain mean of the weights after every update
    from ``average_from`` of the run on; until then the raw weights are used.

    Buffers, such as batch norm's running statistics, are averaged in the same way. Under ``swa``
    those of batch norm are then estimated again, for the averaged weights: as plain means over
    training micro-batches, without dropout, each time the averaged weights are needed.

    One fused operation an update; memory for one more copy of what is trained and of the buffers.

    Args:
        model: What is trained.
        trained: What this process has of its parameters that are, by name.
        recipe: Its ``optim`` says how to average, its ``machine`` in what precision to compute.
        total_steps: Updates in the whole run.
        batches: Returns the model's inputs for training micro-batches, the same at each call.

    Attributes:
        count: How many updates are in the average; 0 while there is none.

    Source:
        Polyak and Juditsky 1992, "Acceleration of stochastic approximation by averaging"; Izmailov
        et al. 2018 (arXiv:1803.05407), algorithm 1 and section 3.2 on batch norm. Departs from the
        latter: an average after every update, and the learning rate follows the recipe's schedule.
    """

    def __init__(
        self,
        model: nn.Module,
        trained: Sequence[tuple[str, nn.Parameter]],
        recipe: Recipe,
        total_steps: int,
        batches: Callable[[], Iterable[dict[str, Any]]],
    ) -> None:
        self._model = model
        self._batches = batches
        self._machine = recipe.machine
        self._optim = optim = recipe.optim
        self._first = math.floor(optim.average_from * total_steps) if optim.average == "swa" else 0
        self.count = 0
        # The count for which batch norm's statistics were estimated: they serve until it grows.
        self._estimated = 0
        # Buffers that are not saved, such as tables of angles, never change and need no average.
        saved = model.state_dict()
        self._names = [name for name, _ in [*trained, *model.named_buffers()] if name in saved]
        tensors = dict([*trained, *model.named_buffers()])
        self._raw: list[Tensor] = [tensors[name] for name in self._names]
        whole = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
        self._parts = [id(raw) not in whole for raw in self._raw]
        self._mean: list[Tensor] = []
        self._norms: list[_BatchNorm] = []
        if recipe.adapter is None:  # which leaves its base's statistics as they are
            norms = (m for m in model.modules() if isinstance(m, _BatchNorm))
            self._norms = [norm for norm in norms if norm.track_running_stats]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after update number ``step``, from 0."""
        if self._optim.average == "none" or step < self._first:
            return
        if not self.count:
            self._begin()
        # Of a plain mean each update has an equal share, and the first replaces what was there.
        share = 1.0 / (self.count + 1)
        if self._optim.average == "ema":
            share = 1.0 - min(self._optim.ema_decay, (1.0 + self.count) / (10.0 + self.count))
        self.count += 1
        torch._foreach_lerp_(self._moved, self._moving, share)
        for mean, raw in self._whole:
            mean.copy_(raw)

    @torch.no_grad()
    def _begin(self) -> None:
        """Start from the weights as they are, and sort what is averaged from what is counted
        (integers: copied)."""
        self._mean = [raw.detach().clone() for raw in self._raw]
        pairs = list(zip(self._mean, self._raw, strict=True))
        self._moved = [mean for mean, raw in pairs if raw.is_floating_point()]
        self._moving = [raw for _, raw in pairs if raw.is_floating_point()]
        self._whole = [(mean, raw) for mean, raw in pairs if not raw.is_floating_point()]

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the averaged weights, where there are any; afterwards it has its own
        again."""
        if not self.count:
            yield
            return
        self._swap()
        try:
            if self._optim.average == "swa" and self._norms and self._estimated != self.count:
                self._estimate()
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for mean, raw, is_part in zip(self._mean, self._raw, self._parts, strict=True):
            if is_part:
                # Who gathers the whole parameter reads this very memory.
                kept = raw.detach().clone()
                raw.detach().copy_(mean)
                mean.copy_(kept)
            else:
                # The memory changes owners: nothing is copied, and the parameters stay the
                # optimizer's.
                mean.data, raw.data = raw.data, mean.data

    @torch.no_grad()
    def _estimate(self) -> None:
        training = self._model.training
        momenta = [norm.momentum for norm in self._norms]
        # Everything else as in evaluation, dropout above all; only batch norm takes statistics.
        self._model.eval()
        for norm in self._norms:
            norm.reset_running_stats()
            norm.train()
            norm.momentum = None  # a plain mean over the micro-batches
        try:
            for inputs in self._batches():
                with devices.autocast(self._machine), devices.eager(self._machine):
                    self._model(**inputs)
        finally:
            for norm, momentum in zip(self._norms, momenta, strict=True):
                norm.momentum = momentum
            self._model.train(training)
        self._estimated = self.count

    def state_dict(self) -> dict[str, Tensor]:
        """Return the raw weights as ``"<name>/raw"`` while there is an average, to travel with the
        optimizer's."""
        # In the optimizer's file, because only a resume reads them: predictions need the average.
        if not self.count:
            return {}
        return {
            f"{name}{_RAW}": raw.detach().contiguous()
            for name, raw in zip(self._names, self._raw, strict=True)
        }

    def load(
        self, checkpoint: Checkpoint, count: int
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Restore the average of a checkpoint, and return the raw weights and the optimizer's
        tensors in it.

        Args:
            checkpoint: Its model is the average.
            count: How many updates are in it.
        """
        raw = {n.removesuffix(_RAW): t for n, t in checkpoint.optimizer.items() if n.endswith(_RAW)}
        moments = {
            name: tensor for name, tensor in checkpoint.optimizer.items() if not name.endswith(_RAW)
        }
        # The checkpoint was saved with the average applied, so its statistics are of this count.
        self.count = self._estimated = count
        if count:
            self._begin()
            for name, mean in zip(self._names, self._mean, strict=True):
                mean.copy_(checkpoint.model[name])
        return {**checkpoint.model, **raw}, moments


def model_inputs(task: Task, batches: Callable[[], Iterator[Batch]]) -> Iterator[dict[str, Any]]:
    """Return what a model is given for each of some batches."""
    return map(task.inputs, batches())
