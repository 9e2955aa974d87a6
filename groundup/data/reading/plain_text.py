"""Plain text cut into pieces: lines, paragraphs, or what is between separators."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import islice

from groundup.data.reading.compressed import DataFile, decode_lines

__all__ = ["read_pieces"]

# joined and cut at once; line by line, a separator over two lines would not be found
_LINES_A_CHUNK = 4096


def read_pieces(
    file: DataFile, handle: io.BufferedReader, split_on: str | None
) -> Iterator[tuple[int, str, str]]:
    """Yield (number from 1, or 0 where the file is one piece; where; text) of plain text.

    Args:
        file: A .txt or .md file.
        handle: The file, opened.
        split_on: ``"line"``, ``"blank_line"``, the separator itself, or None for the whole file.
    """
    # so that a text is the same whether it was written on Windows or not
    lines = (line.replace("\r\n", "\n") for line in decode_lines(file, handle))
    if split_on is None:
        text = "".join(lines)
        if text.strip():
            yield 0, str(file.path), text
        return
    pieces: Iterator[str]
    if split_on == "line":
        pieces = (line.rstrip("\n") for line in lines)
    elif split_on == "blank_line":
        pieces = _read_paragraphs(lines)
    else:
        pieces = _split_at(lines, split_on)
    for number, piece in enumerate((piece for piece in pieces if piece.strip()), 1):
        yield number, f"{file.path} piece {number}", piece


def _read_paragraphs(lines: Iterator[str]) -> Iterator[str]:
    paragraph: list[str] = []
    for line in lines:
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            yield "".join(paragraph).rstrip("\n")
            paragraph = []
    yield "".join(paragraph).rstrip("\n")


def _split_at(lines: Iterator[str], separator: str) -> Iterator[str]:
    # The last piece of a chunk may go on in the next one, and so may a separator: it is kept back.
    rest = ""
    while chunk := "".join(islice(lines, _LINES_A_CHUNK)):
        *whole, rest = (rest + chunk).split(separator)
        yield from whole
    yield rest
