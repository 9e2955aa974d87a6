"""The settings that all sources share, and the one way in which all of them are split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup.core import registry
from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import validate
from groundup.core.values import Split
from groundup.data.cleaning.cleaning import Cleaning
from groundup.data.reading.compressed import DataFile
from groundup.data.reading.source import Source
from groundup.data.sources.arrays import Arrays
from groundup.data.sources.conversations import ConversationSource
from groundup.data.sources.labelled_text import LabelledText
from groundup.data.sources.mixture import Mixture
from groundup.data.sources.python_docs import PythonDocs
from groundup.data.sources.sequences import Sequences
from groundup.data.sources.table import TableSource
from groundup.data.sources.text import TextSource
from groundup.data.sources.text_pairs import TextPairs
from groundup.data.splitting.held_out import SplitRule, keep_some, split_examples
from groundup.data.splitting.split_names import divide_files

BUILT_IN = (
    "dialled_numbers",
    "digit_scenes",
    "mixture",
    "python_docs",
    "python_imports",
    "python_question_pairs",
    "python_questions",
    "python_summaries",
    "self_play",
    "shards",
)  # of other sources, of Python itself, or tokens of which nothing is drawn
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def rows(first: int, count: int) -> list[dict[str, Any]]:
    """Return rows that every source of rows can read; no two are alike."""
    return [
        {
            "text": f"text {number}",
            "label": "ab"[number % 2],
            "anchor": f"question {number}",
            "positive": f"answer {number}",
            "prompt": f"why {number}",
            "completion": f"because {number}",
            "x": number,
            "y": "ab"[number % 2],
        }
        for number in range(first, first + count)
    ]


def write(path: Path, content: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        lines = [",".join(content[0]), *(",".join(map(str, row.values())) for row in content)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")


def sizes(source: Source, cache: Path) -> dict[str, int]:
    return {split: len(list(source.examples(split, cache))) for split in source.splits()}


# -------------------------------------------------------------------------------------------- names
def test_every_source_has_the_same_block() -> None:
    block = {
        name: (field.annotation, field.default, field.description)
        for name, field in Source.model_fields.items()
    }
    for name in registry.BUILTINS["data"]:
        fields = registry.lookup("data", name).model_fields
        if name not in BUILT_IN:
            found = {key: fields[key] for key in block}
            assert block == {
                key: (field.annotation, field.default, field.description)
                for key, field in found.items()
            }


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("train.jsonl dev.jsonl test.jsonl", "train validation test"),
        ("train/a.txt eval/b.txt test/c.txt", "train validation test"),
        ("data/train-00000-of-00002.parquet data/test-00000-of-00001.parquet", "train test"),
        ("mnist_train.csv mnist_test.csv", "train test"),
        ("train.tsv dev_matched.tsv dev_mismatched.tsv", "train validation validation"),
        (
            "en/train.json en/val.json fr/train.json fr/val.json",
            "train validation train validation",
        ),
        ("rows.csv test.csv", "train test"),
        ("Train.csv VAL.csv", "train validation"),
        # notes may be called anything, and a name alone holds nothing out
        ("guide.md dev.md test/a.txt", "train train train"),
        ("eval.jsonl", "train"),
        ("test-suite.csv contest.csv", "train train"),
    ],
)
def test_splits_are_recognised_by_name(names: str, expected: str) -> None:
    files = [DataFile(Path(name), name, Path(name).suffix, "") for name in names.split()]
    found = {file.relative: split for split, own in divide_files(files).items() for file in own}
    assert [found[name] for name in names.split()] == expected.split()


# ----------------------------------------------------------------------------------------- policies
@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (TextSource, "jsonl"),
        (ConversationSource, "jsonl"),
        (TextPairs, "csv"),
        (LabelledText, "csv"),
        (TableSource, "csv"),
    ],
)
@pytest.mark.parametrize("layout", ["{}.{}", "{}/rows.{}"])
def test_own_splits_are_never_trained_on(
    source: type[Source], kind: str, layout: str, tmp_path: Path
) -> None:
    for name, first, count in (("train", 0, 30), ("valid", 40, 7), ("test", 50, 5)):
        own = rows(first, count)
        if source is ConversationSource:
            own = [{key: row[key] for key in ("prompt", "completion")} for row in own]
        write(tmp_path / "data" / layout.format(name, kind), own)
    settings: dict[str, Any] = {"path": str(tmp_path / "data")}
    if source is TableSource:
        settings["target"] = "y"
    opened = validate(source, settings, "data")
    assert sizes(opened, tmp_path) == {"train": 30, "validation": 7, "test": 5}
    assert set(opened.card(tmp_path)["splits"]) == set(SPLITS)
    with pytest.raises(RecipeError, match=r"recipe.data.fraction: has no effect: .* has rows of"):
        list(validate(source, settings | {"fraction": 0.3}, "data").examples("train", tmp_path))
    fewer = validate(source, settings | {"limit": 4}, "data")
    assert sizes(fewer, tmp_path) == {"train": 4, "validation": 4, "test": 4}


@pytest.mark.parametrize("source", [TextSource, ConversationSource, LabelledText, TableSource])
def test_a_test_share_moves_nothing_between_training_and_validation(
    source: type[Source], tmp_path: Path
) -> None:
    own = rows(0, 300)
    if source is ConversationSource:
        own = [{key: row[key] for key in ("prompt", "completion")} for row in own]
    path = tmp_path / ("a.csv" if source is TableSource else "a.jsonl")
    write(path, own)
    settings: dict[str, Any] = {"path": str(path)}
    if source is TableSource:
        settings["target"] = "y"
    if source is TextSource:
        settings["cleaning"] = {"near_duplicates": "keep"}
    plain = validate(source, settings, "data")
    assert plain.splits() == ("train", "validation")
    shared = validate(source, settings | {"test": 0.2}, "data")
    assert shared.splits() == SPLITS
    names = {split: {e.name for e in shared.examples(split, tmp_path)} for split in SPLITS}
    assert 30 < len(names["test"]) < 90
    assert {e.name for e in plain.examples("validation", tmp_path)} == names["validation"]
    assert {e.name for e in plain.examples("train", tmp_path)} == names["train"] | names["test"]


def test_named_files_in_the_folder_are_no_training_rows(tmp_path: Path) -> None:
    for name, first, count in (("a", 0, 20), ("held", 30, 5), ("dev", 40, 3)):
        write(tmp_path / "rows" / f"{name}.jsonl", rows(first, count))
    held = str(tmp_path / "rows" / "held.jsonl")
    source = LabelledText(path=str(tmp_path / "rows"), validation=held)
    assert sizes(source, tmp_path) == {"train": 20, "validation": 5}
    assert source.card(tmp_path)["files_not_used"] == [str(tmp_path / "rows" / "dev.jsonl")]


def test_what_is_in_the_test_is_in_no_other_split(tmp_path: Path) -> None:
    for name, first, count in (("train", 0, 20), ("val", 15, 10), ("test", 20, 10)):
        write(tmp_path / "rows" / f"{name}.jsonl", rows(first, count))
    path = str(tmp_path / "rows")
    expected = {"train": 15, "validation": 5, "test": 10}
    assert sizes(TextPairs(path=path), tmp_path) == expected
    for exact in (True, False):  # found by the cleaning, and by the split
        cleaning = Cleaning(near_duplicates="keep", drop_exact_duplicates=exact)
        texts = TextSource(path=path, cleaning=cleaning)
        assert sizes(texts, tmp_path) == expected
        removed = texts.card(tmp_path)["cleaning"]["removed"]
        same = {"same_as_test": 5, "same_as_validation": 5}
        assert removed == ({"exact_duplicate": 10} if exact else same)


def test_arrays_and_sequences_have_files_of_their_own(tmp_path: Path) -> None:
    for name, count in (("train", 40), ("val", 6), ("test", 4)):
        x = np.arange(count * 2, dtype=np.float32).reshape(count, 2)
        np.savez(tmp_path / f"{name}.npz", x=x, y=np.arange(count) % 2)
    assert sizes(Arrays(path=str(tmp_path)), tmp_path) == {"train": 40, "validation": 6, "test": 4}
    one = tmp_path / "one.npz"
    arrays = {
        f"{key}_{name}": np.ones((5, 2))[:, : 2 if key == "x" else 1].squeeze()
        for key in "xy"
        for name in ("train", "val", "test")
    }
    np.savez(one, **arrays)
    assert sizes(Arrays(path=str(one)), tmp_path) == {"train": 5, "validation": 5, "test": 5}
    drawn = Sequences(path=str(sequences(tmp_path / "s" / "a.npz", 60)), test=0.2)
    assert sum(sizes(drawn, tmp_path).values()) == 60
    sequences(tmp_path / "s" / "dev.npz", 5)
    held = Sequences(path=str(tmp_path / "s"))
    assert sizes(held, tmp_path) == {"train": 60, "validation": 5}


@pytest.mark.parametrize(("copies", "warnings"), [(0, 0), (3, 1)])
def test_arrays_that_are_held_out_as_well_are_said(
    tmp_path: Path, copies: int, warnings: int
) -> None:
    x = np.arange(80, dtype=np.float32).reshape(40, 2)
    np.savez(tmp_path / "train.npz", x=x, y=np.arange(40) % 2)
    held_out = x[:4].copy()
    held_out[copies:] += 100
    np.savez(tmp_path / "test.npz", x=held_out, y=np.zeros(4))
    found = Arrays(path=str(tmp_path))
    said = found.card(tmp_path).get("warnings", [])
    assert len(said) == warnings
    assert all("3 of the training split's inputs are in validation or in" in each for each in said)
    # they may be alike by chance, and stay
    sides = sizes(found, tmp_path)
    assert (sides["test"], sum(sides.values())) == (4, 44)


def sequences(path: Path, count: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    values = np.arange(count * 2, dtype=np.float32)[:, None] + count * 1000
    np.savez(path, X=values, lengths=np.full(count, 2), y=np.arange(count) % 3)
    return path


def test_a_mixture_has_the_splits_of_its_parts(tmp_path: Path) -> None:
    write(tmp_path / "a" / "train.jsonl", rows(0, 20))
    write(tmp_path / "a" / "test.jsonl", rows(30, 5))
    write(tmp_path / "b.jsonl", rows(50, 20))
    parts = {
        "a": {"name": "text", "path": str(tmp_path / "a"), "fraction": 0.0},
        "b": {"name": "text", "path": str(tmp_path / "b.jsonl"), "fraction": 0.0},
    }
    source = Mixture.model_validate({"parts": parts})
    assert source.splits() == ("train", "test")
    assert len(list(source.examples("test", tmp_path / "cache"))) == 5


def test_python_docs_can_have_a_test(tmp_path: Path) -> None:
    assert PythonDocs().splits() == ("train", "validation")
    assert PythonDocs(test=0.1).splits() == SPLITS


# --------------------------------------------------------------------------------- classes and files
def test_classes_are_on_both_sides_where_chance_would_do_it() -> None:
    keys = [(f"k{number}",) for number in range(300)]
    labels = ["rare" if number % 10 == 0 else "common" for number in range(300)]
    for seed in range(40):
        sides = split_examples(keys, labels, SplitRule(0.1, seed))
        for label in ("rare", "common"):
            own = {side for side, each in zip(sides, labels, strict=True) if each == label}
            assert own == {"train", "validation"}
    plain = split_examples(keys, [None] * 300, SplitRule(0.1, 3))
    assert plain == [SplitRule(0.1, 3).side_of(key) for (key,) in keys]
    # numbers are predicted, not told apart
    numbers = list(range(300))
    assert split_examples(keys, numbers, SplitRule(0.1, 3)) == plain


def test_some_files_are_kept_of_all_classes() -> None:
    files = [f"{label}/{number}" for label in "abc" for number in range(100)]
    kept = keep_some(files, 60, 0)
    assert len(kept) == 60
    assert kept == sorted(kept, key=files.index)
    assert {name[0] for name in kept} == {"a", "b", "c"}
    assert keep_some(files, 60, 0) == kept
    assert keep_some(files, None, 0) == files


# -------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("source", "settings", "problem"),
    [
        (Arrays, {"dataset": "a/b"}, "dataset has no effect: data arrays reads files"),
        (Arrays, {"path": ["a", "b"]}, "path is a list; data arrays reads one. Name one"),
        (TextSource, {}, "neither path nor dataset is given"),
        (TextSource, {"path": "a", "test": 1.5}, "allowed as a share"),
        (TextSource, {"path": "a", "validation": []}, "validation is an empty list"),
        (TextSource, {"path": "a", "validation": "b", "seed": 1}, "seed has no effect with val"),
        (TextSource, {"path": "a", "subset": "b"}, "subset has no effect with path"),
    ],
)
def test_settings_that_contradict_each_other(
    source: type[Source], settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(RecipeError, match=problem):
        validate(source, settings, "recipe.data")


def test_everything_held_out(tmp_path: Path) -> None:
    write(tmp_path / "rows" / "a.jsonl", rows(0, 3))
    source = LabelledText(
        path=str(tmp_path / "rows"), validation=str(tmp_path / "rows" / "a.jsonl")
    )
    with pytest.raises(DataError, match=r"every file of it is held out by data.validation"):
        source.examples("train", tmp_path)
