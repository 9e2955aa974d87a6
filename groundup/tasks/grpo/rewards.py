"""Rewards: small functions of an answer, by name; run with a limit of time, and not believed."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import model_validator

from groundup.contracts.prompts import Prompt
from groundup.core.errors import GroundupError, TrainingError, did_you_mean
from groundup.core.settings import Settings, setting
from groundup.tasks.grpo.ready_rewards import READY, Ready, check_options

__all__ = ["Reward", "reward", "reward_names", "score_answers"]

Function = Callable[[str, Prompt], float]

_OWN: dict[str, Function] = {}


def reward(name: str) -> Callable[[Function], Function]:
    """Register a function as a reward that recipes can name: ``function(answer, prompt)`` gives a
    number, the larger the better."""

    def register(function: Function) -> Function:
        _OWN[name] = function
        return function

    return register


def reward_names() -> list[str]:
    """Return the names that recipes can use."""
    return sorted({*READY, *_OWN})


class Reward(Settings):
    """One thing that answers are scored for."""

    name: str = setting(
        ...,
        "exact_number, regex, json, unit_tests, length, or a function of a file under uses",
    )
    weight: float = setting(1.0, "What it is multiplied with before rewards are added up")
    timeout_s: float = setting(
        10.0, "Seconds that scoring one answer may take; of unit_tests, that running it may", gt=0
    )
    column: str = setting(
        "answer",
        "Column of the prompts' rows with what is right: a number, or the tests",
        applies_when={"name": ("exact_number", "unit_tests")},
    )
    pattern: str = setting(
        "",
        "Regular expression that the whole answer is to fit",
        applies_when={"name": ("regex",)},
    )
    fits: dict[str, Any] | None = setting(
        None,
        "JSON Schema that the answer is to fit; null: the column schema, or any JSON",
        applies_when={"name": ("json",)},
    )
    memory_mb: int = setting(
        512, "Memory that running an answer may take", gt=0, applies_when={"name": ("unit_tests",)}
    )
    characters: int = setting(
        200,
        "Longest answer that loses nothing; one of twice the length or more has -1",
        gt=0,
        applies_when={"name": ("length",)},
    )

    @model_validator(mode="after")
    def _is_known(self) -> Reward:
        if self.name not in {*READY, *_OWN}:
            names = reward_names()
            guess = did_you_mean(self.name, names)
            raise ValueError(
                f"there is no reward {self.name!r}; {guess}allowed: {', '.join(names)}. Name the"
                " file with your own under uses, where @reward gives it its name"
            )
        check_options(self.name, self.pattern, self.fits)
        return self

    def function(self) -> Function:
        """Return what scores an answer."""
        # A user's own comes first: it may be a better one of the same name.
        if self.name in _OWN:
            return _OWN[self.name]
        made: Ready = READY[self.name]
        return made(self.model_dump())


def score_answers(
    rewards: Sequence[Reward], answers: Sequence[str], prompts: Sequence[Prompt]
) -> list[list[float]]:
    """Return of each answer what each reward gives, not yet weighted.

    Raises:
        TrainingError: If a reward raises, gives what is no number, or does not return in time.
    """
    found: list[list[float]] = [[] for _ in answers]
    for each in rewards:
        for row, value in zip(found, _score(each, answers, prompts), strict=True):
            row.append(value)
    return found


def _score(each: Reward, answers: Sequence[str], prompts: Sequence[Prompt]) -> list[float]:
    """Run one reward in a thread of its own, which is left behind where it does not return."""
    done: queue.Queue[Any] = queue.Queue()
    function = each.function()

    def run() -> None:
        for answer, prompt in zip(answers, prompts, strict=True):
            try:
                done.put(function(answer, prompt))
            except Exception as error:
                done.put(error)
                return

    # A daemon: a reward that never returns must not keep the process from ending.
    threading.Thread(target=run, name=f"reward {each.name}", daemon=True).start()
    found = []
    # Running an answer has its own limit; what starts and ends the process comes on top.
    most = each.timeout_s + (5.0 if each.name in READY else 0.0)
    for answer, prompt in zip(answers, prompts, strict=True):
        try:
            value = done.get(timeout=most)
        except queue.Empty:
            problem = f"did not return within {each.timeout_s:g} s {_about(answer, prompt)}"
            remedy = "Make it faster, or raise its timeout_s"
            raise TrainingError(f"reward {each.name}", problem, remedy) from None
        found.append(_checked(each, value, answer, prompt))
    return found


def _checked(each: Reward, value: Any, answer: str, prompt: Prompt) -> float:
    where = f"reward {each.name}"
    if isinstance(value, Exception):
        if isinstance(value, GroundupError):
            raise value
        problem = f"raised {type(value).__name__}: {value} {_about(answer, prompt)}"
        raise TrainingError(where, problem, "Let it return a number for any text") from value
    # True and False count as 1 and 0, as whoever writes a test of an answer expects.
    if not isinstance(value, int | float):
        problem = f"gave {value!r:.60} {_about(answer, prompt)}; allowed: a number"
        raise TrainingError(where, problem, "Return a float, such as 1.0 or 0.0")
    if not math.isfinite(value):
        problem = f"gave {value} {_about(answer, prompt)}; allowed: a finite number"
        raise TrainingError(where, problem, "Look for a quotient of 0, or a logarithm of it")
    return float(value)


def _about(answer: str, prompt: Prompt) -> str:
    asked = prompt.messages[-1].content
    return f"for the answer {answer[:80]!r} to {asked[:80]!r} ({prompt.origin or prompt.name})"
