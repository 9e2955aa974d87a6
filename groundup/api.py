"""The verbs as Python functions: the command line calls these and adds nothing but words and
colours."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from groundup.contracts.models import context_length_of
from groundup.contracts.processors import LabelProcessor, TextProcessor
from groundup.core.errors import RunError
from groundup.export.export_run import export_run
from groundup.inference.evaluate_run import evaluate_run, next_command
from groundup.inference.predictor import Predictor
from groundup.machine import devices
from groundup.recipe.recipe import Recipe, as_dict, load_recipe
from groundup.reports.inspect_examples import inspect_examples
from groundup.reports.inspect_texts import inspect_source
from groundup.reports.page import write_report
from groundup.runs.processor import cache_folder
from groundup.runs.run import Run
from groundup.training import build
from groundup.training.fit_processor import make_processor
from groundup.training.trainer import Trainer
from groundup.tuning import lr_range_test, search
from groundup.weights.load import base_facts
from groundup.weights.model_folder import WEIGHTS, write_model_folder

__all__ = [
    "describe",
    "evaluate",
    "export",
    "inspect_data",
    "load",
    "plan",
    "predict",
    "resume",
    "start",
    "train",
    "train_all",
    "trainer",
    "tune",
    "tune_learning_rate",
]

RecipeLike = str | Path | dict[str, Any]
# These are whole verbs where they are; here they only get the names that users call them by.
tune = search.tune
tune_learning_rate = lr_range_test.tune_learning_rate
export = export_run


def train(
    recipe: RecipeLike, overrides: Mapping[str, Any] | None = None, *, runs: str | Path = "runs"
) -> Run:
    """Train a recipe from wherever its run is: nothing yet, a checkpoint, or finished.

    Args:
        recipe: A YAML file or a dictionary.
        overrides: Dotted keys to values, such as ``{"optim.lr": 3e-4}``.
        runs: The folder of all runs.

    Returns:
        The finished run.

    Raises:
        GroundupError: With what is wrong and what to do.
    """
    return _finish(start(load_recipe(recipe, dict(overrides or {})), runs))


def train_all(
    recipes: Sequence[RecipeLike],
    overrides: Mapping[str, Any] | None = None,
    *,
    runs: str | Path = "runs",
) -> list[Run]:
    """Train several recipes one after the other.

    All are validated first; a later one may start from an earlier one's run.
    """
    # All are read before one is trained: a mistake in the last must not cost the others' time.
    planned = plan(recipes, overrides, runs=runs)
    # Read a second time: by then the earlier runs exist, with all their choices settled.
    return [train(source, overrides, runs=runs) for source, _ in zip(recipes, planned, strict=True)]


def plan(
    recipes: Sequence[RecipeLike],
    overrides: Mapping[str, Any] | None = None,
    *,
    runs: str | Path = "runs",
) -> list[Recipe]:
    """Return the validated recipes without training."""
    planned: dict[str, Recipe] = {}
    for source in recipes:
        recipe = load_recipe(source, dict(overrides or {}), planned=planned)
        planned[str(Path(runs) / recipe.name)] = recipe
    return list(planned.values())


def resume(folder: str | Path) -> Run:
    """Go on with a run exactly from its newest intact checkpoint."""
    return _finish(Run.open(Path(folder)))


def start(recipe: Recipe, runs: str | Path = "runs") -> Run:
    """Return the recipe's run: the one that exists, if it was made with the same recipe and base,
    or a new folder.

    Raises:
        RunError: If the folder exists and belongs to another recipe or another base; nothing in it
            is touched.
    """
    recipe = recipe.model_copy(update={"tune": None})  # it changes nothing in what is trained
    folder = Path(runs) / recipe.name
    base = base_facts(recipe)
    if not folder.exists():
        return Run.create(recipe, Path(runs), **base)
    run = Run.open(folder)
    if not run.begun:  # nothing is lost by another recipe: it failed before it had made anything
        return run.restart(recipe, **base)
    run.check_same(recipe)
    # The recipe names its base by a path, and what is there may have been trained on since.
    if (run.read_json("environment.json") or {}).get("base_weights_sha256") != base[
        "base_weights_sha256"
    ]:
        raise RunError(
            str(folder),
            f"was fine-tuned from other weights than {recipe.init.run or recipe.init.pretrained}"
            " holds now",
            "Choose another name=... or delete it",
        )
    return run


def _finish(run: Run) -> Run:
    if run.finished:
        step = run.pick("last")
        run.event(step, f"{run.folder}: finished already at step {step}; re-used")
        # Stopped between the last checkpoint and what is made of it.
        if not (run.folder / "model" / WEIGHTS).is_file():
            write_model_folder(run)
            write_report([run.folder], run.folder / "report.html")
        return run
    trainer = build.build_trainer(build.freeze(run))
    try:
        trainer.resume()
        run.write_json("data_card.json", trainer.recipe.data.card(cache_folder()))
        trainer.fit()
    # After an error too: the data's workers are processes of their own and would stay.
    finally:
        trainer.close()
    # ``trainer.run`` and not ``run``: freezing has settled the recipe since.
    write_model_folder(trainer.run)
    write_report([run.folder], run.folder / "report.html")
    return trainer.run


def trainer(
    recipe: RecipeLike, overrides: Mapping[str, Any] | None = None, *, runs: str | Path = "runs"
) -> Trainer:
    """Return the trainer of a recipe's run, resumed if it had begun, for a loop of your own.

    Example:
        >>> for report in groundup.trainer("recipe.yaml").steps():  # doctest: +SKIP
        ...     print(report.step, report.loss)
    """
    made = build.build_trainer(
        build.freeze(start(load_recipe(recipe, dict(overrides or {})), runs))
    )
    made.resume()
    return made


def load(
    run: str | Path,
    checkpoint: str = "best",
    adapter: str | Path | None = None,
    weights: str = "fp32",
    engine: str = "groundup",
) -> Predictor:
    """Return a predictor for a run's checkpoint, with an adapter for its weights where a folder
    with one is given.

    ``weights`` are what it predicts with: ``fp32``, ``bf16`` or ``int8``; ``engine`` is what
    writes: ``groundup``, or ``llama.cpp`` for language models, which is checked against the tokens
    of groundup's own decoding.
    """
    if adapter is not None:
        adapter = Path(adapter)
    return Predictor.load(Path(run), checkpoint, adapter, weights, engine)


def predict(run: str | Path, inputs: Any, **options: Any) -> Any:
    """Return a run's prediction for raw inputs; options are those of its task, such as
    ``max_new_tokens``."""
    return load(run)(inputs, **options)


def evaluate(
    runs: str | Path | Sequence[str | Path],
    *,
    checkpoint: str = "best",
    limit: int = 100,
    again: bool = False,
    progress: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Evaluate runs on their held-out data and write evaluation.json, summary.json and report.html.

    Args:
        runs: One folder or several in the order they were trained; the last one gets the summary
            and the report of all.
        checkpoint: ``"best"``, ``"last"`` or a step number.
        limit: Evaluate at most N examples where each costs a generation.
        again: Evaluate even where evaluation.json is of these weights already.
        progress: Called with a line about what is being done.

    Returns:
        The summary: ``{"runs": [...], "report": path, "next": command}``.
    """
    if isinstance(runs, str | Path):
        runs = [runs]
    folders = [Path(run) for run in runs]
    evaluated = [
        evaluate_run(folder, checkpoint, limit, again=again, progress=progress)
        for folder in folders
    ]
    last = Run.open(folders[-1])
    report = last.folder / "report.html"
    summary = {"runs": evaluated, "report": str(report), "next": next_command(last)}
    last.write_json("summary.json", summary)
    write_report(folders, report)
    return summary


def describe(recipe: Recipe) -> dict[str, Any]:
    """Return what ``--dry-run`` shows: sizes and work, without touching the disk."""
    model = recipe.model
    context = context_length_of(model)
    return {
        "name": recipe.name,
        "task": recipe.task.registered_name,
        "context_length": context,
        "gflops_per_token": model.flops_per_token(context) / 1e9,
        "machine": devices.describe_machine(),
    }


def inspect_data(
    recipe: RecipeLike, overrides: Mapping[str, Any] | None = None, *, examples: int = 5
) -> list[Any]:
    """Return what ``groundup data inspect`` shows, as rich renderables.

    The processor is fitted if none was before. Of pictures a sheet is written to the cache, as they
    are and augmented.
    """
    loaded = load_recipe(recipe, dict(overrides or {}))
    # Fitting may take minutes: it is kept, under a name made of all that it depends on.
    parts = [as_dict(loaded)[part] for part in ("data", "processor", "task", "init")]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    cache = cache_folder()
    folder = cache / "inspected" / key[:16]
    processor = make_processor(loaded, folder)
    source = loaded.data
    task = loaded.task
    if isinstance(processor, LabelProcessor):
        sheet = folder / "pictures.png"
        return inspect_examples(
            source, task, processor, cache, sheet, examples=examples, seed=loaded.seed
        )
    # A processor makes labels or texts.
    return inspect_source(source, task, cast(TextProcessor, processor), cache, examples=examples)
