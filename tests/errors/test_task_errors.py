"""What is said about conversations and options that cannot be used."""

from __future__ import annotations

import pytest

from groundup.core.errors import DataError, RecipeError
from groundup.core.values import Conversation, Message
from groundup.models.gpt import GPTConfig
from groundup.processors.text.bytes import BytesConfig
from groundup.tasks.chat.task import Chat
from groundup.tasks.language_modeling import LanguageModeling

PROCESSOR = BytesConfig().fit(lambda: iter(()))


def test_an_unknown_role_is_named_with_its_conversation() -> None:
    good = Conversation(
        "a", (Message("user", "Hi"), Message("assistant", "Hello")), "chats.jsonl line 1"
    )
    bad = Conversation(
        "b", (Message("user", "Hi"), Message("assistent", "Hello")), "chats.jsonl line 2"
    )
    expected = (
        r"chats\.jsonl line 2, message 2: unknown role 'assistent'; did you mean 'assistant'\?"
    )
    with pytest.raises(DataError, match=expected):
        Chat().encode([good, bad], PROCESSOR)


def test_what_is_no_conversation_is_refused() -> None:
    model = GPTConfig(
        layers=1, width=8, heads=1, context_length=16, vocabulary_size=PROCESSOR.vocabulary_size
    ).build()
    with pytest.raises(
        DataError,
        match=r"conversation: got \[\{'role': 'user'\}\]; allowed: a question, or messages",
    ):
        Chat().predict(model, [{"role": "user"}], PROCESSOR)


def test_an_unknown_template_is_refused() -> None:
    with pytest.raises(DataError, match=r"no template 'grondup'; did you mean 'groundup'\?"):
        Chat(template="grondup").encode([], PROCESSOR)


def test_an_unknown_decoding_option_is_refused() -> None:
    model = GPTConfig(
        layers=1, width=8, heads=1, context_length=16, vocabulary_size=PROCESSOR.vocabulary_size
    ).build()
    with pytest.raises(
        RecipeError, match=r"options\.temprature: unknown key; did you mean 'temperature'\?"
    ):
        LanguageModeling().predict(model, "a", PROCESSOR, temprature=0.5)
