"""``groundup launch``: training on several processes, or a job file that starts them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from groundup.cli.tools import RunsFolder
from groundup.core.errors import GroundupError, RecipeError

__all__ = ["launching", "refuse_options", "write_job_file"]

launching = typer.Typer()
_STARTS = "starting the run, which --{} does not"


@launching.command()
def launch(
    arguments: Annotated[
        list[str],
        typer.Argument(help="What groundup train takes: recipes, in order, and overrides."),
    ],
    nproc: Annotated[
        int | None, typer.Option(help="Processes on a machine: one a GPU.", min=1)
    ] = None,
    nnodes: Annotated[int, typer.Option(help="Machines that start this command.", min=1)] = 1,
    rendezvous: Annotated[
        str | None, typer.Option(help="HOST:PORT of one machine, where all of them meet.")
    ] = None,
    restarts: Annotated[
        int, typer.Option(help="How often to start again from the last checkpoint.", min=0)
    ] = 3,
    runs: RunsFolder = Path("runs"),
    to: Annotated[
        str | None,
        typer.Option(help="Write a job file instead: for slurm, kubernetes or skypilot."),
    ] = None,
    job: Annotated[
        list[str] | None,
        typer.Option(
            help="With --to: KEY=VALUE of the job, such as time=12:00:00; again for more."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --to: the new file; else named after the run.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what a step would cost on --devices instead.")
    ] = False,
    devices: Annotated[
        str | None,
        typer.Option(help="With --dry-run: such as 1024xH100; 8xhere measures this machine."),
    ] = None,
) -> None:
    """Train recipes on several processes or machines.

    Losses are those of one process; what fails is named, and started again."""
    from groundup import api
    from groundup.cli.arguments import read_arguments

    recipes, overrides = read_arguments(arguments)
    # What is wrong with a recipe is said once, and not by every process.
    planned = api.plan(recipes, overrides, runs=runs)
    if dry_run:
        refuse_options({"--to": to, "--job": job, "--out": out}, _STARTS.format("dry-run"))
        from groundup.planning.paper import plan_on_paper

        for each in planned:
            print(json.dumps(plan_on_paper(each, _given(devices)), indent=1))
        return
    refuse_options({"--devices": devices}, "--dry-run")
    if nproc is None:
        raise GroundupError("groundup launch", "needs --nproc", "Give --nproc N: one a GPU")
    if to is not None:
        refuse_options({"--rendezvous": rendezvous}, _STARTS.format("to"))
        numbers = (nproc, nnodes, restarts)
        print(
            f"Wrote {write_job_file(to, planned[0].name, arguments, runs, out, job or [], numbers)}"
        )
        return
    refuse_options({"--job": job, "--out": out}, "--to")
    from groundup.parallel.launch import launch as start

    start(["train", *arguments, "--runs", str(runs)], nproc, nnodes, rendezvous, restarts)


def _given(devices: str | None) -> str:
    if devices is None:
        raise GroundupError(
            "--dry-run", "needs --devices", "Give for example --devices 8xH100, or 2xhere"
        )
    return devices


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
