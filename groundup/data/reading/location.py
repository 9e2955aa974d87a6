"""Where a recipe's rows come from: files, or a data set on the Hugging Face hub, and what is read
for each split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

from groundup.core.errors import DataError
from groundup.core.settings import Settings
from groundup.core.values import Split
from groundup.data.reading.files import KINDS, Cells, Record, fingerprint, read_records
from groundup.data.reading.hub import hub_fingerprint, hub_records

__all__ = ["Origin", "changed", "no_examples", "problem_with_origin"]


@dataclass(frozen=True)
class Origin:
    """Files or a data set, as the fields of a recipe say. ``validation_*`` name rows that are held
    out as they are."""

    path: str | list[str] | None
    validation_path: str | list[str] | None
    dataset: str | None
    subset: str | None
    dataset_split: str
    validation_split: str | None
    revision: str | None
    streaming: bool

    @classmethod
    def of(cls, settings: Settings) -> Origin:
        """Return the origin that a recipe section says, by its fields of the same names."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})

    @property
    def has_validation(self) -> bool:
        """Whether the validation rows are named, and not drawn."""
        return self.validation_path is not None or self.validation_split is not None

    @property
    def dataset_settings(self) -> list[str]:
        """The names of the settings given that matter for a data set only."""
        given = {
            "subset": self.subset is not None,
            "validation_split": self.validation_split is not None,
            "revision": self.revision is not None,
            "streaming": self.streaming,
            "dataset_split": self.dataset_split != "train",
        }
        return [name for name, is_given in given.items() if is_given]

    @property
    def name(self) -> str:
        """What to call the source in messages and cards."""
        return self.dataset or ", ".join(_as_list(self.path))

    def records(
        self,
        split: Split,
        columns: Sequence[str] = (),
        split_on: str | None = None,
        kinds: Sequence[str] = KINDS,
        cells: Cells | None = None,
    ) -> Iterator[Record]:
        """Yield the rows named for training, or those named for validation."""
        if self.dataset is not None:
            named = self.validation_split if split == "validation" else self.dataset_split
            yield from hub_records(
                self.dataset,
                subset=self.subset,
                split=named or self.dataset_split,
                revision=self.revision,
                streaming=self.streaming,
                columns=columns,
            )
            return
        paths = _as_list(self.validation_path if split == "validation" else self.path)
        for path in paths:
            for record in read_records(
                path, columns=columns, split_on=split_on, kinds=kinds, cells=cells or Cells()
            ):
                yield replace(record, name=f"{path}/{record.name}") if len(paths) > 1 else record

    def key(self, kinds: Sequence[str] = KINDS) -> str:
        """Return a key that changes when the rows change."""
        if self.dataset is None:
            return fingerprint([*_as_list(self.path), *_as_list(self.validation_path)], kinds)
        splits = [self.dataset_split, *([self.validation_split] if self.validation_split else [])]
        parts = [
            hub_fingerprint(
                self.dataset,
                subset=self.subset,
                split=split,
                revision=self.revision,
                streaming=self.streaming,
            )
            for split in splits
        ]
        return hashlib.sha256("".join(parts).encode()).hexdigest()


def changed(settings: Settings, *names: str) -> list[str]:
    """Return those of the named settings whose value is not the default."""
    return [
        name
        for name in names
        if getattr(settings, name) != type(settings).model_fields[name].default
    ]


def problem_with_origin(
    origin: Origin, idle_with_dataset: Sequence[str], idle_with_validation: Sequence[str]
) -> str | None:
    """Return what contradicts itself in an origin, as ``"problem. remedy"``, or None.

    Args:
        origin: What the recipe says.
        idle_with_dataset: Settings given that matter for files only.
        idle_with_validation: Settings given that matter only where validation rows are drawn, not
            named.
    """
    if (origin.path is None) == (origin.dataset is None):
        found = (
            "both path and dataset are given"
            if origin.path is not None
            else "neither path nor dataset is given"
        )
        return (
            f"{found}; allowed: exactly one. Write path: for files, or dataset: for a Hugging Face"
            " name"
        )
    if origin.path is not None and not _as_list(origin.path):
        return "path is an empty list. Name at least one file or folder"
    if origin.validation_path == []:
        return "validation_path is an empty list. Name at least one file or folder, or remove it"
    if origin.dataset is None and origin.dataset_settings:
        idle = origin.dataset_settings[0]
        return (
            f"{idle} has no effect with path; it applies to dataset. Remove {idle} or name a"
            " dataset"
        )
    if origin.dataset is not None and origin.validation_path is not None:
        return (
            "validation_path has no effect with dataset; it applies to path. Use validation_split"
        )
    if origin.dataset is not None and idle_with_dataset:
        return (
            f"{idle_with_dataset[0]} has no effect with dataset; it applies to path. Remove"
            f" {idle_with_dataset[0]}"
        )
    if origin.has_validation and idle_with_validation:
        named = "validation_path" if origin.validation_path is not None else "validation_split"
        return f"{idle_with_validation[0]} has no effect with {named}. Remove one of them"
    return None


def no_examples(split: Split, where: str, fraction: float) -> DataError:
    """Return the error for a split that nothing fell into."""
    return DataError(
        where,
        f"nothing is left for {split} (validation_fraction {fraction})",
        "Give more examples, change validation_fraction, name validation rows, or, for plain text,"
        " set split_on",
    )


def _as_list(path: str | list[str] | None) -> list[str]:
    return [] if path is None else [path] if isinstance(path, str) else list(path)
