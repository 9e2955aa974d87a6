"""The verbs around a run: chat, play, data, runs, tune, export, merge, schema, env.

torch is imported only once a verb runs."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Checkpoint",
    "Engine",
    "MaxNewTokens",
    "ModelPath",
    "Overrides",
    "RunsFolder",
    "Seed",
    "Temperature",
    "TopP",
    "Weights",
    "tools",
]

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
ModelPath = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", help="A run; or a pretrained folder, a GGUF file, or a name of the hub."
    ),
]
MaxNewTokens = Annotated[
    int | None,
    typer.Option(min=1, help="The most tokens to write; else as the task says."),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        help="0 is greedy, which is the default where generation_config.json says nothing else.",
    ),
]
TopP = Annotated[
    float | None,
    typer.Option(min=0.0, max=1.0, help="Draw from the likeliest tokens of this share."),
]
Seed = Annotated[int, typer.Option(help="Decides what is drawn.")]
Weights = Annotated[
    str, typer.Option(help="What the weights are kept in: fp32, bf16, int8 or int4.")
]


@tools.command()
def chat(
    run: ModelPath,
    checkpoint: Checkpoint = "best",
    max_new_tokens: MaxNewTokens = 256,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Seed = 0,
    weights: Weights = "fp32",
    engine: Engine = "groundup",
) -> None:
    """Talk to a run.

    An empty line or Ctrl-D ends it; /new starts again."""
    from groundup import api
    from groundup.cli.chat import converse
    from groundup.cli.decoding import choose_decoding, given

    options = given(locals())
    predictor = api.load(run, checkpoint, weights=weights, engine=engine)
    converse(predictor, choose_decoding(predictor, options))


@tools.command()
def play(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run that plays a game.")],
    against: Annotated[
        str | None,
        typer.Option(
            help="Who plays in your place: random, another run, or N random games a move."
        ),
    ] = None,
    second: Annotated[bool, typer.Option("--second", help="Let the run begin.")] = False,
    simulations: Annotated[
        int | None, typer.Option(min=0, help="Of a search before each move; else as the task says.")
    ] = None,
    games: Annotated[
        int | None, typer.Option(min=1, help="With --against: how many; else 2.")
    ] = None,
    checkpoint: Checkpoint = "best",
    seed: Seed = 0,
) -> None:
    """Play against a run, or let it play.

    Moves are typed by name."""
    from groundup import api
    from groundup.cli.play import play_against_run, watch_run
    from groundup.core.errors import GroundupError

    if against is None and games is not None:
        raise GroundupError("--games", "has no effect without --against", "Remove it")
    if against is not None and second:
        raise GroundupError("--second", "has no effect with --against", "Remove it")
    predictor = api.load(run, checkpoint)
    if against is None:
        play_against_run(predictor, simulations, second=second)
    else:
        watch_run(predictor, against, simulations, games or 2, seed)


@tools.command()
def tune(
    recipe: Path,
    overrides: Overrides = None,
    lr_range: Annotated[
        bool, typer.Option("--lr-range", help="Only try learning rates, in one short run.")
    ] = False,
    workers: Annotated[int, typer.Option(help="Trials trained at the same time.", min=1)] = 1,
    storage: Annotated[
        str | None,
        typer.Option(help="A file or database URL that workers on several machines share."),
    ] = None,
    runs: RunsFolder = Path("runs"),
) -> None:
    """Try the settings of the recipe's tune section.

    Writes the best recipe and a report."""
    from groundup import api
    from groundup.cli.arguments import read_overrides

    changes = read_overrides(overrides or [])
    if storage is not None:
        changes["tune.storage"] = storage
    # The range test is one short run, in which several workers have nothing to share.
    run = api.tune_learning_rate if lr_range else partial(api.tune, workers=workers)
    print(json.dumps(run(recipe, changes, runs=runs), indent=1))


@tools.command()
def export(
    run: ModelPath,
    to: Annotated[str, typer.Option(help="huggingface, gguf, onnx or ctranslate2.")],
    dtype: Annotated[
        str,
        typer.Option(help="fp32, fp16 or bf16; for gguf also q8_0 and q4_0, for ctranslate2 int8."),
    ] = "fp32",
    out: Annotated[
        Path | None,
        typer.Option(help="The new folder; else export/TO-DTYPE in a run's, or NAME-TO-DTYPE."),
    ] = None,
    checkpoint: Checkpoint = "best",
    tolerance: Annotated[
        float | None, typer.Option(help="Allowed difference of outputs, over the largest.", min=0.0)
    ] = None,
) -> None:
    """Write a run's model for another tool.

    It is written once that tool computes what was trained."""
    from groundup import api

    print(
        "Wrote"
        f" {api.export(run, to, dtype=dtype, out=out, checkpoint=checkpoint, tolerance=tolerance)}"
    )


@tools.command()
def merge(
    adapters: Annotated[
        list[Path], typer.Argument(help="Runs or folders with a LoRA adapter, all of one base.")
    ],
    weights: Annotated[str, typer.Option(help="One number for each, in order: 0.7,0.3.")],
    out: Annotated[Path, typer.Option(help="The new folder, in PEFT's layout.")],
) -> None:
    """Merge adapters of one base into one, each times a weight.

    Exact: it adds the weighted sum of what they add."""
    from groundup import api
    from groundup.cli.arguments import read_numbers

    print(f"Wrote {api.merge(adapters, read_numbers('--weights', weights), out)}")


@data_app.command("inspect")
def data_inspect(
    recipe: Path,
    overrides: Overrides = None,
    examples: Annotated[int, typer.Option(help="Examples to show.", min=0)] = 5,
    limit: Annotated[
        int, typer.Option(help="Look closely at N examples of each split, drawn from all.", min=1)
    ] = 2_000,
) -> None:
    """Show counts, lengths, copies and examples.

    Of chats every token is shown by whether it is trained on."""
    from rich.console import Console

    from groundup import api
    from groundup.cli.arguments import read_overrides

    changes = read_overrides(overrides or [])
    for renderable in api.inspect_data(recipe, changes, examples=examples, limit=limit):
        Console().print(renderable)


@data_app.command("prepare")
def data_prepare(
    recipe: Path,
    overrides: Overrides = None,
    part: Annotated[
        str | None, typer.Option(help="Only this part, one of many jobs with one cache: 3/64.")
    ] = None,
    join: Annotated[
        int | None, typer.Option(help="Put together what N parts have made.", min=1)
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(help="Write all of it to a folder or an address, too: s3://bucket/corpus."),
    ] = None,
) -> None:
    """Clean texts, learn the tokenizer and make tokens.

    Many jobs can do it, each a part: documents, --join, then tokens, --join."""
    from groundup import api
    from groundup.cli.arguments import read_overrides

    changes = read_overrides(overrides or [])
    print(api.prepare_data(recipe, changes, part=part, join=join, to=to))


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

    print(json.dumps(recipe_schema(), indent=1))


@tools.command()
def env() -> None:
    """Print the machine, the versions, and how fast it multiplies."""
    from groundup.machine import devices

    facts = devices.describe_machine()
    device = "cuda" if facts["gpu"] else "cpu"
    rates = {p: round(devices.matmul_flops_per_s(device, p) / 1e9) for p in ("fp32", "bf16")}
    print(json.dumps({**facts, "matmul_gflops_per_s": rates}, indent=1))
