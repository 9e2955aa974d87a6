"""Standard input, output and error as a command meets them: any encoding, and readers that go
away."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator

from groundup.core.errors import DataError, GroundupError

__all__ = ["check_arguments", "flush_output", "prepare_output", "read_lines", "wrong_encoding"]


def prepare_output() -> None:
    """Write what the console's encoding has no character for as an escape, such as ``\\u2039``,
    instead of failing."""
    # Of standard error this is Python's default; of standard output a GBK or cp1252 console, or a
    # pipe from one, would end any verb with a UnicodeEncodeError.
    if sys.stdout is None:  # closed by whoever started it: >&-
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if os.environ.get("COLUMNS", "").strip() == "0":
        del os.environ["COLUMNS"]  # no width, in which nothing would be printed
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush_output() -> None:
    """Write what is still held back; nobody is told of a reader that has gone, as after
    ``| head``."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more when it ends, and would print that this failed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def read_lines() -> Iterator[str]:
    """Yield the lines of standard input, without their ends.

    Raises:
        DataError: If a line is not of the input's encoding.
    """
    try:
        for line in sys.stdin:
            # Only the newline goes: a model may answer otherwise with a space at the end.
            yield line.rstrip("\n")
    except UnicodeDecodeError as error:
        raise wrong_encoding(error) from None


def wrong_encoding(error: UnicodeDecodeError) -> DataError:
    """Return an error for standard input that is of another encoding than its own."""
    problem = f"is not {error.encoding}: {error.reason}"
    remedy = "Give text of that encoding, or name its own: PYTHONIOENCODING=gbk, for example"
    return DataError("standard input", problem, remedy)


def check_arguments() -> None:
    """Make sure that what was typed is text.

    Raises:
        GroundupError: If an argument is not of the locale's encoding.
    """
    for argument in sys.argv[1:]:
        # Python keeps the bytes as surrogates, which fail somewhere in the middle.
        if any("\ud800" <= letter <= "\udfff" for letter in argument):
            problem = f"is not {sys.getfilesystemencoding()}, the encoding of the locale"
            shown = argument.encode("utf-8", "backslashreplace").decode()
            raise GroundupError(shown, problem, "Set PYTHONUTF8=1, or LC_ALL=C.UTF-8")
