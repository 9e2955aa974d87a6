"""What a run's data was when it began, and what has changed since: files by size, time and digest,
so that a run neither goes on with other data nor passes for one that was trained on it."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from groundup.contracts.data import DataSource
from groundup.core.errors import DataError
from groundup.core.storage import sha256_of
from groundup.runs.run import Run

__all__ = ["FINGERPRINT", "changes_since", "check_data", "compare", "take_fingerprint"]

FINGERPRINT = "data_fingerprint.json"
Facts = dict[str, Any]

# files whose rows are lines, and the bytes up to which these are counted: to say what has changed
_LINES = (".csv", ".tsv", ".jsonl", ".json", ".txt", ".md", ".conll", ".bio", ".iob", ".iob2")
_COUNTED = 1 << 26
# of all files together; beyond, hashing them whole would take longer than reading the rows
_WHOLE = 1 << 33
_PIECES = 16
_PIECE = 1 << 16
_NAMED = 3


def take_fingerprint(source: DataSource, known: Mapping[str, Facts] | None = None) -> Facts:
    """Return what is read now, by name: of files ``bytes``, ``mtime_ns`` and ``sha256``, and of
    those with a row a line also ``rows`` and ``lines``, a sum over them in any order.

    Of more than 8 GiB each file's digest is of 16 pieces alone, and says ``sampled``.

    Args:
        source: The data.
        known: An earlier fingerprint: a file of the same name, size and time is not read again.

    Raises:
        DataError: If the data cannot be found.
    """
    contents = source.contents()
    paths = {name: content for name, content in contents.items() if isinstance(content, Path)}
    total = sum(path.stat().st_size for path in paths.values())
    known = known or {}

    def facts_of(name: str) -> Facts:
        path = paths[name]
        status = path.stat()
        stamp = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
        before = known.get(name, {})
        if before and stamp.items() <= before.items():
            return before
        # as it was taken before, or the two could not be compared
        sampled = before.get("sampled", total > _WHOLE)
        return stamp | _digest(path, status.st_size, sampled=sampled)

    found: Facts = {
        name: {"version": content} for name, content in contents.items() if name not in paths
    }
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        found |= zip(paths, threads.map(facts_of, paths), strict=True)
    return found


def compare(before: Mapping[str, Facts], now: Mapping[str, Facts]) -> list[str]:
    """Return what differs, in words: which file, and how; nothing where all content is the same,
    in whatever folder it is. A single file may have another name; of several, names may be
    labels."""
    alone = len(before) == len(now) == 1
    if alone and [*map(_identity, before.values())] == [*map(_identity, now.values())]:
        return []
    found = [f"{name} is gone" for name in before if name not in now]
    found += [f"{name} is new" for name in now if name not in before]
    for name, then in before.items():
        if name in now and (how := _difference(then, now[name])):
            found.append(f"{name} {how}")
    return found


def changes_since(run: Run, source: DataSource) -> list[str] | None:
    """Return what has changed in the data since the run began, or None where that is not known:
    nothing was recorded, or the data is no longer there.

    Args:
        run: It keeps the fingerprint; times that are new are written down, so that a file is read
            once.
        source: Where the data is now.
    """
    before = run.read_json(FINGERPRINT)
    if before is None:
        return None
    try:
        now = take_fingerprint(source, before)
    except (DataError, OSError):
        return None
    found = compare(before, now)
    if not found and now != before:
        run.write_json(FINGERPRINT, now)
    return found


def check_data(run: Run, source: DataSource) -> DataError | None:
    """Return the error for a run whose data has changed since it began, or None."""
    found = changes_since(run, source)
    if not found:
        return None
    named = "; ".join(found[:_NAMED])
    if len(found) > _NAMED:
        named += f"; and {len(found) - _NAMED} more"
    problem = f"the data has changed since this run began: {named}; nothing in the run was touched"
    remedy = (
        "Restore the data; or train on what it is now in a run of its own, with"
        f" name={run.recipe.name}-2; one that begins with these weights also has"
        f" init.run={run.folder}"
    )
    return DataError(str(run.folder), problem, remedy)


def _digest(path: Path, size: int, *, sampled: bool) -> Facts:
    if sampled and size > _PIECES * _PIECE:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            for piece in range(_PIECES):
                file.seek(piece * (size - _PIECE) // (_PIECES - 1))
                digest.update(file.read(_PIECE))
        return {"sha256": digest.hexdigest(), "sampled": True}
    if size > _COUNTED or path.suffix.lower() not in _LINES:
        return {"sha256": sha256_of(path)}
    content = path.read_bytes()
    lines = [line for line in content.splitlines() if line.strip()]
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "rows": len(lines),
        "lines": sum(map(zlib.crc32, lines)),
    }


def _identity(facts: Facts) -> Any:
    return facts.get("sha256", facts.get("version"))


def _difference(then: Facts, now: Facts) -> str:
    if _identity(then) == _identity(now):
        return ""
    if "version" in then or "version" in now:
        return f"was {then.get('version', 'a file')} and is {now.get('version', 'a file')} now"
    if "rows" in then and "rows" in now:
        if then["rows"] != now["rows"]:
            return f"has {now['rows']:,} lines instead of {then['rows']:,}"
        if then["lines"] == now["lines"]:
            return f"has the same {now['rows']:,} lines in another order, or with other line ends"
        return f"has other content in the same number of lines, {now['rows']:,}"
    if then["bytes"] != now["bytes"]:
        return f"has {now['bytes']:,} bytes instead of {then['bytes']:,}"
    return f"has other content of the same size, {now['bytes']:,} bytes"
