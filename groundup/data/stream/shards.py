"""Tokens on disk: examples are tokenized once, in bounded memory, into files that are read by
memory mapping.

A folder holds ``tokens-00000.bin`` ... (raw little-endian uint16, or uint32 from the first token
above 65,535 on), ``trained-00000.bin`` (one byte a token, only where examples say which tokens are
trained on), ``offsets.npy`` (D + 1, int64, over all files in order) and ``index.json``. It is
written under another name and renamed, so it exists if and only if it is complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from groundup.core.errors import DataError
from groundup.core.values import Conversation, Document, TokenSequence

__all__ = ["FORMAT", "Shards", "prepare_shards"]

FORMAT = 2
Encode = Callable[[Sequence[Any]], list[TokenSequence]]
_BATCH_CHARACTERS = 1_000_000
_BATCH_EXAMPLES = 20_000
_SHARD_BYTES = 256 * 2**20
_IN_FLIGHT = 3  # batches that are tokenized while earlier ones are written and later ones are read
_STALE_S = 60.0
_log = logging.getLogger("groundup")


# ------------------------------------------------------------------------------------------ reading
@dataclass(frozen=True)
class _File:
    """One shard: its files, and the documents and tokens before its end."""

    tokens_file: str
    trained_file: str | None
    dtype: Literal["uint16", "uint32"]
    documents: int
    tokens: int


@dataclass
class Shards:
    """Tokenized documents on disk. Cheap to send to another process, which maps the files anew.

    Attributes:
        folder: Where they lie.
        files: The shards in order.
        trained_tokens: How many tokens are trained on.
        masked: Whether any document says which of its tokens are trained on.
        untrained: The documents that say that none of theirs is.
    """

    folder: Path
    files: list[_File]
    trained_tokens: int
    masked: bool
    untrained: list[int]
    _maps: dict[int, tuple[NDArray[Any], NDArray[np.uint8] | None]] = field(
        default_factory=dict, repr=False
    )

    def __post_init__(self) -> None:
        self.offsets: NDArray[np.int64] = np.load(
            self.folder / "offsets.npy", mmap_mode="r", allow_pickle=False
        )
        self._first_documents = np.cumsum([0, *(file.documents for file in self.files)])
        self._first_tokens = np.cumsum([0, *(file.tokens for file in self.files)])

    def __reduce__(self) -> tuple[Any, ...]:
        return Shards, (self.folder, self.files, self.trained_tokens, self.masked, self.untrained)

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
        number = int(np.searchsorted(self._first_documents, document, side="right")) - 1
        tokens, trained = self._maps.get(number) or self._map_file(number)
        base = int(self.offsets[document]) - int(self._first_tokens[number])
        span = slice(base + start, base + stop)
        return tokens[span], None if trained is None else trained[span]

    def _map_file(self, number: int) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
        file = self.files[number]
        tokens = np.memmap(
            self.folder / file.tokens_file, dtype=np.dtype(file.dtype).newbyteorder("<"), mode="r"
        )
        trained = (
            np.memmap(self.folder / file.trained_file, np.uint8, mode="r")
            if file.trained_file
            else None
        )
        self._maps[number] = (
            tokens.view(np.ndarray),
            None if trained is None else trained.view(np.ndarray),
        )
        return self._maps[number]

    @classmethod
    def load(cls, folder: Path) -> Shards:
        """Open a folder.

        Raises:
            ValueError: If a file is missing or has another size than the index says; the message
                says which.
        """
        try:
            index = json.loads((folder / "index.json").read_text("utf-8"))
            files, facts = (
                [_File(**file) for file in index["files"]],
                ("trained_tokens", "masked", "untrained"),
            )
            shards = cls(folder, files, *(index[fact] for fact in facts))
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
        if index.get("format") != FORMAT or wrong:
            raise ValueError(
                f"{wrong[0]} has the wrong size" if wrong else "written by another version"
            )
        if len(shards) != index["documents"] or shards.tokens != sum(
            file.tokens for file in shards.files
        ):
            raise ValueError("offsets.npy does not fit the files")
        return shards


# ------------------------------------------------------------------------------------------ writing
@dataclass
class _Writer:
    folder: Path
    shard_bytes: int
    files: list[_File] = field(default_factory=list)
    lengths: list[NDArray[np.int64]] = field(default_factory=list)  # 8 bytes a document
    trained_tokens: int = 0
    untrained: list[int] = field(default_factory=list)
    dtype: Literal["uint16", "uint32"] = "uint16"
    documents: int = 0  # of the open shard, like the rest
    tokens: int = 0
    tokens_out: BinaryIO | None = None
    trained_out: BinaryIO | None = None

    def add(self, sequences: Sequence[TokenSequence]) -> None:
        """Append documents; they stay together in one shard."""
        if not sequences:
            return
        tokens = np.concatenate([sequence.tokens for sequence in sequences])
        lengths = np.array([len(sequence.tokens) for sequence in sequences], dtype=np.int64)
        if tokens.size and int(tokens.min()) < 0:
            raise DataError(
                "task.encode",
                f"gave the token {int(tokens.min())}; tokens are at least 0",
                "Mend the task",
            )
        if self.dtype == "uint16" and tokens.size and int(tokens.max()) > 0xFFFF:
            self.close()
            self.dtype = "uint32"
        if self.tokens_out is None:
            self.tokens_out = (self.folder / f"tokens-{len(self.files):05}.bin").open("wb")
        self.tokens_out.write(tokens.astype(np.dtype(self.dtype).newbyteorder("<")).data)
        self._add_trained(sequences, lengths)
        self.lengths.append(lengths)
        self.documents += len(sequences)
        self.tokens += tokens.size
        if self.tokens * np.dtype(self.dtype).itemsize >= self.shard_bytes:
            self.close()

    def _add_trained(self, sequences: Sequence[TokenSequence], lengths: NDArray[np.int64]) -> None:
        """Append which tokens are trained on; the file begins with the first mask, earlier tokens
        being filled in."""
        if all(sequence.trained is None for sequence in sequences):
            self.trained_tokens += int(np.maximum(lengths - 1, 0).sum())
            if self.trained_out is not None:
                self.trained_out.write(b"\1" * int(lengths.sum()))
            return
        if self.trained_out is None:
            self.trained_out = (self.folder / f"trained-{len(self.files):05}.bin").open("wb")
            for begin in range(0, self.tokens, 2**20):
                self.trained_out.write(b"\1" * min(2**20, self.tokens - begin))
        first = sum(file.documents for file in self.files) + self.documents
        for number, sequence in enumerate(sequences, first):
            trained = (
                np.ones(len(sequence.tokens), bool)
                if sequence.trained is None
                else sequence.trained
            )
            if len(trained) != len(sequence.tokens):
                raise DataError(
                    "task.encode",
                    f"gave {len(trained)} mask values for {len(sequence.tokens)} tokens",
                    "Mend the task",
                )
            learned = int(trained[1:].sum())
            self.trained_tokens += learned
            self.untrained += [number] if sequence.trained is not None and not learned else []
            self.trained_out.write(trained.astype(np.uint8).data)

    def close(self) -> None:
        """Finish the open shard, if there is one."""
        if self.tokens_out is None:
            return
        number = len(self.files)
        trained_file = f"trained-{number:05}.bin" if self.trained_out is not None else None
        for out in (self.tokens_out, self.trained_out):
            if out is not None:
                out.flush()
                os.fsync(out.fileno())
                out.close()
        self.files.append(
            _File(f"tokens-{number:05}.bin", trained_file, self.dtype, self.documents, self.tokens)
        )
        self.documents, self.tokens, self.tokens_out, self.trained_out = 0, 0, None, None

    def finish(self) -> None:
        """Write the offsets and, last, the index."""
        self.close()
        offsets = np.concatenate([np.zeros(1, np.int64), *self.lengths]).cumsum()
        np.save(self.folder / "offsets.npy", offsets, allow_pickle=False)
        index = {
            "format": FORMAT,
            "documents": len(offsets) - 1,
            "tokens": int(offsets[-1]),
            "trained_tokens": self.trained_tokens,
            "untrained": self.untrained,
            "masked": any(file.trained_file for file in self.files),
            "files": [vars(file) for file in self.files],
        }
        (self.folder / "index.json").write_text(json.dumps(index, indent=1) + "\n", "utf-8")


def prepare_shards(
    folder: Path,
    examples: Callable[[], Iterable[Any]],
    encode: Encode,
    *,
    shard_bytes: int = _SHARD_BYTES,
) -> Shards:
    """Open the tokens in ``folder``, or make them.

    Several processes may do so at once: each writes under its own name and the first rename wins.

    Args:
        folder: Named after everything the tokens depend on.
        examples: Gives the raw examples; more may come than fit in memory.
        encode: Turns examples into token sequences; called from two threads at once.
        shard_bytes: A file is closed once it holds so many bytes.

    Raises:
        DataError: If there are no examples, ``encode`` gives impossible tokens, or the disk is
            full.
    """
    if folder.is_dir():
        try:
            shards = Shards.load(folder)
        except ValueError as damage:
            _log.warning("Tokens in %s are damaged (%s); making them again", folder, damage)
        else:
            _log.info(
                "Reusing %s tokens of %s documents in %s",
                f"{shards.tokens:,}",
                f"{len(shards):,}",
                folder,
            )
            return shards
    _remove_abandoned(folder)
    begin = time.perf_counter()
    own = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:12]}.partial"
    try:
        own.mkdir(parents=True)
        with (own / "lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _write_shards(own, examples, encode, shard_bytes)
            (own / "lock").unlink()
            shards = _publish(own, folder)
    except OSError as error:
        where, problem = (
            str(error.filename or folder),
            f"tokens could not be prepared: {error.strerror or error}",
        )
        raise DataError(
            where, problem, "Free some space, mend the file, or choose another cache folder"
        ) from error
    finally:
        shutil.rmtree(own, ignore_errors=True)
    seconds = time.perf_counter() - begin
    _log.info(
        "Made %s tokens of %s documents in %.1f s: %s",
        f"{shards.tokens:,}",
        f"{len(shards):,}",
        seconds,
        folder,
    )
    return shards


def _write_shards(
    folder: Path, examples: Callable[[], Iterable[Any]], encode: Encode, shard_bytes: int
) -> None:
    """Read, tokenize and write at the same time; the order of the examples is kept."""
    writer = _Writer(folder, shard_bytes)
    pending: deque[Future[list[TokenSequence]]] = deque()
    pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="encode")
    try:
        for batch in _batches_of(examples()):
            pending.append(pool.submit(_encode_batch, encode, batch))
            while len(pending) >= _IN_FLIGHT:
                writer.add(pending.popleft().result())
        while pending:
            writer.add(pending.popleft().result())
        if not writer.lengths:
            raise DataError(
                "data",
                "there is nothing to read: the split has no examples",
                "Check the path and filters",
            )
        writer.finish()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for out in (writer.tokens_out, writer.trained_out):
            if out is not None:
                out.close()


def _encode_batch(encode: Encode, batch: list[Any]) -> list[TokenSequence]:
    sequences = encode(batch)
    if len(sequences) != len(batch):
        problem = (
            f"gave {len(sequences)} sequences for {len(batch)} examples; one for each is needed"
        )
        raise DataError("task.encode", problem, "Mend the task")
    return sequences


def _batches_of(examples: Iterable[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    characters = 0
    for example in examples:
        batch.append(example)
        characters += _characters(example)
        if characters >= _BATCH_CHARACTERS or len(batch) >= _BATCH_EXAMPLES:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _characters(example: Any) -> int:
    if isinstance(example, Document):
        return len(example.text)
    if isinstance(example, Conversation):
        return sum(len(message.content) for message in example.messages)
    return 1_000


def _publish(own: Path, folder: Path) -> Shards:
    """Give the finished folder its name, unless another process was first."""
    for _ in range(10):
        try:
            own.rename(folder)
            return Shards.load(folder)
        except OSError:
            if not folder.is_dir():
                raise
        except ValueError:  # replaced by another process between the two calls
            continue
        try:
            return Shards.load(folder)
        except ValueError:
            aside = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:12]}.damaged"
            with contextlib.suppress(FileNotFoundError):
                folder.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
    raise OSError(f"{folder} is in use")


def _remove_abandoned(folder: Path) -> None:
    """Delete what processes that were killed left behind: unfinished folders whose lock nobody
    holds."""
    for partial in folder.parent.glob(f".{folder.name}.*.partial"):
        try:
            with (partial / "lock").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - partial.stat().st_mtime > _STALE_S:
                    shutil.rmtree(partial, ignore_errors=True)
        except OSError:
            continue
