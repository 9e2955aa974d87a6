"""The interpreter's own documentation to pretrain on: 2.5 MB of English about Python that needs no
download."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from groundup.contracts.data import DataContext, DataSource, Stream
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Document, Split
from groundup.data.cleaning.minhash import run_hashes, words_of
from groundup.data.sources.python_source import (
    LICENCE,
    SourceDocument,
    corpus_key,
    python_documents,
    python_version,
)
from groundup.data.splitting.drawing import SplitRule
from groundup.data.splitting.hash_split import UnionFind
from groundup.data.stream.packing import Packing
from groundup.data.stream.token_stream import open_token_stream

__all__ = ["PythonDocs", "related_documents"]

_RUN = 8  # words; long enough that shared runs are copied text, not grammar
_COMMON = 12  # a run in more documents than this is boilerplate and relates none of them
_RELATED = 0.25  # documents that share this part of the shorter one's runs stay on one side


@data("python_docs")
class PythonDocs(DataSource):
    """Documents made of docstrings: one for each module of the standard library, one for each
    language topic.

    Whole documents are held out. Documents that repeat much of each other (a topic inside a longer
    one, two versions of a module) are held out together or not at all.
    """

    packs_rows = True

    # Smaller than other sources' fraction, as the pair of python_docs and python_questions that the
    # first recipes train on has always been split.
    fraction: float = setting(0.05, "share of the documents held out for validation", gt=0, lt=1)
    test: float = setting(0.0, "share of the documents held out for the test", ge=0, lt=1)
    seed: int = setting(0, "another seed holds out others", ge=0)
    min_characters: int = setting(200, "shorter documents are dropped", ge=1)
    packing: Packing = setting(Packing(), "how documents become rows of tokens")

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are."""
        return self._rule.splits(())

    @property
    def _rule(self) -> SplitRule:
        return SplitRule(self.fraction, self.seed, self.test)

    def examples(self, split: Split, cache: Path) -> Iterator[Document]:
        """Yield the documents of a split in the order of their names."""
        for document in self.source_documents(cache)[split]:
            yield Document(document.name, document.text, document.origin)

    def source_documents(self, cache: Path) -> dict[Split, list[SourceDocument]]:
        """Return the documents of each split with the objects that they describe, which questions
        are made from."""
        found: dict[Split, list[SourceDocument]] = {split: [] for split in self.splits()}
        for document, group in zip(*self._group_documents(cache), strict=True):
            found[self._rule.side_of(group)].append(document)
        return found

    def too_long_policy(self) -> str:
        """Return that of the packing."""
        return self.packing.too_long

    def contents(self) -> Mapping[str, Path | str]:
        """Return the interpreter's version, whose documentation it is."""
        return {"library": python_version()}

    def open(self, context: DataContext) -> Stream:
        """Return the packed micro-batches of a split."""
        key = f"python_docs-{corpus_key()}-{self.model_dump_json(exclude={'packing'})}"
        return open_token_stream(
            lambda: self.examples(context.split, context.cache), key, context, self.packing
        )

    def card(self, cache: Path) -> dict[str, Any]:
        """Return counts, what was dropped and why, which documents stay together, the split, and
        the licence."""
        found = len(python_documents(cache))
        documents, groups = self._group_documents(cache)
        sizes = Counter(groups)
        sides = self.source_documents(cache)
        return {
            "source": f"docstrings and language topics of {python_version()}",
            "licence": LICENCE,
            "found_documents": found,
            "dropped": {f"shorter than {self.min_characters} characters": found - len(documents)},
            "kept_together": {group: size for group, size in sizes.most_common() if size > 1},
            "documents": {split: len(side) for split, side in sides.items()},
            "bytes": {
                split: sum(len(d.text.encode()) for d in side) for split, side in sides.items()
            },
            "held_out": [document.name for document in sides["validation"]],
        }

    def _group_documents(self, cache: Path) -> tuple[list[SourceDocument], list[str]]:
        return _find_groups(cache, self.min_characters)


# a start asks for the documents several times, and grouping them takes seconds
@lru_cache(maxsize=4)
def _find_groups(cache: Path, min_characters: int) -> tuple[list[SourceDocument], list[str]]:
    documents = [d for d in python_documents(cache) if len(d.text) >= min_characters]
    first = related_documents([d.text for d in documents])
    return documents, [documents[index].name for index in first]


def related_documents(texts: Sequence[str]) -> list[int]:
    """Return for each text the index of the first text of its group; a text alone is its own group.

    Two texts belong together when they share a quarter of the shorter one's runs of eight words.
    Unlike the Jaccard index, that finds a short text inside a long one.

    Source:
        Broder 1997, "On the resemblance and containment of documents" (containment; computed
        exactly here).
    """
    runs = [np.unique(run_hashes(words_of(text), _RUN)) for text in texts]
    owners = np.repeat(np.arange(len(runs)), [len(r) for r in runs])
    hashes = np.concatenate([*runs, np.empty(0, dtype=np.uint64)])
    # Equal runs are next to each other once sorted: so pairs of documents are counted without
    # comparing each with each.
    order = np.argsort(hashes, kind="stable")
    _, starts, counts = np.unique(hashes[order], return_index=True, return_counts=True)
    shared: Counter[tuple[int, int]] = Counter()
    # a run in very many documents is boilerplate, and its pairs would grow with their square
    for start, count in zip(starts[counts > 1].tolist(), counts[counts > 1].tolist(), strict=True):
        if count <= _COMMON:
            shared.update(combinations(owners[order[start : start + count]].tolist(), 2))
    sets = UnionFind()
    for (one, other), count in shared.items():
        if count >= _RELATED * min(len(runs[one]), len(runs[other])):
            sets.join(one, other)
    return [sets.find(index) for index in range(len(texts))]
