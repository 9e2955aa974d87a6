"""The settings that every source of files or of a data set has: where the rows come from, and which
are held out."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import ClassVar

from pydantic import model_validator

from groundup.contracts.data import DataSource
from groundup.core.errors import RecipeError
from groundup.core.settings import setting
from groundup.core.values import Split
from groundup.data.splitting.held_out import SplitRule

__all__ = ["Source", "as_list", "refuse_idle"]

# what a path has no use for; with one it is an error, as all that has no effect is
_FOR_DATASETS = ("subset", "revision", "streaming", "split")


class Source(DataSource, ABC):
    """Where examples come from and which of them are held out, by the same names, defaults and
    checks in every source.

    Attributes:
        reads_datasets: Whether it can read a Hugging Face data set.
        reads_in_order: Whether rows are read one after the other, and so could be streamed.
        reads_many_paths: Whether ``path`` may be a list.
        has_built_in: Whether it has data of its own, where neither path nor dataset is given.
        for_files: Own settings that matter for files only.
        for_datasets: Own settings that matter for a data set only.
        for_drawing: Own settings that say how held-out rows are drawn.
    """

    reads_datasets: ClassVar[bool] = True
    reads_in_order: ClassVar[bool] = True
    reads_many_paths: ClassVar[bool] = True
    has_built_in: ClassVar[bool] = False
    for_files: ClassVar[tuple[str, ...]] = ()
    for_datasets: ClassVar[tuple[str, ...]] = ()
    for_drawing: ClassVar[tuple[str, ...]] = ()

    path: str | list[str] | None = setting(
        None,
        "file or folder, or a list of them, relative to the current folder; what is called train,"
        " validation (valid, val, dev, eval) and test in a folder is that split",
    )
    dataset: str | None = setting(
        None, "Hugging Face data set, or a folder with a copy of one, instead of path"
    )
    subset: str | None = setting(None, "configuration of the data set")
    revision: str | None = setting(None, "branch, tag or commit of the data set")
    streaming: bool = setting(False, "read the data set over the network without keeping it")
    split: str = setting(
        "train", "split of the data set that is learned from, or a part such as train[:80%]"
    )
    validation: str | list[str] | None = setting(
        None,
        "files, or the data set's split, held out for validation; silent: those so called, or a"
        " fraction",
    )
    test: str | list[str] | float | None = setting(
        None,
        "files, or the data set's split, that training never looks at, or a share to draw, such as"
        " 0.1; silent: those so called, if there are any",
    )
    # One default for all: a share that differs from source to source is a share nobody knows.
    fraction: float = setting(
        0.1, "share held out for validation where none is named", ge=0.0, lt=1.0
    )
    seed: int = setting(0, "another seed holds out others", ge=0)
    # The first rows, because a stream can give no others. Files in folders come class by class.
    limit: int | None = setting(
        None, "read at most N rows of each split: the first, or of files in folders any N", ge=1
    )
    licence: str = setting("", "licence of the data, for the data card")

    @model_validator(mode="after")
    def _settings_fit(self) -> Source:
        if problem := self._problem_with_source() or self.problem():
            raise ValueError(problem)
        return self

    def problem(self) -> str | None:
        """Return what contradicts itself in the settings of this source, as ``"problem. remedy"``,
        or None."""
        return None

    def given(self, *names: str) -> list[str]:
        """Return those of the named settings whose value is not the default."""
        # by value, not by what was written: a saved recipe writes every setting
        fields = type(self).model_fields
        values = dict(iter(self))
        return [name for name in names if values[name] != fields[name].default]

    @property
    def place(self) -> str:
        """What to call the source in messages and cards."""
        return self.dataset or ", ".join(as_list(self.path))

    @property
    def rule(self) -> SplitRule:
        """How rows are held out where none are named."""
        share = self.test if isinstance(self.test, float) else 0.0
        return SplitRule(self.fraction, self.seed, share)

    @property
    def names_test(self) -> bool:
        """Whether the test rows are named in the recipe."""
        return isinstance(self.test, str | list)

    def idle_with_own_validation(self) -> str | None:
        """Return the first setting given that has no effect where validation rows are named."""
        idle = ["fraction", *self.for_drawing]
        if not isinstance(self.test, float):  # else the seed draws the test
            idle.insert(1, "seed")
        return next(iter(self.given(*idle)), None)

    def _problem_with_source(self) -> str | None:
        one_of = "Write path: for files, or dataset: for a Hugging Face name"
        if not self.reads_datasets:
            one_of = "Write path: for files"
            if self.dataset is not None:
                return f"dataset has no effect: data {self.registered_name} reads files. {one_of}"
        # never one over the other: the recipe would not say what was trained on
        if self.path is not None and self.dataset is not None:
            return f"both path and dataset are given; allowed: exactly one. {one_of}"
        if self.path is None and self.dataset is None and not self.has_built_in:
            return f"neither path nor dataset is given; allowed: exactly one. {one_of}"
        for name in ("path", "validation", "test"):
            value = {"path": self.path, "validation": self.validation, "test": self.test}[name]
            if value == []:
                return f"{name} is an empty list. Name at least one file or folder"
            if isinstance(value, list) and not self.reads_many_paths:
                return f"{name} is a list; data {self.registered_name} reads one. Name one"
            if isinstance(value, list) and self.dataset is not None:
                return f"{name} is a list; of a dataset it is one split. Name one"
        return self._problem_with_idle() or self._problem_with_splits()

    def _problem_with_idle(self) -> str | None:
        effect = "path; it applies to dataset"
        idle = self.given(*_FOR_DATASETS, *self.for_datasets)
        if self.dataset is not None:
            effect = "dataset; it applies to path"
            idle = self.given(*self.for_files)
        if idle:
            return f"{idle[0]} has no effect with {effect}. Remove {idle[0]}"
        if self.streaming and not self.reads_in_order:
            problem = f"data {self.registered_name} reads rows in any order, from the disk"
            return f"streaming has no effect: {problem}. Remove streaming"
        idle_name = self.idle_with_own_validation()
        if self.validation is not None and idle_name is not None:
            return f"{idle_name} has no effect with validation. Remove one of them"
        return None

    def _problem_with_splits(self) -> str | None:
        if isinstance(self.test, float):
            if not 0 < self.test < 1 - self.fraction:
                allowed = f"more than 0 and less than 1 - fraction = {1 - self.fraction:g}"
                return f"test is {self.test:g}; allowed as a share: {allowed}. Change one of them"
        elif self.dataset is not None:
            names = [self.split, self.validation, self.test]
            for place, name in enumerate(names):
                if name is not None and name in names[:place]:
                    return f"the split {name!r} is named twice. Name others"
        return None


def refuse_idle(source: Source, held_out: Sequence[Split], what: str = "") -> None:
    """Raise an error for settings that say how held-out rows are drawn where they are named.

    Args:
        source: The settings.
        held_out: The splits that have rows of their own.
        what: What those of validation are, for the message.

    Raises:
        RecipeError: Naming the first setting.
    """
    idle = None
    split = "validation"
    if "validation" in held_out:
        idle = source.idle_with_own_validation()
    if "test" in held_out and isinstance(source.test, float):
        idle = split = "test"
    if idle is not None:
        problem = f"has no effect: {source.place} has {what or 'rows'} of its own for {split}"
        remedy = f"Remove {idle}, or name what to train on alone as data.path or data.split"
        raise RecipeError(f"recipe.data.{idle}", problem, remedy)


def as_list(path: str | list[str] | None) -> list[str]:
    """Return one path or several as a list."""
    if path is None:
        return []
    return [path] if isinstance(path, str) else list(path)
