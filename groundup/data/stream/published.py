"""Tokens that were written to a folder or an address, for machines that have neither the texts nor
the cache: ``manifest.json`` there says what all other files have to be.

Next to it are ``processor/`` and, for each split, a folder as ``Shards`` has it.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from groundup.core.errors import DataError
from groundup.core.storage import sha256_of
from groundup.core.values import Split
from groundup.data.reading.remote import RemoteFile, RemoteFiles, read_remote, write_remote
from groundup.data.stream.shards import FORMAT

__all__ = ["Published", "open_published", "write_published"]

_MANIFEST = "manifest.json"
_PROCESSOR = "processor"


@dataclass(frozen=True)
class Published:
    """What a manifest says.

    Attributes:
        digest: Of the manifest, and so of everything.
        encode_key: What the tokens were made with; see ``DataContext``.
        splits: Those that have tokens.
        files: What each file has to be.
        card: The data card of the texts.
    """

    digest: str
    encode_key: str
    splits: tuple[Split, ...]
    files: Mapping[str, RemoteFile]
    card: Mapping[str, Any]

    def remote(self, address: str, cache: Path) -> RemoteFiles:
        """Return the files at an address, with copies in a cache."""
        return RemoteFiles(address, dict(self.files), cache)

    def processor(self, address: str, cache: Path) -> Path:
        """Return a folder here that has the processor's files by their names."""
        folder = cache / "fetched" / f"processor-{self.digest[:20]}"
        remote = self.remote(address, cache)
        folder.mkdir(parents=True, exist_ok=True)
        for name in self.files:
            inside, _, own = name.partition("/")
            if inside == _PROCESSOR and not (folder / own).is_file():
                # in one step, under a name of this process's own: others may do the same
                temporary = folder.with_name(f".{own}.{uuid.uuid4().hex[:12]}")
                temporary.write_bytes(remote.fetch(name).read_bytes())
                temporary.replace(folder / own)
        return folder


def write_published(
    address: str,
    processor: Path,
    folders: Mapping[Split, Path],
    encode_key: str,
    card: Mapping[str, Any],
) -> int:
    """Write tokens and what belongs to them, the manifest last; return how many bytes there are.

    Args:
        address: Where to.
        processor: The folder of what made the tokens.
        folders: Of the tokens of each split.
        encode_key: What the tokens were made with.
        card: The data card of the texts.
    """
    paths = {
        f"{name}/{path.name}": path
        for name, folder in ((_PROCESSOR, processor), *folders.items())
        for path in sorted(folder.iterdir())
        if path.is_file()
    }
    files = {
        name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for name, path in paths.items()
    }
    for name, path in paths.items():
        write_remote(address, name, path)
    manifest = {
        "format": FORMAT,
        "encode_key": encode_key,
        "splits": list(folders),
        "files": files,
        "card": card,
    }
    # last: where it is, all that it names is there
    write_remote(address, _MANIFEST, json.dumps(manifest, indent=1).encode())
    return sum(path.stat().st_size for path in paths.values())


def open_published(address: str) -> Published:
    """Return what the manifest at an address says.

    Raises:
        DataError: If there is none, or it is none of this version.
    """
    # A folder here is looked at each time. What is far away is read once: one process trains with
    # what it began with, and the digests tell whether the files are still those.
    return _read_once(address) if "://" in address else _read(address)


@lru_cache(maxsize=16)
def _read_once(address: str) -> Published:
    return _read(address)


def _read(address: str) -> Published:
    content = read_remote(address, _MANIFEST)
    try:
        found = json.loads(content)
        files = {name: RemoteFile(**facts) for name, facts in found["files"].items()}
        published = Published(
            hashlib.sha256(content).hexdigest(),
            found["encode_key"],
            tuple(found["splits"]),
            files,
            found["card"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{address}/{_MANIFEST}",
            f"is no list of tokens: {type(error).__name__}: {error}",
            "Name what groundup data prepare RECIPE --to ADDRESS has written",
        ) from None
    if found["format"] != FORMAT:
        raise DataError(
            f"{address}/{_MANIFEST}",
            f"is of format {found['format']}; this version reads {FORMAT}",
            "Write it again with this version: groundup data prepare RECIPE --to ADDRESS",
        )
    return published
