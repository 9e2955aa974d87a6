"""Supervised fine-tuning on conversations: the model learns to write what the assistant wrote.

Source: Ouyang et al. 2022, "Training language models to follow instructions with human feedback",
arXiv:2203.02155, section 3.5 (the supervised part).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator
from torch import nn

from groundup.contracts.processors import TextProcessor
from groundup.contracts.tasks import EvaluationContext
from groundup.core.errors import DataError
from groundup.core.registry import task
from groundup.core.settings import PathText, setting
from groundup.core.values import (
    Conversation,
    Document,
    Evaluation,
    Message,
    Split,
    TokenSequence,
)
from groundup.processors.chat.builtin_templates import TEMPLATES
from groundup.processors.chat.template import ChatTemplate, find_template
from groundup.processors.text.add_special_tokens import documents
from groundup.tasks.chat.evaluation import evaluate_answers, last_run
from groundup.tasks.shared.next_token_task import NextTokenTask
from groundup.tasks.shared.text_generation import decoding_options, write, write_stream

__all__ = ["Chat"]


@task("chat")
class Chat(NextTokenTask):
    """Minimise -log p of every token of the assistant's answers, the one that ends an answer
    included."""

    term: ClassVar[str] = "answer"
    file_source: ClassVar[str] = "conversations"
    template: PathText | None = setting(
        None,
        "A chat template by name (chatml, qwen, llama2, llama3, mistral, gemma, phi, groundup,"
        " plain; tokenizer: its own) or a file with one in Jinja; by default the tokenizer's own,"
        " else groundup",
    )
    train_on: Literal["all", "last"] = setting(
        "all", "Learn all answers of a conversation, or only the last one"
    )
    system_prompt: Literal["keep", "add", "replace"] = setting(
        "keep",
        "Keep the conversations' system prompts, add one where there is none, or replace all of"
        " them by one",
    )
    system: str = setting(
        "",
        "The system prompt; empty with replace: none",
        applies_when={"system_prompt": ("add", "replace")},
    )

    @model_validator(mode="after")
    def _there_is_a_prompt(self) -> Chat:
        if self.system_prompt == "add" and not self.system.strip():
            raise ValueError(
                "system_prompt add needs a text. Give it under system, or keep system_prompt: keep"
            )
        return self

    def fit_processor(
        self, processor: TextProcessor, examples: Callable[[], Iterator[Any]]
    ) -> TextProcessor:
        """Return the processor with this task's chat template, so that it is saved in the run.

        Raises:
            DataError: If there is no such template, or it does not fit the tokenizer.
        """
        source = self._source(processor)
        # Bound once here, so that a template that does not fit ends the run before it begins.
        ChatTemplate(source, processor)
        return processor.with_chat_template(source)

    def chat_template(self, processor: TextProcessor) -> ChatTemplate:
        """Return the template bound to a tokenizer: the one that was saved with it, else this
        task's.

        Raises:
            DataError: If there is no such template, or it does not fit the tokenizer.
        """
        bound: Any = processor  # for the cache: an object, told apart by identity
        return _bind_template(processor.chat_template or self._source(processor), bound)

    def _source(self, processor: TextProcessor) -> str:
        # A template's name comes first: a file that happens to be called chatml is not meant.
        if self.template and self.template not in (*TEMPLATES, "tokenizer"):
            path = Path(self.template)
            if path.is_file():
                return path.read_text(encoding="utf-8")
        return find_template(self.template, processor)

    def encode(
        self, examples: Sequence[Conversation | Document], processor: TextProcessor
    ) -> list[TokenSequence]:
        """Return the tokens of each conversation and which of them the assistant wrote; of a
        document all are learned.

        Raises:
            DataError: If a role is unknown or the template fails; the message says in which
                conversation.
        """
        # Looked up for each batch, but compiled once: see _bind_template.
        template = self.chat_template(processor)
        chats = [self._complete(each) for each in examples if isinstance(each, Conversation)]
        try:
            sequences = template.encode_batch(
                [c.messages for c in chats], tools=[c.tools for c in chats]
            )
        except DataError:  # one by one, to say which of them it is
            sequences = [_encode_named(template, chat) for chat in chats]
        if self.train_on == "last":
            sequences = [last_run(sequence) for sequence in sequences]
        texts = [example.text for example in examples if isinstance(example, Document)]
        # Conversations and documents are each encoded together, and put back in their order.
        answered = iter(sequences)
        plain = iter(_train_on_all(documents(texts, processor)))
        return [
            next(answered) if isinstance(example, Conversation) else next(plain)
            for example in examples
        ]

    def _complete(self, example: Conversation) -> Conversation:
        return dataclasses.replace(example, messages=self._with_system(example.messages))

    def _with_system(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Return a conversation with the system prompt that the settings give it."""
        has_one = bool(messages) and messages[0].role == "system"
        if self.system_prompt == "keep" or (self.system_prompt == "add" and has_one):
            return tuple(messages)
        rest = messages[1:] if has_one else messages
        # An empty text with replace takes the system prompts out.
        return (Message("system", self.system), *rest) if self.system else tuple(rest)

    def predict(
        self, model: nn.Module, inputs: Any, processor: TextProcessor, **options: Any
    ) -> Any:
        """Return the assistant's answer.

        Args:
            inputs: A question, or a conversation: messages, ``{"role": ..., "content": ...}``, or a
                ``Conversation`` with its tools; or a list of questions or of ``Conversation``,
                which gives a list of answers.
            **options: ``DecodingOptions``.
        """
        template = self.chat_template(processor)
        # A tuple of messages is one conversation, a list of texts several questions.
        several = (
            isinstance(inputs, list | tuple)
            and bool(inputs)
            and isinstance(inputs[0], str | Conversation)
        )
        prompts = []
        for each in inputs if several else [inputs]:
            tools = each.tools if isinstance(each, Conversation) else None
            turns = self._with_system(_messages(each))
            prompts.append(template.prompt(turns, tools=tools).tolist())
        texts = write(model, prompts, processor, decoding_options(options), template.stop_ids)
        texts = [text.strip() for text in texts]
        return texts if several else texts[0]

    def stream(
        self, model: nn.Module, prompt: Any, processor: TextProcessor, **options: Any
    ) -> Iterator[str]:
        """Yield the assistant's answer to a question or a conversation, piece by piece."""
        template = self.chat_template(processor)
        tools = prompt.tools if isinstance(prompt, Conversation) else None
        tokens = template.prompt(self._with_system(_messages(prompt)), tools=tools).tolist()
        return write_stream(model, tokens, processor, decoding_options(options), template.stop_ids)

    def evaluate(self, context: EvaluationContext) -> Evaluation:
        """Evaluate answers to held-out questions, before and after fine-tuning; see
        ``evaluate_answers``."""

        def examples(split: Split) -> Iterator[Conversation]:
            return (
                self._complete(each)
                for each in context.examples(split)
                if isinstance(each, Conversation)
            )

        template = self.chat_template(context.processor)
        return evaluate_answers(dataclasses.replace(context, examples=examples), template)


# Jinja compiles a template in milliseconds, which is long for each of a million batches.
@functools.lru_cache(maxsize=8)
def _bind_template(source: str, processor: Any) -> ChatTemplate:
    return ChatTemplate(source, processor)


def _train_on_all(texts: list[NDArray[np.int32]]) -> list[TokenSequence]:
    """Return documents of which every token but the first is learned."""
    return [TokenSequence(tokens, np.arange(len(tokens)) > 0) for tokens in texts]


def _encode_named(template: ChatTemplate, example: Conversation) -> TokenSequence:
    try:
        return template.encode(example.messages, tools=example.tools)
    except DataError as error:
        raise DataError(
            f"{example.origin or example.name}, {error.where}", error.problem, error.remedy
        ) from None


def _messages(given: Any) -> tuple[Message, ...]:
    # What a user gives may come from a terminal, from JSON, or from this library.
    if isinstance(given, str):
        return (Message("user", given),)
    if isinstance(given, Conversation):
        return given.messages
    try:
        return tuple(m if isinstance(m, Message) else _message(m) for m in given)
    except (TypeError, KeyError):
        raise DataError(
            "conversation",
            f"got {str(given)[:80]}; allowed: a question, or messages with role and content",
            "Change it",
        ) from None


def _message(given: Mapping[str, str]) -> Message:
    if odd := sorted(given.keys() - {"role", "content"}):
        raise DataError(
            "conversation",
            f"a message has the key {odd[0]!r}; allowed: role and content",
            "Give a groundup Message for anything else",
        )
    return Message(given["role"], given["content"])
