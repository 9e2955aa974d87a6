"""A data source that a task makes of another one."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr

from groundup.contracts.data import DataSource, Unlabelled
from groundup.core.values import Split

__all__ = ["DerivedSource"]


class DerivedSource(DataSource, ABC):
    """The same data, given to the model in another way: ``open`` says how. It is named in no
    recipe."""

    _source: DataSource = PrivateAttr()

    def splits(self) -> tuple[Split, ...]:
        """Return the source's splits."""
        return self._source.splits()

    def examples(self, split: Split, cache: Path) -> Iterable[Any]:
        """Return the source's examples of a split."""
        return self._source.examples(split, cache)

    def reading(self, path: str) -> DataSource | None:
        """Return what the source reads of another file, as it is there."""
        return self._source.reading(path)

    def unlabelled(self, path: str) -> Iterator[Unlabelled]:
        """Yield what the source reads of a file to predict from."""
        return self._source.unlabelled(path)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return the source's data card."""
        return self._source.card(cache)

    def contents(self) -> Mapping[str, Path | str]:
        """Return what the source reads."""
        return self._source.contents()

    def too_long_policy(self) -> str:
        """Return what the source does with examples longer than the context."""
        return self._source.too_long_policy()
