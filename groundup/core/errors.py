"""Errors a user can act on: *where: what we got and what is allowed. What to do.*"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

__all__ = [
    "CheckpointError",
    "DataError",
    "GroundupError",
    "Interrupted",
    "MissingExtraError",
    "RecipeError",
    "RunError",
    "TrainingError",
    "did_you_mean",
    "in_words",
]


class GroundupError(Exception):
    """A mistake in the input or the machine, never a bug of groundup. The command line prints it
    without a traceback.

    Args:
        where: The file, row or key, for example ``"data.jsonl line 7"`` or ``"recipe.optim.lr"``.
        problem: What was found and what is allowed, without a final stop.
        remedy: What to do about it, without a final stop.
    """

    exit_code = 2

    def __init__(self, where: str, problem: str, remedy: str = "") -> None:
        self.where = where
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{where}: {problem}." + (f" {remedy}." if remedy else ""))

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what rebuilds it in another process: its class and words, whatever its class is
        called with."""
        return _rebuilt, (type(self), self.where, self.problem, self.remedy)


def _rebuilt(kind: type[GroundupError], where: str, problem: str, remedy: str) -> GroundupError:
    # Not by calling it: MissingExtraError takes other arguments, which are not kept.
    error = kind.__new__(kind)
    GroundupError.__init__(error, where, problem, remedy)
    return error


class RecipeError(GroundupError):
    """A recipe or an override that cannot mean anything."""

    exit_code = 2


class DataError(GroundupError):
    """Input data that cannot be read, or has nothing to learn from."""

    exit_code = 3


class RunError(GroundupError):
    """A run folder that is missing, is in the way, or belongs to another recipe."""

    exit_code = 4


class CheckpointError(GroundupError):
    """A checkpoint that is damaged, does not fit, or could not be written."""

    exit_code = 5


class TrainingError(GroundupError):
    """A run that cannot go on, such as one whose loss is not a number."""

    exit_code = 6


class MissingExtraError(GroundupError):
    """An optional library that is not installed.

    Args:
        library: The import that failed.
        extra: The extra of this package that brings it.
    """

    exit_code = 7

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(
            library, "is not installed", f"Install it with: pip install 'groundup[{extra}]'"
        )


class Interrupted(GroundupError):
    """The user or the system asked a run to stop; it was saved first."""

    exit_code = 130


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Return ``"did you mean 'x'? "`` with the nearest option, or the empty string."""
    known = list(options)
    close = [each for each in known if each.strip().casefold() == name.strip().casefold()]
    if not close:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        # classification is classify rather than token_classification
        close = [each for each in near if each[:3] == name[:3]] or near
    return f"did you mean {close[0]!r}? " if close else ""


def in_words(error: BaseException) -> tuple[str, int]:
    """Return what to print for an error that is no bug of groundup, and the exit code.

    A reader that went away and a second Ctrl-C need no words.
    """
    if isinstance(error, GroundupError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "", 130
    if isinstance(error, BrokenPipeError):
        return "", 0
    where = "the system"
    problem = str(error)
    if isinstance(error, OSError):
        where = error.filename or where
        problem = error.strerror or problem
    return (
        (
            f"{where}: {problem}. Saved checkpoints are untouched: put it right and start the same"
            " command again."
        ),
        1,
    )
