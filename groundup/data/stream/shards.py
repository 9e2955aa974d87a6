"""Tokens on disk, read by memory mapping.

A folder holds ``tokens-00000.bin`` ... (raw little-endian uint16, or uint32 from the first token
above 65,535 on), ``trained-00000.bin`` (one byte a token, only where examples say which tokens are
trained on), ``offsets.npy`` (D + 1, int64, over all files in order) and ``index.json``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from groundup.data.reading.remote import RemoteFiles

__all__ = ["FORMAT", "ShardFile", "Shards"]

FORMAT = 2  # raise it when the files are laid out in another way


@dataclass(frozen=True)
class ShardFile:
    """One shard: its files, and the documents and tokens before its end."""

    tokens_file: str
    trained_file: str | None
    dtype: Literal["uint16", "uint32"]
    documents: int
    tokens: int


@dataclass
class Shards:
    """Tokenized documents on disk. Cheap to send to another process, which maps the files itself.

    Attributes:
        folder: Where they are.
        files: The shards in order.
        trained_tokens: How many tokens are trained on.
        masked: Whether any document says which of its tokens are trained on.
        untrained: The documents that say that none of their tokens is.
        remote: Where the files are fetched from when they are first read; None: they are in the
            folder.
    """

    folder: Path
    files: list[ShardFile]
    trained_tokens: int
    masked: bool
    untrained: list[int]
    remote: RemoteFiles | None = None
    _maps: dict[int, tuple[NDArray[Any], NDArray[np.uint8] | None]] = field(
        default_factory=dict, repr=False
    )

    def __post_init__(self) -> None:
        self.offsets: NDArray[np.int64] = np.load(
            self._path_of("offsets.npy"), mmap_mode="r", allow_pickle=False
        )
        self._first_documents = np.cumsum([0, *(file.documents for file in self.files)])
        self._first_tokens = np.cumsum([0, *(file.tokens for file in self.files)])

    # without the maps: a worker process maps the files itself, instead of getting copies of them
    def __reduce__(self) -> tuple[Any, ...]:
        facts = (self.trained_tokens, self.masked, self.untrained)
        return Shards, (self.folder, self.files, *facts, self.remote)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def tokens(self) -> int:
        """The tokens of all documents."""
        return int(self.offsets[-1])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(D,) the tokens of each document."""
        return np.diff(self.offsets)

    def read(
        self, document: int, start: int, stop: int
    ) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
        """Return views of a document's tokens ``[start, stop)`` and of which are trained on (None:
        all).

        Args:
            document: Its number, in ``[0, len(self))``.
            start: The first token, counted within the document.
            stop: One after the last; at most the document's length.

        Returns:
            (stop - start,) uint16 or uint32, and (stop - start,) uint8 or None.
        """
        # a few dozen files: a search costs less than a table of all documents
        number = int(np.searchsorted(self._first_documents, document, side="right")) - 1
        tokens, trained = self._maps.get(number) or self._map_file(number)
        base = int(self.offsets[document]) - int(self._first_tokens[number])
        span = slice(base + start, base + stop)
        if trained is None:
            return tokens[span], None
        return tokens[span], trained[span]

    def _map_file(self, number: int) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
        file = self.files[number]
        tokens = np.memmap(
            self._path_of(file.tokens_file), dtype=np.dtype(file.dtype).newbyteorder("<"), mode="r"
        )
        trained: NDArray[np.uint8] | None = None
        if file.trained_file:
            trained = np.memmap(self._path_of(file.trained_file), np.uint8, mode="r").view(
                np.ndarray
            )
        # as plain arrays, because slices of a memmap are memmaps, which are slow to make
        self._maps[number] = (tokens.view(np.ndarray), trained)
        return self._maps[number]

    def _path_of(self, name: str) -> Path:
        if self.remote is None:
            return self.folder / name
        # each process by itself, when it first reads a document of the file
        return self.remote.fetch(f"{self.folder}/{name}")

    @classmethod
    def load_remote(cls, folder: str, remote: RemoteFiles) -> Shards:
        """Open a folder below an address; its files are fetched as they are needed.

        Args:
            folder: Its name below the address.
            remote: The address.

        Raises:
            DataError: If the index or the offsets cannot be fetched.
        """
        index = json.loads(remote.fetch(f"{folder}/index.json").read_bytes())
        files = [ShardFile(**file) for file in index["files"]]
        facts = {fact: index[fact] for fact in ("trained_tokens", "masked", "untrained")}
        return cls(Path(folder), files, **facts, remote=remote)

    @classmethod
    def load(cls, folder: Path) -> Shards:
        """Open a folder.

        Raises:
            ValueError: If a file is missing or has another size than the index says; the message
                says which.
        """
        try:
            index = json.loads((folder / "index.json").read_text("utf-8"))
            files = [ShardFile(**file) for file in index["files"]]
            facts = ("trained_tokens", "masked", "untrained")
            shards = cls(folder, files, *(index[fact] for fact in facts))
            # sizes, not contents: a cut-off file is what a full disk leaves, and reading all of a
            # large set again would take minutes
            sizes = [
                (file.tokens_file, file.tokens * np.dtype(file.dtype).itemsize)
                for file in shards.files
            ]
            sizes += [
                (file.trained_file, file.tokens) for file in shards.files if file.trained_file
            ]
            wrong = [name for name, size in sizes if (folder / name).stat().st_size != size]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
        if wrong:
            raise ValueError(f"{wrong[0]} has the wrong size")
        if index.get("format") != FORMAT:
            raise ValueError("written by another version")
        if len(shards) != index["documents"] or shards.tokens != sum(
            file.tokens for file in shards.files
        ):
            raise ValueError("offsets.npy does not fit the files")
        return shards
