"""Which example an error is about: its file and row, found by encoding one at a time once all
together failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from groundup.core.errors import DataError

__all__ = ["encode_located"]

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


def _located(
    error: DataError, encode: Callable[[Sequence[Any]], Any], examples: Sequence[Any]
) -> DataError:
    # One at a time only now, after a failure: it is the slow way.
    for example in examples:
        # An example of a user's own source may be of any class.
        origin = getattr(example, "origin", "")
        if origin and error.where.startswith(origin):
            return error
        try:
            encode([example])
        except DataError as own:
            return DataError(origin or own.where, own.problem, own.remedy)
    return error
