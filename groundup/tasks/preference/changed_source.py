"""A data source whose examples are changed on their way, wherever they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr

from groundup.contracts.data import DataContext, DataSource, Stream
from groundup.contracts.derived_source import DerivedSource
from groundup.core.values import Split

__all__ = ["Change", "ChangedSource"]

Change = Callable[[Sequence[Any], Split | None], list[Any]]
"""Examples as they are to be, of some that are read; the split where a stream of it is opened."""


class ChangedSource(DerivedSource):
    """Another source, with changed examples. It is made by a task and named in no recipe."""

    _change: Change = PrivateAttr()

    @classmethod
    def of(cls, source: DataSource, change: Change) -> ChangedSource:
        """Return the source with changed examples."""
        made = cls()
        made._source = source
        made._change = change
        return made

    def examples(self, split: Split, cache: Path) -> Iterable[Any]:
        """Return the changed examples of a split."""
        return self._change(list(self._source.examples(split, cache)), None)

    def open(self, context: DataContext) -> Stream:
        """Open the source, its examples changed just before they are encoded."""
        encode = context.encode

        def encode_changed(examples: Sequence[Any]) -> Any:
            return encode(self._change(examples, context.split))

        return self._source.open(replace(context, encode=encode_changed))
