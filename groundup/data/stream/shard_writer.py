"""Examples are tokenized once, in bounded memory, into the files that ``Shards`` reads.

A folder is written under another name and renamed, so it exists if and only if it is complete.
"""

from __future__ import annotations

import contextlib
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
from groundup.data.stream.shards import FORMAT, ShardFile, Shards
from groundup.data.stream.working_folder import open_working_folder

__all__ = ["EncodedDocument", "prepare_shards"]

Encode = Callable[[Sequence[Any]], list[TokenSequence]]
# By characters, so that batches of books and of tweets take the same memory, and by number, so that
# empty ones end too.
_BATCH_CHARACTERS = 1_000_000
_BATCH_EXAMPLES = 20_000
_SHARD_BYTES = 256 * 2**20
_IN_FLIGHT = 3  # batches that are tokenized while earlier ones are written and later ones are read
_log = logging.getLogger("groundup")


@dataclass(frozen=True)
class EncodedDocument:
    """A document whose tokens are known. ``characters`` decides about batches, as those of its text
    do: so the files are the same, byte by byte, whoever made the tokens."""

    characters: int
    sequence: TokenSequence


@dataclass
class _Writer:
    folder: Path
    shard_bytes: int
    files: list[ShardFile] = field(default_factory=list)
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
                "Fix the task",
            )
        # Many vocabularies fit into 16 bits, which halves what is read from the disk. A shard is of
        # one type: from the first larger token on, a new one begins.
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
            trained = sequence.trained
            if trained is None:
                trained = np.ones(len(sequence.tokens), bool)
            if len(trained) != len(sequence.tokens):
                raise DataError(
                    "task.encode",
                    f"gave {len(trained)} mask values for {len(sequence.tokens)} tokens",
                    "Fix the task",
                )
            learned = int(trained[1:].sum())
            self.trained_tokens += learned
            if sequence.trained is not None and not learned:
                self.untrained.append(number)
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
            ShardFile(
                f"tokens-{number:05}.bin", trained_file, self.dtype, self.documents, self.tokens
            )
        )
        self.documents = 0
        self.tokens = 0
        self.tokens_out = None
        self.trained_out = None

    def finish(self) -> None:
        """Write the offsets and, last, the index."""
        self.close()
        offsets = np.concatenate([np.zeros(1, np.int64), *self.lengths]).cumsum()
        np.save(self.folder / "offsets.npy", offsets, allow_pickle=False)
        # last, and after all else was synced: a folder with an index is complete
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
    may_be_empty: bool = False,
) -> Shards:
    """Open the tokens in ``folder``, or make them.

    Several processes may do so at once: each writes under its own name and the first rename wins.

    Args:
        folder: Named after everything the tokens depend on.
        examples: Gives the raw examples; more may come than fit in memory.
        encode: Turns examples into token sequences; called from two threads at once.
        shard_bytes: A file is closed once it holds this many bytes.
        may_be_empty: There may be no examples.

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
    begin = time.perf_counter()
    try:
        with open_working_folder(folder) as own:
            _write_shards(own, examples, encode, shard_bytes, may_be_empty=may_be_empty)
            (own / "lock").unlink()
            shards = _publish(own, folder)
    except OSError as error:
        raise DataError(
            str(error.filename or folder),
            f"tokens could not be prepared: {error.strerror or error}",
            "Free some space, fix the file, or choose another cache folder",
        ) from error
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
    folder: Path,
    examples: Callable[[], Iterable[Any]],
    encode: Encode,
    shard_bytes: int,
    *,
    may_be_empty: bool,
) -> None:
    """Read, tokenize and write at the same time; the order of the examples is kept."""
    writer = _Writer(folder, shard_bytes)
    pending: deque[Future[list[TokenSequence]]] = deque()
    # Threads, because tokenizers of Hugging Face work outside of Python's lock: one batch is read
    # while two are tokenized.
    pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="encode")
    try:
        for batch in _batches_of(examples()):
            pending.append(pool.submit(_encode_batch, encode, batch))
            while len(pending) >= _IN_FLIGHT:
                writer.add(pending.popleft().result())
        while pending:
            writer.add(pending.popleft().result())
        if not writer.lengths and not may_be_empty:
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
    # a task of a user's own may leave out what it does not like, and all later numbers would shift
    sequences = encode(batch)
    if len(sequences) != len(batch):
        raise DataError(
            "task.encode",
            f"gave {len(sequences)} sequences for {len(batch)} examples; one for each is needed",
            "Fix the task",
        )
    return sequences


def _batches_of(examples: Iterable[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    characters = 0
    for example in examples:
        batch.append(example)
        characters += _characters(example)
        if characters >= _BATCH_CHARACTERS or len(batch) >= _BATCH_EXAMPLES:
            yield batch
            batch = []
            characters = 0
    if batch:
        yield batch


def _characters(example: Any) -> int:
    if isinstance(example, EncodedDocument):
        return example.characters
    if isinstance(example, Document):
        return len(example.text)
    if isinstance(example, Conversation):
        return len(example.text)
    return 1_000


def _publish(own: Path, folder: Path) -> Shards:
    """Give the finished folder its name, unless another process was first."""
    # another process may make the same tokens: the first rename wins, and others take what it made
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
