"""Rewards that come with groundup, and what becomes of those that fail."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest

from groundup.contracts.prompts import Prompt
from groundup.core.errors import RecipeError, TrainingError
from groundup.core.settings import validate
from groundup.core.values import Message
from groundup.tasks.grpo.ready_rewards import last_number
from groundup.tasks.grpo.rewards import _OWN, Reward, reward, reward_names, score_answers


def prompt(**columns: Any) -> Prompt:
    return Prompt("p", (Message("user", "What is 2 + 3?"),), columns, "rows.jsonl line 4")


def score(answer: str, asked: Prompt, **settings: Any) -> float:
    made = validate(Reward, settings, "task.rewards")
    return score_answers([made], [answer], [asked])[0][0]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The sum is 1,234.5.", 1234.5),
        ("2 + 3 = 5", 5.0),
        ("-7", -7.0),
        ("5.", 5.0),
        ("none", None),
    ],
)
def test_the_last_number(text: str, number: float | None) -> None:
    assert last_number(text) == number


def test_ready_rewards() -> None:
    asked = prompt(answer=5)
    assert score("2 + 3 is 5.", asked, name="exact_number") == 1.0
    assert score("5 is not 6", asked, name="exact_number") == 0.0
    assert score("five", asked, name="exact_number") == 0.0
    assert score(" 12 ", asked, name="regex", pattern=r"\d+") == 1.0
    assert score("12 apples", asked, name="regex", pattern=r"\d+") == 0.0
    lengths = {"name": "length", "characters": 4}
    assert [score("x" * n, asked, **lengths) for n in (4, 6, 8, 99)] == [0.0, -0.5, -1.0, -1.0]


def test_json_that_fits_a_schema() -> None:
    pytest.importorskip("jsonschema")
    schema = {"type": "object", "required": ["sum"], "properties": {"sum": {"type": "integer"}}}
    asked = prompt()
    for answer, wanted in (('{"sum": 5}', 1.0), ('{"sum": "5"}', 0.0), ("sum: 5", 0.0), ("5", 0.0)):
        assert score(answer, asked, name="json", fits=schema) == wanted
        assert score(answer, prompt(schema=schema), name="json") == wanted
    assert score("5", asked, name="json") == 1.0
    with pytest.raises(RecipeError, match=r"fits is no JSON Schema: 3 is not valid"):
        validate(Reward, {"name": "json", "fits": {"type": 3}}, "task.rewards")


@pytest.mark.slow
def test_code_is_run_with_limits() -> None:
    asked = prompt(answer="assert add(2, 3) == 5")
    settings = {"name": "unit_tests", "timeout_s": 4.0, "memory_mb": 256}
    right = "Here it is:\n```python\ndef add(a, b):\n    return a + b\n```\nDone."
    assert score(right, asked, **settings) == 1.0
    wrong = {
        "false": "def add(a, b):\n    return a - b",
        "ends before the tests": "import sys\nsys.exit(0)",
        "memory": "x = bytearray(1 << 30)\ndef add(a, b):\n    return 5",
        "a large file": "open('f', 'wb').write(bytes(1 << 22))\ndef add(a, b):\n    return 5",
        "no Python": "add = ",
    }
    for name, program in wrong.items():
        assert score(program, asked, **settings) == 0.0, name
    begin = time.perf_counter()
    assert score("while True: pass", asked, **{**settings, "timeout_s": 1.0}) == 0.0
    assert time.perf_counter() - begin < 10


def test_own_rewards_and_their_failures() -> None:
    def hang(answer: str, asked: Prompt) -> float:
        time.sleep(3)
        return 0.0

    own: dict[str, Any] = {
        "test_raises": lambda answer, asked: 1 / 0,
        "test_nan": lambda answer, asked: math.nan,
        "test_text": lambda answer, asked: "good",
        "test_hangs": hang,
        "test_fine": lambda answer, asked: len(answer) > 2,
    }
    try:
        for name, function in own.items():
            reward(name)(function)
            assert name in reward_names()
        assert score("yes", prompt(), name="test_fine") == 1.0
        about = r"for the answer 'yes' to 'What is 2 \+ 3\?' \(rows.jsonl line 4\)"
        for name, message in {
            "test_raises": rf"reward test_raises: raised ZeroDivisionError: .* {about}. Let it",
            "test_nan": rf"reward test_nan: gave nan {about}; allowed: a finite number. Look for",
            "test_text": rf"reward test_text: gave 'good' {about}; allowed: a number. Return a",
        }.items():
            with pytest.raises(TrainingError, match=message):
                score("yes", prompt(), name=name)
        with pytest.raises(TrainingError, match=rf"did not return within 0.1 s {about}. Make it"):
            score("yes", prompt(), name="test_hangs", timeout_s=0.1)
    finally:
        for name in own:
            _OWN.pop(name, None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"name": "exact_numbr"},
            r"no reward 'exact_numbr'; did you mean 'exact_number'\? allowed: exact_number, json, "
            r"length, .*regex, .*unit_tests\. Name the file with your own under uses",
        ),
        ({"name": "regex"}, r"regex needs a pattern. Give it under pattern"),
        ({"name": "regex", "pattern": "("}, r"pattern is no regular expression: .*Correct it"),
        ({"name": "length", "pattern": "x"}, r"has no effect|applies when"),
    ],
)
def test_settings_that_mean_nothing(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        validate(Reward, settings, "task.rewards")


def test_columns_that_rewards_need() -> None:
    with pytest.raises(
        TrainingError, match=r"needs the column 'answer', but rows.jsonl line 4 has"
    ):
        score("5", prompt(sum=5), name="exact_number")
    assert score("5", prompt(sum=5), name="exact_number", column="sum") == 1.0
    with pytest.raises(TrainingError, match=r"column 'answer' holds 'five', no number"):
        score("5", prompt(answer="five"), name="exact_number")
