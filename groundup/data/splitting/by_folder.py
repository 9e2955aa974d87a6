"""Which split each file is of where the data say it themselves, or the names of folders do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from groundup.core.values import Split
from groundup.data.reading.compressed import DataFile
from groundup.data.splitting.split_names import divide_files

__all__ = ["Placed", "by_split"]


class Placed(Protocol):
    """What is read from a folder and may say which split it is of."""

    @property
    def split(self) -> Split | None:
        """The split that the data say it is of."""

    @property
    def folder(self) -> str:
        """The folder whose name may be a split's; empty where there is none."""


Item = TypeVar("Item", bound=Placed)


def by_split(found: Sequence[Item]) -> dict[Split, list[Item]]:
    """Return what was found by what it says it is of, or by the names of its folders."""
    sides: dict[Split, list[Item]] = {}
    if any(each.split for each in found):
        # What the data say comes before what folders are called.
        for each in found:
            sides.setdefault(each.split or "train", []).append(each)
        return sides
    # By folders alone: a prompt that says 'test' is no test.
    places = {
        folder: DataFile(Path(folder), f"{folder}/0.wav", ".wav", "")
        for folder in dict.fromkeys(each.folder for each in found)
        if folder
    }
    side_of: dict[str, Split] = {}
    for split, files in divide_files(list(places.values())).items():
        side_of |= dict.fromkeys((file.path.as_posix() for file in files), split)
    for each in found:
        sides.setdefault(side_of.get(each.folder, "train"), []).append(each)
    return sides
