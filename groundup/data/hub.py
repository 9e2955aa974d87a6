"""Rows of a Hugging Face data set, through the `datasets` library, which reads HF_ENDPOINT, HF_HOME and HF_TOKEN."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from groundup.core.errors import DataError, GroundupError, MissingExtraError, did_you_mean
from groundup.data.files import Record

__all__ = ["hub_fingerprint", "hub_records"]


def hub_records(
    dataset: str,
    *,
    subset: str | None = None,
    split: str = "train",
    revision: str | None = None,
    streaming: bool = False,
    columns: Sequence[str] = (),
) -> Iterator[Record]:
    """Yield the rows of one split of a data set.

    Args:
        dataset: Its name, such as ``"roneneldan/TinyStories"``.
        subset: Its configuration, where it has several.
        split: The split to read.
        revision: A branch, tag or commit.
        streaming: Read over the network while training, instead of downloading first.
        columns: Columns that every row must have.

    Raises:
        MissingExtraError: If `datasets` is not installed.
        DataError: If the data set, subset, split or column does not exist or cannot be reached.
    """
    where = f"data set {dataset} (subset {subset or 'none'}, split {split}, revision {revision or 'newest'})"
    with _put_into_words(where):
        rows = iter(_load(dataset, subset, split, revision, streaming))
    for number in count(1):
        with _put_into_words(where):  # streaming, every row may be a request
            row = next(rows, None)
        if row is None:
            return
        for column in columns:
            if column not in row:
                hint = did_you_mean(column, list(row))
                raise DataError(
                    where,
                    f"there is no column {column!r}; {hint}columns: {', '.join(row)}",
                    "Name the right column",
                )
        yield Record(row, f"{split}:{number}", f"{where} row {number}")


def hub_fingerprint(dataset: str, *, subset: str | None, split: str, revision: str | None, streaming: bool) -> str:
    """Return a key of what would be read: the library's own fingerprint of the rows, or the names when streaming."""
    key = hashlib.sha256(repr((dataset, subset, split, revision, streaming)).encode())
    if not streaming:
        with _put_into_words(f"data set {dataset} (subset {subset or 'none'}, split {split})"):
            loaded = _load(dataset, subset, split, revision, streaming)
        checksums = sorted((loaded.info.download_checksums or {}).items())
        key.update(repr((loaded.num_rows, [name for name, _ in checksums], loaded.info.dataset_size)).encode())
        key.update(
            repr(sorted((c["filename"], Path(c["filename"]).stat().st_mtime_ns) for c in loaded.cache_files)).encode()
        )
    return key.hexdigest()


def _load(dataset: str, subset: str | None, split: str, revision: str | None, streaming: bool) -> Any:
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("datasets", "data") from None
    return datasets.load_dataset(dataset, subset, split=split, revision=revision, streaming=streaming)


@contextmanager
def _put_into_words(where: str) -> Iterator[None]:
    """Turn what the library raises (not found, offline, gated, unknown subset, damaged files) into a DataError."""
    try:
        yield
    except GroundupError:
        raise
    except Exception as error:  # the library lets errors of several HTTP clients and file formats through
        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        raise DataError(
            where,
            f"cannot be loaded: {reason}",
            "Check the name and the network; HF_ENDPOINT names a mirror, HF_TOKEN opens gated data",
        ) from error
