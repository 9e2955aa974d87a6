"""What is between the cells of a file: by its suffix, by its header, or as the recipe says."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from groundup.core.errors import DataError
from groundup.data.reading.files import Cells, read_records
from groundup.data.sources.labelled_text import LabelledText
from groundup.data.sources.table import TableSource


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_a_header_makes_the_separator_certain(
    tmp_path: Path, separator: str, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_text("a;b;y\n0,25;x;1\n1,5;z;0\n".replace(",", ".").replace(";", separator))
    with caplog.at_level(logging.INFO, "groundup"):
        rows = [record.fields for record in read_records(path)]
        list(read_records(path))
    assert rows == [{"a": "0.25", "b": "x", "y": "1"}, {"a": "1.5", "b": "z", "y": "0"}]
    usual = {".csv": ",", ".tsv": "\t"}[suffix]
    # said once, however often the file is read
    assert caplog.text.count("the cells are separated by") == (separator != usual)
    # read as a whole, as tables are, it is the same
    table = TableSource(path=str(path), target="y", fraction=0.5)
    example = table.examples("train", tmp_path)[0]
    assert dict(example.inputs) in ({"a": "0.25", "b": "x"}, {"a": "1.5", "b": "z"})


def test_decimal_commas_do_not_count_as_separators(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a;y\n0,25;1\n1,5;0\n")
    assert [record.fields["a"] for record in read_records(path)] == ["0,25", "1,5"]


def test_one_column_of_text_stays_one_column(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text\nfirst; second\nthird\n")
    assert [record.fields for record in read_records(path)] == [
        {"text": "first; second"},
        {"text": "third"},
    ]


def test_a_long_cell_in_quotes_at_the_end_of_what_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a;b\n" + "1;2\n" * 48 + '3;"x\ny;z"\n')
    assert [record.fields for record in read_records(path)][-1] == {"a": "3", "b": "x\ny;z"}


def test_what_the_message_says_is_tried(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text;label\n" + "hello; you;a\n" + 'bye;"b"\n' * 9)
    settings = {"path": str(path), "fraction": 0.2}
    with pytest.raises(
        DataError, match=r'looks separated by a semicolon: .* set data.separator: ";"; else write'
    ):
        LabelledText(**settings).examples("train", tmp_path)
    with pytest.raises(DataError, match=r'no column .label.; .*set data.separator: ";"'):
        TableSource(**settings, target="label").examples("train", tmp_path)
    # then the row that is wrong is named
    for source in (
        LabelledText(**settings, separator=";"),
        TableSource(**settings, target="label", separator=";"),
    ):
        with pytest.raises(
            DataError, match=r"row 1 .*: the row has 3 cells and the header 2. Quot"
        ):
            source.examples("train", tmp_path)
    path.write_text("text;label\n" + '"hello; you";a\n' + 'bye;"b"\n' * 9)
    assert next(iter(read_records(path, cells=Cells(";")))).fields["text"] == "hello; you"


def test_a_cell_that_the_look_ahead_cuts_off_decides_nothing(tmp_path: Path) -> None:
    rows = "".join(f'"two\nlines {number}",pos\n' for number in range(40))
    (tmp_path / "rows.tsv").write_text("text,label\n" + rows, "utf-8")
    source = LabelledText(path=str(tmp_path), fraction=0.1)
    found = [row for split in source.splits() for row in source.examples(split, tmp_path)]
    assert {row.inputs for row in found} == {f"two\nlines {number}" for number in range(40)}
