"""Measuring a run while it runs, showing it, and hearing that it should stop."""

from __future__ import annotations

import logging
import signal
import time
from types import FrameType, TracebackType
from typing import Any, Protocol

import torch

from groundup.contracts.models import context_length_of
from groundup.core.values import Report
from groundup.machine import devices
from groundup.machine.contention import ContentionWatch
from groundup.recipe.recipe import Recipe

__all__ = ["Meter", "Observer", "StopRequest", "Unobserved"]

log = logging.getLogger("groundup")


class Meter:
    """Turns reports into the values that are logged and shown: rates, share of the machine's matmul
    rate, memory.

    Args:
        recipe: A complete recipe.
        device: Where the run computes.
        elapsed_s: Training seconds before this process, as after a resume.
    """

    def __init__(self, recipe: Recipe, device: torch.device, elapsed_s: float) -> None:
        model = recipe.model
        self._device = device
        self._model = model
        self._batch_size = recipe.training.batch_size
        self._matmul_rate = devices.matmul_flops_per_s(device.type, recipe.machine.precision)
        self._begin = self._last = time.perf_counter()
        self._before_s = elapsed_s
        self._count = 0
        self._steps = 0
        self._counted = 0
        self._busy_s = 0.0  # since the last line
        self._unit = recipe.task.unit
        self._watched = recipe.task.watched
        self._trained_layers = recipe.init.train_layers
        self._contention = ContentionWatch(torch.get_num_threads())

    @property
    def elapsed_s(self) -> float:
        """Training seconds so far, validation and saving included."""
        return self._before_s + time.perf_counter() - self._begin

    def add(self, report: Report) -> None:
        """Take note of a step that is done. Called at every step, so it does next to nothing."""
        now = time.perf_counter()
        self._busy_s = self._busy_s + now - self._last
        self._last = now
        self._steps = self._steps + 1
        self._counted = self._counted + report.count
        self._count = self._count + report.count

    def measure(self, report: Report, step: int, *, line: bool) -> dict[str, Any]:
        """Return what metrics.jsonl holds for a step: its loss, and rates over the steps since the
        last line.

        Args:
            report: The newest step.
            step: Updates done.
            line: Whether these values are a line; the next rates begin here.
        """
        if self._device.type == "cpu" and (message := self._contention.check()):
            log.warning("%s", message)
        step_s = self._busy_s / self._steps
        # Of a model that does not say how much it computes, no rate can be told.
        rates = {}
        if flops := self._flops_per_step():
            flops_per_s = flops / step_s
            rates = {"flops_per_s": flops_per_s, "matmul_share": flops_per_s / self._matmul_rate}
        # In the order in which a reader of metrics.jsonl looks for them.
        values = {
            "step": step,
            "loss": report.loss,
            **self._watched(report.losses),
            "learning_rate": report.learning_rate,
            "gradient_norm": report.gradient_norm,
            self._unit: self._count,
            f"{self._unit}_per_s": self._counted / self._busy_s,
            **rates,
            "memory_bytes": devices.memory_bytes(self._device),
            "step_s": step_s,
            "elapsed_s": self.elapsed_s,
        }
        if line:
            self._steps = 0
            self._counted = 0
            self._busy_s = 0.0
        return values

    def _flops_per_step(self) -> float:
        """Return the work of a mean step since the last line, 0 if the model does not say."""
        length = context_length_of(self._model)
        # A model of frames that writes tokens does its work by the frames, which are not counted.
        if self._unit == "tokens" and not length:
            return 0.0
        length = length or 1
        tokens = float(length * self._batch_size)
        if self._model.rows_vary:
            tokens = self._counted / self._steps
            length = max(round(tokens / self._batch_size), 1)
        return self._model.trained_flops_per_token(length, self._trained_layers) * tokens

    def restart_step(self) -> None:
        """Leave out what happened since the last step, such as a validation, from the rates."""
        self._last = time.perf_counter()


class Observer(Protocol):
    """Sees a run while it is trained."""

    @property
    def due(self) -> bool:
        """Whether ``update`` is to be called with the values of the next step."""

    def update(self, values: dict[str, Any]) -> None:
        """Take the values of a step."""

    def show(self, row: dict[str, Any]) -> None:
        """Take a row of metrics.jsonl, once it is there."""


class Unobserved:
    """An observer that looks at nothing, and the context in which it does."""

    due = False

    def __enter__(self) -> Observer:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, values: dict[str, Any]) -> None:
        """Do nothing."""

    def show(self, row: dict[str, Any]) -> None:
        """Do nothing."""


class StopRequest:
    """Within its context, the first Ctrl-C or SIGTERM asks for a stop; a second Ctrl-C stops at
    once.

    Attributes:
        requested: Empty, or the name of the signal.
    """

    def __init__(self) -> None:
        self.requested = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._hear)
            except ValueError:  # not the main thread: signals go to whoever started it
                return self
        return self

    def _hear(self, number: int, frame: FrameType | None) -> None:
        # Whoever types it again does not want to wait. A second SIGTERM says nothing new: a
        # scheduler sends one to every process, and the launcher passes its own on.
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.requested:
            return
        self.requested = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The handlers are the whole process's: a notebook or a server gets its own back.
        for number, handler in self._before.items():
            signal.signal(number, handler)
