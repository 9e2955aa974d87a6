"""What looking at every picture of a data set found, kept until one changes: which cannot be read,
their sizes, and which are copies of another."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from groundup.core.values import StoredFile
from groundup.media.images import examine, glance, measure

__all__ = ["MANY", "Check", "PictureFacts", "read_picture_facts"]

Check = Literal["auto", "decode", "headers"]
MANY = 50_000
"""Pictures beyond which ``auto`` looks at headers alone: decoding ImageNet takes an hour."""
_Look = Callable[[Path | StoredFile], tuple[str | None, str]]
_HELD = 512  # pictures that are handed to the threads at a time
_PIECE = 4096  # bytes in the middle of a file, by which most that differ are told apart
_log = logging.getLogger("groundup")


@dataclass(frozen=True)
class PictureFacts:
    """What looking at pictures found.

    Attributes:
        problems: What is wrong with those that cannot be read, by their names.
        sizes: How many have "H x W format".
        digests: Of the bytes, by the names of pictures that have copies.
        measures: By name the width and height as stored, and EXIF's number of how a picture is to
            be turned, where these were asked for.
    """

    problems: dict[str, str]
    sizes: dict[str, int]
    digests: dict[str, str]
    measures: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def describe_sizes(self) -> dict[str, int]:
        """Return how many pictures have each of the commonest sizes, for a data card."""
        ordered = sorted(self.sizes.items(), key=lambda item: (-item[1], item[0]))
        found = dict(ordered[:5])
        if len(ordered) > 5:
            found["others"] = sum(count for _, count in ordered[5:])
        return found


def read_picture_facts(
    names: Sequence[str],
    pictures: Sequence[Path | StoredFile],
    key: bytes,
    cache: Path,
    *,
    measured: bool = False,
    check: Check = "auto",
) -> PictureFacts:
    """Return what is wrong with which pictures, looking at them only if one has changed since the
    last time.

    Args:
        names: (N,) of the pictures.
        pictures: (N,) the pictures.
        key: Changes when one of them does.
        cache: The folder in which it is kept.
        measured: The size of each picture is asked for.
        check: What is looked at of each.
    """
    # Names alone do not tell that a file was replaced: the key does.
    digest = hashlib.sha256(b"".join(f"{name}\n".encode("utf-8", "replace") for name in names))
    digest.update(key + b"measured" if measured else key)
    look = examine
    if check == "headers" or (check == "auto" and len(names) > MANY):
        look = glance
        digest.update(b"headers")
    path = cache / "images" / f"{digest.hexdigest()[:24]}.json"
    if path.is_file():
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            measures = {name: (w, h, way) for name, (w, h, way) in saved["measures"].items()}
            return PictureFacts(saved["problems"], saved["sizes"], saved["digests"], measures)
        except (ValueError, KeyError, TypeError):
            pass  # a file that was cut off, or of another version: look again
    found = _examine_all(names, pictures, look)
    if measured:
        # Only headers are read again, and only where each size is needed: there may be millions.
        for name, picture in zip(names, pictures, strict=True):
            if name not in found.problems:
                found.measures[name] = measure(picture)
    path.parent.mkdir(parents=True, exist_ok=True)
    # renamed when complete, because two runs may start on the same data
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    unfinished.write_text(json.dumps(asdict(found)), encoding="utf-8")
    unfinished.replace(path)
    return found


def _examine_all(
    names: Sequence[str], pictures: Sequence[Path | StoredFile], look: _Look
) -> PictureFacts:
    problems: dict[str, str] = {}
    sizes: Counter[str] = Counter()
    # threads are enough: decoding lets other threads run
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        looks = _map(threads, look, pictures)
        for number, (name, (problem, size)) in enumerate(zip(names, looks, strict=True), 1):
            if problem is not None:
                problems[name] = problem
            else:
                sizes[size] += 1
            # decoding a million pictures takes minutes: silence would look like a hang
            if number % 20_000 == 0:
                _log.info(f"looked at {number:,} of {len(names):,} pictures")
    readable = [n for n, name in enumerate(names) if name not in problems]
    copies = _find_copies([pictures[n] for n in readable])
    return PictureFacts(
        problems, dict(sizes), {names[readable[n]]: digest for n, digest in copies.items()}
    )


def _find_copies(pictures: Sequence[Path | StoredFile]) -> dict[int, str]:
    """Return a digest of the bytes of each picture that is there more than once, by its number."""
    # Copies are of one size, and few pictures that differ are. What is in a row has to be read.
    size_of = {n: p.stat().st_size for n, p in enumerate(pictures) if isinstance(p, Path)}
    sizes = Counter(size_of.values())
    pieces = {n: _piece_of(pictures[n], size) for n, size in size_of.items() if sizes[size] > 1}
    alike = Counter(pieces.values())
    digests = {}
    for number, picture in enumerate(pictures):
        # Among a million files nearly every size is there twice; few have the same middle as well.
        if number not in size_of or (number in pieces and alike[pieces[number]] > 1):
            content = picture.read_bytes() if isinstance(picture, Path) else picture.read()
            digests[number] = f"bytes {hashlib.blake2b(content, digest_size=16).hexdigest()}"
    counts = Counter(digests.values())
    return {number: digest for number, digest in digests.items() if counts[digest] > 1}


def _piece_of(picture: Any, size: int) -> tuple[int, bytes]:
    """Return a file's size, and a digest of a piece of its middle."""
    with picture.open("rb") as file:
        # Not of the beginning, which all pictures of one camera have in common.
        file.seek(max(0, (size - _PIECE) // 2))
        return size, hashlib.blake2b(file.read(_PIECE), digest_size=12).digest()


def _map(
    threads: ThreadPoolExecutor, look: _Look, pictures: Sequence[Path | StoredFile]
) -> Iterator[tuple[str | None, str]]:
    """Yield what a look at each picture finds, in order."""
    # Some at a time: a million tasks that wait would take a gigabyte.
    for first in range(0, len(pictures), _HELD):
        yield from threads.map(look, pictures[first : first + _HELD])
