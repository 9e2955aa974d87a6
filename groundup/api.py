"""The verbs as Python functions: the command line calls these and adds nothing but words and
colours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from groundup.contracts.data import Refillable
from groundup.contracts.processors import LabelProcessor, TextProcessor
from groundup.contracts.recommendation import RecommenderProcessor
from groundup.contracts.speech import ReadsSpeech
from groundup.contracts.tasks import MeasuresOutputs
from groundup.core.errors import RunError
from groundup.core.settings import as_path
from groundup.export.export_run import export_run
from groundup.inference.evaluate_run import evaluate_on, evaluate_run, next_command
from groundup.inference.predict_rows import predict_rows
from groundup.inference.predictor import Predictor
from groundup.machine.meta_device import without_content
from groundup.parallel.world import World, join
from groundup.recipe.recipe import Recipe, load_recipe
from groundup.reports.data_notes import write_data_card
from groundup.reports.diagnose import verdict_of
from groundup.reports.inspect_examples import inspect_examples
from groundup.reports.inspect_interactions import inspect_interactions
from groundup.reports.inspect_pairs import inspect_pairs
from groundup.reports.inspect_speech import inspect_speech
from groundup.reports.inspect_texts import inspect_source
from groundup.reports.page import write_report
from groundup.runs.data_fingerprint import FINGERPRINT, check_data, take_fingerprint
from groundup.runs.processor import cache_folder
from groundup.runs.run import Run
from groundup.training import build
from groundup.training.dry_run import describe_run
from groundup.training.fit_processor import keep_processor
from groundup.training.plan_checks import check_layers, check_plan, refuse_contradictions
from groundup.training.prepare_data import prepare
from groundup.training.train_longer import CHANGEABLE, go_on_as
from groundup.training.trainer import Trainer
from groundup.tuning import lr_range_test, search
from groundup.weights.load import base_facts
from groundup.weights.merge_adapters import merge_adapters
from groundup.weights.model_folder import WEIGHTS, write_model_folder

__all__ = [
    "describe",
    "evaluate",
    "export",
    "inspect_data",
    "load",
    "merge",
    "plan",
    "predict",
    "predict_file",
    "prepare_data",
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
merge = merge_adapters
prepare_data = prepare
describe = describe_run


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
    loaded = load_recipe(recipe, dict(overrides or {}))
    world = join(loaded.parallel.timeout_s, loaded.machine.device)
    folder = as_path(runs) / loaded.name
    with world.telling_failures(), build.leaving_nothing(folder, world) as begun:
        build.refuse_differences(world, loaded)
        return _finish(build.open_run(world, lambda: start(loaded, runs), folder), begun, world)


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
        planned[str(as_path(runs) / recipe.name)] = recipe
    return list(planned.values())


def resume(folder: str | Path, overrides: Mapping[str, Any] | None = None) -> Run:
    """Go on with a run exactly from its newest intact checkpoint.

    Args:
        folder: The run's.
        overrides: How long to train, such as ``{"training.steps": 12}``, and where the data is now.

    Raises:
        RunError: If another setting is given, or the schedule allows no other length.
    """
    run = Run.open(as_path(folder))
    world = join(run.recipe.parallel.timeout_s, run.recipe.machine.device)
    with world.telling_failures():
        changed = build.open_run(world, lambda: _change(run, overrides or {}), run.folder)
        return _finish(changed, [], world)


def _change(run: Run, overrides: Mapping[str, Any]) -> Run:
    if overrides:
        if odd := sorted(set(overrides) - set(CHANGEABLE)):
            problem = f"{odd[0]} cannot change in a run; allowed: {', '.join(CHANGEABLE)}"
            remedy = f"Remove it, or train a run of its own with init.run={run.folder}"
            raise RunError(str(run.folder), problem, remedy)
        lengths = dict.fromkeys(key for key in CHANGEABLE if key.startswith("training."))
        changes = dict(overrides)
        if lengths.keys() & changes.keys():  # of which there is exactly one
            changes = lengths | changes
        recipe = load_recipe(run.folder / "recipe.yaml", changes, complete=True)
        run = go_on_as(run, recipe)
    return run


def start(recipe: Recipe, runs: str | Path = "runs") -> Run:
    """Return the recipe's run: the one that exists, if it was made with the same recipe and base,
    or a new folder.

    Raises:
        RunError: If the folder belongs to another recipe or another base; nothing in it is touched.
    """
    recipe = recipe.model_copy(update={"tune": None})  # it changes nothing in what is trained
    folder = as_path(runs) / recipe.name
    base = base_facts(recipe)
    if not folder.exists():
        refuse_contradictions(recipe)
        return Run.create(recipe, as_path(runs), **base)
    run = Run.open(folder)
    if not run.begun:  # nothing is lost by another recipe: it failed before it had made anything
        return run.restart(recipe, **base)
    run = go_on_as(run, recipe)
    # The recipe names its base by a path, and what is there may have been trained on since.
    begun_from = run.read_json("environment.json") or {}
    if begun_from.get("base_weights_sha256") != base["base_weights_sha256"]:
        raise RunError(
            str(folder),
            f"was fine-tuned from other weights than {recipe.init.run or recipe.init.pretrained}"
            " holds now",
            "Choose another name=... or delete it",
        )
    return run


def _check_or_record_data(run: Run) -> None:
    """Raise an error where the data is not what a run began with; of one that begins, record it."""
    if run.begun and run.read_json(FINGERPRINT) is not None:
        if error := check_data(run, run.recipe.data):
            raise error
    elif not run.finished:
        run.write_json(FINGERPRINT, take_fingerprint(run.recipe.data))


def _finish(run: Run, begun: list[Trainer], world: World) -> Run:
    world.keep_stacks(run.folder)
    world.first(lambda: _check_or_record_data(run), "the data is looked at")
    # Every other machine may have files of its own under the same path.
    if not world.is_first and (error := check_data(run, run.recipe.data)):
        raise error
    if world.gather(run.finished, "it is asked whether the run is finished")[0]:
        step = run.pick("last")
        run.event(step, f"{run.folder}: finished already at step {step}; re-used")
        # Stopped between the last checkpoint and what is made of it.
        if world.is_first and not (run.folder / "model" / WEIGHTS).is_file():
            write_model_folder(run)
            write_report([run.folder], run.folder / "report.html")
        return run
    world.arrange(run.recipe.parallel)
    settled = build.open_run(world, lambda: build.freeze(run, world), run.folder)
    trainer = build.build_trainer(settled, world)
    begun.append(trainer)
    world.refuse_differences("the number of training samples", f"{trainer.samples_per_epoch}")
    try:
        if not trainer.resume():
            longest = trainer.stream.counts().get("longest")
            steps = trainer.total_steps
            for note in (
                *check_plan(run.recipe, trainer.samples_per_epoch, steps, longest),
                *check_layers(trainer.layers.depth, steps),
            ):
                run.event(0, f"{run.folder}: {note}")
        if world.is_first:
            card = trainer.recipe.data.card(cache_folder())
            own = isinstance(trainer.stream, Refillable)
            write_data_card(run, card, trainer.parts.processor, trainer.step, made_by_weights=own)
        trainer.fit()
    # After an error too: the data's workers are processes of their own and would stay.
    finally:
        trainer.close()
    # The weights are the same everywhere, and one folder is enough.
    if not world.is_first:
        return trainer.run
    # ``trainer.run`` and not ``run``: freezing has settled the recipe since.
    if verdict := verdict_of(run.folder):
        trainer.run.event(trainer.step, f"{run.folder}: {verdict}")
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
    loaded = load_recipe(recipe, dict(overrides or {}))
    with build.leaving_nothing(as_path(runs) / loaded.name):
        run = start(loaded, runs)
        _check_or_record_data(run)
        made = build.build_trainer(build.freeze(run))
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

    ``weights`` are what it predicts with: ``fp32``, ``bf16``, ``int8`` or ``int4``; ``engine`` is
    what writes: ``groundup``, or ``llama.cpp`` for language models, which is checked against the
    tokens of groundup's own decoding.
    """
    chosen = None if adapter is None else as_path(adapter)
    return Predictor.load(as_path(run), checkpoint, chosen, weights, engine)


def predict(run: str | Path, inputs: Any, **options: Any) -> Any:
    """Return a run's prediction for raw inputs; options are those of its task, such as
    ``max_new_tokens``."""
    return load(run)(inputs, **options)


def predict_file(
    run: str | Path | Predictor,
    path: str | Path,
    *,
    limit: int | None = None,
    on_unreadable: str | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] = lambda message: None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Return a run's predictions for the rows of a file or the files of a folder, next to the
    columns that each row has.

    Args:
        run: A run, or one that is loaded.
        path: A .csv, .tsv, .jsonl, .json or .parquet file, a text, or a folder of texts, pictures
            or sounds.
        limit: Predict of the first N rows alone.
        on_unreadable: ``stop``, or ``skip``: rows that cannot be read are left out; None: as in
            the run's data.
        settings: Of the data section, where this file's are others: ``{"encoding": "gb18030"}``.
        progress: Called with what was left out.
        **options: Of the task's prediction.
    """
    predictor = run if isinstance(run, Predictor) else load(run)
    source = predictor.source_of(str(path), settings)
    rows = source.unlabelled(str(path))
    on_unreadable = on_unreadable or dict(source).get("on_unreadable", "stop")
    return predict_rows(
        predictor, rows, limit=limit, on_unreadable=on_unreadable, progress=progress, **options
    )


def evaluate(
    runs: str | Path | Sequence[str | Path],
    *,
    checkpoint: str = "best",
    limit: int | None = None,
    again: bool = False,
    data: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Evaluate runs on their held-out data and write evaluation.json, summary.json and report.html.

    Args:
        runs: One folder or several in the order they were trained; the last one gets the summary
            and the report of all.
        checkpoint: ``"best"``, ``"last"`` or a step number.
        limit: Evaluate at most N examples, drawn from all; None: all, but at most 100 where each
            costs a generation.
        again: Evaluate even where evaluation.json is of these weights already.
        data: A file or folder of other data, read as each run's own was; what is found is then
            written to ``evaluations/NAME.json`` in the run's folder, and nothing else.
        settings: Of the data section, where those of ``data`` are others than the runs'.
        progress: Called with a line about what is being done.

    Returns:
        The summary: ``{"runs": [...], "report": path, "next": command}``.
    """
    if isinstance(runs, str | Path):
        runs = [runs]
    folders = [as_path(run) for run in runs]
    if data is not None:
        settled = (str(data), checkpoint, limit, progress, settings)
        found = [evaluate_on(each, *settled) for each in folders]
        return {"runs": found, "report": ", ".join(str(each["file"]) for each in found)}
    evaluated = [
        evaluate_run(each, checkpoint, limit, again=again, progress=progress) for each in folders
    ]
    last = Run.open(folders[-1])
    report = last.folder / "report.html"
    summary = {"runs": evaluated, "report": str(report), "next": next_command(last)}
    last.write_json("summary.json", summary)
    write_report(folders, report)
    return summary


def inspect_data(
    recipe: RecipeLike,
    overrides: Mapping[str, Any] | None = None,
    *,
    examples: int = 5,
    limit: int = 2_000,
) -> list[Any]:
    """Return what ``groundup data inspect`` shows, as rich renderables.

    All examples are counted and compared; ``limit`` of each split, drawn from all, are encoded.
    The processor is fitted if none was before. Of pictures a sheet is written to the cache, as they
    are and augmented, and of sounds what a model reads of them.
    """
    loaded = load_recipe(recipe, dict(overrides or {}))
    processor, folder = keep_processor(loaded)
    cache = cache_folder()
    source, task, seed = loaded.data, loaded.task, loaded.seed
    shown: dict[str, Any] = {"examples": examples, "limit": limit}
    if isinstance(processor, LabelProcessor):
        sheet = folder / "pictures.png"
        return inspect_examples(source, task, processor, cache, sheet, seed=seed, **shown)
    if isinstance(processor, ReadsSpeech):
        sheet = folder / "sounds.png"
        with without_content():
            model = loaded.model.complete_from(processor).build()
        return inspect_speech(source, task, processor, cache, sheet, model, seed=seed, **shown)
    if isinstance(processor, RecommenderProcessor):
        return inspect_interactions(source, processor, cache, examples=examples)
    # Else a processor makes labels or texts.
    reader = cast(TextProcessor, processor)
    if isinstance(task, MeasuresOutputs):
        return inspect_pairs(source, task, reader, cache, **shown)
    return inspect_source(source, task, reader, cache, **shown)
