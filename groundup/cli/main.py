"""The verbs on the command line. torch is imported only once a verb runs."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from groundup.cli.launch import launching
from groundup.cli.predict import writing
from groundup.cli.streams import check_arguments, flush_output, prepare_output
from groundup.cli.tools import Checkpoint, RunsFolder, tools
from groundup.core.errors import GroundupError, in_words
from groundup.core.logs import log_to_standard_error

__all__ = ["app", "main"]

# Imports are inside the verbs: torch takes seconds to load, for which --help must not wait.
app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(tools)
app.add_typer(writing)
app.add_typer(launching)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        print(f"groundup {metadata.version('groundup')}")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of user errors.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
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
        print(f"Wrote {path}. Next: edit it; the recipe at its top tries it.")
        return
    print(
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
        Path | None,
        typer.Option(
            help="Go on with this run folder; no recipe needed. training.steps=N trains it longer."
        ),
    ] = None,
    runs: RunsFolder = Path("runs"),
) -> None:
    """Train recipes one after the other.

    A finished run is re-used, a stopped one goes on where it stopped."""
    from groundup import api
    from groundup.cli.arguments import read_arguments
    from groundup.recipe.recipe import dump_recipe

    recipes, overrides = read_arguments(arguments or [])
    if (resume is None) == (not recipes):
        raise GroundupError(
            "groundup train",
            "needs recipes, or --resume with a run folder",
            "See groundup train --help",
        )
    if resume is not None:
        api.resume(resume, overrides)
    elif dry_run:
        for recipe in api.plan(recipes, overrides, runs=runs):
            print(dump_recipe(recipe) + json.dumps(api.describe(recipe), indent=1))
    else:
        api.train_all(recipes, overrides, runs=runs)


@app.command()
def evaluate(
    folders: Annotated[
        list[str],
        typer.Argument(
            help="Run folders in the order they were trained; with --data also its settings:"
            " data.encoding=cp1252."
        ),
    ],
    data: Annotated[
        Path | None, typer.Option(help="A file or folder with labels, instead of held-out data.")
    ] = None,
    checkpoint: Checkpoint = "best",
    limit: Annotated[
        int | None,
        typer.Option(
            help="Evaluate at most N examples, drawn from all; else all, of generated answers 100.",
            min=1,
        ),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Evaluate even where this was done before.")
    ] = False,
) -> None:
    """Evaluate runs on held-out data, or on new data.

    Writes evaluation.json, summary.json and report.html; with --data evaluations/NAME.json."""
    from rich.console import Console

    from groundup import api
    from groundup.cli.arguments import take_data_settings
    from groundup.reports.console_summary import print_summary

    runs, settings = take_data_settings(folders, ("data", "checkpoint", "limit", "again"))
    if settings and data is None:
        where = f"data.{next(iter(settings))}"
        raise GroundupError(where, "has no effect without --data", "Remove it")
    progress = logging.getLogger("groundup").info
    print_summary(
        api.evaluate(
            runs,
            checkpoint=checkpoint,
            limit=limit,
            again=again,
            data=data,
            settings=settings,
            progress=progress,
        ),
        Console(highlight=False),
    )


def _coloured(message: str) -> str:
    plain = not sys.stderr.isatty() or "NO_COLOR" in os.environ
    return message if plain else typer.style(message, fg="red")


def main() -> None:
    """Run the command line; user errors end with a message and an exit code, not a traceback."""
    prepare_output()
    log_to_standard_error()
    try:
        try:
            check_arguments()
            app(standalone_mode=True)
        finally:
            flush_output()
    except (GroundupError, OSError, KeyboardInterrupt) as error:
        if "--debug" in sys.argv and not isinstance(error, KeyboardInterrupt):
            raise
        message, code = in_words(error)  # also of a full disk or a missing right, which are no bugs
        if message:
            # not by typer, which would write UTF-8 to a console of ASCII
            print(_coloured(message) if 0 < code < 130 else message, file=sys.stderr)
        sys.exit(code)


if __name__ == "__main__":
    main()
