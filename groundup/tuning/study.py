"""Optuna's study of a search: its file, its trials, and what they are called here."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from groundup.core.errors import MissingExtraError, RecipeError
from groundup.metrics.directions import lower_is_better
from groundup.recipe.recipe import Recipe
from groundup.recipe.sections import Dimension, Tune
from groundup.tuning.shared_study import LostTrials, open_storage

__all__ = [
    "counted_trials",
    "measure_importance",
    "metric_of",
    "open_study",
    "require_optuna",
    "retry",
    "retry_lost",
    "retry_unfinished",
    "run_of",
    "settings_of",
    "suggest_value",
    "trials_alike",
    "values_of",
]

log = logging.getLogger("groundup")


def settings_of(recipe: Recipe) -> Tune:
    """Return the recipe's ``tune`` section.

    Raises:
        RecipeError: If it has none.
    """
    if recipe.tune is None:
        raise RecipeError(
            "recipe.tune", "is required and missing", "Add a section 'tune:' with a space to search"
        )
    return recipe.tune


def metric_of(recipe: Recipe) -> str:
    """Return the metric that trials are compared by."""
    return settings_of(recipe).metric or recipe.checkpoints.best_metric


def require_optuna() -> Any:
    """Return the library.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        import optuna
        import optuna.storages.journal
    except ImportError:
        raise MissingExtraError("optuna", "tune") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def open_study(folder: Path, recipe: Recipe) -> Any:
    """Open the study; its sampler is a function of the seed and of how many trials there are."""
    optuna = require_optuna()
    pruner = optuna.pruners.NopPruner()
    if settings_of(recipe).prune:
        pruner = optuna.pruners.MedianPruner(n_startup_trials=4)
    return optuna.create_study(
        storage=open_storage(settings_of(recipe).storage, folder, optuna),
        study_name=recipe.name,
        direction="minimize" if lower_is_better(metric_of(recipe)) else "maximize",
        pruner=pruner,
        load_if_exists=True,
    )


def retry_unfinished(study: Any) -> None:
    """Try trials that a kill or Ctrl-C left behind again with the same values: they go on in the
    same run."""
    for trial in study.get_trials(
        deepcopy=False, states=(require_optuna().trial.TrialState.RUNNING,)
    ):
        retry(study, trial)


def retry_lost(study: Any, lost: LostTrials) -> int:
    """Try trials again whose worker is gone, and return how many others are still running."""
    optuna = require_optuna()
    running = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
    found = lost.find(running)
    for trial in found:
        log.warning(
            "Trial %d is tried again: its worker, %s, is gone",
            trial.number,
            trial.user_attrs.get("owner", "which had not said its name"),
        )
        # several may find it at once: the first has it, and the others are told that it has ended
        with suppress(optuna.exceptions.UpdateFinishedTrialError, ValueError):
            retry(study, trial)
    return len(running) - len(found)


def retry(study: Any, trial: Any) -> None:
    """End a trial without an error of its own, and put its values first in the queue."""
    study.tell(trial.number, state=require_optuna().trial.TrialState.FAIL)
    # a trial that was killed before it had values got them from an earlier retry
    study.enqueue_trial(trial.params or trial.system_attrs.get("fixed_params", {}))


def counted_trials(study: Any) -> list[Any]:
    """Return the trials that count: all but those that wait, and those that were interrupted and
    are tried again."""
    states = require_optuna().trial.TrialState
    return [
        t
        for t in study.get_trials(deepcopy=False)
        if t.state != states.WAITING and (t.state != states.FAIL or "error" in t.user_attrs)
    ]


def trials_alike(study: Any, trial: Any) -> list[Any]:
    """Return the other trials of the same values."""
    return [
        t
        for t in study.get_trials(deepcopy=False)
        if t.params == trial.params and t.number != trial.number
    ]


def run_of(trial: Any, folder: Path) -> Path:
    """Return the folder of a trial's run."""
    return folder / "trials" / Path(trial.user_attrs["run"]).name


def suggest_value(trial: Any, name: str, dimension: Dimension) -> Any:
    """Let the study's sampler choose a setting's value for a trial."""
    if dimension.choices is not None:
        # as text: Optuna keeps only plain values
        return json.loads(
            trial.suggest_categorical(name, [json.dumps(choice) for choice in dimension.choices])
        )
    low = dimension.low
    high = dimension.high
    if isinstance(low, int) and isinstance(high, int):
        step = int(dimension.step or 1)
        return trial.suggest_int(name, low, high, step=step, log=dimension.log)
    return trial.suggest_float(name, low, high, step=dimension.step, log=dimension.log)


def values_of(trial: Any, recipe: Recipe) -> dict[str, Any]:
    """Return a trial's settings by their dotted keys."""
    space = settings_of(recipe).space
    return {
        n: json.loads(v) if space[n].choices is not None else v for n, v in trial.params.items()
    }


def measure_importance(study: Any) -> dict[str, float]:
    """Return the share of the variation between trials that each setting explains, by fANOVA.

    Source:
        Hutter, Hoos and Leyton-Brown 2014, "An efficient approach for assessing hyperparameter
        importance".
    """
    importance = require_optuna().importance
    try:
        evaluator = importance.FanovaImportanceEvaluator(seed=0)
        shares: dict[str, float] = importance.get_param_importances(study, evaluator=evaluator)
        return shares
    # without scikit-learn, or trials too few to tell
    except (ImportError, RuntimeError, ValueError):
        return {}
