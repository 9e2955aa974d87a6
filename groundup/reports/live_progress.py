"""The live display of a training run: a bar, the loss, the speed and the time left; plain lines in
a log."""

from __future__ import annotations

import importlib.util
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from groundup.reports.formatting import (
    compact,
    duration,
    is_number,
    label,
    memory,
    number,
    shorten,
)

__all__ = ["ProgressDisplay"]

# updates over which the time left is estimated
WINDOW = 64
SEPARATOR = " · "
# characters of a sample; metrics.jsonl and the report have all of it
_SAMPLE = 240
# of a validation: what the report compares its loss with
_NOT_SHOWN = ("step", "baseline_loss", "baseline_accuracy", "loss_standard_error", "examples")
# The names by which values are shown, the most telling first.
_FACTS = {
    # Learning from rewards, the loss is near 0 whatever is learned.
    "reward": "reward",
    "no_signal": "no signal",
    "loss": "loss",
    "validation_loss": "validation",
    "lr": "lr",
    "learning_rate": "lr",
}


class ProgressDisplay:
    """Show how training goes; use it as a context manager.

    On a terminal (or in a notebook with ipywidgets) two lines are redrawn in place four times a
    second by a background thread, so ``update`` costs next to nothing. Elsewhere one compact line
    is printed every ``every_s`` seconds. It never swallows an exception, Ctrl-C included, and
    always gives the cursor back.

    Args:
        total_steps: Steps of the whole run, counted from its first start.
        name: What is being trained.
        unit: What the throughput counts, such as ``"tokens"`` or ``"images"``.
        console: Where to draw; standard error by default, so that standard output stays clean for
            results.
        every_s: Seconds between lines where there is no terminal.
        clock: Seconds that only rise; tests give their own.

    Example:
        >>> with ProgressDisplay(1000, "pretrain") as display:  # doctest: +SKIP
        ...     for report in trainer.steps():
        ...         display.update({"step": report.step, "loss": report.loss})
    """

    def __init__(
        self,
        total_steps: int,
        name: str,
        unit: str = "tokens",
        *,
        console: Console | None = None,
        every_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total_steps = total_steps
        self.name = name
        self.unit = unit
        self.console = console or Console(stderr=True, highlight=False)
        self.every_s = every_s
        self._clock = clock
        self._values: dict[str, Any] = {}
        self._recent: deque[tuple[float, int]] = deque(maxlen=WINDOW)
        self._printed_at = float("-inf")
        self._printed_step = -1
        self._live: Live | None = None

    def __enter__(self) -> ProgressDisplay:
        if _can_redraw(self.console):
            self._live = Live(
                get_renderable=self._render,
                console=self.console,
                refresh_per_second=4,
                vertical_overflow="crop",
            )
            self._live.start(refresh=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        elif self._values and self._printed_step != self.step:
            self._print_line()

    @property
    def step(self) -> int:
        """The last step that was reported."""
        return int(self._values.get("step", 0))

    @property
    def due(self) -> bool:
        """Whether new numbers would be seen: at most four times a second, so that most steps need
        not measure any."""
        return not self._recent or self._clock() - self._recent[-1][0] >= 0.25

    @property
    def time_left_s(self) -> float | None:
        """Seconds to the last step at the pace of the latest steps; ``None`` until there is a
        pace."""
        if len(self._recent) < 2:
            return None
        then, first = self._recent[0]
        now, last = self._recent[-1]
        if last <= first or now <= then:
            return None
        return (now - then) / (last - first) * max(0, self.total_steps - last)

    def update(self, values: Mapping[str, Any]) -> None:
        """Take the newest numbers.

        Args:
            values: Any of ``step``, ``loss``, ``lr``, ``tokens_per_s``, ``flops_per_s``,
                ``matmul_share`` (0 to 1), ``memory_bytes``, ``validation_loss`` (or
                ``<unit>_per_s``). Those not given keep their last value; without ``step``, one step
                is counted.
        """
        now = self._clock()
        step = int(values.get("step", self.step + 1))
        if self._recent and step < self._recent[-1][1]:
            # a resume has gone back
            self._recent.clear()
        self._values = {**self._values, **values, "step": step}
        self._recent.append((now, step))
        if self._live is None and (
            now - self._printed_at >= self.every_s or step >= self.total_steps
        ):
            self._printed_at = now
            self._print_line()

    def message(self, text: str) -> None:
        """Print a line above the bar, such as ``saved step-00000100``; a known pause does not count
        as slow steps."""
        self._recent.clear()
        self.console.print(Text(text), soft_wrap=True)

    def show(self, row: Mapping[str, Any]) -> None:
        """Print what a row of metrics.jsonl says above the bar: a validation or test in one line, a
        sample's text."""
        split = {"evaluate": "validation", "test": "test"}.get(str(row.get("kind")))
        if split is not None:
            facts = [
                f"{label(name)} {shorten(amount)}"
                for name, amount in row.items()
                if name not in _NOT_SHOWN and is_number(amount)
            ]
            self._values[f"{split}_loss"] = row.get("loss")
            self.message(
                SEPARATOR.join([f"{self.name} {row['step']}/{self.total_steps} · {split}", *facts])
            )
        elif row.get("kind") == "sample":
            text = " ".join(str(row.get("text") or row.get("picture") or "").split())
            if len(text) > _SAMPLE:
                text = f"{text[:_SAMPLE]}…"
            self.message(f"  {row['prompt']}▸{text}")

    # -------------------------------------------------------------------------------------- drawing
    def _render(self) -> RenderableType:
        share = min(1.0, self.step / max(1, self.total_steps))
        left = self.time_left_s
        row = Table.grid(padding=(0, 1), expand=False)
        # the other four cells take about 46 characters
        width = max(8, min(36, self.console.width - len(self.name) - 46))
        row.add_row(
            Text(self.name, style="bold"),
            ProgressBar(total=1.0, completed=share, width=width),
            Text(f"{number(self.step)}/{number(self.total_steps)}"),
            Text(f"{100 * share:.0f}%", style="dim"),
            Text("" if left is None else f"{duration(left)} left", style="cyan"),
        )
        return Group(row, _fit_to_width(self._facts(), self.console.width))

    def _facts(self) -> list[str]:
        """Return the newest numbers in words, the most telling first."""
        values = {name: amount for name, amount in self._values.items() if is_number(amount)}
        facts = [
            f"{words} {shorten(values[key])}" for key, words in _FACTS.items() if key in values
        ]
        loss = self._values.get("loss")
        if isinstance(loss, float) and "loss" not in values:
            # nan or inf, which has to be seen
            facts.insert(0, f"loss {loss}")
        rate = values.get(f"{self.unit}_per_s", values.get("tokens_per_s"))
        if rate is not None:
            facts.append(compact(rate, f" {self.unit}/s").replace("  ", " "))
        if "flops_per_s" in values:
            of = ""
            if "matmul_share" in values:
                of = f" ({100 * values['matmul_share']:.0f}% of matmul)"
            facts.append(compact(values["flops_per_s"], "FLOP/s") + of)
        if "memory_bytes" in values:
            facts.append(memory(values["memory_bytes"]))
        return facts

    def _print_line(self) -> None:
        parts = [f"{self.name} {self.step}/{self.total_steps}", *self._facts()]
        if left := self.time_left_s:
            parts.append(f"{duration(left)} left")
        self.console.print(Text(SEPARATOR.join(parts)), soft_wrap=True)
        self._printed_step = self.step


def _can_redraw(console: Console) -> bool:
    if console.is_jupyter:
        # without ipywidgets, rich prints every frame below the last
        return importlib.util.find_spec("ipywidgets") is not None
    return console.is_terminal and not console.is_dumb_terminal


def _fit_to_width(facts: list[str], width: int) -> Text:
    """Leave out the last facts that a narrow terminal has no room for, so that the display keeps
    its height."""
    kept: list[str] = []
    for fact in facts:
        if len(SEPARATOR.join([*kept, fact])) + 3 > width:
            break
        kept.append(fact)
    return Text("  " + SEPARATOR.join(kept), style="dim", no_wrap=True, overflow="ellipsis")
