"""The verbs around a run: data, runs, tune, export, schema, env. torch is imported only once a verb
runs."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Checkpoint", "Engine", "Overrides", "RunsFolder", "Weights", "tools"]

tools = typer.Typer()
data_app = typer.Typer(no_args_is_help=True, help="Look at data before training on it.")
runs_app = typer.Typer(no_args_is_help=True, help="List and compare runs.")
tools.add_typer(data_app, name="data")
tools.add_typer(runs_app, name="runs")

RunsFolder = Annotated[Path, typer.Option("--runs", help="The folder of all runs.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="A file or folder for data.path, and key=value overrides: optim.lr=3e-4."),
]
Checkpoint = Annotated[str, typer.Option(help="best, last, or a step number.")]
Engine = Annotated[
    str, typer.Option(help="What writes: groundup, or llama.cpp, checked against the same tokens.")
]
Weights = Annotated[str, typer.Option(help="What the weights are kept in: fp32, bf16 or int8.")]


@tools.command()
def tune(
    recipe: Path,
    overrides: Overrides = None,
    lr_range: Annotated[
        bool, typer.Option("--lr-range", help="Only try learning rates, in one short run.")
    ] = False,
    workers: Annotated[int, typer.Option(help="Trials trained at the same time.", min=1)] = 1,
    runs: RunsFolder = Path("runs"),
) -> None:
    """Try the settings of the recipe's tune section; write the best recipe and a report."""
    from groundup import api
    from groundup.cli.arguments import read_arguments

    _, changes = read_arguments(overrides or [])
    # The range test is one short run, in which several workers have nothing to share.
    run = api.tune_learning_rate if lr_range else partial(api.tune, workers=workers)
    typer.echo(json.dumps(run(recipe, changes, runs=runs), indent=1))


@tools.command()
def export(
    run: Path,
    to: Annotated[str, typer.Option(help="huggingface, gguf or onnx.")],
    dtype: Annotated[
        str, typer.Option(help="fp32, fp16 or bf16; for gguf also q8_0 and q4_0.")
    ] = "fp32",
    out: Annotated[
        Path | None, typer.Option(help="The new folder; else export/TO-DTYPE in the run's.")
    ] = None,
    checkpoint: Checkpoint = "best",
    tolerance: Annotated[
        float | None, typer.Option(help="Allowed difference of outputs, over the largest.", min=0.0)
    ] = None,
) -> None:
    """Write a run's model for another tool, once that tool computes what was trained."""
    from groundup import api

    typer.echo(
        "Wrote"
        f" {api.export(run, to, dtype=dtype, out=out, checkpoint=checkpoint, tolerance=tolerance)}"
    )


@data_app.command("inspect")
def data_inspect(
    recipe: Path,
    overrides: Overrides = None,
    examples: Annotated[int, typer.Option(help="Examples to show.", min=0)] = 5,
) -> None:
    """Show counts, lengths, duplicates and samples; for chats, every token by whether it is trained
    on."""
    from rich.console import Console

    from groundup import api
    from groundup.cli.arguments import read_arguments

    _, changes = read_arguments(overrides or [])
    for renderable in api.inspect_data(recipe, changes, examples=examples):
        Console().print(renderable)


@runs_app.command("list")
def runs_list(runs: RunsFolder = Path("runs")) -> None:
    """List runs with their key results."""
    from rich.console import Console

    from groundup.reports.run_tables import list_runs, make_runs_table

    Console().print(make_runs_table(list_runs(runs)))


@runs_app.command("compare")
def runs_compare(folders: list[Path]) -> None:
    """Show where the recipes of runs differ, and what came of it."""
    from rich.console import Console

    from groundup.reports.run_tables import compare_runs, make_comparison_table

    Console().print(make_comparison_table(compare_runs(folders)))


@tools.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for your editor."""
    from groundup.recipe.json_schema import recipe_schema

    typer.echo(json.dumps(recipe_schema(), indent=1))


@tools.command()
def env() -> None:
    """Print the machine, the versions, and how fast it multiplies."""
    from groundup.machine import devices

    facts = devices.describe_machine()
    device = "cuda" if facts["gpu"] else "cpu"
    rates = {p: round(devices.matmul_flops_per_s(device, p) / 1e9) for p in ("fp32", "bf16")}
    typer.echo(json.dumps({**facts, "matmul_gflops_per_s": rates}, indent=1))
