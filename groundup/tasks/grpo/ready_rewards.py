"""Rewards that come with groundup, each made from its settings."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from groundup.contracts.prompts import Prompt
from groundup.core.errors import MissingExtraError, TrainingError
from groundup.tasks.grpo.run_code import passes_tests

__all__ = ["READY", "Ready", "check_options", "last_number"]

Ready = Callable[[Mapping[str, Any]], Callable[[str, Prompt], float]]

_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")
_FENCE = re.compile(r"```\w*\n(.*?)```", re.DOTALL)


def check_options(name: str, pattern: str, fits: Mapping[str, Any] | None) -> None:
    """Refuse options that mean nothing, when the recipe is read.

    Raises:
        ValueError: Saying what is wrong with them.
    """
    if name == "regex":
        if not pattern:
            raise ValueError("regex needs a pattern. Give it under pattern")
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"pattern is no regular expression: {error}. Correct it") from None
    if name == "json" and fits is not None:
        library = _library()
        try:
            library.Draft202012Validator.check_schema(fits)
        except library.SchemaError as error:
            raise ValueError(f"fits is no JSON Schema: {error.message}. Correct it") from None


def last_number(text: str) -> float | None:
    """Return the last number in a text, without its thousands' commas."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def _exact_number(options: Mapping[str, Any]) -> Callable[[str, Prompt], float]:
    column = options["column"]

    def score(answer: str, prompt: Prompt) -> float:
        wanted = last_number(str(_column(prompt, column, "exact_number")))
        if wanted is None:
            raise TrainingError(
                prompt.origin or prompt.name,
                f"column {column!r} holds {prompt.columns[column]!r:.60}, no number",
                "Correct the row, or name another column: task.rewards, column",
            )
        # The last one: a model that thinks aloud names others first.
        return float(last_number(answer) == wanted)

    return score


def _regex(options: Mapping[str, Any]) -> Callable[[str, Prompt], float]:
    pattern = re.compile(options["pattern"], re.DOTALL)
    return lambda answer, prompt: float(pattern.fullmatch(answer.strip()) is not None)


def _json(options: Mapping[str, Any]) -> Callable[[str, Prompt], float]:
    library = _library()
    fits = options["fits"]

    def score(answer: str, prompt: Prompt) -> float:
        schema = fits if fits is not None else prompt.columns.get("schema", True)
        if isinstance(schema, str):
            schema = json.loads(schema)
        # Strictly: who asks for JSON gets what a program can read, without words around it.
        try:
            value = json.loads(answer)
        except ValueError:  # no JSON
            return 0.0
        return float(library.Draft202012Validator(schema).is_valid(value))

    return score


def _unit_tests(options: Mapping[str, Any]) -> Callable[[str, Prompt], float]:
    run = partial(passes_tests, timeout_s=options["timeout_s"], memory_mb=options["memory_mb"])
    column = options["column"]

    def score(answer: str, prompt: Prompt) -> float:
        tests = str(_column(prompt, column, "unit_tests"))
        # A chat model writes code in a block, with words around it.
        blocks = _FENCE.findall(answer)
        return float(run("\n".join(blocks) if blocks else answer, tests))

    return score


def _length(options: Mapping[str, Any]) -> Callable[[str, Prompt], float]:
    longest = options["characters"]
    return lambda answer, prompt: -min(max(len(answer) - longest, 0) / longest, 1.0)


READY: dict[str, Ready] = {
    "exact_number": _exact_number,
    "regex": _regex,
    "json": _json,
    "unit_tests": _unit_tests,
    "length": _length,
}
"""What makes each, by name."""


def _column(prompt: Prompt, column: str, name: str) -> Any:
    if column not in prompt.columns:
        there = ", ".join(prompt.columns) or "none"
        raise TrainingError(
            f"reward {name}",
            f"needs the column {column!r}, but {prompt.origin or prompt.name} has: {there}",
            "Add it to the rows, or name another one: task.rewards, column",
        )
    return prompt.columns[column]


def _library() -> Any:
    try:
        import jsonschema
    except ImportError:
        raise MissingExtraError("jsonschema", "rewards") from None
    return jsonschema
