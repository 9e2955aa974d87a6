"""Search for better settings: trials of a recipe with Optuna, resumable, in parallel, the poor ones
ended early.

Everything is in ``runs/NAME-tune``: ``study.jsonl`` (Optuna's journal), ``trials/`` with a run for
each trial, ``best.yaml`` and ``report.html``. Of the trials that have ended only the best one's run
keeps its checkpoints, unless ``tune.keep`` is ``all``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from groundup.core.errors import (
    GroundupError,
    Interrupted,
    RunError,
    in_words,
)
from groundup.core.seeding import key
from groundup.recipe.recipe import Recipe, dump_recipe, load_recipe
from groundup.recipe.sections import Tune
from groundup.reports.run_reader import read_run
from groundup.runs.run import Run
from groundup.training import build
from groundup.training.throughput import StopRequest
from groundup.tuning.page import Trial, write_tuning_report
from groundup.tuning.shared_study import LostTrials, beat, claim_recipe, owner
from groundup.tuning.study import (
    counted_trials,
    measure_importance,
    metric_of,
    open_study,
    require_optuna,
    retry,
    retry_lost,
    retry_unfinished,
    run_of,
    settings_of,
    suggest_value,
    trials_alike,
    values_of,
)

__all__ = ["tune"]

Source = str | Path | dict[str, Any]
Lock = AbstractContextManager[Any]
# seconds between two looks at trials that others train, where no further one is to begin
_LOOK_AGAIN_S = 5.0
_TAKEN = "Trial %d was taken as lost, and another worker tries it again: this one's end is not used"
log = logging.getLogger("groundup")


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

    Started again, it goes on: finished trials count, and one that was interrupted goes on from its
    last checkpoint. Then the trials, their values and which of them are ended early are those of a
    search that was never stopped; with several workers they depend on who was first.

    With ``tune.storage`` the same command may run on several machines: they share the trials, and
    one whose worker is gone is tried again by another.

    Args:
        source: A YAML file or a dictionary.
        overrides: Dotted keys to values, for every trial.
        runs: The folder of all runs.
        workers: Processes that train trials at the same time.

    Returns:
        ``metric``, ``value``, ``settings``, ``trials`` (how many), ``run`` (the best trial's
        folder), ``recipe`` and ``report`` (their paths).

    Raises:
        RecipeError: If there is no ``tune`` section, or a value of its space does not
            fit the recipe.
        RunError: If no trial succeeded.
        Interrupted: After Ctrl-C or SIGTERM, once the trials at work were saved.
        MissingExtraError: If Optuna is not installed.
    """
    overrides = dict(overrides or {})
    recipe = load_recipe(source, overrides)
    # what is wrong in the space is said before anything is trained
    for name, dimension in settings_of(recipe).space.items():
        for value in dimension.choices or (dimension.low, dimension.high):
            load_recipe(source, {**overrides, name: value})
    folder = Path(runs) / f"{recipe.name}-tune"
    folder.mkdir(parents=True, exist_ok=True)
    _check_same(folder, recipe)
    # where the study is this command's alone, whatever was running has been left behind
    if settings_of(recipe).storage is None:
        retry_unfinished(open_study(folder, recipe))
    if workers == 1:
        _train_trials(source, overrides, folder, nullcontext())
    else:
        _work_together(source, overrides, folder, workers)
    return _conclude(source, overrides, folder)


def _check_same(folder: Path, recipe: Recipe) -> None:
    """A study is of one recipe and one space; only trials, timeout, keep, storage and workers may
    change."""
    # None of these changes a trial. And the URL of a database may hold a password.
    changeable = {"trials": 1, "timeout_s": None, "keep": "best", "storage": None}
    settings = settings_of(recipe).model_copy(update=changeable)
    asked = dump_recipe(recipe.model_copy(update={"about": "", "tune": settings}))
    path = folder / "requested.yaml"
    storage = settings_of(recipe).storage
    if storage is not None:
        claim_recipe(open_study(folder, recipe), asked, storage)
    if path.is_file() and path.read_text(encoding="utf-8") != asked:
        raise RunError(
            str(folder),
            "holds trials of another recipe or another space; nothing there was touched",
            "Choose another name=..., or delete the folder to start from scratch",
        )
    path.write_text(asked, encoding="utf-8")


# ------------------------------------------------------------------------------------------- trials


def _work_together(source: Source, overrides: dict[str, Any], folder: Path, workers: int) -> None:
    """Train trials in several processes; a signal is passed on, and every process saves before it
    ends."""
    context = multiprocessing.get_context("spawn")
    arguments = (source, overrides, folder, context.Lock())
    processes = [context.Process(target=_work_alone, args=arguments) for _ in range(workers)]
    with StopRequest() as stop:
        for process in processes:
            process.start()
        passed_on = False
        while any(process.is_alive() for process in processes):
            for process in processes:
                process.join(0.1)
            # Ctrl-C reaches every process of the terminal by itself
            if stop.requested == "SIGTERM" and not passed_on:
                passed_on = True
                for process in processes:
                    process.terminate()
    if stop.requested or any(process.exitcode == Interrupted.exit_code for process in processes):
        raise Interrupted(
            str(folder),
            f"stopped by {stop.requested or 'a signal'}; everything is saved",
            "Start the same command again to go on",
        )


def _work_alone(source: Source, overrides: dict[str, Any], folder: Path, lock: Lock) -> None:
    """Be one of several workers: say what went wrong in a line and by the exit code."""
    # an error, which lets go of the lock
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _train_trials(source, overrides, folder, lock)
    except (GroundupError, KeyboardInterrupt) as error:
        words, code = in_words(error)
        if words and not isinstance(error, Interrupted):
            print(words, file=sys.stderr)
        sys.exit(code)


def _train_trials(source: Source, overrides: dict[str, Any], folder: Path, lock: Lock) -> None:
    """Train trials until there are as many as the recipe asks for. The lock lets one worker at a
    time begin or end."""
    begin = time.monotonic()
    states = require_optuna().trial.TrialState
    recipe = load_recipe(source, overrides)
    settings = settings_of(recipe)
    study = open_study(folder, recipe)
    shared = settings.storage is not None
    lost = LostTrials()
    while settings.timeout_s is None or time.monotonic() - begin < settings.timeout_s:
        others = 0
        with lock:
            if shared:
                others = retry_lost(study, lost)
            trial = _next_trial(study, settings)
        if trial is None:
            if not others:
                return
            # One of them may be left behind, and then it is still to be tried.
            time.sleep(_LOOK_AGAIN_S)
            continue
        value = None
        state = states.COMPLETE
        try:
            with beat(trial) if shared else nullcontext():
                chosen = {**overrides, **values_of(trial, recipe)}
                value = _train_trial(source, chosen, folder, trial)
        except _PrunedError:
            state = states.PRUNED
        except Interrupted:
            with lock:
                retry(study, trial)
            raise
        except require_optuna().exceptions.UpdateFinishedTrialError:
            log.warning(_TAKEN, trial.number)
            continue
        except GroundupError as error:
            state = states.FAIL
            if not _note_error(trial, error):
                continue
            # a recipe that always fails would be tried for ever
            if sum("error" in t.user_attrs for t in counted_trials(study)) >= settings.trials:
                study.tell(trial, state=state)
                raise
        with lock:
            _end_trial(study, trial, value, state)
            if settings.keep == "best":
                _remove_checkpoints(study, folder)


def _note_error(trial: Any, error: GroundupError) -> bool:
    """Note why a trial failed; return False where another worker has it by now."""
    try:
        trial.set_user_attr("error", str(error))
    except require_optuna().exceptions.UpdateFinishedTrialError:
        log.warning(_TAKEN, trial.number)
        return False
    return True


def _end_trial(study: Any, trial: Any, value: float | None, state: Any) -> None:
    """Say how a trial has ended, unless it was taken as lost and another worker has it."""
    if study.get_trials(deepcopy=False)[trial.number].state.is_finished():
        log.warning(_TAKEN, trial.number)
        return
    study.tell(trial, value, state=state)


def _next_trial(study: Any, settings: Tune) -> Any:
    """Return a trial with its values, or None where there are enough; its sampler is a function of
    seed and number."""
    optuna = require_optuna()
    failed = optuna.trial.TrialState.FAIL
    if sum(trial.state != failed for trial in counted_trials(study)) >= settings.trials:
        return None
    study.sampler = optuna.samplers.TPESampler(seed=0)
    trial = study.ask()
    trial.set_user_attr("owner", owner())
    # Two workers that ask at once have two numbers: each draws by how many are before its own.
    before = [other for other in counted_trials(study) if other.number < trial.number]
    if sum(other.state != failed for other in before) >= settings.trials:
        study.tell(trial, state=failed)  # others were quicker: this one is not counted
        return None
    seed = key(settings.seed, "tune", len(before)) % 2**32
    study.sampler = optuna.samplers.TPESampler(seed=seed)
    for name, dimension in settings.space.items():
        suggest_value(trial, name, dimension)
    digest = hashlib.sha256(json.dumps(trial.params, sort_keys=True).encode()).hexdigest()[:12]
    name = f"trial-{digest}"
    running = optuna.trial.TrialState.RUNNING
    # a run's folder is one process's alone
    if any(other.state == running for other in trials_alike(study, trial)):
        name += f"-{trial.number}"
    trial.set_user_attr("run", name)
    return trial


def _remove_checkpoints(study: Any, folder: Path) -> None:
    """Remove the checkpoints of the trials that have ended, except the best one's."""
    states = require_optuna().trial.TrialState
    found = [trial for trial in counted_trials(study) if "run" in trial.user_attrs]
    needed = {run_of(trial, folder) for trial in found if trial.state == states.RUNNING}
    if any(trial.state == states.COMPLETE for trial in found):
        needed.add(run_of(study.best_trial, folder))
    # what another worker trains at this moment is needed too
    for place in {run_of(trial, folder) for trial in found} - needed:
        shutil.rmtree(place / "checkpoints", ignore_errors=True)


def _train_trial(source: Source, chosen: dict[str, Any], folder: Path, trial: Any) -> float:
    """Train one trial, from its run's last checkpoint, and return the metric's best value.

    Of values that were tried before, the outcome is known.
    """
    states = require_optuna().trial.TrialState
    known = [
        other
        for other in trials_alike(trial.study, trial)
        if other.state in (states.COMPLETE, states.PRUNED)
    ]
    if known:
        # reported again, as the pruner compares trials at each step
        for step, value in known[0].intermediate_values.items():
            trial.report(value, step)
        if known[0].state == states.PRUNED:
            raise _PrunedError
        return float(known[0].value)
    place = run_of(trial, folder)
    recipe = load_recipe(source, chosen)
    recipe = recipe.model_copy(
        update={
            "name": place.name,
            "tune": None,
            "evaluation": recipe.evaluation.model_copy(update={"test": False}),
            "checkpoints": recipe.checkpoints.model_copy(
                update={"best_metric": metric_of(recipe), "keep": 1}
            ),
        }
    )
    if (place / "recipe.yaml").is_file():
        run = Run.open(place)
    else:
        run = Run.create(recipe, folder / "trials")
    trainer = build.build_trainer(build.freeze(run))

    def report(row: dict[str, Any]) -> None:
        if row["kind"] == "evaluate":
            with warnings.catch_warnings(action="ignore"):
                # a step evaluated again after a resume
                trial.report(float(row[recipe.checkpoints.best_metric]), int(row["step"]))
            if trial.should_prune():
                raise _PrunedError

    trainer.watch = report
    try:
        if trainer.resume():
            # what it had reached counts when trials are compared at a step
            for step, value in read_run(run.folder).points(
                "evaluate", recipe.checkpoints.best_metric
            ):
                if step <= trainer.step:
                    trial.report(value, int(step))
        trainer.fit()
    finally:
        trainer.close()
    # a loss that was never finite is an error of this trial, not of the search
    if trainer.best.value is None:
        raise RunError(
            str(run.folder), f"no validation gave a finite {trainer.best.metric}", "Lower optim.lr"
        )
    return trainer.best.value


# --------------------------------------------------------------------------------------- conclusion
def _conclude(source: Source, overrides: dict[str, Any], folder: Path) -> dict[str, Any]:
    recipe = load_recipe(source, overrides)
    study = open_study(folder, recipe)
    states = require_optuna().trial.TrialState
    found = study.get_trials(deepcopy=False)
    done = [trial for trial in found if trial.state == states.COMPLETE]
    if not done:
        errors = [trial.user_attrs["error"] for trial in found if "error" in trial.user_attrs]
        problem = "; the last: ".join(["no trial was finished", *errors[-1:]])
        raise RunError(str(folder), problem, "Try again")
    chosen = values_of(study.best_trial, recipe)
    best = load_recipe(source, {**overrides, **chosen, "name": f"{recipe.name}-tuned"})
    text = dump_recipe(best.model_copy(update={"tune": None}))
    metric = metric_of(recipe)
    path = folder / "best.yaml"
    heading = f"# {metric} {study.best_value:.6g} in trial {study.best_trial.number}.\n"
    path.write_text(heading + text, "utf-8")
    trials = [
        Trial(
            trial.number,
            trial.state.name.lower(),
            trial.value,
            values_of(trial, recipe),
            dict(trial.intermediate_values),
        )
        for trial in counted_trials(study)
        if trial.state != states.RUNNING
    ]
    importance: dict[str, float] = {}
    if len({trial.value for trial in done}) > 1:
        # without variation there is nothing to explain
        importance = measure_importance(study)
    report = write_tuning_report(folder, recipe.name, metric, trials, importance, text)
    return {
        "metric": metric,
        "value": float(study.best_value),
        "settings": chosen,
        "run": str(run_of(study.best_trial, folder)),
        "trials": len(trials),
        "recipe": str(path),
        "report": str(report),
    }
