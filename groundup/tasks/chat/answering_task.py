"""What tasks share whose model answers as in a chat, however it learns to."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from groundup.contracts.processors import TextProcessor
from groundup.contracts.tasks import Task
from groundup.core.settings import PathText, setting
from groundup.processors.chat.template import ChatTemplate
from groundup.tasks.chat.task import Chat

__all__ = ["AnsweringTask"]


class AnsweringTask(Task, ABC):
    """A task whose prompts and answers are written by a chat template, so that a chat run can go on
    with it, and that predicts as a chat does."""

    template: PathText | None = setting(
        None,
        "A built-in chat template or a file with one in Jinja; by default the tokenizer's own, else"
        " groundup",
    )

    @property
    def chat(self) -> Chat:
        """The task that answers as this one learns to."""
        return Chat(template=self.template)

    def fit_processor(
        self, processor: TextProcessor, examples: Callable[[], Iterator[Any]]
    ) -> TextProcessor:
        """Return the processor with this task's chat template, so that it is saved in the run.

        Raises:
            DataError: If there is no such template, or it does not fit the tokenizer.
        """
        return self.chat.fit_processor(processor, examples)

    def chat_template(self, processor: TextProcessor) -> ChatTemplate:
        """Return the template by which prompts and answers are written."""
        return self.chat.chat_template(processor)

    def predict(
        self, model: nn.Module, inputs: Any, processor: TextProcessor, **options: Any
    ) -> Any:
        """Return the assistant's answer to a question, a conversation, or each of a list of
        questions; see ``Chat``."""
        return self.chat.predict(model, inputs, processor, **options)

    def stream(
        self, model: nn.Module, prompt: Any, processor: TextProcessor, **options: Any
    ) -> Iterator[str]:
        """Yield the assistant's answer to a question or a conversation, piece by piece."""
        return self.chat.stream(model, prompt, processor, **options)
