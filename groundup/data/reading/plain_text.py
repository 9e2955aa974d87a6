"""Plain text cut into pieces: lines, paragraphs, or what is between separators."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import chain, islice

from groundup.data.reading.compressed import DataFile
from groundup.data.reading.encodings import decode_lines, decode_text

__all__ = ["read_pieces"]

# joined and cut at once; line by line, a separator over two lines would not be found
_LINES_A_CHUNK = 4096
_END_OF_TEXT = "<|endoftext|>"  # what GPT-2's tools write between documents
_BEGINNING = 1 << 16  # characters of a first line that are looked at


def read_pieces(
    file: DataFile, handle: io.BufferedReader, split_on: str | None
) -> Iterator[tuple[int, str, str]]:
    """Yield (number from 1, or 0 where the file is one piece; where; text) of plain text.

    Args:
        file: A .txt or .md file.
        handle: The file, opened.
        split_on: ``"line"``, ``"blank_line"``, the separator itself, or None for the whole file.
    """
    # every end of a line is the same, whether written on Windows, on an old Mac or elsewhere
    if split_on is None:
        text = decode_text(file, handle)
        _note_beginning(file, text[:_BEGINNING].partition("\n")[0])
        if _END_OF_TEXT in text:
            file.notes[f"files with {_END_OF_TEXT}, read as letters: data.split_on cuts there"] += 1
        if text.strip():
            yield 0, str(file.path), text
        return
    lines = decode_lines(file, handle, ends=None)
    first = next(lines, "")
    _note_beginning(file, first.rstrip("\n"))
    lines = chain([first] if first else [], lines)
    pieces: Iterator[str]
    if split_on == "line":
        pieces = (line.rstrip("\n") for line in lines)
    elif split_on == "blank_line":
        pieces = _read_paragraphs(lines)
    else:
        pieces = _split_at(lines, split_on)
    number = empty = 0
    for piece in pieces:
        if not piece.strip():
            empty += 1
            continue
        number += 1
        yield number, f"{file.path} piece {number}", piece
    if split_on == "line":
        file.notes["empty lines"] += empty


def _note_beginning(file: DataFile, line: str) -> None:
    """Note what the first line of a file shows: text that few mean to learn."""
    if line.startswith('{"') and line.rstrip().endswith("}"):
        file.notes["files that look like lines of JSON, read as text: call them .jsonl"] += 1
    elif line == "---" and file.kind == ".md":
        file.notes["files that begin with front matter, which is read as text"] += 1
    elif "Project Gutenberg" in line:
        file.notes["files with Project Gutenberg's words around the text, which are read"] += 1


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
