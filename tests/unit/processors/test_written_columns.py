"""Columns and targets that are written as people write them: read by one rule, which is saved."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup.core.errors import DataError
from groundup.core.values import Example
from groundup.data.sources.table import TableSource
from groundup.media.table_values import Row
from groundup.processors.class_targets import MultiLabel, SingleLabel
from groundup.processors.labelled import Labelled
from groundup.processors.table import TableConfig, TableProcessor
from groundup.processors.targets import RegressionTargets, targets_from_json
from groundup.tasks.classify.task import Classify
from groundup.tasks.multitask.task import Multitask
from groundup.tasks.regression import Regression


def fit(rows: list[dict[str, Any]], targets: list[Any] | None = None, **settings: Any) -> Any:
    wanted = targets or [None] * len(rows)
    examples = [Example(str(n), row, wanted[n], f"t.csv row {n + 1}") for n, row in enumerate(rows)]
    return TableConfig(**settings).fit(lambda: iter(examples))


WRITTEN = {
    "price": ["1,017", "2,500", "-", "5"],
    "share": ["45%", "5%", "n/a", "0"],
    "when": ["31/12/1999", "01/02/2000", "", "03/04/2001"],
    "at": ["9:30", "10:45", "", "23:00"],
    "zip": ["00501", "00501", "10001", "10001"],
}
PLAIN = {
    "price": [1017, 2500, None, 5],
    "share": [0.45, 0.05, None, 0],
    "when": ["1999-12-31", "2000-02-01", None, "2001-04-03"],
    "at": [34200, 38700, None, 82800],
    "zip": ["00501", "00501", "10001", "10001"],
}


def rows_of(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def test_written_columns_give_the_tensors_of_plain_ones(tmp_path: Path) -> None:
    written, plain = fit(rows_of(WRITTEN)), fit(rows_of(PLAIN))
    expected = plain.encode_inputs(rows_of(PLAIN))
    written.save(tmp_path)
    # the rule is saved, and new rows are read by it: all of them, and one by itself
    again = TableProcessor.load(tmp_path)
    assert again.notes == written.notes
    for name, values in again.encode_inputs(rows_of(WRITTEN)).items():
        torch.testing.assert_close(values, expected[name])
        alone = again.encode_inputs([rows_of(WRITTEN)[1]])[name]
        torch.testing.assert_close(alone[0], expected[name][1])
    with pytest.raises(DataError, match=r"column 'when' holds '12/31/1999'; .*or 31/05/2024, or s"):
        again.encode_inputs([rows_of(WRITTEN)[0] | {"when": "12/31/1999"}])
    with pytest.raises(DataError, match=r"column 'share' holds '45'; .*allowed: a number and '%'"):
        again.encode_inputs([rows_of(WRITTEN)[0] | {"share": "45"}])


def test_what_is_ambiguous_is_refused_and_the_remedy_works() -> None:
    rows = [{"x": text} for text in ("1,5", "1,234", "2,5")]
    with pytest.raises(
        DataError, match=r"training split: column 'x' holds .*: processor.decimal: \".\" or \",\"."
    ):
        fit(rows)
    values = fit(rows, decimal=",", scaling="none").encode_inputs(rows)["inputs"]
    torch.testing.assert_close(values[:, 0], torch.tensor([1.5, 1.234, 2.5]))
    dates = [{"d": f"0{n}/02/2024"} for n in range(1, 9)]
    with pytest.raises(DataError, match=r"Set processor.day_first: true or false"):
        fit(dates)
    found = fit(dates, day_first=True, scaling="none").encode_inputs(dates)["inputs"]
    assert found.shape[1] == 4  # all in one month of one year
    marked = [{"x": text} for text in [*map(str, range(20)), *["none known"] * 5]]
    with pytest.raises(
        DataError, match=r"under processor.missing_values, such as \['none known'\]"
    ):
        fit(marked)
    found = fit(marked, missing_values=("none known",)).encode_inputs(marked)["inputs"]
    assert found[:, 1].tolist() == [0.0] * 20 + [1.0] * 5
    assert fit(marked, categorical=("x",), min_count=1).category_sizes == (22,)


def test_marks_that_are_named_are_missing_in_categories_too() -> None:
    rows = [{"c": text} for text in ("a", "b", "leer", "a", "b", "leer")]
    codes = fit(rows, missing_values=("leer",)).encode_inputs(rows)["categories"][:, 0]
    assert codes.tolist() == [1, 2, 0, 1, 2, 0]


def test_a_file_with_semicolons_and_decimal_commas(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a;y\n" + "".join(f"{n},{n:03};{n % 2}\n" for n in range(1, 40)))
    examples = TableSource(path=str(path), target="y", fraction=0.0).examples("train", tmp_path)
    assert isinstance(examples[0].inputs, Row)
    assert examples[0].inputs.separator == ";"
    with pytest.raises(DataError, match="the same sign can be the decimal one"):
        TableConfig().fit(lambda: iter(examples))
    fitted = TableConfig(decimal=",", scaling="none").fit(lambda: iter(examples))
    values = fitted.encode_inputs([example.inputs for example in examples])["inputs"][:, 0]
    np.testing.assert_allclose(values, [n + n / 1000 for n in range(1, 40)], rtol=1e-6)


# ---------------------------------------------------------------------------------------- warnings
def test_columns_that_give_the_target_away_are_said() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 200)
    rows = [
        {
            "copy": "abc"[label],
            "shifted": float(label * 10 + random.uniform(0, 5)),
            "noise": float(random.normal()),
            "half": int(label == 1),
            "row": n,
        }
        for n, label in enumerate(labels)
    ]
    notes = fit(rows, [f"class {label}" for label in labels]).notes
    told = [note for note in notes if "alone tells" in note]
    assert [note.split("'")[1] for note in told] == ["copy", "shifted"]
    assert "alone tells the target in 100.0% of the rows: if it is only known afterwards" in told[0]
    assert any(note.startswith("column 'row' grows or shrinks from row to row") for note in notes)
    # of a number
    targets = random.normal(size=200)
    rows = [
        {"exact": 3 * y + 1, "cube": y**3, "near": y + 0.05 * e}
        for y, e in zip(targets, random.normal(size=200), strict=True)
    ]
    told = [note for note in fit(rows, targets.tolist()).notes if "alone tells" in note]
    assert [note.split("'")[1] for note in told] == ["exact", "cube"]


def test_dropped_columns_say_why() -> None:
    rows = [
        {"id": f"k{n}", "one": 1, "gone": None, "rare": f"r{n // 2}", "x": n % 7} for n in range(40)
    ]
    dropped = fit(rows, min_count=3).dropped
    assert dropped == {
        "id": "is different in every row, like a name or an id,",
        "one": "does not vary",
        "gone": "is empty",
        "rare": "has no two categories that are common",
    }


def test_categories_that_differ_in_case_alone_are_said() -> None:
    rows = [{"c": text} for text in ("low", "Low", "high", "high ", "low", "Low")]
    assert fit(rows).notes == (
        "column 'c': 'Low', 'low' differ in upper and lower case alone, and are different"
        " categories",
    )


def test_rare_categories_are_counted() -> None:
    rows = [{"c": text} for text in [*"aabb", *(f"rare {n}" for n in range(6))]]
    assert fit(rows).notes == (
        "column 'c': 6 of 10 values are rarer than processor.min_count 2, and read as one unknown"
        " category",
    )


# ----------------------------------------------------------------------------------------- targets
def test_rows_without_a_label_are_counted_in_the_error() -> None:
    examples = [Example(str(n), {"x": n}, "ab "[n % 3], f"t.csv row {n}") for n in range(9)]
    table = TableConfig().fit(lambda: iter(examples))
    with pytest.raises(
        DataError, match=r"t.csv row 2: an example has no label, as 3 of 9 have none. Give it one"
    ):
        Classify().fit_processor(table, lambda: iter(examples))


def test_one_class_in_several_spellings_is_one_class() -> None:
    found = SingleLabel.fit(["neg ", "neg", "pos", "neg", b"pos", "Pos"])
    assert (found.labels, found.counts) == (("Pos", "neg", "pos"), (1, 3, 2))
    assert found.notes == (
        "labels: 2 of 6 are another spelling of a class, and read as it: 'neg ' 1, b'pos' 1",
        "labels: 'pos', 'Pos' differ in upper and lower case alone, and are different classes:"
        " write them alike if they are one",
    )
    numbers = SingleLabel.fit([0.0, "0", "1.0", 1, True, False])
    assert numbers.labels == ("0", "1", "false", "true")
    assert numbers.encode(["1", 1.0, "1.00", "TRUE"]).tolist() == [1, 1, 1, 3]
    # runs of before saved other spellings
    assert SingleLabel(["0.0", "True"]).encode([0, "true"]).tolist() == [0, 1]
    assert "'NA' is a class here" in SingleLabel.fit(["NA", "b"]).notes[0]


def test_a_wrong_number_gets_no_hint_of_another_number() -> None:
    with pytest.raises(DataError, match=r"label '10' is none of the training split's; known: 0, 1"):
        SingleLabel(["0", "1"]).encode([10])
    with pytest.raises(DataError, match=r"did you mean 'high'"):
        SingleLabel(["low", "high"]).encode(["hihg"])


@pytest.mark.parametrize(
    ("labels", "target", "remedy"),
    [
        (range(30), 31, "To predict numbers set task: regression; or name another target"),
        (map("id{}".format, range(30)), "x", "Name another target: nearly every example has a"),
        ([n % 21 for n in range(63)], 31, "Correct it, or add it to the training data"),
        (range(20), 31, "Correct it, or add it to the training data"),
    ],
)
def test_what_to_do_where_nearly_every_label_differs(
    labels: Iterable[Any], target: Any, remedy: str
) -> None:
    with pytest.raises(DataError, match=f"is none of the training split's.*{remedy}"):
        SingleLabel.fit(labels).encode([target])


@pytest.mark.parametrize(
    ("targets", "separator"),
    [
        (["a|b", "a | b", "b|a ", "a"], "|"),
        (["a;b", "b; a", "a"], ";"),
        (["a, b", "b,a", "a"], ","),
        (['["a", "b"]', "['b', 'a']", "[]"], "|"),
        ([["a", "b "], ("a",), None], "|"),
    ],
)
def test_several_labels_in_one_text(targets: list[Any], separator: str) -> None:
    found = MultiLabel.fit(targets)
    assert (found.labels, found.separator) == (("a", "b"), separator)
    again = targets_from_json(found.to_json())
    assert torch.equal(again.encode(targets), found.encode(targets))
    assert found.encode(targets)[0].tolist() == [1, 1]
    with pytest.raises(DataError, match=r"'a;b' and 'b, c' have two signs .* Put a bar between"):
        MultiLabel.fit(["a;b", "b, c"])


def test_targets_are_numbers_as_they_are_written() -> None:
    examples = [
        Example(str(n), {"x": n}, text, f"t.csv row {n}")
        for n, text in enumerate(["1,234.5", "2,000", "$3", "(1)"])
    ]
    task = Regression()
    processor = task.fit_processor(
        TableConfig().fit(lambda: iter(examples)), lambda: iter(examples)
    )
    targets = processor.targets
    assert isinstance(targets, RegressionTargets)
    assert targets.mean == (809.125,)
    assert "column 'target': numbers; 4 written like '1,234.5'" in processor.notes[-1]
    again = targets_from_json(targets.to_json())
    assert isinstance(again, RegressionTargets)
    assert again.formats == targets.formats
    wanted = task.encode(examples, processor)["targets"]
    assert targets.decode(wanted)[:, 0].tolist() == pytest.approx([1234.5, 2000, 3, -1], abs=1e-3)
    open_sign = [Example(str(n), {"x": n}, text) for n, text in enumerate(["1,5", "1,234"])]
    table = TableConfig().fit(lambda: iter(open_sign))
    with pytest.raises(DataError, match=r"targets: column 'target' holds .*task.decimal: "):
        task.fit_processor(table, lambda: iter(open_sign))
    fitted = Regression(decimal=",").fit_processor(table, lambda: iter(open_sign))
    assert fitted.targets.mean == pytest.approx((1.367,))


@pytest.mark.parametrize("gone", ["", "NA", "NaN", "null", None, math.nan, np.float32("nan")])
def test_an_example_may_lack_a_target_in_every_format(gone: Any) -> None:
    task = Multitask(tasks={"kind": "classify", "size": "regression"})
    targets = [{"kind": "a", "size": "1"}, {"kind": gone, "size": "2"}, {"kind": "b", "size": gone}]
    examples = [Example(str(n), {"x": n}, target) for n, target in enumerate(targets)]
    table = TableConfig().fit(lambda: iter(examples))
    processor = task.fit_processor(table, lambda: iter(examples))
    assert isinstance(processor, Labelled)
    batch = task.encode(examples, processor)
    assert batch["kind/present"].tolist() == [True, False, True]
    assert batch["size/present"].tolist() == [True, True, False]
    assert [note.split(" (")[0] for note in processor.notes[-2:]] == [
        "task kind: 1 of 3 examples have no target",
        "task size: 1 of 3 examples have no target",
    ]


@pytest.mark.slow
def test_what_is_inspected_is_what_the_files_hold_now(tmp_path: Path) -> None:
    from groundup.recipe.recipe import load_recipe
    from groundup.training.fit_processor import keep_processor

    path = tmp_path / "t.csv"
    recipe = {
        "name": "t",
        "model": {"name": "mlp", "hidden": [4]},
        "task": "classify",
        "processor": "table",
        "data": {"name": "table", "path": str(path), "target": "y"},
        "training": {"batch_size": 4, "steps": 1},
    }
    path.write_text("x,y\n" + "".join(f"{n % 3},{n % 2}\n" for n in range(60)))
    assert keep_processor(load_recipe(recipe))[0].notes == ()
    path.write_text("x,y\n" + "".join(f"{n % 3}%,{n % 2}\n" for n in range(60)))
    assert "unit '%'" in keep_processor(load_recipe(recipe))[0].notes[0]


def test_targets_with_a_unit_are_no_classes_to_draw_by(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x,y\n" + "".join(f"{n * 7 % 100},{n}%\n" for n in range(100)))
    source = TableSource(path=str(path), target="y")
    assert len(source.examples("validation", tmp_path)) > 3
