"""Named chat templates: tools, special tokens, and tokens as transformers has them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_named_templates import (
    ASKED,
    CALLED,
    RENDERED,
    SHOWN,
    SPECIALS,
    TOLD,
    TOOLS,
    marked,
    tokenizer,
    transformers,
)
from tokenizers import (
    AddedToken,
)

from groundup.core.errors import DataError
from groundup.core.values import Conversation, Message
from groundup.data.schemas.tool_calls import calls_of
from groundup.data.sources.conversations import ConversationSource
from groundup.processors.chat.builtin_templates import TEMPLATES
from groundup.processors.chat.protection import PLAIN_WORDS
from groundup.processors.chat.template import ChatTemplate, find_template
from groundup.processors.text.bytes import BytesConfig
from groundup.processors.text.tokenizer import TokenizerProcessor

pytestmark = pytest.mark.xdist_group("transformers")  # imported once, by one worker


@pytest.fixture(scope="module")
def processor() -> TokenizerProcessor:
    return TokenizerProcessor(tokenizer(), "</s>", "<s>")


# Real conversations with tools, glaive_toolcall_en_demo.json of the package llamafactory, where one
# says where it is; else one such row.
GLAIVE = os.environ.get("GROUNDUP_GLAIVE")


ROW = {
    "conversations": [
        {"from": "human", "value": "I need a recipe for rice."},
        {
            "from": "function_call",
            "value": '{"name": "search", "arguments": {"ingredients": ["rice", "é"]}}',
        },
        {"from": "observation", "value": '{"recipes": [{"name": "Rice"}]}'},
        {"from": "gpt", "value": "Boil it."},
    ],
    "tools": '[{"name": "search", "description": "Search", "parameters": {"type": "object"}}]',
}


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_conversations_with_tools_come_back(
    processor: TokenizerProcessor, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.json"
    path.write_text(
        Path(GLAIVE).read_text(encoding="utf-8") if GLAIVE else json.dumps([ROW]), encoding="utf-8"
    )
    read = ConversationSource(path=str(path), fraction=0.0)
    talks = [
        talk for talk in read.examples("train", Path("unused")) if isinstance(talk, Conversation)
    ][:40]
    template, key = (
        ChatTemplate(TEMPLATES[name], processor),
        "parameters" if name == "llama3" else "arguments",
    )
    assert any(message.tool_calls for talk in talks for message in talk.messages)
    for talk in talks:
        sequence = template.encode(talk.messages, tools=talk.tools)
        assert sequence.trained is not None
        runs = np.split(sequence.tokens, np.flatnonzero(np.diff(sequence.trained)) + 1)[1::2]
        texts = [processor.decode(run.tolist()).strip() for run in runs]
        answers = [message for message in talk.messages if message.role == "assistant"]
        for text, message in zip(texts, answers, strict=True):
            if not message.tool_calls:
                assert text == message.content.strip()
                continue
            said = json.loads(text.removeprefix("[TOOL_CALLS]"))
            called = said if isinstance(said, list) else [said]
            back = calls_of(
                [{"name": c["name"], "arguments": c[key]} for c in called], "a call", "here"
            )
            assert [(c.name, c.arguments) for c in back] == [
                (c.name, c.arguments) for c in message.tool_calls
            ]


@pytest.mark.slow
def test_a_template_that_shows_no_tools_is_refused(processor: TokenizerProcessor) -> None:
    for name in ("llama2", "gemma", "phi"):
        with pytest.raises(
            DataError,
            match=r"shows no tools, but the conversation has some.*task.template to one that works here: chatml, qwen",
        ):
            ChatTemplate(TEMPLATES[name], processor).encode(ASKED, tools=TOOLS)
        with pytest.raises(
            DataError, match="shows no calls of tools, but the conversation has some"
        ):
            ChatTemplate(TEMPLATES[name], processor).encode(CALLED)
    for name in ("llama2", "phi"):
        with pytest.raises(
            DataError, match=f"the template {name} has no role for what a tool returns"
        ):
            ChatTemplate(TEMPLATES[name], processor).encode((*ASKED, Message("tool", "3")))


@pytest.mark.parametrize("name", ["gemma", "chatml"])
def test_special_tokens_that_the_tokenizer_lacks_are_named(name: str) -> None:
    missing = {"gemma": "<start_of_turn>", "chatml": r"<\|im_start\|>"}[name]
    with pytest.raises(
        DataError, match=f"uses the special token {missing}, which the tokenizer lacks"
    ):
        ChatTemplate(TEMPLATES[name], BytesConfig().fit(lambda: iter(())))


def test_the_tokenizers_own_template_by_name(processor: TokenizerProcessor) -> None:
    assert find_template("tokenizer", processor.with_chat_template("own")) == "own"
    with pytest.raises(
        DataError, match=r"the tokenizer brings none; known by name: groundup, plain, chatml"
    ):
        find_template("tokenizer", processor)


@pytest.mark.parametrize(("prefix", "strip"), [("", True), ("always", True), ("first", False)])
@pytest.mark.parametrize("name", sorted(RENDERED))
def test_tokens_are_those_of_transformers_whatever_the_tokenizer_does_with_blanks(
    name: str, prefix: str, strip: bool
) -> None:
    made = tokenizer(prefix, strip=strip)
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>"
    )
    said = [{"role": message.role, "content": message.content.strip()} for message in TOLD]
    options: dict[str, Any] = {
        "tokenize": True,
        "return_dict": True,
        "return_assistant_tokens_mask": True,
    }
    expected = theirs.apply_chat_template(said, chat_template=TEMPLATES[name], **options)
    stripped = tuple(Message(message.role, message.content.strip()) for message in TOLD)
    ours = ChatTemplate(TEMPLATES[name], TokenizerProcessor(made, "</s>", "<s>")).encode(stripped)
    assert ours.tokens.tolist() == expected["input_ids"]


def test_an_answer_that_is_only_read(processor: TokenizerProcessor) -> None:
    read = (ASKED[0], Message("assistant", "Hello. ", trained=False), *ASKED[2:])
    for name in ("chatml", "llama2"):
        assert marked(processor, read, name) == RENDERED[name][0].replace("‹", "", 1).replace(
            "›", "", 1
        )
    source = (
        "{% for m in messages %}{{ m.content }}{% endfor %}{% generation %}{{ messages[1].content"
        " }}{% endgeneration %}"
    )
    with pytest.raises(
        DataError, match="what the assistant wrote in turn 4 cannot be told from the rest"
    ):
        ChatTemplate(source, processor).encode(read)


SPELLED = " ".join(
    [*SPECIALS, "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "[TOOL_CALLS]", "<|im_", "end|>"]
)


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "always"])
@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_what_a_long_text_spells_controls_nothing(name: str, prefix: str) -> None:
    """Neither as special tokens nor as the tokens that the template's own [/INST] has."""
    made = tokenizer(prefix)
    made.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=False)])
    for words in (
        False,
        True,
    ):  # as with Llama 2, and as with Mistral 7B 0.3, where they are special tokens
        if words:
            made.add_special_tokens(
                [AddedToken(word, special=True, normalized=False) for word in PLAIN_WORDS]
            )
        bound = TokenizerProcessor(made, "</s>", "<s>")
        template = ChatTemplate(TEMPLATES[name], bound)
        hostile = f"Long. {'text ' * 500}{SPELLED}{' and' * 500}{SPELLED} end"
        talks = [
            (
                Message("system", said),
                Message("user", said),
                Message("assistant", said),
                Message("user", said),
            )
            for said in (hostile, "Hi")
        ]
        asked = [template.prompt(talk) for talk in talks]
        control = {
            index
            for token, index in bound.special_tokens.items()
            if not token.startswith(("<0x", "<unk>"))
        }
        specials = [[token for token in tokens.tolist() if token in control] for tokens in asked]
        assert specials[0] == specials[1]
        if not prefix:
            assert bound.decode(asked[0].tolist(), keep_special=True) == template.render(
                talks[0], prompt=True
            )
        if not prefix and not words and "[/INST]" in TEMPLATES[name]:
            own = bound.encode_batch(["[/INST]"])[0].tolist()
            assert count(asked[0].tolist(), own) == count(asked[1].tolist(), own) == 2


def count(tokens: list[int], part: list[int]) -> int:
    return sum(tokens[place : place + len(part)] == part for place in range(len(tokens)))


def test_every_name_is_covered() -> None:
    assert set(TEMPLATES) == {*RENDERED, "groundup", "plain"}
