"""What to do about inputs that a trained run cannot read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from groundup.core.errors import DataError

__all__ = ["remedies_after_training", "remedy_after_training"]


def remedy_after_training(remedy: str) -> str:
    """Return what to do, without settings of the processor: they are those of training, and
    stay."""
    if not remedy or "processor." in remedy:
        return "Write it as in the data that the run was trained on"
    return remedy


@contextlib.contextmanager
def remedies_after_training() -> Iterator[None]:
    """Take settings of the processor out of what errors say to do.

    Yields:
        Nothing.
    """
    try:
        yield
    except DataError as error:
        remedy = remedy_after_training(error.remedy)
        raise DataError(error.where, error.problem, remedy) from error
