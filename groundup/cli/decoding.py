"""How ``predict`` and ``chat`` write: as was asked for, else as the weights say."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from groundup.contracts.recommendation import MakesLists
from groundup.contracts.tasks import DrawsPictures, MeasuresOutputs, Streams, Task
from groundup.core.errors import GroundupError
from groundup.inference.predictor import Predictor

__all__ = ["DRAWING", "GENERATION", "LISTS", "check_users", "choose_decoding", "given"]

log = logging.getLogger("groundup")
# also what probabilities of classes are flattened by; a seed is given where nobody asks for one
_OF_ALL = {"temperature", "seed"}

# how a task writes text, as its predict names them
GENERATION = (
    "max_new_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "stop",
    "beams",
    "n_best",
    "length_penalty",
    "early_stopping",
    "min_new_tokens",
    "no_repeat_ngram",
    "ngram_weight",
    "length_bonus",
    "seed",
)
# how a task makes pictures, likewise
DRAWING = ("count", "guidance", "sampler", "steps")
# how a task makes lists of items, likewise
LISTS = ("k",)


def given(values: dict[str, Any]) -> dict[str, Any]:
    """Return those of a verb's parameters that say how to write or draw, without what was not
    given: the task's own defaults count then."""
    names = (*GENERATION, *DRAWING, *LISTS)
    return {name: values[name] for name in names if values.get(name) is not None}


def choose_decoding(predictor: Predictor, options: dict[str, Any]) -> dict[str, Any]:
    """Return decoding options: given ones, then those of generation_config.json, which are said;
    where neither has a temperature, the task's own is taken.

    Raises:
        GroundupError: If one is for texts, and the task writes none; or for pictures likewise.
    """
    task = predictor.task
    draws = task.drawing_options if isinstance(task, DrawsPictures) else ()
    for name in sorted(options.keys() & set(DRAWING)):
        if name not in draws:
            problem = f"has no effect: task {task.registered_name} draws no pictures so"
            raise GroundupError(f"--{name}", problem, "Remove it")
    if isinstance(task, MakesLists):
        _refuse_options_of_texts(task, options, (*task.list_options, "seed"))
        return {name: options[name] for name in task.list_options if name in options}
    for name in sorted(options.keys() & set(LISTS)):
        problem = f"has no effect: task {task.registered_name} makes no lists of items"
        raise GroundupError(f"--{name}", problem, "Remove it")
    if isinstance(task, DrawsPictures):
        _refuse_options_of_texts(task, options, (*draws, "seed"))
        return options
    if not isinstance(task, Streams | MeasuresOutputs):
        _refuse_options_of_texts(task, options, _OF_ALL)
    found = predictor.with_decoding(options)
    said = [f"{key} {value}" for key, value in found.items() if key not in options]
    if said:
        log.info("by generation_config.json of the weights: %s", ", ".join(said))
    # The same text each time, where nobody has said that it may vary; see the task's own default.
    if task.default_temperature is None:
        return found
    return {"temperature": task.default_temperature, **found}


def check_users(predictor: Predictor, users: Sequence[str]) -> None:
    """Raise an error for users that are named for a task without any.

    Raises:
        GroundupError: If the run recommends nothing.
    """
    task = predictor.task
    if users and not isinstance(task, MakesLists):
        problem = f"has no effect: task {task.registered_name} knows no users"
        raise GroundupError("--user", problem, "Give what to predict from without it")


def _refuse_options_of_texts(
    task: Task, options: Mapping[str, Any], allowed: Collection[str]
) -> None:
    for name in sorted(options.keys() - set(allowed)):
        problem = f"has no effect: task {task.registered_name} writes no text"
        raise GroundupError(f"--{name.replace('_', '-')}", problem, "Remove it")
