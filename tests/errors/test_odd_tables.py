"""Messages about odd tables: of other forms, and with settings and values that mean nothing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup.core.errors import DataError, RecipeError, did_you_mean
from groundup.core.settings import validate
from groundup.core.values import Example
from groundup.data.sources.table import TableSource
from groundup.media.table_values import Row, as_date
from groundup.models.mlp import MLPConfig
from groundup.processors.class_targets import SingleLabel
from groundup.processors.image import ImageConfig
from groundup.processors.table import TableConfig, TableProcessor
from groundup.recipe.recipe import load_recipe
from groundup.tasks.regression import Regression


def read(path: Path, text: str, **settings: Any) -> list[Example]:
    path.write_text(text, "utf-8")
    return TableSource(path=str(path), target="y", **settings).examples("train", path.parent)


def fit(rows: list[Any], **settings: Any) -> TableProcessor:
    return TableConfig(**settings).fit(lambda: (Example(str(n), row) for n, row in enumerate(rows)))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("| x | y |\n|---|---|\n| 1 | a |\n", "drawn with bars and dashes.* Write it as .csv"),
        (" x | y \n---+---\n 1 | a\n", "drawn with bars and dashes"),
        ("@relation r\n@attribute x numeric\n", r"Weka \(ARFF\), not cells.* header of a .csv"),
        ('[{"x": 1, "y": 2}]', "looks like a list of JSON, not cells. Write its objects as rows"),
        ("1 1:0.5 2:3\n-1 1:2\n", r"lines of libsvm .*load_svmlight_file"),
        ("x,y\n1,a\n<<<<<<< HEAD\n2,b\n", "row 2 .*a conflict that git left: solve it"),
        ("name,s1,s2\nx,1,2\ny,a,b\n", "no column 'y'.*first column holds 'y' .* swapped"),
    ],
)
def test_other_forms_of_tables(text: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=problem):
        read(tmp_path / "rows.csv", text)


def test_a_table_drawn_with_bars_that_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="drawn with bars and dashes"):
        read(tmp_path / "rows.csv", "x | y \n---|---\n1 | a\n", separator="|")


def test_a_tab_in_two_letters(tmp_path: Path) -> None:
    data = validate(TableSource, {"path": "a", "target": "y", "separator": "\\t"}, "recipe.data")
    assert data.separator == "\t"


def test_a_target_named_twice() -> None:
    with pytest.raises(RecipeError, match=r"target names 'y' twice. Name it once"):
        validate(TableSource, {"path": "a", "target": ["y", "y"]}, "recipe.data")


def test_a_single_row() -> None:
    with pytest.raises(DataError, match=r"\(1 rows\).*column 'x' does not vary.*data.limit"):
        fit([{"x": 1}])


def test_columns_named_as_of_a_kind_of_which_no_value_is() -> None:
    rows = [{"x": n, "c": "ab"[n % 2]} for n in range(8)]
    with pytest.raises(
        DataError, match=r"processor.numeric: no value of column 'c' is a number, such as 'a'"
    ):
        fit(rows, numeric=("c",))
    with pytest.raises(DataError, match=r"no column 'y'.* Name columns to predict from alone"):
        fit(rows, numeric=("y",))


def test_rows_whose_header_is_none() -> None:
    processor = fit([{"x": n, "c": "ab"[n % 2]} for n in range(8)])
    with pytest.raises(DataError, match="If the first line is a row, put a line with the names"):
        processor.encode_inputs([{"3": "4", "a": "b"}])
    with pytest.raises(DataError, match=r"The header holds semicolons: set data.separator"):
        processor.encode_inputs([{"x;c": "3;a"}])


def test_times_where_numbers_are_predicted() -> None:
    row = Row({"x": list(range(9))}, 0, target="lap")
    rows = [Example(str(n), row, f"0:0{n}:20") for n in range(9)]
    with pytest.raises(DataError, match=r"target 'lap' is a number.* 20 seconds for '0:00:20'"):
        Regression().fit_processor(fit([{"x": n} for n in range(9)]), lambda: iter(rows))


def test_widths_of_no_neuron() -> None:
    with pytest.raises(RecipeError, match=r"model.hidden.0: got 0; allowed: greater than 0"):
        validate(MLPConfig, {"hidden": [0]}, "recipe.model")


@pytest.mark.parametrize(
    ("values", "note"),
    [
        (["red|blue", "blue", "red|green"], "'red|blue' look like several in one cell"),
        (["&nbsp;5", "&nbsp;6"], "'&nbsp;5' are no numbers, dates or times"),
    ],
)
def test_cells_that_are_read_as_categories(values: list[str], note: str) -> None:
    processor = fit([{"c": value} for value in values * 3])
    assert any(note in each for each in processor.notes)


def test_labels_that_can_mean_the_same() -> None:
    targets = SingleLabel.fit(["true", "1", "0"])
    assert any("'true', '1' can mean the same" in note for note in targets.notes)


def test_moments_of_numpy() -> None:
    assert as_date(np.datetime64("1970-01-02")) == 86400.0
    assert math.isnan(as_date(np.datetime64("NaT", "s")) or 0.0)


def test_names_of_runs_and_numbers_that_cannot_be() -> None:
    with pytest.raises(RecipeError, match=r"size.0: got 0; allowed: greater than 0"):
        validate(ImageConfig, {"size": [0, 4]}, "recipe.processor")
    with pytest.raises(RecipeError, match=r"Write a decimal point: 0.001"):
        validate(MLPConfig, {"dropout": "0,001"}, "recipe.model")
    assert did_you_mean("classification", ["token_classification", "classify"]) == (
        "did you mean 'classify'? "
    )


@pytest.mark.parametrize("name", [".", ".."])
def test_a_run_named_as_a_folder_above(name: str) -> None:
    with pytest.raises(RecipeError, match=r"recipe.name: got"):
        load_recipe({"name": name, "model": {"name": "mlp"}})
