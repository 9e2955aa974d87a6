"""Tables of how the gradients of tasks that share a model agree."""

from __future__ import annotations

from collections.abc import Sequence

from groundup.core.values import Table
from groundup.metrics.gradient_agreement import Agreement

__all__ = ["agreement_tables"]


def agreement_tables(names: Sequence[str], found: Agreement, over: str) -> list[Table]:
    """Return two tables, tasks by tasks: the mean cosine of their gradients, and how often it is
    negative.

    Args:
        names: The tasks.
        found: What was measured.
        over: In words, on which examples.
    """
    cosine = [
        (name, *map(_cell, row), _cell(norm))
        for name, row, norm in zip(names, found.cosine, found.norm, strict=True)
    ]
    conflict = [(name, *map(_cell, row)) for name, row in zip(names, found.conflict, strict=True)]
    return [
        Table(
            "How the tasks' gradients agree: mean cosine",
            ("task", *names, "gradient norm"),
            list(cosine),
            f"Of the unweighted losses in all shared layers, {over}. 1: the same direction; 0:"
            " unrelated.",
        ),
        Table(
            "How often the tasks' gradients conflict: share of batches",
            ("task", *names),
            list(conflict),
            f"The cosine is negative: a step for one task alone makes the other worse; {over}.",
        ),
    ]


def _cell(value: float) -> float | None:
    return None if value != value else round(float(value), 4)
