"""The verb predict, with all that says how a text is written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from groundup.cli.tools import (
    Checkpoint,
    Engine,
    MaxNewTokens,
    ModelPath,
    Seed,
    Temperature,
    TopP,
    Weights,
)

__all__ = ["writing"]

# torch is imported only once the verb runs.
writing = typer.Typer()

Beams = Annotated[
    int | None,
    typer.Option(min=1, help="Search for the best of this many outputs at once; else as the task."),
]
NBest = Annotated[
    int | None,
    typer.Option(min=1, help="Give this many outputs with their scores, at most --beams."),
]
LengthPenalty = Annotated[
    float | None, typer.Option(help="Of beams: higher prefers longer outputs; 1 where not given.")
]
EarlyStopping = Annotated[
    bool | None,
    typer.Option("--early-stopping", help="Of beams: stop at as many whole outputs as beams."),
]
MinNewTokens = Annotated[
    int | None, typer.Option(min=0, help="No output ends before this many tokens.")
]
NoRepeatNgram = Annotated[
    int | None, typer.Option(min=1, help="Write no sequence of this many tokens twice.")
]
NgramWeight = Annotated[
    float | None, typer.Option(help="Of CTC: what n-grams of training transcripts count.")
]
LengthBonus = Annotated[
    float | None, typer.Option(help="Of CTC with n-grams: what each token adds to a score.")
]
Count = Annotated[
    int | None, typer.Option(min=1, help="Of pictures: so many of each prompt, on one sheet.")
]
Steps = Annotated[
    int | None, typer.Option(min=1, help="Of pictures: steps from noise; else as the task.")
]
Guidance = Annotated[
    float | None,
    typer.Option(min=0.0, help="Of pictures: above 1, more of what is asked for than was learned."),
]
Sampler = Annotated[
    str | None, typer.Option(help="Of pictures: heun or euler, which asks half as often.")
]
Limit = Annotated[int | None, typer.Option(help="Predict of the first N rows or prompts.", min=1)]
AdapterPath = Annotated[
    Path | None, typer.Option(help="A run or folder with an adapter for this run's weights.")
]
OnUnreadable = Annotated[
    str | None,
    typer.Option(help="Rows that cannot be read: stop, or skip; else as in the run's data."),
]
Users = Annotated[
    list[str] | None,
    typer.Option("--user", help="Of recommendations: for this user; may be given again."),
]
Items = Annotated[
    int | None, typer.Option(min=1, help="Of recommendations: so many items; else as the task.")
]


@writing.command()
def predict(
    run: ModelPath,
    prompts: Annotated[
        list[str] | None,
        typer.Argument(
            help="Prompts; or a file of rows, or a folder of texts, pictures or sounds, and its"
            " settings: data.encoding=cp1252; without any, or as -, each line of standard input."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The .csv or .jsonl file to write; without it, lines are printed."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace --out where it exists.")] = False,
    limit: Limit = None,
    on_unreadable: OnUnreadable = None,
    checkpoint: Checkpoint = "best",
    adapter: AdapterPath = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Draw from the K likeliest tokens.")
    ] = None,
    top_p: TopP = None,
    min_p: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Draw from tokens this likely next to the likeliest."),
    ] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(min=1.0, help="Make tokens that were there less likely.")
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="Stop before this text; may be given again.")
    ] = None,
    beams: Beams = None,
    n_best: NBest = None,
    length_penalty: LengthPenalty = None,
    early_stopping: EarlyStopping = None,
    min_new_tokens: MinNewTokens = None,
    no_repeat_ngram: NoRepeatNgram = None,
    ngram_weight: NgramWeight = None,
    length_bonus: LengthBonus = None,
    count: Count = None,
    steps: Steps = None,
    guidance: Guidance = None,
    sampler: Sampler = None,
    user: Users = None,
    k: Items = None,
    seed: Seed = 0,
    weights: Weights = "fp32",
    engine: Engine = "groundup",
) -> None:
    """Predict for prompts, or for the rows of a file.

    Of a file or folder each row is kept, with what is predicted next to it: for classes the
    probability of every one."""
    from groundup import api
    from groundup.cli.arguments import take_data_settings
    from groundup.cli.decoding import (
        DRAWING,
        GENERATION,
        LISTS,
        check_users,
        choose_decoding,
        given,
    )
    from groundup.cli.predictions import Output, print_predictions, refuse_mistakes

    # None of the options is renamed here: the names are the tasks' own.
    options = given(locals())
    others = ("out", "force", "limit", "on_unreadable", "checkpoint", "adapter", "weights")
    named = (*GENERATION, *DRAWING, *LISTS, *others, "engine")
    inputs, settings = take_data_settings([*(prompts or []), *(user or [])], named)
    output = Output(out, force, limit, on_unreadable, settings)
    refuse_mistakes(inputs, output)
    predictor = api.load(run, checkpoint, adapter, weights, engine)
    check_users(predictor, user or [])
    print_predictions(predictor, inputs, output, choose_decoding(predictor, options))
