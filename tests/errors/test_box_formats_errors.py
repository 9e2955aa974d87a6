"""Every message of boxes in Pascal VOC's XML, YOLO's texts and tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from boxed_pictures import BOXES, voc_text, write_pictures, write_table, write_voc, write_yolo

from groundup.core.errors import DataError
from groundup.core.values import Example
from groundup.data.sources.boxes import BoxesSource


def read(root: Path, cache: Path, **settings: Any) -> list[Example]:
    return BoxesSource(path=str(root), fraction=0.0, **settings).examples("train", cache)


def refused(root: Path, cache: Path, **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(root, cache, **settings)
    return str(caught.value)


def test_xml_that_is_refused(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "data")
    first = root / "Annotations" / "0.xml"
    good = first.read_text()
    first.write_text('<!DOCTYPE a [<!ENTITY b "c">]>' + good)
    assert "declares the entity 'b', which may expand without end" in refused(root, tmp_path)
    first.write_text('<!DOCTYPE a SYSTEM "file:///etc/passwd">' + good)
    assert "0.xml" not in good
    read(root, tmp_path)  # what it names is never read
    first.write_text(good[:-20])
    assert "0.xml: is not XML" in refused(root, tmp_path)
    first.write_text(good.replace("<xmin>3</xmin>", ""))
    found = refused(root, tmp_path)
    assert "0.xml object 1: has no numbers xmin, ymin, xmax, ymax in bndbox" in found
    first.write_text(good.replace("<name>cat</name>", "<name> </name>"))
    assert "0.xml object 1: has no name" in refused(root, tmp_path)
    (root / "JPEGImages" / "0.png").unlink()
    first.write_text(good)
    assert "0.xml: there is no picture 0.png" in refused(root, tmp_path)


def test_an_xml_of_another_kind(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "data")
    (root / "Annotations" / "0.xml").write_text("<list><annotation/></list>")
    found = refused(root, tmp_path)
    assert "0.xml: begins with <list>; allowed: <annotation>" in found


def test_a_picture_found_by_the_name_of_its_xml(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "data")
    (root / "Annotations" / "0.xml").write_text(voc_text("renamed.jpg", list(BOXES[0])))
    source = BoxesSource(path=str(root), fraction=0.0)
    assert len(source.examples("train", tmp_path)) == 4
    noted = source.card(tmp_path)["met_in_files"]
    assert noted == {"pictures found by the name of their file of boxes": 1}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 x 0.2", "line 1: is '0 0.5 0.5 x 0.2'; allowed: class cx cy w h"),
        ("0 0.5 0.5 0.2 0.2 0.9", "allowed: class cx cy w h, or class and a polygon's x y ..."),
        ("cat 0.5 0.5 0.2 0.2", "is 'cat 0.5 0.5 0.2 0.2'; allowed"),
        ("7 0.5 0.5 0.2 0.2", "the class is 7, but 2 are named, from 0 to 1"),
        (
            "0 20 15 10 8",
            "(15, 11) to (25, 19) reaches beyond 1: these look like pixels, where shares of the"
            " width and height are expected. Divide by the picture's size, or set data.units:"
            " pixels",
        ),
    ],
)
def test_lines_of_yolo(line: str, message: str, tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "data")
    (root / "labels" / "3.txt").write_text(line + "\n")
    assert message in refused(root, tmp_path)
    assert len(read(root, tmp_path, on_unreadable="skip")) == 3


def test_files_of_yolo(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "data")
    (root / "labels" / "9.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    assert "9.txt: there is no picture that this file is of" in refused(root, tmp_path)
    (root / "labels" / "9.txt").unlink()
    (root / "data.yaml").write_text("names: dog\n")
    found = refused(root, tmp_path)
    assert "names is dog; allowed: a list, or numbers from 0 with a name each" in found
    (root / "data.yaml").write_text("names: [dog\nnc: }")
    assert "data.yaml: is not YAML" in refused(root, tmp_path)
    (root / "data.yaml").write_text("names: {0: dog, 1: cat}\n")
    (root / "classes.txt").write_text("cat\ndog\n")
    assert "names other classes than another file" in refused(root, tmp_path)
    (root / "classes.txt").unlink()
    (root / "data.yaml").unlink()
    card = BoxesSource(path=str(root), fraction=0.0).card(tmp_path)
    assert (
        "no file names the classes, and so they are called by their numbers" in card["warnings"][0]
    )
    assert card["train"]["labels"] == {"0": 2, "1": 2}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0.png,a,3,12,15,cat", "boxes.csv row 1 (ends on line 2): has no four numbers: xmin 'a'"),
        ("0.png,2,3,12,,cat", "has no four numbers: xmin '2', ymin '3', xmax '12', ymax ''"),
        ("0.png,2,3,12,15,", "boxes.csv row 1 (ends on line 2): has no class"),
        ("5.png,2,3,12,15,cat", "boxes.csv row 1 (ends on line 2): there is no picture 5.png"),
        ("0.png,12,3,2,15,cat", "its corners are swapped"),
        ("0.png,0.1,0.1,0.5,0.5,cat", "Set data.units: relative"),
    ],
)
def test_rows_of_tables(row: str, message: str, tmp_path: Path) -> None:
    root = write_table(tmp_path / "data")
    lines = (root / "boxes.csv").read_text().splitlines()
    (root / "boxes.csv").write_text("\n".join([lines[0], row, *lines[3:]]) + "\n")
    assert message in refused(root, tmp_path)
    assert len(read(root, tmp_path, on_unreadable="skip")) in (3, 4)


def test_columns_of_tables_that_are_missing(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", 1)
    table = tmp_path / "data" / "boxes.csv"
    table.write_text("file_name,xmin,ymin,xmax,ymax,kind\n0.png,2,3,12,15,cat\n")
    found = refused(tmp_path / "data", tmp_path)
    assert "no column says the class" in found
    assert "Name it label" in found
    rows = [
        {"file_name": "0.png", "objects": {"bbox": [[2, 3, 10, 12]], "categories": ["a", "b"]}},
        {"file_name": "0.png", "objects": [{"bbox": [2, 3, 10], "category": "a"}]},
        {"file_name": "0.png", "objects": ["a"]},
    ]
    table.unlink()
    messages = (
        "line 1: bbox has 1 values, but there are 2 objects",
        "object 1: has no bbox of four numbers and a category",
        "object 1: is 'a'",
    )
    for row, message in zip(rows, messages, strict=True):
        (tmp_path / "data" / "metadata.jsonl").write_text(json.dumps(row) + "\n")
        assert message in refused(tmp_path / "data", tmp_path)
