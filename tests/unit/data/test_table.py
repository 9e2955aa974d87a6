"""Tables: what is read, how it is split, and what columns become."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from groundup.data.sources.table import TableSource


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(
            file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ","
        )
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def numbered(count: int = 200) -> list[dict[str, Any]]:
    return [
        {"n": n, "user": f"u{n % 9}", "day": f"2024-01-{n % 28 + 1:02}", "y": n / 4}
        for n in range(count)
    ]


# --------------------------------------------------------------------------------------- the source
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_rows_are_read(tmp_path: Path, suffix: str) -> None:
    rows = numbered(40)
    path = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        pytest.importorskip("pyarrow.parquet").write_table(
            pytest.importorskip("pyarrow").Table.from_pylist(rows), path
        )
    else:
        write(path, rows)
    source = TableSource(path=str(path), target="y", ignore=("day",), fraction=0.3)
    found = [e for split in ("train", "validation") for e in source.examples(split, tmp_path)]  # type: ignore[arg-type]
    assert len(found) == 40
    example = next(e for e in found if e.origin == f"{path} row 12")
    assert dict(example.inputs) in ({"n": "11", "user": "u2"}, {"n": 11, "user": "u2"})
    assert float(example.target) == 11 / 4
    assert len(example.inputs) == 2
    with pytest.raises(KeyError):
        example.inputs["y"]


def test_columns_that_are_named_and_several_targets(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", numbered(30))
    source = TableSource(path=path, target=("y", "n"), columns=("user",))
    example = source.examples("train", tmp_path)[0]
    assert list(example.inputs) == ["user"]
    assert set(example.target) == {"y", "n"}


def test_files_of_a_folder_and_of_a_list_are_one_table(tmp_path: Path) -> None:
    rows = numbered(60)
    (tmp_path / "parts").mkdir()
    paths = [write(tmp_path / "parts" / f"{n}.csv", rows[n * 20 : n * 20 + 20]) for n in range(3)]
    for given in (str(tmp_path / "parts"), paths):
        source = TableSource(path=given, target="y")
        found = [e for split in ("train", "validation") for e in source.examples(split, tmp_path)]  # type: ignore[arg-type]
        assert sorted(int(e.inputs["n"]) for e in found) == list(range(60))
        assert len({e.name for e in found}) == 60


def test_a_group_stays_on_one_side(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", numbered())
    source = TableSource(path=path, target="y", group_column="user", fraction=0.4)
    users = {
        s: {e.inputs["user"] for e in source.examples(s, tmp_path)} for s in ("train", "validation")
    }  # type: ignore[arg-type]
    assert not users["train"] & users["validation"]
    assert len(users["train"] | users["validation"]) == 9


@pytest.mark.parametrize("column", ["n", "day"])
def test_the_latest_rows_are_held_out(tmp_path: Path, column: str) -> None:
    path = write(tmp_path / "rows.csv", numbered())
    source = TableSource(path=path, target="y", time_column=column, fraction=0.25)
    sides = [
        [e.inputs[column] for e in source.examples(s, tmp_path)] for s in ("train", "validation")
    ]  # type: ignore[arg-type]
    before, after = ([float(v) if column == "n" else v for v in side] for side in sides)
    assert max(before) < min(after)
    assert 50 <= len(after) <= 57


def test_another_seed_holds_out_others_and_files_can_be_held_out(tmp_path: Path) -> None:
    path, other = write(tmp_path / "a.csv", numbered()), write(tmp_path / "b.csv", numbered(7))
    held_out = [
        {
            e.name
            for e in TableSource(path=path, target="y", seed=seed).examples("validation", tmp_path)
        }
        for seed in (0, 0, 1)
    ]
    assert held_out[0] == held_out[1] != held_out[2]
    source = TableSource(path=path, target="y", validation=other)
    assert [len(source.examples(split, tmp_path)) for split in ("train", "validation")] == [200, 7]  # type: ignore[arg-type]


def test_rows_of_training_that_are_held_out_too_are_counted(tmp_path: Path) -> None:
    rows = numbered()
    write(tmp_path / "train.csv", rows)
    write(tmp_path / "Test.csv", [*rows[:7], *({**row, "n": -1} for row in rows[7:])])
    card = TableSource(path=str(tmp_path), target="y").card(tmp_path / "cache")
    (warning,) = card["warnings"]
    assert warning.startswith("7 of the training split's rows are in validation or in the test as")


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    source = TableSource(
        path=write(tmp_path / "a.csv", numbered(50)), target="y", validation=str(tmp_path)
    )
    assert len(source.examples("train", tmp_path)) == 50
    write(tmp_path / "a.csv", numbered(51))
    assert len(source.examples("train", tmp_path)) == 51


def test_the_card_lists_columns(tmp_path: Path) -> None:
    rows = [{**row, "gap": "" if n % 4 else n, "same": 1} for n, row in enumerate(numbered())]
    card = TableSource(path=write(tmp_path / "a.csv", rows), target="y", time_column="n").card(
        tmp_path
    )
    assert {name: about["kind"] for name, about in card["columns"].items()} == {
        **{
            "n": "numeric",
            "user": "categorical",
            "day": "date",
            "gap": "numeric",
            "same": "numeric",
        }
    }
    assert card["columns"]["gap"]["missing"] == pytest.approx(0.75)
    assert card["columns"]["user"] == {"kind": "categorical", "missing": 0.0, "distinct": 9}
    assert card["constant_columns"] == ["same"]
    assert card["targets"]["y"]["highest"] == pytest.approx(179 / 4)
    assert (card["train"], card["validation"]) == ({"examples": 180}, {"examples": 20})
    labels = TableSource(path=str(tmp_path / "a.csv"), target="user", time_column="n").card(
        tmp_path
    )["targets"]["user"]
    assert sum(labels["labels"].values()) == 180
    json.dumps(card)


def test_a_folder_whose_files_have_other_columns_is_predicted_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("id,x\n3,30\n", encoding="utf-8")
    (tmp_path / "train.csv").write_text("id,x,y\n1,10,a\n2,20,b\n", encoding="utf-8")
    rows = TableSource(path=str(tmp_path), target="y").unlabelled(str(tmp_path))
    assert [row.columns["x"] for row in rows] == ["30", "10", "20"]


@pytest.mark.parametrize(("column", "constant"), [("1,1", True), ("1,", False), (",", True)])
def test_what_is_there_or_missing_is_no_constant(
    tmp_path: Path, column: str, constant: bool
) -> None:
    values = column.split(",")
    rows = [{**row, "flag": values[n % 2]} for n, row in enumerate(numbered(40))]
    card = TableSource(path=write(tmp_path / "a.csv", rows), target="y").card(tmp_path)
    assert card["constant_columns"] == ["flag"] * constant


@pytest.mark.parametrize(
    ("header", "named"), [("5.1,3,y", "5.1, 3"), ("x1,2023,y", "2023"), ("a,b,y", "")]
)
def test_a_header_that_holds_numbers_is_said(tmp_path: Path, header: str, named: str) -> None:
    text = "".join(f"{n},{n % 7},{n / 2}\n" for n in range(40))
    (tmp_path / "a.csv").write_text(f"{header}\n{text}", encoding="utf-8")
    card = TableSource(path=str(tmp_path / "a.csv"), target="y").card(tmp_path)
    said = "if the first line is a row, put a line of names above it"
    warnings = [f"the header has columns called {named}: {said}"] if named else []
    assert card.get("warnings", []) == warnings
