"""Tools, plain texts, answers that are only read, system prompts, and chats longer than the
context."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup.contracts.data import DataContext
from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import validate
from groundup.core.values import Conversation, Document, Message, TokenSequence, ToolCall
from groundup.data.schemas.chat_formats import to_messages
from groundup.data.schemas.tool_calls import tools_of
from groundup.data.sources.conversations import ConversationSource
from groundup.processors.chat.builtin_templates import TEMPLATES
from groundup.processors.text.bytes import BytesConfig
from groundup.tasks.chat.task import Chat

PROCESSOR = BytesConfig().fit(lambda: iter(()))
ASKED = {"role": "user", "content": "1+2?"}
CALL = {"name": "add", "arguments": {"a": 1, "b": 2}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {}}}
EXPECTED = (
    Message("user", "1+2?"),
    Message("assistant", "", (ToolCall("add", {"a": 1, "b": 2}),)),
    Message("tool", "3"),
    Message("assistant", "It is 3."),
)
REST = [{"role": "tool", "content": "3"}, {"role": "assistant", "content": "It is 3."}]
LLAMA_FACTORY = [
    {"from": "human", "value": "1+2?"},
    {"from": "function_call", "value": json.dumps(CALL)},
    {"from": "observation", "value": "3"},
    {"from": "gpt", "value": "It is 3."},
]


def openai(**turn: Any) -> dict[str, Any]:
    return {"messages": [ASKED, {"role": "assistant", **turn}, *REST]}


@pytest.mark.parametrize(
    "row",
    [
        openai(content=None, tool_calls=[{"type": "function", "function": CALL}]),
        openai(
            tool_calls=[
                {"type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
            ]
        ),
        openai(content="", function_call=CALL),
        openai(content=[{"type": "tool_call", "value": json.dumps(CALL)}]),
        {"conversations": LLAMA_FACTORY},
        {
            "prompt": [ASKED],
            "completion": [{"role": "assistant", "content": "", "tool_calls": [CALL]}, *REST],
        },
    ],
)
def test_calls_of_tools_in_every_shape(row: dict[str, Any]) -> None:
    assert to_messages(row, "auto", "here") == EXPECTED


def test_what_is_said_before_a_call_identities_and_results_that_are_no_text() -> None:
    said = [LLAMA_FACTORY[0], {"from": "gpt", "value": "I add."}, *LLAMA_FACTORY[1:]]
    assert to_messages({"conversations": said}, "auto", "here")[1] == Message(
        "assistant", "I add.", EXPECTED[1].tool_calls
    )
    turns = [
        ASKED,
        {
            "role": "assistant",
            "tool_calls": [{"id": "c1", "function": CALL}, {"function": {"name": "no"}}],
        },
    ]
    with pytest.raises(
        DataError, match="the arguments of a tool call of turn 2 are no object but null"
    ):
        to_messages({"messages": turns}, "auto", "here")
    turns[1] = {"role": "assistant", "tool_calls": [{"id": "c1", "function": CALL}]}
    turns += [{"role": "tool", "name": "add", "tool_call_id": "c1", "content": {"sum": 3}}, REST[1]]
    found = to_messages({"messages": turns}, "auto", "here")
    assert found[1].tool_calls[0].identity == "c1"
    assert found[2] == Message("tool", '{"sum": 3}', name="add", call="c1")


@pytest.mark.parametrize("tools", [[TOOL], json.dumps([TOOL]), [TOOL["function"]]])
def test_tools_as_a_list_or_as_text(tools: Any) -> None:
    assert tools_of({"tools": tools}, "here") == (TOOL,)
    assert tools_of({"functions": tools}, "here") == (TOOL,)
    assert tools_of({"tools": "[]"}, "here") == tools_of({}, "here") == ()


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"tools": "{"}, "column 'tools' cannot be read as JSON: \"{\""),
        ({"tools": {"name": "add"}}, "column 'tools' is not a list but "),
        ({"tools": ["add"]}, 'tool 1 has no name: "add". A tool is {"type": "function"'),
        (openai(tool_calls=["add"]), 'a tool call of turn 2 calls no tool by name: "add"'),
        (
            openai(tool_calls=[{"name": "add", "arguments": "[1]"}]),
            "the arguments of a tool call of turn 2 are no object but [1]",
        ),
        (
            openai(tool_calls=[{"name": "add", "arguments": "{a: 1}"}]),
            "the arguments of a tool call of turn 2 cannot be",
        ),
        (
            {"conversations": [{"from": "function_call", "value": "add(1)"}]},
            'turn 1 cannot be read as JSON: "add(1)"',
        ),
        (
            {"messages": [ASKED, {"role": "assistant", "content": "x", "weight": 0.5}]},
            "turn 2 has weight 0.5; allowed: 0 or",
        ),
        ({"text": " "}, "the text is empty"),
        (
            {"chosen": "a", "rejected": "b", "prompt": "c"},
            "has the columns chosen, rejected, prompt; known: messages",
        ),
    ],
)
def test_tools_that_cannot_be_read_name_file_and_row(
    tmp_path: Path, row: dict[str, Any], problem: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text(
        json.dumps([openai(content="I see.") | row if "tools" in row else row]), encoding="utf-8"
    )
    with pytest.raises(DataError) as caught:
        list(ConversationSource(path=str(path), fraction=0.0).examples("train", tmp_path))
    assert f"a.json row 1: {problem}" in str(caught.value).replace(
        "no known kind of conversation ", ""
    )


def test_reasoning_stands_before_the_answer() -> None:
    parts = [{"type": "reasoning", "value": "3."}, {"type": "text", "value": "It is 3."}]
    found = to_messages(
        {"messages": [ASKED, {"role": "assistant", "content": parts}]}, "auto", "here"
    )
    assert (found[1].reasoning, found[1].content) == ("3.", "It is 3.")


def learned(example: Conversation | Document, **task: Any) -> list[str]:
    sequence = Chat(**task).encode([example], PROCESSOR)[0]
    assert sequence.trained is not None
    runs = np.split(np.arange(len(sequence.tokens)), np.flatnonzero(np.diff(sequence.trained)) + 1)
    return [
        PROCESSOR.decode(sequence.tokens[r].tolist(), keep_special=True)
        for r in runs
        if sequence.trained[r[0]]
    ]


def test_only_answers_with_a_weight_are_learned_and_texts_as_a_whole() -> None:
    turns = [
        ASKED,
        {"role": "assistant", "content": "No", "weight": 0},
        ASKED,
        {"role": "assistant", "content": "3"},
    ]
    chat = Conversation("a", to_messages({"messages": turns}, "auto", "here"))
    assert learned(chat) == learned(chat, train_on="last") == ["3<|end|>"]
    assert learned(Document("b", "A text.")) == ["A text.<|endoftext|>"]
    both = Chat().encode([Document("b", "A text."), chat], PROCESSOR)
    assert [int(each.trained.sum()) for each in both if each.trained is not None] == [8, 2]


TALK = (Message("user", "Hi"), Message("assistant", "Yo"))
TOLD = (Message("system", "Old."), *TALK)


@pytest.mark.parametrize(
    ("settings", "system"),
    [
        ({}, [None, "Old."]),
        ({"system_prompt": "add", "system": "New."}, ["New.", "Old."]),
        ({"system_prompt": "replace", "system": "New."}, ["New.", "New."]),
        ({"system_prompt": "replace"}, [None, None]),
    ],
)
def test_system_prompts_are_kept_added_or_replaced(
    settings: dict[str, Any], system: list[str | None]
) -> None:
    task = validate(Chat, settings, "recipe.task")
    for talk, expected in zip((TALK, TOLD), system, strict=True):
        shown = PROCESSOR.decode(
            task.encode([Conversation("a", talk)], PROCESSOR)[0].tokens.tolist(), keep_special=True
        )
        assert shown.startswith(
            f"<|endoftext|><|system|>\n{expected}<|end|>" if expected else "<|endoftext|><|user|>"
        )
        asked = task._with_system(talk[:-1])
        assert (asked[0].content if asked[0].role == "system" else None) == expected


def test_a_system_prompt_without_a_text_or_without_use() -> None:
    with pytest.raises(RecipeError, match="system_prompt add needs a text"):
        validate(Chat, {"system_prompt": "add"}, "recipe.task")
    with pytest.raises(RecipeError, match='system has no effect with system_prompt: "keep"'):
        validate(Chat, {"system": "x"}, "recipe.task")


@pytest.mark.parametrize(("longest", "kept"), [(9, 8), (8, 8), (7, 4), (4, 4), (3, 0)])
def test_a_cut_keeps_whole_answers(longest: int, kept: int) -> None:
    trained = np.array([0, 0, 1, 1, 0, 0, 1, 1, 0, 0], dtype=bool)
    sequence = TokenSequence(np.arange(10, dtype=np.int32), trained)
    assert sequence.end_of_whole_answers(longest) == kept


def stream(
    folder: Path, rows: list[dict[str, Any]], task: dict[str, Any] | None = None, **packing: Any
) -> Any:
    path = folder / "chats.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    source = validate(
        ConversationSource,
        {"path": str(path), "fraction": 0.0, "packing": packing},
        "data",
    )
    encode = lambda examples: Chat(**(task or {})).encode(examples, PROCESSOR)  # noqa: E731
    cache = folder / json.dumps([rows, task, packing]).encode().hex()[-40:]
    return source.open(DataContext("train", encode, "", PROCESSOR.end_id, 40, 1, 1, 0, cache))


def test_a_truncated_chat_ends_with_its_stop_token(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    turn = [{"role": "user", "content": "q" * 4}, {"role": "assistant", "content": "a" * 5}]
    rows = [
        {"messages": turn * 3},
        {"messages": [turn[0], {"role": "assistant", "content": "b" * 90}]},
    ]
    with caplog.at_level(logging.WARNING, "groundup"):
        batch = next(stream(tmp_path, rows, too_long="truncate", pack=False))
    assert "of 2 examples 1 were dropped and 1 truncated" in caplog.text
    targets = batch["targets"][batch["targets"] >= 0]
    assert PROCESSOR.decode(targets.tolist(), keep_special=True) == "aaaaa<|end|>" * 2
    with pytest.raises(
        DataError,
        match=r"there is nothing to train on: 1 examples with .* 1 examples dropped as too l",
    ):
        stream(tmp_path, rows[1:], too_long="truncate")
    with pytest.raises(DataError, match=r"nothing to train on"):
        stream(tmp_path, rows[:1], {"train_on": "last"}, too_long="truncate")


def test_examples_with_nothing_to_train_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read = [ASKED, {"role": "assistant", "content": "3", "weight": 0}]
    rows = [{"messages": [ASKED, REST[1]]}, {"messages": read}, {"messages": read}]
    problem = (
        r"chats.json row 2 \(example 1\): none of its \d+ tokens is trained on \(1 more examples"
        r" likewise\)"
    )
    with pytest.raises(DataError, match=problem + r".*data.packing.on_fully_masked=drop"):
        stream(tmp_path, rows)
    with caplog.at_level(logging.WARNING, "groundup"):
        assert stream(tmp_path, rows, on_fully_masked="drop").samples_per_epoch == 1
    assert "2 of 3 examples have nothing to train on: left out" in caplog.text
    with pytest.raises(DataError, match="there is nothing to train on: 2 examples"):
        stream(tmp_path, rows[1:], on_fully_masked="drop")


def test_nothing_in_a_tokenizers_folder_is_run(tmp_path: Path) -> None:
    from groundup.processors.text.bpe import BPEConfig
    from groundup.processors.text.tokenizer_json import TokenizerJSONConfig

    BPEConfig().fit(lambda: iter(["abc"])).save(tmp_path)
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')", encoding="utf-8")
    attack = "{{ cycler.__init__.__globals__.os.system('touch " + str(tmp_path / "ran") + "') }}"
    config = {
        "tokenizer_class": "evil.Evil",
        "auto_map": {"AutoTokenizer": ["evil.Evil", None]},
        "eos_token": "<|end|>",
    }
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(config | {"chat_template": attack}), encoding="utf-8"
    )
    processor = TokenizerJSONConfig(path=str(tmp_path)).fit(lambda: iter(()))
    assert processor.chat_template == attack
    with pytest.raises(DataError, match="does what a template may not"):
        Chat().fit_processor(processor, lambda: iter(()))
    assert not (tmp_path / "ran").exists()


def test_a_template_by_an_unknown_name() -> None:
    with pytest.raises(
        DataError,
        match=r"there is no template 'lama2'; did you mean 'llama2'\? known: tokenizer, groundup",
    ):
        Chat(template="lama2").fit_processor(PROCESSOR, lambda: iter(()))
    assert (
        Chat(template="plain").fit_processor(PROCESSOR, lambda: iter(())).chat_template
        == TEMPLATES["plain"]
    )
