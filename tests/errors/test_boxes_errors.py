"""Every message of pictures with boxes: what is wrong, in which file and row, and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boxed_pictures import (
    coco_content,
    write_coco,
    write_pictures,
    write_voc,
)
from pictures import save

from groundup.contracts.detection import Boxes
from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import validate
from groundup.core.values import Example
from groundup.data.sources.boxes import BoxesSource
from groundup.processors.boxes import BoxesConfig, with_boxes
from groundup.processors.class_targets import BoxClasses
from groundup.processors.image import ImageConfig
from groundup.processors.text.bytes import BytesConfig

Change = Callable[[dict[str, Any]], None]


def read(root: Path, cache: Path, **settings: Any) -> list[Example]:
    return BoxesSource(path=str(root), fraction=0.0, **settings).examples("train", cache)


def refused(root: Path, cache: Path, **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(root, cache, **settings)
    return str(caught.value)


def box(*values: float) -> Change:
    def change(content: dict[str, Any]) -> None:
        content["annotations"][0]["bbox"] = list(values)

    return change


def of_first(name: str, **changed: Any) -> Change:
    def change(content: dict[str, Any]) -> None:
        content[name][0] |= changed

    return change


def without(name: str, key: str) -> Change:
    def change(content: dict[str, Any]) -> None:
        del content[name][0][key]

    return change


BAD_ROWS: list[tuple[Change, str, str]] = [
    (
        box(50, 3, 10, 12),
        "boxes outside of their picture",
        r"annotations 1 \(id 1\): the box \(50, 3\) to \(60, 15\) is outside of the picture, which"
        r" has 40 x 30 pixels",
    ),
    (box(2, 3, 0, 12), "boxes of no area", r"the box \(2, 3\) to \(2, 15\) has no area"),
    (
        box(12, 15, -10, -12),
        "boxes with corners swapped",
        r"the box \(12, 15\) to \(2, 3\) ends before it begins: its corners are swapped",
    ),
    (
        box(0.05, 0.1, 0.25, 0.4),
        "boxes in shares of the picture where pixels are expected",
        r"\(0.05, 0.1\) to \(0.3, 0.5\) lies within 0 and 1: these look like shares of the width"
        r" and height \(relative units\), where pixels are expected\. Set data\.units: relative",
    ),
    (
        box(1, 2, 3),
        "boxes that cannot be read",
        r"bbox is \[1, 2, 3\]; allowed: four numbers, x, y, width, height",
    ),
    (box(1, 2, 3, float("nan")), "boxes that cannot be read", r"bbox is \[1, 2, 3, nan\]; allowed"),
    (
        without("annotations", "bbox"),
        "boxes that cannot be read",
        r"annotations 1 \(id 1\): has no bbox\. Add the bbox, or remove it",
    ),
    (
        lambda content: content["annotations"][0].update(bbox=None, segmentation={"counts": "a"}),
        "boxes that cannot be read",
        r"has no bbox, and its outline of run lengths cannot be read: size is None; allowed: height"
        r" and width",
    ),
    (
        of_first("annotations", category_id=99),
        "boxes with a class id that no category has",
        r"category_id 99 is that of no category; there: 3 \(dog\), 17 \(cat\)",
    ),
    (
        of_first("annotations", image_id=99),
        "boxes of pictures that are not listed",
        r"image_id 99 is that of no picture",
    ),
    (
        lambda content: content["annotations"].append(7),
        "boxes that cannot be read",
        r"annotations 5: is a number; allowed: an object",
    ),
    (
        of_first("images", file_name="missing.png"),
        "pictures that are listed and missing",
        r"images 1 \(id 7, missing\.png\): there is no picture missing\.png\. Add it, correct the"
        r" name, or name the folder of the pictures as data\.images",
    ),
    (
        without("images", "file_name"),
        "pictures without a name",
        r"images 1: has no file_name: \{'id': 7",
    ),
    (
        of_first("images", id=17),
        "pictures with an id that is there twice",
        r"images 2 \(id 17, 1\.png\): the id 17 is there twice",
    ),
    (
        of_first("images", id=None),
        "pictures with an id that is there twice",
        r"images 1 \(id None, 0\.png\): has no id",
    ),
    (
        of_first("images", file_name="1.png"),
        "pictures named twice",
        r"1\.png is named by another row already",
    ),
    (
        of_first("images", width=80, height=60),
        "pictures of another size than their annotations say",
        r"the annotations say 80 x 60 pixels, but 0\.png has 40 x 30",
    ),
]


@pytest.mark.parametrize(("change", "kind", "message"), BAD_ROWS)
def test_a_bad_row_is_named_or_set_aside(
    change: Change, kind: str, message: str, tmp_path: Path
) -> None:
    content = coco_content(write_pictures(tmp_path / "data"))
    change(content)
    (tmp_path / "data" / "a.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path / "data", tmp_path)
    assert str(tmp_path / "data" / "a.json") in caught.value.where
    assert caught.value.remedy.endswith("or set data.on_unreadable: skip to leave such out")
    source = BoxesSource(path=str(tmp_path / "data"), fraction=0.0, on_unreadable="skip")
    # Of a picture of which a box is left out another one is kept; without any it would be taken for
    # one in which nothing is.
    assert 2 <= len(source.examples("train", tmp_path)) <= 4
    card = source.card(tmp_path)
    assert card["set_aside"][kind]["count"] == 1
    assert any(kind in line for line in card["warnings"])


def test_the_first_of_many_is_named_and_the_others_are_counted(tmp_path: Path) -> None:
    content = coco_content(write_pictures(tmp_path / "data"))
    for each in content["annotations"][:3]:
        each["bbox"] = [1, 1, 0, 5]
    content["annotations"][3]["category_id"] = 5
    (tmp_path / "data" / "a.json").write_text(json.dumps(content))
    found = refused(tmp_path / "data", tmp_path)
    assert "category_id 5 is that of no category" in found
    assert "(there are others: 3 boxes of no area)" in found


def test_units_that_are_said_are_not_doubted(tmp_path: Path) -> None:
    content = coco_content(write_pictures(tmp_path / "data"))
    content["annotations"][0]["bbox"] = [0, 0, 1, 1]
    (tmp_path / "data" / "a.json").write_text(json.dumps(content))
    assert "these look like shares" in refused(tmp_path / "data", tmp_path)
    found = read(tmp_path / "data", tmp_path, units="pixels")
    assert found[0].target.corners[0].tolist() == [0, 0, 1, 1]
    found = read(tmp_path / "data", tmp_path, units="relative", on_unreadable="skip")
    assert found[0].target.corners[0].tolist() == [0, 0, 40, 30]


def test_boxes_beyond_their_picture_are_refused_when_asked(tmp_path: Path) -> None:
    content = coco_content(write_pictures(tmp_path / "data"))
    content["annotations"][0]["bbox"] = [30, 3, 20, 12]
    (tmp_path / "data" / "a.json").write_text(json.dumps(content))
    found = refused(tmp_path / "data", tmp_path, outside="refuse")
    assert (
        "the box (30, 3) to (50, 15) reaches 10 pixels beyond the picture, which has 40 x" in found
    )
    assert "set data.outside: clip to cut it off at the edge" in found


def test_files_of_coco_that_cannot_be_read(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "data")
    file = root / "annotations.json"
    good = json.loads(file.read_text())
    file.write_text(json.dumps({**good, "categories": {}}))
    assert "has no list 'categories'; allowed: images, annotations, categories" in refused(
        root, tmp_path
    )
    file.write_text(json.dumps({**good, "categories": [{"id": 3}]}))
    assert "categories 1: has no id and name; allowed: both" in refused(root, tmp_path)
    twice = [{"id": 3, "name": "a"}, {"id": 3, "name": "b"}]
    file.write_text(json.dumps({**good, "categories": twice}))
    assert "categories 2: the id 3 is that of 'a' as well" in refused(root, tmp_path)
    file.write_text(json.dumps(good)[:-20])
    assert "not JSON at" in refused(root, tmp_path)
    file.write_text(json.dumps({**good, "images": [], "annotations": []}))
    assert "no picture is in COCO's JSON" in refused(root, tmp_path)
    same = [{"id": 3, "name": "a"}, {"id": 17, "name": "a"}]
    file.write_text(json.dumps({**good, "categories": same}))
    card = BoxesSource(path=str(root), fraction=0.0).card(tmp_path)
    assert card["warnings"] == [
        "annotations.json: several ids have the same name, and are one class: a"
    ]


def test_folders_without_boxes_or_with_boxes_of_several_kinds(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "nowhere", tmp_path)
    write_pictures(tmp_path / "bare")
    (tmp_path / "bare" / "notes.txt").write_text("no boxes")
    found = refused(tmp_path / "bare", tmp_path)
    assert "no boxes are found for 4 pictures; looked for: COCO's JSON" in found
    assert "other files: notes.txt" in found
    assert "looked for: YOLO's texts" in refused(tmp_path / "bare", tmp_path, form="yolo")
    root = write_voc(write_coco(tmp_path / "both"))
    found = refused(root, tmp_path)
    assert (
        "holds boxes in several formats: coco (annotations.json), voc (Annotations/0.xml)" in found
    )
    assert "Name one as data.form" in found
    with pytest.raises(DataError, match=r"0\.png may be 0\.png and JPEGImages/0\.png"):
        read(root, tmp_path, form="voc")


def test_a_picture_that_two_files_name(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "data")
    (root / "more.json").write_text((root / "annotations.json").read_text())
    found = refused(root, tmp_path)
    assert "more.json images 1" in found
    assert "annotations.json images 1 (id 7, 0.png) as well" in found


def test_pictures_that_cannot_be_read(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "data")
    (root / "1.png").write_bytes(b"no picture")
    assert "1.png: is no readable picture" in refused(root, tmp_path)
    assert len(read(root, tmp_path, on_unreadable="skip")) == 3


# ------------------------------------------------------------------------- settings and processors
def test_settings_that_have_no_effect() -> None:
    where = "recipe.data"
    with pytest.raises(RecipeError, match="image_column has no effect with path"):
        validate(BoxesSource, {"path": "x", "image_column": "a"}, where)
    with pytest.raises(RecipeError, match="difficult has no effect with dataset"):
        validate(BoxesSource, {"dataset": "x", "difficult": "keep"}, where)
    with pytest.raises(RecipeError, match="group '\\(' is no regular expression"):
        validate(BoxesSource, {"path": "x", "group": "("}, where)


def test_a_class_that_is_only_held_out(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_coco(tmp_path / "data" / split)
    for number in range(4):  # no copies of those of training
        save(tmp_path / "data" / "val" / f"{number}.png", np.full((30, 40, 3), number))
    file = tmp_path / "data" / "val" / "annotations.json"
    content = json.loads(file.read_text())
    content["categories"].append({"id": 5, "name": "bird"})
    content["annotations"][0]["category_id"] = 5
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="the class 'bird' has held-out examples only"):
        BoxesSource(path=str(tmp_path / "data")).examples("train", tmp_path)


def test_processors_that_boxes_cannot_have(tmp_path: Path) -> None:
    examples = read(write_coco(tmp_path / "data"), tmp_path)
    crop = ImageConfig(size=(8, 8), resize="crop").fit(lambda: iter(examples))
    with pytest.raises(RecipeError, match="is crop, which cuts off the sides of pictures"):
        with_boxes(crop, lambda: iter(examples))
    with pytest.raises(RecipeError, match="makes no pictures, in which things are found"):
        with_boxes(BytesConfig().fit(lambda: iter([])), lambda: iter(examples))
    reader = ImageConfig().fit(lambda: iter(examples))
    with pytest.raises(DataError, match="the target is str; allowed: boxes"):
        with_boxes(reader, lambda: iter([Example("a", examples[0].inputs, "cat")]))
    empty = Boxes(np.zeros((0, 4), np.float32), (), np.zeros(0, bool), np.zeros(0, np.float32))
    with pytest.raises(DataError, match="no training picture has a box around a single thing"):
        with_boxes(reader, lambda: iter([Example("a", examples[0].inputs, empty)]))
    with pytest.raises(RecipeError, match="boxes is made by the task"):
        BoxesConfig().fit(lambda: iter([]))
    with pytest.raises(DataError, match="label 'cat' is none of the training split's"):
        BoxClasses(["dog"], counts=[1]).encode([examples[0].target])
    processor = with_boxes(reader, lambda: iter(examples))
    processor.save(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "processor.json").read_text())
    saved["targets"]["kind"] = "class"
    (tmp_path / "saved" / "processor.json").write_text(json.dumps(saved))
    with pytest.raises(DataError, match="is damaged: ValueError no processor of pictures"):
        BoxesConfig.load(tmp_path / "saved")
