"""Every message of tables and regression."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import validate
from groundup.core.values import Example
from groundup.data.sources.table import TableSource
from groundup.media.table_values import Row
from groundup.models.mlp import MLPConfig
from groundup.processors.labelled import Labelled
from groundup.processors.table import TableConfig, TableProcessor
from groundup.processors.targets import RegressionTargets
from groundup.tasks.regression import Regression

ROWS = "".join(f"{n},{'ab'[n % 2]},{n * 2}\n" for n in range(50))


def source(path: Path, text: str | None = None, **settings: Any) -> TableSource:
    if text is not None:
        path.write_text(text, "utf-8")
    return TableSource(**{"path": str(path), "target": "y", **settings})


def read(path: Path, text: str | None = None, **settings: Any) -> list[Example]:
    return source(path, text, **settings).examples("train", path.parent)


def fit(rows: list[Any], **settings: Any) -> TableProcessor:
    return TableConfig(**settings).fit(lambda: (Example(str(n), row) for n, row in enumerate(rows)))


# --------------------------------------------------------------------------------------- the source
def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with pytest.raises(DataError, match=r"there is no such file or folder"):
        read(path)
    with pytest.raises(DataError, match=r"the file is empty \(0 bytes\)"):
        read(path, "")
    with pytest.raises(DataError, match=r"nothing to read: no rows"):
        read(path, "x,y\n")
    with pytest.raises(
        DataError, match=r"rows.csv row 2 \(ends on line 3\): the row has 3 cells and the header 2"
    ):
        read(path, "x,y\n1,2\n1,2,3\n")
    with pytest.raises(
        DataError, match=r"the header has 2 columns named 'x'. Give every column a name of its own"
    ):
        read(path, "x,y,x\n1,2,3\n")
    with pytest.raises(
        DataError, match=r"the suffix '.xlsx' is not a kind of file .*allowed: .csv, .tsv, .parquet"
    ):
        read(tmp_path / "rows.xlsx", "x")


@pytest.mark.parametrize(
    ("text", "remedy", "corrected"),
    [
        ("# by R\nx,y\n", "The first line, '# by R', is no header: remove the lines", "x,y\n"),
        ("sep=;\nx;y\n", "The first line, 'sep=.*', is no header: remove the lines", "x;y\n"),
        ("Sales\nx,y\n", "If 'Sales' is a title, remove the lines above the header", "x,y\n"),
        ("Sales,\nx,y,z\n", "If 'Sales' is a title, remove the lines", "x,y\n"),
        ("Sales,,\nx,y,z\n", "named ''.*if lines of a title are above the header", "x,y\n"),
        ("x,y\n1,2,\n", "Remove the separators at the ends of the rows, or end the", "x,y,\n"),
    ],
)
def test_lines_that_are_no_table(tmp_path: Path, text: str, remedy: str, corrected: str) -> None:
    cut = ROWS.replace(",a,", ",").replace(",b,", ",")
    rows = cut.replace(",", ";") if ";" in text else cut
    with pytest.raises(DataError, match=remedy):
        read(tmp_path / "rows.csv", text + rows)
    if corrected.endswith(",\n"):
        rows = cut.replace("\n", ",\n")
    assert read(tmp_path / "rows.csv", corrected + rows)[0].inputs["x"] == "0"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"target": "yy"},
            "there is no column 'yy'; did you mean 'y'. columns: x, city, y. Correct data.target",
        ),
        ({"columns": ("x", "town")}, "there is no column 'town'; .*Correct data.columns"),
        ({"ignore": ("z",)}, "there is no column 'z'; .*Correct data.ignore"),
        ({"group_column": "z"}, "there is no column 'z'; .*Correct data.group_column"),
        ({"time_column": "z"}, "there is no column 'z'; .*Correct data.time_column"),
        (
            {"ignore": ("x", "city")},
            "no column is left to predict from. Name fewer under data.ignore",
        ),
        (
            {"time_column": "city"},
            r"rows.csv row 1: time_column 'city' holds 'a'; allowed: a number in every row, or a date",
        ),
        (
            {"fraction": 1e-9},
            r"nothing is left for validation \(fraction 1e-09\)",
        ),
    ],
)
def test_columns_that_are_not_there(tmp_path: Path, settings: dict[str, Any], problem: str) -> None:
    found = source(tmp_path / "rows.csv", "x,city,y\n" + ROWS, **settings)
    with pytest.raises(DataError, match=problem):
        found.examples("validation", tmp_path)


def test_a_column_missing_among_held_out_files(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("x,z\n1,2\n")
    found = source(
        tmp_path / "rows.csv", "x,city,y\n" + ROWS, validation=str(tmp_path / "other.csv")
    )
    with pytest.raises(DataError, match=r"there is no column 'y'; .*columns: x, z"):
        found.examples("validation", tmp_path)


def test_rows_without_a_group(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"rows.csv row 2: group_column 'g' is empty. Give each row its group"
    ):
        read(tmp_path / "rows.csv", "g,x,y\na,1,2\n,1,2\n", group_column="g")


def test_files_of_different_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    for text, problem in (
        (
            "x\n1\n",
            r"no column 'y'; the first file, .*a\.csv, has x, y.*such as data\.path: .*b\.csv",
        ),
        ("x,y,z\n1,2,3\n", "column, 'z'"),
    ):
        (tmp_path / "b.csv").write_text(text)
        with pytest.raises(DataError, match=rf"b.csv: has .*{problem}"):
            read(tmp_path)


def test_nested_values(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"x": n, "tags": ["a"] if n == 1 else None, "y": n} for n in range(50)]
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    with pytest.raises(
        DataError, match=r"row 2: column 'tags' holds list \['a'\]; allowed: numbers, text, dates"
    ):
        read(path)
    assert read(path, ignore=("tags",))


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"target": []}, "target is an empty list. Name the column to predict"),
        ({"columns": ["x", "y"]}, "columns names the target 'y', which would give it away"),
        ({"columns": ["x"], "ignore": ["z"]}, "ignore has no effect with columns"),
        (
            {"validation": "b", "fraction": 0.3},
            "fraction has no effect with validation",
        ),
        (
            {"validation": "b", "time_column": "t"},
            "time_column has no effect with validation",
        ),
        ({"time_column": "t", "group_column": "g"}, "group_column has no effect with time_column"),
        ({"time_column": "t", "seed": 3}, "seed has no effect with time_column"),
    ],
)
def test_settings_without_effect(section: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        validate(TableSource, {"path": "a", "target": "y", **section}, "recipe.data")


# ------------------------------------------------------------------------------------ the processor
def test_columns_that_cannot_be_learned() -> None:
    with pytest.raises(DataError, match=r"there are no training examples"):
        fit([])
    with pytest.raises(
        DataError,
        match=r"no column of the training split \(2 rows\) tells its rows apart: .*does not vary",
    ):
        fit([{"x": 1, "c": "a", "rare": "p"}, {"x": 1, "c": "a", "rare": "q"}])
    with pytest.raises(
        DataError, match=r"recipe.processor.numeric: there is no column 'agee'; did you mean 'age'"
    ):
        fit([{"age": 1}, {"age": 2}], numeric=("agee",))
    with pytest.raises(DataError, match=r"recipe.processor.dates: there is no column 'day'"):
        fit([{"age": 1}, {"age": 2}], dates=("day",))
    with pytest.raises(
        RecipeError, match=r"column 'a' is named 2 times among numeric, categorical and dates"
    ):
        validate(TableConfig, {"numeric": ["a"], "dates": ["a"]}, "recipe.processor")


def test_words_among_numbers() -> None:
    columns = {"age": [*range(40), "old"], "ok": ["yes", "no"] * 20 + ["yes"]}
    rows = [Row(columns, n, f"people.csv row {n + 1}") for n in range(41)]
    with pytest.raises(
        DataError,
        match=(
            r"people.csv row 41: column 'age' holds 'old'; .* kind numeric; allowed: a number, or"
            r" nothing"
        ),
    ):
        fit(rows)
    assert fit(rows, categorical=("age",), min_count=1)
    fitted = fit(rows[:-1])
    with pytest.raises(
        DataError, match=r"row 2: column 'ok' holds 'maybe'; .*allowed: true or false"
    ):
        fitted.encode_inputs([{"age": 3, "ok": "yes"}, {"age": 3, "ok": "maybe"}])
    with pytest.raises(
        DataError,
        match=r"row 2: column 'day' holds '31.13.2024'; .*allowed: a date such as 2024-05",
    ):
        fit([{"day": "31.12.2024"}, {"day": "31.13.2024"}], dates=("day",))
    with pytest.raises(
        DataError, match=r"row 1: column 'day' holds 1700000000000.0; .*seconds since 1970"
    ):
        fit([{"day": 1.7e12}, {"day": 1}], dates=("day",))


def test_missing_values_that_are_forbidden() -> None:
    rows: list[dict[str, Any]] = [{"x": 1, "c": "a"}, {"x": 2, "c": "b"}] * 2
    fitted = fit(rows, missing="stop")
    for row, column, value in (
        ({"x": "nan", "c": "a"}, "x", "'nan'"),
        ({"x": float("nan"), "c": "a"}, "x", "nan"),
        ({"x": 1, "c": None}, "c", "None"),
    ):
        with pytest.raises(
            DataError, match=f"row 2: column '{column}' holds {value}, which is a missing value"
        ):
            fitted.encode_inputs([rows[0], row])
    with pytest.raises(
        DataError, match=r"row 5: column 'c' holds '', .*Fill it in, remove the row, or set missing"
    ):
        fit([*rows, {"x": 1, "c": ""}], missing="stop")


def test_rows_that_do_not_fit() -> None:
    fitted = fit([{"age": 1}, {"age": 2}])
    with pytest.raises(
        DataError,
        match=r"row 2: there is no column 'age'; did you mean 'agee'. columns: agee. Give",
    ):
        fitted.encode_inputs([{"age": 1}, {"agee": 2}])
    with pytest.raises(DataError, match=r"file row 9: there is no column 'age'; columns: x"):
        fitted.encode_inputs([Row({"x": [1]}, 0, "file row 9")])
    with pytest.raises(
        DataError,
        match=r"row 1: is 'hello'; allowed: an object of column -> value. Write for example",
    ):
        fitted.encode_inputs(["hello"])
    with pytest.raises(
        DataError, match=r"row 1: column 'age' holds list \[3\]; allowed: numbers, text, dates"
    ):
        fitted.encode_inputs([{"age": [3]}])


def test_a_damaged_processor(tmp_path: Path) -> None:
    (tmp_path / "processor.json").write_text(
        json.dumps({"name": "table", "columns": [{"name": "x"}]})
    )
    with pytest.raises(DataError, match=r"is damaged: KeyError 'parts'. Train the run again"):
        TableProcessor.load(tmp_path)


def test_a_model_for_other_categories() -> None:
    rows = [{"c": "a"}, {"c": "b"}] * 2
    with pytest.raises(
        RecipeError, match=r"category_sizes: is \[9\], but the data has \[3\]. Remove it"
    ):
        MLPConfig(category_sizes=(9,)).complete_from(
            Labelled(fit(rows), RegressionTargets([0.0], [1.0]), 0)
        )


# ----------------------------------------------------------------------------------------- the task
def test_targets_that_cannot_be_learned() -> None:
    task = Regression()

    def prepare(*targets: Any) -> Any:
        examples = [
            Example(str(n), {"x": n}, target, f"t.csv row {n}") for n, target in enumerate(targets)
        ]
        processor = TableConfig().fit(lambda: iter(examples))
        return task.fit_processor(processor, lambda: iter(examples))

    with pytest.raises(
        DataError, match=r"the target is 3 in every training example; there is nothing to predict"
    ):
        prepare(3, "3.0", 3.0)
    with pytest.raises(DataError, match=r"target 'b' is 0 in every training example"):
        prepare({"a": 1, "b": 0}, {"a": 2, "b": 0})
    for wrong, shown in (
        ("high", "'high'"),
        (None, "None"),
        ("", "''"),
        ("inf", "'inf'"),
        (float("nan"), "nan"),
    ):
        with pytest.raises(
            DataError, match=f"t.csv row 1: the target is {shown}; allowed: a finite number"
        ):
            prepare(1, wrong, 2)
    with pytest.raises(
        DataError, match=r"t.csv row 1: target 'a' is 'x'; allowed: a finite number"
    ):
        prepare({"a": 1}, {"a": "x"})
    with pytest.raises(
        DataError, match=r"t.csv row 2: has 1 targets; allowed: 2, as the training examples have"
    ):
        prepare([1, 2], [3, 4], [5])
    with pytest.raises(DataError, match=r"example 0: the target is 'x'"):
        task.encode([Example("0", {"x": 1}, "x")], prepare(1, 2))
    with pytest.raises(
        RecipeError,
        match=r'delta has no effect with objective: "mse"; it applies when objective is "hub',
    ):
        validate(Regression, {"delta": 2.0}, "recipe.task")


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("1,x,2\n3,z,4\n", "If the first line, '1, x, 2', is a row and no header"),
        ("a b y\n1 2 3\n", "The header looks separated by spaces"),
        ("a,b,Y\n1,2,3\n", "did you mean 'Y'"),
        ("a,b,y\n1,2,3\n4,5\n", "Fill in the cells that are missing"),
        ("a,b,y\n1,2,3\n# checked by me\n", "If '# checked by me' is a remark, remove the line"),
    ],
)
def test_what_to_do_about_headers_and_rows(tmp_path: Path, text: str, remedy: str) -> None:
    with pytest.raises(DataError, match=re.escape(remedy)):
        read(tmp_path / "rows.csv", text)


def test_a_target_of_which_every_value_differs(tmp_path: Path) -> None:
    text = "x,y\n" + "".join(f"{n},id{n}\n" for n in range(40))
    with pytest.raises(DataError, match="'y' has 40 different values in 40 rows: name another"):
        source(tmp_path / "rows.csv", text).examples("validation", tmp_path)


def test_words_where_numbers_are_predicted() -> None:
    rows = [Example(str(n), {"x": n}, ["high", "low"][n % 2]) for n in range(9)]
    with pytest.raises(DataError, match=r"no value of the target is a number.*set task: classify"):
        Regression().fit_processor(fit([row.inputs for row in rows]), lambda: iter(rows))
