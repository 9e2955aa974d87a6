"""The verbs on the command line. torch is imported only once a verb runs."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from groundup.cli.tools import Checkpoint, Engine, RunsFolder, Weights, tools
from groundup.core.errors import GroundupError, in_words
from groundup.core.logs import log_to_standard_error

__all__ = ["app", "main"]

# Imports are inside the verbs: torch takes seconds to load, for which --help must not wait.
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(tools)


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option(help="Show tracebacks of user errors.")] = False,
) -> None:
    """Develop large models from the ground up, and fine-tune them."""


@app.command()
def new(
    path: Annotated[
        Path, typer.Argument(help="The file to write: my_model.yaml, or my_part.py for a part.")
    ],
    kind: Annotated[
        str,
        typer.Option(
            help="A recipe: text (a GPT from your text), chat (fine-tune a run on conversations)."
            " A part of your own in Python: model, language_model, task, data, processor."
        ),
    ] = "text",
    data: Annotated[
        Path | None,
        typer.Option(help="A file or folder: look at it, and write a recipe that fits it."),
    ] = None,
    label: Annotated[str | None, typer.Option(help="With --data: the column to predict.")] = None,
) -> None:
    """Write a file to start from: a recipe, or a part of your own."""
    from groundup.templates import write_recipe_for, write_template

    if data is not None:
        write_recipe_for(data, path, label)
    elif label is not None:
        raise GroundupError("--label", "has no effect without --data", "Give --data, or remove it")
    else:
        write_template(kind, path)
    if path.suffix == ".py":
        typer.echo(f"Wrote {path}. Next: edit it; the recipe at its top tries it.")
        return
    typer.echo(
        f"Wrote {path}. Next: edit it, then: groundup data inspect {path} && groundup train {path}"
    )


@app.command()
def train(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            help="Recipes, in order, a file or folder for data.path, and key=value overrides."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Validate and show what would run.")
    ] = False,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with this run folder; no recipe needed.")
    ] = None,
    runs: RunsFolder = Path("runs"),
) -> None:
    """Train recipes one after the other. A finished run is re-used, a stopped one goes on where it
    stopped."""
    from groundup import api
    from groundup.cli.arguments import read_arguments
    from groundup.recipe.recipe import dump_recipe

    recipes, overrides = read_arguments(arguments or [])
    # A run's recipe is complete and frozen, so there is nothing left to override.
    if (resume is None) == (not recipes) or (resume is not None and overrides):
        raise GroundupError(
            "groundup train",
            "needs recipes, or --resume with a run folder alone",
            "See groundup train --help",
        )
    if resume is not None:
        api.resume(resume)
    elif dry_run:
        for recipe in api.plan(recipes, overrides, runs=runs):
            typer.echo(dump_recipe(recipe) + json.dumps(api.describe(recipe), indent=1))
    else:
        api.train_all(recipes, overrides, runs=runs)


@app.command()
def evaluate(
    folders: Annotated[
        list[Path], typer.Argument(help="Run folders in the order they were trained.")
    ],
    checkpoint: Checkpoint = "best",
    limit: Annotated[int, typer.Option(help="Evaluate at most N generated answers.", min=1)] = 100,
    again: Annotated[
        bool, typer.Option("--again", help="Judge even where this was done before.")
    ] = False,
) -> None:
    """Evaluate runs on held-out data; write evaluation.json, summary.json and report.html."""
    from rich.console import Console

    from groundup import api
    from groundup.reports.console_summary import print_summary

    progress = logging.getLogger("groundup").info
    print_summary(
        api.evaluate(folders, checkpoint=checkpoint, limit=limit, again=again, progress=progress),
        Console(),
    )


@app.command()
def predict(
    run: Path,
    prompts: Annotated[
        list[str] | None, typer.Argument(help="Prompts; without any, each line of standard input.")
    ] = None,
    checkpoint: Checkpoint = "best",
    adapter: Annotated[
        Path | None, typer.Option(help="A run or folder with an adapter for this run's weights.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 128,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.0,
    top_k: Annotated[int | None, typer.Option(min=1)] = None,
    top_p: Annotated[float | None, typer.Option(min=0.0, max=1.0)] = None,
    min_p: Annotated[float | None, typer.Option(min=0.0, max=1.0)] = None,
    repetition_penalty: Annotated[float | None, typer.Option(min=1.0)] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="Stop before this text; may be given again.")
    ] = None,
    seed: int = 0,
    weights: Weights = "fp32",
    engine: Engine = "groundup",
) -> None:
    """Print the prediction for each prompt."""
    from groundup import api

    # None of the options is renamed here: the names are the tasks' own.
    options = _given(
        locals(),
        "max_new_tokens",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "repetition_penalty",
        "stop",
        "seed",
    )
    # Only the newline goes: a model may answer otherwise with a space at the end.
    inputs = prompts or [line.rstrip("\n") for line in sys.stdin]
    for text in api.load(run, checkpoint, adapter, weights, engine)(inputs, **options):
        typer.echo(text)


@app.command()
def chat(
    run: Path,
    checkpoint: Checkpoint = "best",
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 256,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.0,
    top_p: Annotated[float | None, typer.Option(min=0.0, max=1.0)] = None,
    seed: int = 0,
    weights: Weights = "fp32",
    engine: Engine = "groundup",
) -> None:
    """Talk to a run. An empty line or Ctrl-D ends it; /new starts again."""
    from groundup import api
    from groundup.cli.chat import converse

    options = _given(locals(), "max_new_tokens", "temperature", "top_p", "seed")
    converse(api.load(run, checkpoint, weights=weights, engine=engine), options)


def _given(values: dict[str, Any], *names: str) -> dict[str, Any]:
    # typer wants each option as a parameter, a task takes those of its own; what was not given is
    # left out, so that the task's defaults count.
    return {name: values[name] for name in names if values[name] is not None}


def main() -> None:
    """Run the command line; user errors end with a message and an exit code, not a traceback."""
    log_to_standard_error()
    try:
        app(standalone_mode=True)
    except (GroundupError, OSError, KeyboardInterrupt) as error:
        if "--debug" in sys.argv and not isinstance(error, KeyboardInterrupt):
            raise
        message, code = in_words(error)  # also of a full disk or a missing right, which are no bugs
        typer.secho(message, fg="red" if 0 < code < 130 else None, err=True, nl=bool(message))
        sys.exit(code)
