"""A question to a chat model whose answers are scored, and not compared token by token."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from groundup.core.values import Message

__all__ = ["Prompt"]


@dataclass(frozen=True)
class Prompt:
    """What a model is asked, and what is known about its answers.

    Attributes:
        messages: The turns before the answer.
        columns: The other columns of its row by name, such as ``answer`` or ``tests``: what rewards
            are computed from.
        group: What it has in common with others of the same first question, for splits without
            leakage.
        tools: The tools that may be called, as those of a conversation.
    """

    name: str
    messages: tuple[Message, ...]
    columns: dict[str, Any] = field(default_factory=dict)
    origin: str = ""
    group: str = ""
    tools: tuple[dict[str, Any], ...] = ()

    @property
    def text(self) -> str:
        """All turns, to count and to compare by."""
        return "\n".join(message.text for message in self.messages)

    @property
    def texts(self) -> tuple[str, ...]:
        """What is said in each turn."""
        return tuple(message.text for message in self.messages)
