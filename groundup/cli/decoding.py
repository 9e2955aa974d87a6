"""How ``predict`` and ``chat`` write: as was asked for, else as the weights say."""

from __future__ import annotations

import logging
from typing import Any

from groundup.contracts.tasks import MeasuresOutputs, Streams
from groundup.core.errors import GroundupError
from groundup.inference.predictor import Predictor

__all__ = ["GENERATION", "choose_decoding", "given"]

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


def given(values: dict[str, Any]) -> dict[str, Any]:
    """Return those of a verb's parameters that say how to write, without what was not given: the
    task's own defaults count then."""
    return {name: values[name] for name in GENERATION if values.get(name) is not None}


def choose_decoding(predictor: Predictor, options: dict[str, Any]) -> dict[str, Any]:
    """Return decoding options: given ones, then those of generation_config.json, which are said;
    where neither has a temperature, the task's own is taken.

    Raises:
        GroundupError: If one is for texts, and the task writes none.
    """
    task = predictor.task
    if not isinstance(task, Streams | MeasuresOutputs):
        for name in sorted(options.keys() - _OF_ALL):
            problem = f"has no effect: task {task.registered_name} writes no text"
            raise GroundupError(f"--{name.replace('_', '-')}", problem, "Remove it")
    found = predictor.with_decoding(options)
    said = [f"{key} {value}" for key, value in found.items() if key not in options]
    if said:
        log.info("by generation_config.json of the weights: %s", ", ".join(said))
    # The same text each time, where nobody has said that it may vary; see the task's own default.
    return {"temperature": task.default_temperature, **found}
