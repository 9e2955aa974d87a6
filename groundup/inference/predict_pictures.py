"""Pictures that a run predicts, written to files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from groundup.contracts.tasks import Picture
from groundup.core.errors import RunError
from groundup.core.storage import Storage
from groundup.media.png import encode_png

__all__ = ["picture_files", "write_pictures"]


def picture_files(out: Path, count: int, *, force: bool) -> list[Path]:
    """Return the file of each of several pictures: ``hat.png``, or ``hat-1.png`` and so on.

    Raises:
        RunError: If one exists already.
    """
    if count == 1:
        return [out]
    found = [out.with_name(f"{out.stem}-{number}{out.suffix}") for number in range(1, count + 1)]
    for path in found:
        if path.exists() and not force:
            raise RunError(
                str(path),
                "exists already and was not touched",
                "Choose another --out, or replace it with --force",
            )
    return found


def write_pictures(predicted: Sequence[Any], files: Sequence[Path], task: str) -> None:
    """Write predictions that are pictures, each as a PNG, in one step.

    Args:
        predicted: What was predicted.
        files: Where to write each.
        task: What predicted it, for the error.

    Raises:
        RunError: If one is no picture.
    """
    for each in predicted:
        if not isinstance(each, Picture):
            raise RunError(
                str(files[0]),
                f"is for a picture, but task {task} predicts none of this: {str(each)[:60]!r}",
                "Write to .csv or .jsonl, or leave --out away",
            )
    # Only when all are known to be pictures: none is written of several that are not.
    storage = Storage()
    for each, path in zip(predicted, files, strict=True):
        storage.write_parts(path, [encode_png(each.pixels)])
