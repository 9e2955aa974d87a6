"""What reading each sound of a data set found, kept until a file changes: lengths, rates, which are
the same, which cannot be read."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from groundup.core.errors import DataError
from groundup.core.values import StoredFile
from groundup.media.audio import scan_sound

__all__ = ["SoundFacts", "count_values", "read_sound_facts", "state_of_files"]

_FORMAT = 2  # raise it when a file would be described in another way


class SoundFacts(NamedTuple):
    """What reading a file found: ``problem`` is empty where it can be read; ``digest`` is a hash
    of its samples."""

    seconds: float
    rate: int
    channels: int
    digest: str
    problem: str


def read_sound_facts(
    sounds: Mapping[str, Path | StoredFile], key: str, cache: Path
) -> dict[str, SoundFacts]:
    """Return what reading every sound found, by its name: from the cache where no file has changed
    since.

    Args:
        sounds: By their names.
        key: Changes when one of them does.
        cache: The folder in which it is kept.
    """
    kept = cache / f"audio-{key[:24]}.json"
    if kept.is_file():
        saved = json.loads(kept.read_bytes())
        return {name: SoundFacts(*values) for name, values in saved.items()}
    facts = {name: _read_facts(sound) for name, sound in sounds.items()}
    cache.mkdir(parents=True, exist_ok=True)
    partial = kept.with_name(f"{kept.name}.{os.getpid()}")
    partial.write_text(json.dumps(facts), encoding="utf-8")
    # renamed when complete, because two runs may start on the same data
    partial.replace(kept)
    return facts


def state_of_files(root: Path, files: Iterable[tuple[str, Path]]) -> str:
    """Return what changes when a file, each with its name below the root, does."""
    # The folder's place is part of it: two folders may hold files of the same names, sizes and
    # times.
    key = hashlib.sha256(f"{_FORMAT}\0{root.resolve()}".encode())
    for name, path in files:
        status = path.stat()
        key.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return key.hexdigest()


def count_values(values: Any) -> dict[str, int]:
    """Return how often each value is there, for a data card."""
    return {str(value): count for value, count in sorted(Counter(values).items())}


def _read_facts(sound: Path | StoredFile) -> SoundFacts:
    try:
        found = scan_sound(sound)
    except DataError as error:
        return SoundFacts(0.0, 0, 0, "", error.problem)
    return SoundFacts(found.seconds, found.rate, found.channels, found.digest, "")
