"""The settings that every source of files or of a data set has: where the rows come from, and which
are held out."""

from __future__ import annotations

import re
from abc import ABC
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import field_validator, model_validator

from groundup.contracts.data import DataSource
from groundup.core.errors import RecipeError
from groundup.core.settings import PathText, setting
from groundup.core.values import Split
from groundup.data.reading.encodings import check_encoding
from groundup.data.splitting.drawing import SplitRule

__all__ = ["Source", "as_list", "refuse_idle"]

# which rows are held out, and of what data set: for other files of their own accord without effect
_OF_THE_DATA = (
    "dataset",
    "subset",
    "revision",
    "streaming",
    "split",
    "path",
    "validation",
    "test",
    "fraction",
    "seed",
    "stratify",
    "group_column",
    "time_column",
    "split_column",
    "limit",
    "licence",
)
# what a path has no use for; with one it is an error, as all that has no effect is
_ADDRESS = re.compile(r"[a-zA-Z][\w+.-]+:/{1,3}[^/\\]")
_FOR_DATASETS = ("subset", "revision", "streaming", "split")


class Source(DataSource, ABC):
    """Where examples come from and which of them are held out, by the same names, defaults and
    checks in every source.

    Attributes:
        reads_datasets: Whether it can read a Hugging Face data set.
        reads_in_order: Whether rows are read one after the other, and so could be streamed.
        reads_many_paths: Whether ``path`` may be a list.
        reads_texts: Whether there are texts or tables, which are in some encoding.
        has_built_in: Whether it has data of its own, where neither path nor dataset is given.
        for_files: Own settings that matter for files only.
        for_datasets: Own settings that matter for a data set only.
        for_drawing: Own settings that say how held-out rows are drawn.
        has_labels: Whether its examples have a label, of which shares can be held out.
        has_columns: Whether its rows have columns besides those that are learned from.
    """

    reads_datasets: ClassVar[bool] = True
    reads_in_order: ClassVar[bool] = True
    reads_many_paths: ClassVar[bool] = True
    reads_texts: ClassVar[bool] = True
    has_built_in: ClassVar[bool] = False
    for_files: ClassVar[tuple[str, ...]] = ()
    for_datasets: ClassVar[tuple[str, ...]] = ()
    for_drawing: ClassVar[tuple[str, ...]] = ()
    has_labels: ClassVar[bool] = False
    has_columns: ClassVar[bool] = False

    path: PathText | list[PathText] | None = setting(
        None,
        "file or folder, or a list of them, relative to the current folder; what is called train,"
        " validation (valid, val, dev, eval) and test in a folder is that split",
    )
    dataset: PathText | None = setting(
        None, "Hugging Face data set, or a folder with a copy of one, instead of path"
    )
    subset: str | None = setting(None, "configuration of the data set")
    revision: str | None = setting(None, "branch, tag or commit of the data set")
    streaming: bool = setting(False, "read the data set over the network without keeping it")
    split: str = setting(
        "train", "split of the data set that is learned from, or a part such as train[:80%]"
    )
    validation: PathText | list[PathText] | None = setting(
        None,
        "files, or the data set's split, held out for validation; silent: those so called, or a"
        " fraction",
    )
    test: PathText | list[PathText] | float | None = setting(
        None,
        "files, or the data set's split, that training never looks at, or a share to draw, such as"
        " 0.1; silent: those so called, if there are any",
    )
    # One default for all: a share that differs from source to source is a share nobody knows.
    fraction: float = setting(
        0.1, "share held out for validation where none is named", ge=0.0, lt=1.0
    )
    seed: int = setting(0, "another seed holds out others", ge=0)
    stratify: bool = setting(
        False,
        "hold out the same share of each label, to within one row; false: by chance, but every"
        " label is trained on",
    )
    group_column: str | None = setting(
        None,
        "column of what rows belong to, such as a user: rows with the same value of it are on one"
        " side",
        applies_when={"time_column": (None,)},
    )
    time_column: str | None = setting(
        None, "column of numbers or dates: the latest rows are held out"
    )
    split_column: str | None = setting(
        None,
        "column that says which split a row is; silent: one of which every value is the name of a"
        " split, train among them; '': none",
    )
    # The first rows, because a stream can give no others. Files in folders come class by class.
    limit: int | None = setting(
        None, "read at most N rows of each split: the first, or of files in folders any N", ge=1
    )
    encoding: str | None = setting(
        None,
        "encoding of texts and tables without a mark of their own, such as gb18030 or cp1252;"
        " silent: UTF-8",
    )
    on_unreadable: Literal["stop", "skip"] = setting(
        "stop", "files that cannot be read: an error, or left out and counted"
    )
    licence: str = setting("", "licence of the data, for the data card")

    @field_validator("separator", mode="before", check_fields=False)
    @classmethod
    def _spell_tab(cls, given: Any) -> Any:
        # the two letters that a shell gives for a tab
        return "\t" if given == "\\t" else given

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

    def reading(self, path: str) -> DataSource | None:
        """Return the source of another file or folder; see ``DataSource.reading``."""
        others = {*_OF_THE_DATA, *self.for_drawing, *self.for_datasets}
        kept = {
            name: value
            for name, value in self
            if name in self.given(*type(self).model_fields) and name not in others
        }
        whole = {"path": path, "fraction": 0.0}
        if self.has_columns:  # all of it is asked for, whatever a column says
            whole["split_column"] = ""
        return type(self).model_validate({**kept, **whole})

    @property
    def place(self) -> str:
        """What to call the source in messages and cards."""
        return self.dataset or ", ".join(as_list(self.path))

    @property
    def rule(self) -> SplitRule:
        """How rows are held out where none are named."""
        share = self.test if isinstance(self.test, float) else 0.0
        return SplitRule(
            self.fraction,
            self.seed,
            share,
            stratify=self.stratify,
            latest=self.time_column is not None,
        )

    @property
    def names_test(self) -> bool:
        """Whether the test rows are named in the recipe."""
        return isinstance(self.test, str | list)

    def idle_with_own_validation(self) -> str | None:
        """Return the first setting given that has no effect where validation rows are named."""
        idle = ["fraction", *self.for_drawing]
        if not isinstance(self.test, float):  # else these draw the test
            idle[1:1] = ["seed", "stratify", "time_column"]
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
            if value == "":
                return f"{name} is empty. Name a file or folder; '.' is the current one"
            if value == []:
                return f"{name} is an empty list. Name at least one file or folder"
            if isinstance(value, list) and not self.reads_many_paths:
                return f"{name} is a list; data {self.registered_name} reads one. Name one"
            if isinstance(value, list) and self.dataset is not None:
                return f"{name} is a list; of a dataset it is one split. Name one"
            for each in as_list(value) if isinstance(value, str | list) else ():
                if _ADDRESS.match(each):
                    return f"{name} is an address, {each!r}; allowed: files here. {_fetch(each)}"
        return (
            self._problem_with_idle() or self._problem_with_drawing() or self._problem_with_splits()
        )

    def _problem_with_idle(self) -> str | None:
        if self.encoding is not None:
            if not self.reads_texts or self.dataset is not None:
                what = "dataset" if self.dataset is not None else f"data {self.registered_name}"
                return f"encoding has no effect with {what}. Remove encoding"
            if problem := check_encoding(self.encoding):
                return problem
        effect = "path; it applies to dataset"
        idle = self.given(*_FOR_DATASETS, *self.for_datasets)
        if self.dataset is not None:
            effect = "dataset; it applies to path"
            idle = self.given(*self.for_files)
        if idle:
            return f"{idle[0]} has no effect with {effect}. Remove {idle[0]}"
        if self.split_column and self.dataset is not None:
            problem = "split_column has no effect with dataset; it applies to path"
            return f"{problem}. Remove split_column, or save the rows as files"
        if self.streaming and not self.reads_in_order:
            problem = f"data {self.registered_name} reads rows in any order, from the disk"
            return f"streaming has no effect: {problem}. Remove streaming"
        idle_name = self.idle_with_own_validation()
        if self.validation is not None and idle_name is not None:
            return f"{idle_name} has no effect with validation. Remove one of them"
        return None

    def _problem_with_drawing(self) -> str | None:
        kind = f"data {self.registered_name}"
        if self.stratify and not self.has_labels:
            return f"stratify has no effect: {kind} has no labels. Remove stratify"
        for name in self.given("group_column", "time_column", "split_column"):
            if not self.has_columns:
                return f"{name} has no effect: {kind} has no such columns. Remove {name}"
            if self.streaming and name != "split_column":
                problem = f"{name} has no effect with streaming, which reads rows once"
                return f"{problem}. Remove one of them"
        draws = self.fraction or isinstance(self.test, float)
        for name in self.given("stratify", "time_column"):
            if not draws and self.validation is None:
                return f"{name} has no effect with fraction 0. Remove one of them"
        if self.time_column is not None and (other := self.given("seed", "stratify")):
            return f"{other[0]} has no effect with time_column. Remove one of them"
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
        raise RecipeError(
            f"recipe.data.{idle}",
            f"has no effect: {source.place} has {what or 'rows'} of its own for {split}",
            f"Remove {idle}, or name what to train on alone as data.path or data.split",
        )


def _fetch(address: str) -> str:
    """Return what to do about an address in place of a path."""
    if found := re.match(r"(?:hf://|https?://huggingface\.co/)datasets/([\w.-]+/[\w.-]+)", address):
        return f"Write dataset: {found[1]} in place of it"
    if address.startswith("file://"):
        return f"Write {address.removeprefix('file://')}"
    tool = {"s3": "aws s3 cp", "gs": "gcloud storage cp"}.get(address.partition("://")[0], "")
    command = f"{tool} {address} ./" if tool else f"curl -L -O {address}"
    return f"Fetch it first, and name the file: {command}"


def as_list(path: str | list[str] | None) -> list[str]:
    """Return one path or several as a list."""
    if path is None:
        return []
    return [path] if isinstance(path, str) else list(path)
