"""Tokens that ``groundup data prepare --to`` has written to a folder or an address, read by each
process by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from groundup.contracts.data import DataContext, DataSource, Stream
from groundup.contracts.processors import ProcessorConfig, TextProcessor
from groundup.core import registry
from groundup.core.errors import DataError
from groundup.core.registry import data
from groundup.core.settings import PathText, setting
from groundup.core.values import Document, Split
from groundup.data.stream.packing import Packing
from groundup.data.stream.published import open_published
from groundup.data.stream.shards import Shards
from groundup.data.stream.token_stream import stream_of_shards

__all__ = ["ShardsSource"]


@data("shards")
class ShardsSource(DataSource):
    """Tokens that were made before, in a folder or in object storage; files are fetched when they
    are first read, checked, and kept in the cache."""

    packs_rows = True

    path: PathText = setting(
        ...,
        "A folder or an address, such as s3://bucket/corpus, that groundup data prepare --to has"
        " written",
        min_length=1,
    )
    packing: Packing = setting(Packing(), "how documents become rows of tokens")

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are."""
        return open_published(self.path).splits

    def contents(self) -> Mapping[str, Path | str]:
        """Return the digest of all that is there; see ``DataSource.contents``."""
        return {"manifest": open_published(self.path).digest}

    def card(self, cache: Path) -> dict[str, Any]:
        """Return the data card of the texts, and where their tokens are."""
        published = open_published(self.path)
        return {**published.card, "tokens_from": self.path, "manifest_sha256": published.digest}

    def too_long_policy(self) -> str:
        """Return that of the packing."""
        return self.packing.too_long

    def processor_folder(self, cache: Path) -> Path:
        """Return the processor that made the tokens; see ``BringsProcessor``."""
        return open_published(self.path).processor(self.path, cache)

    def examples(self, split: Split, cache: Path) -> Iterator[Document]:
        """Yield the documents of a split as their tokens spell them."""
        folder = self.processor_folder(cache)
        name = json.loads((folder / "processor.json").read_bytes())["name"]
        config: type[ProcessorConfig] = registry.lookup("processor", name, f"{folder}: name")
        processor = config.load(folder)
        assert isinstance(processor, TextProcessor)
        shards = self._shards(split, cache)
        for number, length in enumerate(shards.lengths.tolist()):
            tokens, _ = shards.read(number, 0, length)
            place = f"{self.path} {split} {number}"
            yield Document(f"{split}/{number}", processor.decode(tokens.tolist()), place)

    def open(self, context: DataContext) -> Stream:
        """Return the packed micro-batches of a split; see ``DataSource.open``.

        Raises:
            DataError: If the tokens were made with another processor or for another task.
        """
        published = open_published(self.path)
        if published.encode_key != context.encode_key:
            raise DataError(
                self.path,
                f"holds tokens of key {published.encode_key}, but this task and this processor"
                f" make those of key {context.encode_key}",
                "Take the task and the processor of the recipe that wrote them, or write them again"
                " with: groundup data prepare RECIPE --to ADDRESS",
            )
        shards = self._shards(context.split, context.cache)
        examples = partial(self.examples, context.split, context.cache)
        return stream_of_shards(shards, examples, context, self.packing)

    def _shards(self, split: Split, cache: Path) -> Shards:
        published = open_published(self.path)
        if split not in published.splits:
            raise DataError(
                self.path,
                f"holds no tokens of {split}; there are: {', '.join(published.splits)}",
                "Write them again from a recipe that has such a split",
            )
        return Shards.load_remote(split, published.remote(self.path, cache))
