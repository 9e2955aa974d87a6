"""Finding the picture that a file of annotations names."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import PurePosixPath

from groundup.core.values import Split
from groundup.data.reading.compressed import DataFile
from groundup.data.reading.listing import in_one_form
from groundup.data.reading.marked_pictures import Marked
from groundup.data.splitting.split_names import split_in_path

__all__ = ["PictureIndex", "look_up"]


class PictureIndex:
    """The pictures below a root, by the ends of their paths."""

    def __init__(self, pictures: Iterable[DataFile]) -> None:
        self._by_name: dict[str, list[DataFile]] = {}
        self._by_stem: dict[str, list[DataFile]] = {}
        # By the last part of the path alone, since files of annotations agree on no more.
        self.used: set[str] = set()
        self.pictures = list(pictures)
        for picture in self.pictures:
            name = PurePosixPath(picture.relative)
            self._by_name.setdefault(name.name, []).append(picture)
            self._by_stem.setdefault(name.stem, []).append(picture)

    def find(self, name: str, folder: str, split: Split | None) -> tuple[list[DataFile], str]:
        """Return the pictures that a name may mean, best one alone, and the name in one form.

        A name is taken from the folder of the annotations, from ``images`` in it, from the root, or
        from any folder whose pictures it is the end of; where several are, those of the same split
        come first. Folders of another machine at its begin are passed over, unless they decide.

        Args:
            name: As the annotations have it.
            folder: That of the annotations, below the root.
            split: The one that the annotations are of.
        """
        plain = in_one_form(name.replace("\\", "/"))
        plain = os.path.normpath(plain).replace(os.sep, "/")
        while plain.startswith("../"):
            plain = plain[3:]
        plain = plain.lstrip("/")
        place = f"{folder}/" if folder else ""
        near = [f"{place}{plain}", f"{place}images/{plain}"]
        exact = {*near, plain, f"images/{plain}"}
        candidates = self._by_name.get(PurePosixPath(plain).name, [])
        # The nearest place decides, so that a copy elsewhere does not make a name unclear.
        for wanted in (*near, plain, f"images/{plain}"):
            found = [each for each in candidates if each.relative == wanted]
            # In the root there may be a folder of pictures for each split, with the same names.
            if found and (wanted in near or len(candidates) == 1):
                return self._take(found), plain
        ends = [e for e in candidates if e.relative in exact or e.relative.endswith(f"/{plain}")]
        # train/1.jpg and val/1.jpg: the annotations of a split mean its own.
        if len(ends) > 1 and split is not None:
            ends = [each for each in ends if split_in_path(each.relative) == split] or ends
        # /home/somebody/data/images/1.jpg, or ../images/1.jpg, as it was called where it was drawn.
        if not ends:
            parts = plain.split("/")
            tails = {"/".join(parts[start:]) for start in range(1, len(parts))}
            places = tails | {f"{folder}/{tail}" for tail in tails}
            ends = [each for each in candidates if each.relative in places]
        return self._take(ends), plain

    def knows(self, name: str) -> bool:
        """Return whether any picture has the last part of this name."""
        return PurePosixPath(in_one_form(name.replace("\\", "/"))).name in self._by_name

    def called(self, stem: str) -> list[DataFile]:
        """Return the pictures that have this name without their suffixes."""
        found = self._by_stem.get(stem, [])
        return self._take(found) if len(found) == 1 else found

    def unused(self) -> list[DataFile]:
        """Return the pictures that were never found."""
        return [each for each in self.pictures if each.relative not in self.used]

    def _take(self, found: list[DataFile]) -> list[DataFile]:
        self.used.update(each.relative for each in found)
        return found


def look_up(
    name: str,
    where: str,
    file: DataFile,
    index: PictureIndex,
    found: Marked,
    split: Split | None,
) -> DataFile | None:
    """Return the picture that a row names, or None after noting that there is none, or several."""
    folder = file.relative.rpartition("/")[0]
    # By the file's name alone too: instances_val2017.json means what is in val2017, even where it
    # is all that is read.
    side = split or split_in_path(file.relative, folders_only=False)
    candidates, plain = index.find(name, folder, side)
    if not candidates:
        # Some write names without the suffix, or that of a format the pictures had before.
        candidates = index.called(PurePosixPath(plain).stem)
        if len(candidates) > 1:
            candidates = []
        elif candidates:
            found.notes["pictures named with another suffix, or none"] += 1
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        several = " and ".join(each.relative for each in candidates[:2])
        found.complain(
            "pictures of whose name there are several",
            where,
            f"{plain} may be {several}",
            "Write the path from the folder of the annotations, or name it data.images",
        )
    else:
        found.complain(
            "pictures that are listed and missing",
            where,
            f"there is no picture {plain}",
            "Add it, correct the name, or name the folder of the pictures as data.images",
        )
    return None
