"""SQuAD's files: articles of paragraphs, each with a context and its questions.

Source: Rajpurkar et al., 2016 (arXiv:1606.05250); with questions that have no answer: 2018
    (arXiv:1806.03822).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from groundup.core.errors import DataError
from groundup.data.reading.compressed import DataFile, open_file
from groundup.data.reading.encodings import decode_lines
from groundup.data.reading.files import Record
from groundup.data.reading.json_text import parse_json

__all__ = ["squad_records", "squad_rows"]


def squad_rows(file: DataFile) -> Iterator[Record] | None:
    """Return ``squad_records`` of a file that has SQuAD's layout, else None."""
    if file.kind != ".json":
        return None
    # By what is inside, because a list of rows is kept in .json files too.
    with open_file(file) as handle:
        nested = b'"paragraphs"' in handle.read()
    return squad_records(file) if nested else None


def squad_records(file: DataFile) -> Iterator[Record]:
    """Yield a row with ``question``, ``context`` and ``answers`` for each question.

    Raises:
        DataError: If the file is no JSON, or lacks a part; the message says which article,
            paragraph and question.
    """
    # the whole file at once: it is one JSON value, of 40 MB in SQuAD's case
    with open_file(file) as handle:
        text = "".join(decode_lines(file, handle))
    whole = parse_json(text, str(file.path))
    for article, where in _list_objects(whole, "data", str(file.path), "article"):
        for paragraph, place in _list_objects(article, "paragraphs", where, "paragraph"):
            for question, origin in _list_objects(paragraph, "qas", place, "question"):
                if "question" not in question or "context" not in paragraph:
                    missing = "context" if "question" in question else "question"
                    raise DataError(
                        origin, f"there is no {missing!r}", "Add it, or remove the question"
                    )
                # SQuAD 2.0 keeps plausible answers of impossible questions in a list of their own
                impossible = question.get("is_impossible") is True
                answers = [] if impossible else question.get("answers", [])
                if not answers and not impossible and "is_impossible" in question:
                    raise DataError(
                        origin,
                        "there are no answers, and is_impossible is not true",
                        "Write the answers, or is_impossible: true",
                    )
                fields = {
                    "question": question["question"],
                    "context": paragraph["context"],
                    "answers": answers,
                }
                yield Record(fields, origin.removeprefix(f"{file.path} "), origin)


def _list_objects(
    value: Any, key: str, where: str, what: str
) -> Iterator[tuple[dict[str, Any], str]]:
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise DataError(
            where, f"there is no list {key!r} of objects", 'Write {"data": [{"paragraphs": [...]}]}'
        )
    for number, each in enumerate(found, 1):
        yield each, f"{where} {what} {number}"
