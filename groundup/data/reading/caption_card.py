"""What is said of a data set of pictures with captions: how much there is, and what changes when it
does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from groundup.data.reading.captions import Captioned
from groundup.data.reading.tar_members import TarMember
from groundup.data.splitting.held_out import lengths_of

__all__ = ["describe_captions", "state_of_pictures"]


def state_of_pictures(found: Iterable[Captioned]) -> str:
    """Return what changes when one of the files does."""
    key = hashlib.sha256()
    # Thousands of pictures are in one archive, of which the state is taken once.
    archives: set[Path] = set()
    for each in found:
        for picture in each.pictures:
            place = picture.archive if isinstance(picture, TarMember) else picture
            if isinstance(place, Path) and place not in archives:
                status = place.stat()
                key.update(f"{place}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
                if place is not picture:
                    archives.add(place)
    return key.hexdigest()


def describe_captions(own: Sequence[Captioned]) -> dict[str, Any]:
    """Return how many pictures and captions there are, and how long these are."""
    about: dict[str, Any] = {"examples": len(own), "pictures": len({each.name for each in own})}
    texts = [each.text for each in own if each.text is not None]
    if texts:
        about["different_captions"] = len(set(texts))
        about["captions"] = lengths_of(map(len, texts), "characters")
        about["words"] = sum(len(text.split()) for text in texts)
    return about
