"""Search for better settings: trials of a recipe with Optuna, resumable, in parallel, the poor ones ended early.

Everything is in ``runs/NAME-tune``: ``study.jsonl`` (Optuna's journal), ``trials/`` with a run for each trial,
``best.yaml`` and ``report.html``.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from groundup.core import assembly
from groundup.core.errors import GroundupError, MissingExtraError, RecipeError, RunError
from groundup.core.readable import lower_is_better
from groundup.core.recipe import Recipe, dump_recipe, load_recipe
from groundup.core.recipe_sections import Dimension, Tune
from groundup.core.run import Run
from groundup.core.seeding import key
from groundup.core.trainer import Trainer
from groundup.core.tuning_report import Trial, write_tuning_report

__all__ = ["tune"]

Source = str | Path | dict[str, Any]


class _PrunedError(Exception):
    """Ends a trial that is worse than the median."""


def tune(
    source: Source, overrides: Mapping[str, Any] | None = None, *, runs: str | Path = "runs", workers: int = 1
) -> dict[str, Any]:
    """Try settings of the recipe's ``tune.space``, and write the best trial's recipe and a report.

    Started again, it goes on: finished trials count, and one that was interrupted is trained on from where it stood.

    Args:
        source: A YAML file or a dictionary.
        overrides: Dotted keys to values, for every trial.
        runs: The folder of all runs.
        workers: Processes that train trials at the same time.

    Returns:
        ``metric``, ``value``, ``settings``, ``trials`` (how many), ``recipe`` and ``report`` (their paths).

    Raises:
        RecipeError: If there is no ``tune`` section, or a value of its space is none of the recipe's.
        RunError: If no trial succeeded.
        MissingExtraError: If Optuna is not installed.
    """
    overrides = dict(overrides or {})
    recipe = load_recipe(source, overrides)
    space = _settings(recipe)
    for name, dimension in space.space.items():  # a wrong key is said before anything is trained
        for value in dimension.choices if dimension.choices is not None else (dimension.low, dimension.high):
            load_recipe(source, {**overrides, name: value})
    folder = Path(runs) / f"{recipe.name}-tune"
    folder.mkdir(parents=True, exist_ok=True)
    _check_same(folder, recipe)
    _put_back(_study(folder, recipe))
    if workers == 1:
        _work(source, overrides, folder)
    else:
        context = multiprocessing.get_context("spawn")
        processes = [context.Process(target=_work, args=(source, overrides, folder)) for _ in range(workers)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    return _conclude(source, overrides, folder)


def _settings(recipe: Recipe) -> Tune:
    if recipe.tune is None:
        raise RecipeError("recipe.tune", "is required and missing", "Add a section 'tune:' with a space to search")
    return recipe.tune


def _metric(recipe: Recipe) -> str:
    return _settings(recipe).metric or recipe.every.best


def _check_same(folder: Path, recipe: Recipe) -> None:
    """A study is of one recipe and one space; only trials, timeout and workers may change."""
    changeable = {"trials": 1, "timeout_s": None}
    asked = dump_recipe(
        recipe.model_copy(update={"about": "", "tune": _settings(recipe).model_copy(update=changeable)})
    )
    path = folder / "requested.yaml"
    if path.is_file() and path.read_text(encoding="utf-8") != asked:
        problem = "holds trials of another recipe or another space; nothing there was touched"
        raise RunError(str(folder), problem, "Choose another name=..., or delete the folder to start afresh")
    path.write_text(asked, encoding="utf-8")


# --------------------------------------------------------------------------------------------------------------- trials
def _optuna() -> Any:
    try:
        import optuna
        import optuna.storages.journal
    except ImportError:
        raise MissingExtraError("optuna", "tune") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _study(folder: Path, recipe: Recipe) -> Any:
    """Open the study; its sampler is a function of the seed and of how many trials there are."""
    optuna, settings = _optuna(), _settings(recipe)
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "study.jsonl"))
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4) if settings.prune else optuna.pruners.NopPruner()
    return optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        study_name=recipe.name,
        direction="minimize" if lower_is_better(_metric(recipe)) else "maximize",
        pruner=pruner,
        load_if_exists=True,
    )


def _put_back(study: Any) -> None:
    """Trials that were interrupted are tried again with the same values, and so go on in the same run."""
    states = _optuna().trial.TrialState
    for trial in study.get_trials(deepcopy=False, states=(states.RUNNING,)):
        study.tell(trial.number, state=states.FAIL)
        study.enqueue_trial(trial.params)


def _work(source: Source, overrides: dict[str, Any], folder: Path) -> None:
    """Train trials until there are as many as the recipe asks for."""
    optuna, begin = _optuna(), time.monotonic()
    recipe = load_recipe(source, overrides)
    study, settings, states = _study(folder, recipe), _settings(recipe), optuna.trial.TrialState
    while settings.timeout_s is None or time.monotonic() - begin < settings.timeout_s:
        counted = (states.RUNNING, states.COMPLETE, states.PRUNED)
        if len(study.get_trials(deepcopy=False, states=counted)) >= settings.trials:
            return
        number = len(study.get_trials(deepcopy=False))
        study.sampler = optuna.samplers.TPESampler(seed=key(settings.seed, "tune", number) % 2**32)
        trial = study.ask()
        chosen = {name: _suggest(trial, name, dimension) for name, dimension in settings.space.items()}
        try:
            value = _train(source, {**overrides, **chosen}, folder, trial)
        except _PrunedError:
            study.tell(trial, state=states.PRUNED)
        except GroundupError as error:
            trial.set_user_attr("error", str(error))
            study.tell(trial, state=states.FAIL)
            if error.exit_code == 130 or len(study.get_trials(states=(states.FAIL,))) >= settings.trials:
                raise
        else:
            study.tell(trial, value)


def _suggest(trial: Any, name: str, dimension: Dimension) -> Any:
    if dimension.choices is not None:  # as text: Optuna keeps only plain values
        return json.loads(trial.suggest_categorical(name, [json.dumps(choice) for choice in dimension.choices]))
    low, high, step = dimension.low, dimension.high, dimension.step
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high, step=int(step or 1), log=dimension.log)
    return trial.suggest_float(name, low, high, step=step, log=dimension.log)


def _train(source: Source, chosen: dict[str, Any], folder: Path, trial: Any) -> float:
    """Train one trial, from where its run stands, and return the metric's best value."""
    name = f"trial-{hashlib.sha256(json.dumps(trial.params, sort_keys=True).encode()).hexdigest()[:12]}"
    recipe = load_recipe(source, chosen)
    recipe = recipe.model_copy(
        update={
            "name": name,
            "tune": None,
            "every": recipe.every.model_copy(update={"best": _metric(recipe), "keep": 1}),
        }
    )
    place = folder / "trials" / name
    run = Run.open(place) if (place / "recipe.yaml").is_file() else Run.create(recipe, folder / "trials")
    trial.set_user_attr("run", str(run.folder))
    trainer = Trainer(assembly.freeze(run))

    def report(row: dict[str, Any]) -> None:
        if row["kind"] == "evaluate":
            with warnings.catch_warnings(action="ignore"):  # a step judged again after a resume
                trial.report(float(row[recipe.every.best]), int(row["step"]))
            if trial.should_prune():
                raise _PrunedError

    trainer.watch = report
    try:
        trainer.resume()
        trainer.fit()
    finally:
        trainer.close()
    if trainer.best.value is None:
        raise RunError(str(run.folder), f"no validation gave a finite {trainer.best.metric}", "Lower optim.lr")
    return trainer.best.value


# ----------------------------------------------------------------------------------------------------------- conclusion
def _conclude(source: Source, overrides: dict[str, Any], folder: Path) -> dict[str, Any]:
    recipe = load_recipe(source, overrides)
    study, states = _study(folder, recipe), _optuna().trial.TrialState
    found = study.get_trials(deepcopy=False)
    done = [trial for trial in found if trial.state == states.COMPLETE]
    if not done:
        errors = [trial.user_attrs["error"] for trial in found if "error" in trial.user_attrs]
        raise RunError(
            str(folder), f"no trial was finished{f'; the last: {errors[-1]}' if errors else ''}", "Try again"
        )
    chosen = _values(study.best_trial, recipe)
    best = load_recipe(source, {**overrides, **chosen, "name": f"{recipe.name}-tuned"})
    text = dump_recipe(best.model_copy(update={"tune": None}))
    path = folder / "best.yaml"
    path.write_text(f"# {_metric(recipe)} {study.best_value:.6g} in trial {study.best_trial.number}.\n{text}", "utf-8")
    trials = [
        Trial(
            trial.number, trial.state.name.lower(), trial.value, _values(trial, recipe), dict(trial.intermediate_values)
        )
        for trial in found
        if trial.state in (states.COMPLETE, states.PRUNED, states.FAIL) and trial.params
    ]
    importance = _importance(study) if len({trial.value for trial in done}) > 1 else {}
    report = write_tuning_report(folder, recipe.name, _metric(recipe), trials, importance, text)
    result = {"metric": _metric(recipe), "value": float(study.best_value), "settings": chosen}
    return {**result, "trials": len(trials), "recipe": str(path), "report": str(report)}


def _values(trial: Any, recipe: Recipe) -> dict[str, Any]:
    space = _settings(recipe).space
    return {n: json.loads(v) if space[n].choices is not None else v for n, v in trial.params.items()}


def _importance(study: Any) -> dict[str, float]:
    """Return the share of the variation between trials that each setting explains, by fANOVA.

    Source:
        Hutter, Hoos and Leyton-Brown 2014, "An efficient approach for assessing hyperparameter importance".
    """
    importance = _optuna().importance
    try:
        evaluator = importance.FanovaImportanceEvaluator(seed=0)
        return cast(dict[str, float], importance.get_param_importances(study, evaluator=evaluator))
    except (ImportError, RuntimeError, ValueError):  # without scikit-learn, or trials too few to tell
        return {}
