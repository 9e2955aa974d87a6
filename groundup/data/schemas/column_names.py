"""Other names of the columns of chats and preferences, and the usual ones in their place."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from groundup.data.schemas.chat_formats import recognise
from groundup.data.schemas.preference_formats import recognise_preference

__all__ = ["rename_columns", "rename_question"]

# of these a row has one: then it is clear what is asked, and what is the answer
_ASKED = ("prompt", "question", "instruction", "query", "input", "user", "human", "problem")
_ANSWERED = ("completion", "response", "answer", "output", "assistant", "gpt", "bot", "solution")
_CONTEXTS = ("input", "context")  # what an instruction is about
_BETTER = ("chosen", "preferred", "accepted", "winner", "chosen_response", "chosen_answer")
_WORSE = ("rejected", "dispreferred", "loser", "rejected_response", "rejected_answer")


def rename_columns(row: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a row with the usual names of its columns, and which were others: in upper case, or
    such as ``query`` and ``context``. A row of a known format stays as it is.

    Returns:
        The row, and the usual name of each column that had another.
    """
    names = _usual_names(tuple(row))
    if not names:
        return dict(row), {}
    return {names.get(name, name): value for name, value in row.items()}, dict(names)


# Of one set of columns, which most rows have.
@lru_cache(maxsize=1000)
def _usual_names(columns: tuple[str, ...]) -> Mapping[str, str]:
    """Return the usual name of each column that has another."""
    plain = {name.strip().lower().replace(" ", "_"): name for name in columns}
    # of two columns that differ in case alone, one would be lost
    if _is_known(columns) or len(plain) < len(columns):
        return {}
    for names in ({}, _names_of_pair(plain), _names_of_preference(plain)):
        usual = {plain[each]: names.get(each, each) for each in plain}
        if len({*usual.values()}) == len(columns) and _is_known(tuple(usual.values())):
            return {name: new for name, new in usual.items() if new != name}
    return {}


def rename_question(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row to be answered with the usual name of the column that is asked."""
    row, _ = rename_columns(row)
    plain = {name.strip().lower(): name for name in row}
    asked = _only(plain, _ASKED)
    if asked is None or _is_known(tuple(row)):
        return row
    return {"prompt" if name == plain[asked] else name: value for name, value in row.items()}


def _is_known(columns: tuple[str, ...]) -> bool:
    return recognise(columns) is not None or recognise_preference(columns) is not None


def _names_of_pair(columns: Collection[str]) -> dict[str, str]:
    # with two answers it would be a guess which one is to be learned
    answered = _only(columns, _ANSWERED)
    if answered is None:
        return {}
    # as Dolly has it: an instruction, what it is about, and a response
    if "instruction" in columns:
        context = _only(columns, _CONTEXTS)
        return {answered: "output"} | ({context: "input"} if context else {})
    asked = _only(columns, _ASKED)
    return {} if asked is None else {asked: "prompt", answered: "completion"}


def _names_of_preference(columns: Collection[str]) -> dict[str, str]:
    better = _only(columns, _BETTER)
    worse = _only(columns, _WORSE)
    if better is None or worse is None:
        return {}
    asked = _only(columns, _ASKED)
    named = {} if asked in (None, "instruction") else {str(asked): "prompt"}
    return {better: "chosen", worse: "rejected", **named}


def _only(columns: Collection[str], names: Collection[str]) -> str | None:
    """Return the one of several names that is there, or None."""
    found = [name for name in names if name in columns]
    return found[0] if len(found) == 1 else None
