"""Pictures with boxes as files of any format name them, before anything is checked against the
pictures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from groundup.core.values import Split

__all__ = ["Corners", "Marked", "MarkedBox", "MarkedPicture", "Problem"]

Corners = tuple[float, float, float, float]
"""Left, top, right and bottom."""


class MarkedBox(NamedTuple):
    """A box as a file has it.

    Attributes:
        corners: In pixels, or in shares of the picture's width and height.
        label: The name of its class.
        where: The file and row, for messages.
        crowd: It is a region of many things, or one that is neither right nor wrong.
        area: Of the outline in square pixels, where the file says so.
    """

    corners: Corners
    label: str
    where: str
    crowd: bool = False
    area: float | None = None


@dataclass
class MarkedPicture:
    """A picture and the boxes in it.

    Attributes:
        name: Its path below the root with slashes, or a data set's split and row.
        file: A path, or where it is in a row.
        where: The file and row that name it, for messages.
        split: The split that it is of, where the data say so.
        size: Width and height in pixels as the file says; None where it does not.
        shares: Whether boxes are in shares of the width and height.
        unread: How many boxes it has that cannot be read.
        group: What it belongs to, such as a film, where a column says so.
    """

    name: str
    file: Any
    where: str
    boxes: list[MarkedBox] = field(default_factory=list)
    split: Split | None = None
    size: tuple[float, float] | None = None
    shares: bool = False
    unread: int = 0
    group: str | None = None


class Problem(NamedTuple):
    """Something that cannot be used: an error, or set aside and counted.

    Attributes:
        kind: What is counted, in the plural, such as ``boxes without area``.
    """

    kind: str
    where: str
    problem: str
    remedy: str


# Readers of all formats add to one of these, and stop at what damages a whole file alone: what is
# wrong with a row is gathered, so that a recipe may say what becomes of it.
@dataclass
class Marked:
    """What the files of a path say.

    Attributes:
        form: Which format it is, in words.
        pictures: In the order of the files.
        files: Those that were read, by their names below the root.
        classes: Of formats with numbers of classes: (number, name) in their order.
        problems: What cannot be used.
        notes: How often what was met that is said, but no mistake.
        warnings: What looks like a mistake, a line each.
        left_out: How many pictures are not read, by the reason.
    """

    form: str
    pictures: list[MarkedPicture] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def complain(
        self,
        kind: str,
        where: str,
        problem: str,
        remedy: str,
        box_of: MarkedPicture | None = None,
    ) -> None:
        """Note what cannot be used; of a box, the picture that then lacks one."""
        self.problems.append(Problem(kind, where, problem, remedy))
        if box_of is not None:
            box_of.unread += 1

    def add(self, other: Marked) -> None:
        """Add what another path holds."""
        self.pictures += other.pictures
        self.files |= other.files
        self.classes |= other.classes
        self.problems += other.problems
        self.notes += other.notes
        self.warnings += other.warnings
        self.left_out += other.left_out
