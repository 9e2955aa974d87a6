"""Which example an error is about: its file and row, found by encoding one at a time once all
together failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from groundup.core.errors import DataError
from groundup.core.values import HasName, HasOrigin

__all__ = ["encode_located", "name_of", "origin_of"]

_Encoded = TypeVar("_Encoded")


def encode_located(
    encode: Callable[[Sequence[Any]], _Encoded], examples: Sequence[Any]
) -> _Encoded:
    """Return what ``encode`` makes of examples; its error names the file and row that the example
    was read from.

    Raises:
        DataError: If an example cannot be encoded.
    """
    try:
        return encode(examples)
    except DataError as error:
        raise _located(error, encode, examples) from None


def origin_of(example: object) -> str:
    """Return where an example was read; empty where it does not say, as one of a user's own source
    need not."""
    return example.origin if isinstance(example, HasOrigin) else ""


def name_of(example: object) -> str:
    """Return what an example is called in its source; empty where it has no name."""
    return example.name if isinstance(example, HasName) else ""


def _located(
    error: DataError, encode: Callable[[Sequence[Any]], Any], examples: Sequence[Any]
) -> DataError:
    # One at a time only now, after a failure: it is the slow way.
    for example in examples:
        origin = origin_of(example)
        if origin and error.where.startswith(origin):
            return error
        try:
            encode([example])
        except DataError as own:
            return DataError(origin or own.where, own.problem, own.remedy)
    return error
