"""One export while it is made: what is written, and what was compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from groundup.contracts.models import ModelConfig
from groundup.core.errors import CheckpointError
from groundup.export.verify import (
    Comparison,
    Limit,
    Model,
    Reader,
    Sample,
    compare,
    compare_continuations,
    first_difference,
)
from groundup.runs.run import Run

__all__ = ["EXACT", "NATS", "ROUNDING", "TABLE", "Job"]

# the largest difference over the largest output, where both compute in float32
EXACT = 1e-4
# What rounding the weights may change, and what llama.cpp may, which rounds what goes into each
# product as well.
ROUNDING = {"fp32": EXACT, "fp16": 0.02, "bf16": 0.1}
# what changes where llama.cpp looks GELU up in a table of 16-bit numbers
TABLE = 2e-3
# Mean KL divergence of llama.cpp's quantized products from groundup's own with the same weights.
NATS = 0.02


@dataclass
class Job:
    """One export, and what was compared so far."""

    run: Run
    step: int
    config: ModelConfig
    weights: dict[str, Tensor]
    merged: Model
    processor: Any
    samples: list[Sample]
    folder: Path
    target: Path
    dtype: str
    tolerance: float | None
    comparisons: list[Comparison] = field(default_factory=list)

    def limit(self, difference: float | None, *, choices: bool = True) -> Limit:
        """Return a limit for outputs; the user's tolerance takes the place of ``difference``."""
        return Limit(difference if self.tolerance is None else self.tolerance, choices=choices)

    def check(self, reference: Reader, other: Reader, limit: Limit) -> None:
        """Check that two readers compute the same.

        Raises:
            CheckpointError: If they differ by more than the limit, naming the first layer that
                does.
        """
        found = compare(reference, other, self.samples, limit)
        texts = [other.continuation(sample) for sample in self.samples if sample.prompt]
        written = [text for text in texts if text is not None]
        if written:
            compare_continuations(reference, written, self.samples, found)
        self.comparisons.append(found)
        problem = found.problem()
        if problem is not None:
            layer = first_difference(reference, other, self.samples, limit.difference or EXACT)
            self.refuse(f"{other.name} {problem}; {layer}")

    def refuse(self, problem: str) -> None:
        """Raise an error that says what is wrong with the export."""
        remedy = (
            "Nothing was exported, and the run is as it was. If such a difference does no harm,"
            " allow it with --tolerance"
        )
        raise CheckpointError(str(self.target), problem, remedy)
