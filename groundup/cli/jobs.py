"""What ``groundup launch`` does instead of starting a run: write a job file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from groundup.core.errors import GroundupError, RecipeError

__all__ = ["refuse_options", "write_job_file"]


def refuse_options(given: dict[str, object], needed: str) -> None:
    """Refuse options that mean nothing without another one.

    Raises:
        GroundupError: Naming the first that was given.
    """
    for name, value in given.items():
        if value:
            raise GroundupError(name, f"has no effect without {needed}", "Remove it")


def write_job_file(
    destination: str,
    name: str,
    arguments: Sequence[str],
    runs: Path,
    out: Path | None,
    options: Sequence[str],
    numbers: tuple[int, int, int],
) -> Path:
    """Write a job file, and return its path.

    Args:
        destination: ``slurm``, ``kubernetes`` or ``skypilot``.
        name: Of the run.
        arguments: What ``groundup train`` takes.
        runs: The folder of all runs.
        out: The new file; None: named after the run, in the current folder.
        options: Of the destination, as ``KEY=VALUE``.
        numbers: Processes on a machine, machines, and restarts.

    Raises:
        RecipeError: If the destination or an option is wrong, or the file exists.
    """
    # Here, because reading options needs pydantic, for which --help must not wait.
    from groundup.parallel.job_files import DESTINATIONS, Job, write_job
    from groundup.recipe.raw import parse_overrides

    path = out or Path(f"{name}{DESTINATIONS.get(destination, '')}")
    job = Job(name, arguments, str(runs), *numbers, file=str(path))
    text = write_job(destination, job, parse_overrides(options))
    if path.exists():
        raise RecipeError(str(path), "exists already and was not touched", "Choose another --out")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
