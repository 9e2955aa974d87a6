"""Talking to a run in a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from groundup.cli.streams import wrong_encoding
from groundup.contracts.tasks import Chats
from groundup.core.values import Message
from groundup.inference.predictor import Predictor

__all__ = ["converse"]


def converse(predictor: Predictor, options: dict[str, Any]) -> None:
    """Read questions and stream answers until an empty line, Ctrl-D or Ctrl-C.

    Args:
        predictor: A run whose task can stream. Chat tasks get the whole conversation, others the
            last line alone.
        options: Decoding options.
    """
    # Rich would colour the numbers and quoted words of an answer.
    console = Console(highlight=False)
    console.print(
        f"[dim]{predictor.run.label} at step {predictor.step}. /new starts again, an empty line"
        " ends.[/dim]"
    )
    turns: list[Message] = []
    while True:
        try:
            question = console.input("[bold]you[/bold]  ").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        except UnicodeDecodeError as error:
            raise wrong_encoding(error) from None
        if not question:
            return
        if question == "/new":
            turns.clear()
            continue
        turns.append(Message("user", question))
        # A task without turns continues a text: what was said before is not part of its prompt.
        chats = isinstance(predictor.task, Chats)
        console.print("[bold cyan]run[/bold cyan]  ", end="")
        answer = ""
        for piece in predictor.stream(tuple(turns) if chats else question, **options):
            # Without markup: a model may write [b], which rich would take for bold. With soft wrap:
            # rich knows only the piece and would break lines in the wrong places.
            console.print(piece, end="", markup=False, soft_wrap=True)
            answer += piece
        console.print()
        # A template puts its own spaces around an answer; kept, they would add up turn by turn.
        turns.append(Message("assistant", answer.strip()))
