"""Docstrings of Python's library with their first sentences: summaries that people wrote, without a
download."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from groundup.contracts.data import DataContext, DataSource, Stream
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Example, Split
from groundup.data.cleaning.cleaning import text_digest
from groundup.data.sources.python_docs import PythonDocs
from groundup.data.sources.python_questions import ECHO
from groundup.data.sources.python_source import (
    LICENCE,
    DocumentedObject,
    SourceDocument,
    python_version,
)
from groundup.data.splitting.held_out import leave_out_repeated, lengths_of
from groundup.data.stream.in_memory import open_indexed_stream
from groundup.data.stream.row_order import similar_lengths_setting
from groundup.metrics.text_baselines import sentences_of

__all__ = ["PythonSummaries", "spell_words", "split_docstring"]

_PARAGRAPH = re.compile(r"\n\s*\n")
# "HTTPServer2" is HTTP, Server and 2.
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_MOST_ARGUMENTS = 10  # words of a signature: the docstring says more than a long one
_FEWEST_WORDS = 2  # of a sentence: a line of dashes is none
# Of "Return it, e.g. sorted" the first sentence does not end there.
_ABBREVIATION = re.compile(r"\b(e\.g|i\.e|etc|cf|vs|resp)\.$")


@data("python_summaries")
class PythonSummaries(DataSource):
    """The docstrings of classes, functions and methods without their first sentence, which is to be
    made of the rest.

    The held-out pairs come from the documents that ``python_docs`` holds out with the same ``seed``
    and ``fraction``. A training pair with the source of a held-out one is left out.
    """

    fraction: float = setting(
        0.1,
        "share of the documents held out for validation; the same as in python_docs, where a model"
        " was trained on these before",
        gt=0,
        lt=1,
    )
    test: float = setting(0.0, "share of the documents held out for the test", ge=0, lt=1)
    seed: int = setting(0, "another seed holds out others", ge=0)
    signatures: bool | Literal["words"] = setting(
        False,
        "begin a source with the name of the object and its arguments, on a line of its own; words:"
        " as the words that they are made of, which can be copied into a sentence, all on one line",
    )
    min_source_words: int = setting(8, "leave out pairs with shorter sources", ge=1)
    max_target_words: int = setting(30, "leave out pairs with longer first sentences", ge=1)
    similar_lengths: bool = similar_lengths_setting("pairs")

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are."""
        return self._documents.splits()

    @property
    def _documents(self) -> PythonDocs:
        return PythonDocs(fraction=self.fraction, test=self.test, seed=self.seed)

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the pairs of a split in the order of the objects' names."""
        return self._make_pairs(cache, Counter())[split]

    def contents(self) -> Mapping[str, Path | str]:
        """Return the interpreter's version, whose documentation it is."""
        return {"library": python_version()}

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split."""
        pairs = self.examples(context.split, context.cache)
        return open_indexed_stream(pairs, context, similar_lengths=self.similar_lengths)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return pairs and their lengths in each split, what was left out and why, and the
        licence."""
        left_out: Counter[str] = Counter()
        pairs = self._make_pairs(cache, left_out)
        read = sum(map(len, pairs.values()))
        card: dict[str, Any] = {
            "source": f"docstrings of {python_version()}",
            "licence": LICENCE,
            "rows": {
                "found": read + left_out.total(),
                "read": read,
                "left_out": dict(sorted((+left_out).items())),
            },
        }
        for split, own in pairs.items():
            card[split] = {
                "pairs": len(own),
                "sources": lengths_of((len(pair.inputs) for pair in own), "characters"),
                "targets": lengths_of((len(pair.target) for pair in own), "characters"),
            }
        return card

    def _make_pairs(self, cache: Path, left_out: Counter[str]) -> dict[Split, list[Example]]:
        sides = self._documents.source_documents(cache)
        pairs: dict[Split, list[Example]] = {}
        for split, documents in sides.items():
            # once each: a method and its copy in another class say the same
            found: dict[tuple[str, str], Example] = {}
            for document in documents:
                for pair in self._pairs_of(document, left_out):
                    if found.setdefault((pair.inputs, pair.target), pair) is not pair:
                        left_out["the same as an earlier pair"] += 1
            pairs[split] = list(found.values())
        left_out["with a source that is held out as well"] += leave_out_repeated(
            pairs, lambda pair: [text_digest(pair.inputs)]
        )
        return {split: pairs[split] for split in sides}

    def _source_of(self, item: DocumentedObject, rest: str) -> str:
        if not self.signatures:
            return rest
        if self.signatures != "words":
            return f"{item.name}{item.signature}\n\n{rest}".strip()
        # The class or module says what a method is about; packages further up say little.
        name = ".".join(item.name.split(".")[-2:])
        # On one line, with blanks around marks: a word is the same token wherever it stands.
        arguments = spell_words(item.signature).split()[:_MOST_ARGUMENTS]
        return " ".join((spell_words(name), ":", *arguments, "|", *rest.split()))

    def _pairs_of(self, document: SourceDocument, left_out: Counter[str]) -> Iterator[Example]:
        for item in document.objects:
            summary, rest = split_docstring(item.text)
            source = self._source_of(item, rest)
            if not summary:
                left_out["without a first sentence"] += 1
            elif sum(map(_is_word, source.split())) < self.min_source_words:
                left_out[f"with a source of less than {self.min_source_words} words"] += 1
            elif len(summary.split()) > self.max_target_words:
                left_out[f"with a first sentence of over {self.max_target_words} words"] += 1
            else:
                origin = f"{document.origin} line {item.line}"
                yield Example(item.name, source, summary, origin, predicts_text=True)


def _is_word(part: str) -> bool:
    # Not a mark that stands alone, as between the parts of a source.
    return any(map(str.isalnum, part))


def spell_words(code: str) -> str:
    """Return the words that identifiers are made of, in small letters: ``has_section(RawParser)``
    is ``has section raw parser``."""
    return " ".join(_WORD.findall(code)).lower()


def split_docstring(text: str) -> tuple[str, str]:
    """Return the first sentence of a docstring on one line, and the rest of it as it is written.

    A first line that only repeats the signature belongs to neither. The first sentence is empty
    where it is not clear where it ends.
    """
    paragraphs = _PARAGRAPH.split(text.strip())
    lines = paragraphs[0].splitlines()
    # Modules written in C begin so; who summarises would only have to copy it.
    if lines and ECHO.match(lines[0].strip()):
        lines = lines[1:]
    first, *others = sentences_of("\n".join(lines)) or [""]
    if _ABBREVIATION.search(first) or len(first.split()) < _FEWEST_WORDS:
        return "", text
    rest = [" ".join(others), *paragraphs[1:]]
    return first, "\n\n".join(part for part in rest if part.strip())
