"""More steps for a run that was to end earlier, with the state of its optimizer; and data that was
moved."""

from __future__ import annotations

from typing import Any

from groundup.core.errors import RunError
from groundup.parallel.layout import AXES
from groundup.recipe.recipe import Recipe, as_dict
from groundup.recipe.sections import Optim
from groundup.runs.data_fingerprint import check_data
from groundup.runs.run import Run, count_steps
from groundup.training.schedules import learning_rate_at

__all__ = ["CHANGEABLE", "go_on_as"]

_LENGTHS = ("training.steps", "training.epochs", "training.samples")
_PLACES = ("data.path", "data.validation", "data.test", "data.dataset")
_BASELINES = "evaluation.baselines"
_PARALLEL = tuple(f"parallel.{axis}" for axis in (*AXES, "timeout_s"))
CHANGEABLE = (*_LENGTHS, *_PLACES, _BASELINES, *_PARALLEL)
"""What may be another value when a run goes on: how long it is, where its data is, what it is
compared with, and how many processes train it."""


def go_on_as(run: Run, wanted: Recipe) -> Run:
    """Return the run with the length and the places of data that ``wanted`` has; other settings are
    the same.

    Raises:
        RunError: If another setting differs, or the steps done are not those of the longer run.
        DataError: If the data is not where it is said to be, or is other data.
    """
    differing = run.differences(wanted)
    if not differing.keys() <= set(CHANGEABLE):
        run.check_same(wanted)
    if differing.keys() & set(_PLACES):
        wanted.data.contents()  # whose error says what is not there
        if error := check_data(run, wanted.data):
            raise error
    changes: dict[str, Any] = {}
    if differing.keys() & set(_PLACES):
        changes["data"] = wanted.data
    if differing.keys() & set(_LENGTHS):
        _go_back_to_where_it_can_go_on(run, wanted)
        changes["training"] = wanted.training
    if _BASELINES in differing:
        changes["evaluation"] = wanted.evaluation
    if differing.keys() & set(_PARALLEL):
        changes["parallel"] = wanted.parallel
    if not changes:
        return run
    # Both: what was asked for, with which later starts are compared, and what a resume reads.
    asked = run.read_json("requested.json") or {}
    plain = as_dict(wanted)
    run.write_json("requested.json", asked | {section: plain[section] for section in changes})
    settled = run.recipe.model_copy(update=changes)
    run.write_recipe(settled)
    if "data" in changes:
        moved = {key: now for key, (_, now) in differing.items() if key in _PLACES}
        said = ", ".join(f"{key}={value}" for key, value in moved.items())
        run.event(run.checkpoints.newest_intact() or 0, f"{run.folder}: the same data, {said}")
    return Run(run.folder, settled, run.storage)


def _go_back_to_where_it_can_go_on(run: Run, wanted: Recipe) -> None:
    """Make the newest checkpoint one that the longer run would have had; without any, nothing is to
    be done.

    Raises:
        RunError: If there is none, saying why and what to do.
    """
    steps = run.checkpoints.steps()
    newest = run.checkpoints.newest_intact()
    if newest is None:
        return
    state = run.checkpoints.state(newest)
    epoch = state["samples_per_epoch"]
    before = count_steps(run.recipe.training, epoch)
    total = count_steps(wanted.training, epoch)
    where = str(run.folder)
    if total < newest:
        problem = f"has done {newest} steps; allowed: more, got {total}; nothing there was touched"
        remedy = (
            f"Ask for more steps, or train {total} in a run of its own: name={run.recipe.name}-2"
        )
        raise RunError(where, problem, remedy)
    if problem := _depends_on_length(run, state):
        raise RunError(where, f"cannot be trained longer: {problem}", _remedy(run))
    optim = run.recipe.optim
    same = _count_common_rates(optim, newest, before, total)
    usable = [s for s in steps if s <= same and not run.checkpoints.damage(s)]
    if not usable:
        kept = ", ".join(map(str, steps))
        problem = (
            f"cannot be trained for {total} steps: its {optim.schedule} schedule was made for"
            f" {before}, and from step {same + 1} on the rates of {total} steps are others;"
            f" checkpoints are kept of steps {kept}"
        )
        raise RunError(where, problem, _remedy(run))
    for step in steps:
        if step > usable[-1]:
            run.storage.remove(run.checkpoints.path(step))
    back = ""
    if usable[-1] < newest:
        back = f", from step {usable[-1]} on, before the rate came down"
    run.event(usable[-1], f"{run.folder}: trained for {total} steps instead of {before}{back}")


def _count_common_rates(optim: Optim, steps: int, before: int, total: int) -> int:
    """Return how many of the first steps have the same learning rate in a run of ``before`` steps
    and in one of ``total``."""
    for step in range(steps):
        if learning_rate_at(optim, step, before) != learning_rate_at(optim, step, total):
            return step
    return steps


def _depends_on_length(run: Run, state: dict[str, Any]) -> str:
    """Return which setting made the steps done depend on how many there were to be, if one did."""
    recipe = run.recipe
    if state.get("stopped"):
        return f"training.patience has ended it, because {state['stopped']}"
    if recipe.optim.average == "swa":
        return "optim.average: swa began at a share of its steps"
    if isinstance(recipe.init.unfreeze_every, float):
        return "init.unfreeze_every is a share of its steps"
    return ""


def _remedy(run: Run) -> str:
    return (
        f"Start a new run from its weights, with name={run.recipe.name}-2 and"
        f" init.run={run.folder}; a run with optim.schedule: constant, or wsd before its rate comes"
        " down, can be trained longer"
    )
