"""Search for better settings: trials of a recipe with Optuna, resumable, in parallel, the poor ones
ended early.

Everything is in ``runs/NAME-tune``: ``study.jsonl`` (Optuna's journal), ``trials/`` with a run for
each trial, ``best.yaml`` and ``report.html``. Of the trials that have ended only the best one's run
keeps its checkpoints, unless ``tune.keep`` is ``all``.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

from groundup.core.errors import (
    GroundupError,
    Interrupted,
    MissingExtraError,
    RecipeError,
    RunError,
    in_words,
)
from groundup.core.seeding import key
from groundup.metrics.directions import lower_is_better
from groundup.recipe.recipe import Recipe, dump_recipe, load_recipe
from groundup.recipe.sections import Dimension, Tune
from groundup.reports.run_reader import read_run
from groundup.runs.run import Run
from groundup.training import build
from groundup.training.throughput import StopRequest
from groundup.tuning.page import Trial, write_tuning_report

__all__ = ["tune"]

Source = str | Path | dict[str, Any]
Lock = AbstractContextManager[Any]


class _PrunedError(Exception):
    """Ends a trial that is worse than the median."""


def tune(
    source: Source,
    overrides: Mapping[str, Any] | None = None,
    *,
    runs: str | Path = "runs",
    workers: int = 1,
) -> dict[str, Any]:
    """Try settings of the recipe's ``tune.space``, and write the best trial's recipe and a report.

    Started again, it goes on: finished trials count, and one that was interrupted is trained on
        from where it stood.
    Then the trials, their values and which of them are ended early are those of a search that was
    never stopped; with several workers they depend on who was first.

    Args:
        source: A YAML file or a dictionary.
        overrides: Dotted keys to values, for every trial.
        runs: The folder of all runs.
        workers: Processes that train trials at the same time.

    Returns:
        ``metric``, ``value``, ``settings``, ``trials`` (how many), ``run`` (the best trial's
        folder), ``recipe`` and ``report`` (their paths).

    Raises:
        RecipeError: If there is no ``tune`` section, or a value of its space is none of the
            recipe's.
        RunError: If no trial succeeded.
        Interrupted: After Ctrl-C or SIGTERM, once the trials at work were saved.
        MissingExtraError: If Optuna is not installed.
    """
    overrides = dict(overrides or {})
    recipe = load_recipe(source, overrides)
    space = _settings(recipe)
    for name, dimension in space.space.items():  # a wrong key is said before anything is trained
        for value in (
            dimension.choices if dimension.choices is not None else (dimension.low, dimension.high)
        ):
            load_recipe(source, {**overrides, name: value})
    folder = Path(runs) / f"{recipe.name}-tune"
    folder.mkdir(parents=True, exist_ok=True)
    _check_same(folder, recipe)
    _put_back(_study(folder, recipe))
    if workers == 1:
        _work(source, overrides, folder, nullcontext())
    else:
        _work_together(source, overrides, folder, workers)
    return _conclude(source, overrides, folder)


def _settings(recipe: Recipe) -> Tune:
    if recipe.tune is None:
        raise RecipeError(
            "recipe.tune", "is required and missing", "Add a section 'tune:' with a space to search"
        )
    return recipe.tune


def _metric(recipe: Recipe) -> str:
    return _settings(recipe).metric or recipe.checkpoints.best_metric


def _check_same(folder: Path, recipe: Recipe) -> None:
    """A study is of one recipe and one space; only trials, timeout, keep and workers may change."""
    changeable = {"trials": 1, "timeout_s": None, "keep": "best"}
    asked = dump_recipe(
        recipe.model_copy(
            update={"about": "", "tune": _settings(recipe).model_copy(update=changeable)}
        )
    )
    path = folder / "requested.yaml"
    if path.is_file() and path.read_text(encoding="utf-8") != asked:
        problem = "holds trials of another recipe or another space; nothing there was touched"
        raise RunError(
            str(folder), problem, "Choose another name=..., or delete the folder to start afresh"
        )
    path.write_text(asked, encoding="utf-8")


# ------------------------------------------------------------------------------------------- trials
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
    pruner = (
        optuna.pruners.MedianPruner(n_startup_trials=4)
        if settings.prune
        else optuna.pruners.NopPruner()
    )
    return optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        study_name=recipe.name,
        direction="minimize" if lower_is_better(_metric(recipe)) else "maximize",
        pruner=pruner,
        load_if_exists=True,
    )


def _put_back(study: Any) -> None:
    """Trials that a kill or Ctrl-C left behind are tried again with the same values, and so go on
    in the same run."""
    for trial in study.get_trials(deepcopy=False, states=(_optuna().trial.TrialState.RUNNING,)):
        _retry(study, trial)


def _retry(study: Any, trial: Any) -> None:
    """End a trial without an error of its own, and put its values first in the queue."""
    study.tell(trial.number, state=_optuna().trial.TrialState.FAIL)
    study.enqueue_trial(trial.params or trial.system_attrs.get("fixed_params", {}))


def _begun(study: Any) -> list[Any]:
    """Return the trials that count: all but those that wait, and those that were interrupted and
    are tried again."""
    states = _optuna().trial.TrialState
    found = study.get_trials(deepcopy=False)
    return [
        t
        for t in found
        if t.state != states.WAITING and (t.state != states.FAIL or "error" in t.user_attrs)
    ]


def _work_together(source: Source, overrides: dict[str, Any], folder: Path, workers: int) -> None:
    """Train trials in several processes; a signal is passed on, and every process saves before it
    ends."""
    context = multiprocessing.get_context("spawn")
    arguments = (source, overrides, folder, context.Lock())
    processes = [context.Process(target=_work_alone, args=arguments) for _ in range(workers)]
    with StopRequest() as stop:
        for process in processes:
            process.start()
        told = False
        while any(process.is_alive() for process in processes):
            for process in processes:
                process.join(0.1)
            if (
                stop.requested == "SIGTERM" and not told
            ):  # Ctrl-C reaches every process of the terminal by itself
                told = True
                for process in processes:
                    process.terminate()
    if stop.requested or any(process.exitcode == Interrupted.exit_code for process in processes):
        problem = f"stopped by {stop.requested or 'a signal'}; everything is saved"
        raise Interrupted(str(folder), problem, "Start the same command again to go on")


def _work_alone(source: Source, overrides: dict[str, Any], folder: Path, lock: Lock) -> None:
    """Be one of several workers: say what went wrong in a line and by the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an error, which lets go of the lock
    try:
        _work(source, overrides, folder, lock)
    except (GroundupError, KeyboardInterrupt) as error:
        words, code = in_words(error)
        if words and not isinstance(error, Interrupted):
            print(words, file=sys.stderr)
        sys.exit(code)


def _work(source: Source, overrides: dict[str, Any], folder: Path, lock: Lock) -> None:
    """Train trials until there are as many as the recipe asks for. The lock lets one worker at a
    time begin or end."""
    begin, states = time.monotonic(), _optuna().trial.TrialState
    recipe = load_recipe(source, overrides)
    study, settings = _study(folder, recipe), _settings(recipe)
    while settings.timeout_s is None or time.monotonic() - begin < settings.timeout_s:
        with lock:
            trial = _next_trial(study, settings)
        if trial is None:
            return
        value, state = None, states.COMPLETE
        try:
            value = _train(source, {**overrides, **_values(trial, recipe)}, folder, trial)
        except _PrunedError:
            state = states.PRUNED
        except Interrupted:
            with lock:
                _retry(study, trial)
            raise
        except GroundupError as error:
            state = states.FAIL
            trial.set_user_attr("error", str(error))
            if len([t for t in _begun(study) if "error" in t.user_attrs]) >= settings.trials:
                study.tell(trial, state=state)
                raise
        with lock:
            study.tell(trial, value, state=state)
            if settings.keep == "best":
                _remove_checkpoints(study, folder)


def _next_trial(study: Any, settings: Tune) -> Any:
    """Return a trial with its values, or None where there are enough; its sampler is a function of
    seed and number."""
    optuna = _optuna()
    counted = [trial for trial in _begun(study) if trial.state != optuna.trial.TrialState.FAIL]
    if len(counted) >= settings.trials:
        return None
    study.sampler = optuna.samplers.TPESampler(
        seed=key(settings.seed, "tune", len(_begun(study))) % 2**32
    )
    trial = study.ask()
    for name, dimension in settings.space.items():
        _suggest(trial, name, dimension)
    digest = hashlib.sha256(json.dumps(trial.params, sort_keys=True).encode()).hexdigest()[:12]
    running = [
        other for other in _alike(study, trial) if other.state == optuna.trial.TrialState.RUNNING
    ]
    trial.set_user_attr(
        "run", f"trial-{digest}" + (f"-{trial.number}" if running else "")
    )  # never two in one folder
    return trial


def _alike(study: Any, trial: Any) -> list[Any]:
    """Return the other trials of the same values."""
    return [
        t
        for t in study.get_trials(deepcopy=False)
        if t.params == trial.params and t.number != trial.number
    ]


def _run_of(trial: Any, folder: Path) -> Path:
    return folder / "trials" / Path(trial.user_attrs["run"]).name


def _remove_checkpoints(study: Any, folder: Path) -> None:
    """Remove the checkpoints of the trials that have ended, except the best one's."""
    states = _optuna().trial.TrialState
    found = [trial for trial in _begun(study) if "run" in trial.user_attrs]
    needed = {_run_of(trial, folder) for trial in found if trial.state == states.RUNNING}
    if any(trial.state == states.COMPLETE for trial in found):
        needed.add(_run_of(study.best_trial, folder))
    for place in {_run_of(trial, folder) for trial in found} - needed:
        shutil.rmtree(place / "checkpoints", ignore_errors=True)


def _suggest(trial: Any, name: str, dimension: Dimension) -> Any:
    if dimension.choices is not None:  # as text: Optuna keeps only plain values
        return json.loads(
            trial.suggest_categorical(name, [json.dumps(choice) for choice in dimension.choices])
        )
    low, high, step = dimension.low, dimension.high, dimension.step
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high, step=int(step or 1), log=dimension.log)
    return trial.suggest_float(name, low, high, step=step, log=dimension.log)


def _train(source: Source, chosen: dict[str, Any], folder: Path, trial: Any) -> float:
    """Train one trial, from where its run stands, and return the metric's best value.

    Of values that were tried before, the outcome is known.
    """
    states = _optuna().trial.TrialState
    known = [
        other
        for other in _alike(trial.study, trial)
        if other.state in (states.COMPLETE, states.PRUNED)
    ]
    if known:
        for step, value in known[0].intermediate_values.items():
            trial.report(value, step)
        if known[0].state == states.PRUNED:
            raise _PrunedError
        return float(known[0].value)
    place = _run_of(trial, folder)
    name, recipe = place.name, load_recipe(source, chosen)
    recipe = recipe.model_copy(
        update={
            "name": name,
            "tune": None,
            "evaluation": recipe.evaluation.model_copy(update={"test": False}),
            "checkpoints": recipe.checkpoints.model_copy(
                update={"best_metric": _metric(recipe), "keep": 1}
            ),
        }
    )
    run = (
        Run.open(place)
        if (place / "recipe.yaml").is_file()
        else Run.create(recipe, folder / "trials")
    )
    trainer = build.build_trainer(build.freeze(run))

    def report(row: dict[str, Any]) -> None:
        if row["kind"] == "evaluate":
            with warnings.catch_warnings(action="ignore"):  # a step judged again after a resume
                trial.report(float(row[recipe.checkpoints.best_metric]), int(row["step"]))
            if trial.should_prune():
                raise _PrunedError

    trainer.watch = report
    try:
        if trainer.resume():  # what it had reached counts when trials are compared at a step
            for step, value in read_run(run.folder).points(
                "evaluate", recipe.checkpoints.best_metric
            ):
                if step <= trainer.step:
                    trial.report(value, int(step))
        trainer.fit()
    finally:
        trainer.close()
    if trainer.best.value is None:
        raise RunError(
            str(run.folder), f"no validation gave a finite {trainer.best.metric}", "Lower optim.lr"
        )
    return trainer.best.value


# --------------------------------------------------------------------------------------- conclusion
def _conclude(source: Source, overrides: dict[str, Any], folder: Path) -> dict[str, Any]:
    recipe = load_recipe(source, overrides)
    study, states = _study(folder, recipe), _optuna().trial.TrialState
    found = study.get_trials(deepcopy=False)
    done = [trial for trial in found if trial.state == states.COMPLETE]
    if not done:
        errors = [trial.user_attrs["error"] for trial in found if "error" in trial.user_attrs]
        raise RunError(
            str(folder),
            f"no trial was finished{f'; the last: {errors[-1]}' if errors else ''}",
            "Try again",
        )
    chosen = _values(study.best_trial, recipe)
    best = load_recipe(source, {**overrides, **chosen, "name": f"{recipe.name}-tuned"})
    text = dump_recipe(best.model_copy(update={"tune": None}))
    path = folder / "best.yaml"
    path.write_text(
        f"# {_metric(recipe)} {study.best_value:.6g} in trial {study.best_trial.number}.\n{text}",
        "utf-8",
    )
    trials = [
        Trial(
            trial.number,
            trial.state.name.lower(),
            trial.value,
            _values(trial, recipe),
            dict(trial.intermediate_values),
        )
        for trial in _begun(study)
        if trial.state != states.RUNNING
    ]
    importance = _importance(study) if len({trial.value for trial in done}) > 1 else {}
    report = write_tuning_report(folder, recipe.name, _metric(recipe), trials, importance, text)
    result = {"metric": _metric(recipe), "value": float(study.best_value), "settings": chosen}
    result["run"] = str(_run_of(study.best_trial, folder))
    return {**result, "trials": len(trials), "recipe": str(path), "report": str(report)}


def _values(trial: Any, recipe: Recipe) -> dict[str, Any]:
    space = _settings(recipe).space
    return {
        n: json.loads(v) if space[n].choices is not None else v for n, v in trial.params.items()
    }


def _importance(study: Any) -> dict[str, float]:
    """Return the share of the variation between trials that each setting explains, by fANOVA.

    Source:
        Hutter, Hoos and Leyton-Brown 2014, "An efficient approach for assessing hyperparameter
        importance".
    """
    importance = _optuna().importance
    try:
        evaluator = importance.FanovaImportanceEvaluator(seed=0)
        return cast(dict[str, float], importance.get_param_importances(study, evaluator=evaluator))
    except (
        ImportError,
        RuntimeError,
        ValueError,
    ):  # without scikit-learn, or trials too few to tell
        return {}
