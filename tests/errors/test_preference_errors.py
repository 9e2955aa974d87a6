"""Every preference that cannot be learned from is refused with its file and row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import preference_run

from groundup import api
from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import validate
from groundup.data.sources.preferences import PreferenceSource
from groundup.processors.text.bytes import BytesConfig
from groundup.tasks.preference.task import PreferenceTuning

ASKED = {"from": "human", "value": "Why?"}
BAD: list[tuple[dict[str, Any], str]] = [
    (
        {"prompt": "a", "chosen": "b", "rejected": "b"},
        ": the chosen answer and the rejected one are equal; a pair must",
    ),
    (
        {"prompt": "a", "chosen": " ", "rejected": "b"},
        ", chosen: turn 2 (assistant) has no content",
    ),
    (
        {"prompt": "a", "chosen": "b", "rejected": []},
        ", rejected: the last turn is the user's; allowed: the assistant's",
    ),
    (
        {"prompt": "a", "rejected": "b"},
        ": column 'chosen' is missing or empty; columns: prompt, rejected",
    ),
    (
        {"prompt": "a", "chosed": "c", "rejected": "b"},
        "'chosen' is missing or empty; did you mean 'chosed'? columns:",
    ),
    (
        {"prompt": "a", "chosen": None, "rejected": "b"},
        ": column 'chosen' is missing or empty; columns: prompt, rejected",
    ),
    (
        {"prompt": "a", "chosen": 3, "rejected": "b"},
        ", chosen: the answer is a number (3); allowed: text",
    ),
    (
        {"prompt": 3, "chosen": "a", "rejected": "b"},
        ", chosen: the content of turn 1 is a number (3); allowed: text",
    ),
    (
        {"conversations": [ASKED], "chosen": {"from": "bot", "value": "x"}, "rejected": "b"},
        ", chosen: turn 2 has the unk",
    ),
    (
        {"conversations": [ASKED], "chosen": ASKED, "rejected": "b"},
        ", chosen: the last turn is the user's",
    ),
    (
        {
            "chosen": [ASKED, {"from": "gpt", "value": "x"}],
            "rejected": [{"from": "user", "value": "How?"}, ASKED],
        },
        ", rejected: turns 1 and 2 are both the user's",
    ),
    (
        {
            "chosen": [ASKED, {"from": "gpt", "value": "x"}],
            "rejected": [{"from": "user", "value": "How?"}, {"from": "gpt", "value": "x"}],
        },
        ": the prompts of chosen and rejected differ: they part at turn 1, which is no answer",
    ),
    (
        {"chosen": "words", "rejected": "others"},
        ", chosen: there is no column for the prompt, and no dialogue that",
    ),
    (
        {"text": "a", "stars": 3},
        ": no known kind of preference has the columns text, stars; known: pairs (prompt",
    ),
    (
        {"text": "a", "label": True},
        ": no known kind of preference has the columns text, label; known: pairs (prompt",
    ),
    (
        {"prompt": "a", "completion": "b", "label": "good"},
        ": column 'label' is 'good'; allowed: true or false",
    ),
    (
        {"prompt": "a", "completion": "b", "kto_tag": 1},
        ": column 'kto_tag' is 1; allowed: true or false",
    ),
    ({"prompt": "a", "completion": "", "label": True}, ": turn 2 (assistant) has no content"),
]


@pytest.mark.parametrize(("row", "problem"), BAD)
def test_bad_rows_name_file_line_and_what_is_allowed(
    tmp_path: Path, row: dict[str, Any], problem: str
) -> None:
    fine = {"prompt": "a", "chosen": "b", "rejected": "c"}
    (tmp_path / "a.jsonl").write_text(json.dumps(fine) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(DataError) as caught:
        PreferenceSource(path=str(tmp_path / "a.jsonl"), fraction=0.0).examples("train", tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'a.jsonl'} line 2")
    assert problem in str(caught.value)
    skipping = PreferenceSource(path=str(tmp_path / "a.jsonl"), fraction=0.0, invalid_rows="skip")
    assert len(skipping.examples("train", tmp_path)) == 1
    assert skipping.card(tmp_path)["left_out"]["invalid"] == 1


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"task.objective": "kto", "data.unpaired": False},
            "line 1: the data has pairs, but objective kto needs answers wi",
        ),
        (
            {"data.unpaired": True},
            "line 1: the data has a label, but objective dpo needs pairs. Set objective: kto",
        ),
        ({"model.context_length": 40}, "a prompt with its answer has"),
        (
            {"data.fraction": 0.999},
            "nothing is left for train (fraction 0.999)",
        ),
        ({"model.context_length": 8, "data.too_long": "drop"}, "the context of 8 allows 9"),
        (
            {"model.context_length": 8, "data.too_long": "truncate"},
            (
                "tokens even without its earlier turns (24 more rows are too long); the context of"
                " 8 allows 9. Raise model.context_length, or set data.longest_characters."
            ),
        ),
        (
            {"task.beta": 0.2, "task.objective": "orpo"},
            'beta has no effect with objective: "orpo"; it applies when',
        ),
        ({"task.gamma": 2.0}, 'gamma has no effect with objective: "dpo"'),
        ({"data.dataset": "a/b"}, "both path and dataset are given"),
    ],
)
def test_runs_that_cannot_begin(changes: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises((DataError, RecipeError)) as caught:
        api.trainer(preference_run(tmp_path), changes, runs=tmp_path / "runs")
    assert problem in str(caught.value)


def test_other_data_and_templates_without_an_answer(tmp_path: Path) -> None:
    processor, task = BytesConfig().fit(lambda: iter(())), PreferenceTuning()
    with pytest.raises(
        DataError, match="task preference: got a int; this task learns from preferences"
    ):
        task.encode([3], processor)  # type: ignore[list-item]
    examples = PreferenceSource(**validated(preference_run(tmp_path)["data"])).examples(
        "train", tmp_path
    )
    nothing = "{% generation %}{% endgeneration %}"
    silent = "{% for m in messages %}{{ m.content }}" + nothing + "{% endfor %}"
    mute = processor.with_chat_template(silent)
    with pytest.raises(
        DataError, match="an answer has no tokens of its own once the chat template has put"
    ):
        task.encode(examples, mute)


def validated(section: dict[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in section.items() if key != "name"}
    return validate(PreferenceSource, plain, "data").model_dump()
