"""Pictures with boxes: each format gives the same boxes, in the splits that are named or drawn."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boxed_pictures import (
    BOXES,
    HEIGHT,
    WIDTH,
    coco_content,
    voc_text,
    write_coco,
    write_pictures,
    write_table,
    write_voc,
    write_yolo,
)
from hub import datasets, own_cache, write_dataset
from pictures import save
from PIL import Image

from groundup.contracts.detection import Boxes
from groundup.core.values import Example
from groundup.data.sources.boxes import BoxesSource
from groundup.processors.boxes import with_boxes
from groundup.processors.image import ImageConfig

__all__ = ["own_cache"]


def read(root: Path, cache: Path, **settings: Any) -> list[Example]:
    given = {"fraction": 0.0, **settings}
    return BoxesSource(path=str(root), **given).examples("train", cache)


def as_lists(examples: list[Example]) -> list[list[tuple[Any, ...]]]:
    return [
        [
            (*corners, label)
            for corners, label in zip(e.target.corners.tolist(), e.target.labels, strict=True)
        ]
        for e in examples
    ]


@pytest.mark.parametrize("write", [write_coco, write_voc, write_yolo, write_table])
def test_each_format_gives_the_same_boxes(write: Callable[[Path], Path], tmp_path: Path) -> None:
    examples = read(write(tmp_path / "data"), tmp_path)
    assert [Path(e.name).name for e in examples] == ["0.png", "1.png", "2.png", "3.png"]
    found = as_lists(examples)
    for own, expected in zip(found, BOXES, strict=True):
        assert [box[4] for box in own] == [box[4] for box in expected]
        corners = np.array([box[:4] for box in own]).reshape(-1, 4)
        assert np.allclose(corners, np.array([b[:4] for b in expected]).reshape(-1, 4), atol=1e-4)
    assert isinstance(examples[0].target, Boxes)
    assert examples[0].inputs == Path(examples[0].origin)


def test_the_outline_says_the_area_where_there_is_one(tmp_path: Path) -> None:
    examples = read(write_coco(tmp_path / "data"), tmp_path)
    assert examples[0].target.areas.tolist() == [60.0, 144.0]
    examples = read(write_table(tmp_path / "table"), tmp_path)
    assert examples[0].target.areas.tolist() == [120.0, 288.0]


def test_the_card_counts_boxes_and_shows_the_numbers_of_classes(tmp_path: Path) -> None:
    content = coco_content(write_pictures(tmp_path / "data"))
    content["categories"].append({"id": 2, "name": "bird"})
    content["annotations"][0]["iscrowd"] = 1
    content["annotations"].append({**content["annotations"][3], "id": 99})
    (tmp_path / "data" / "annotations.json").write_text(json.dumps(content))
    write_pictures(tmp_path / "data" / "more", 1)
    card = BoxesSource(path=str(tmp_path / "data"), fraction=0.0).card(tmp_path)
    assert card["form"].startswith("COCO")
    assert card["class_ids"] == {"bird": "2", "dog": "3", "cat": "17"}
    train = card["train"]
    assert (train["examples"], train["without_boxes"], train["boxes"]) == (4, 1, 4)
    assert (train["crowds"], train["labels"]) == (1, {"cat": 2, "dog": 2})
    assert train["box_sizes"] == {"small": 4, "medium": 0, "large": 0}
    assert card["met_in_files"] == {"boxes that repeat one of the same class exactly, left out": 1}
    assert card["pictures_left_out"] == {"pictures that no annotation names": 1}
    assert "1 pictures are left out, as no annotation names them" in card["warnings"][0]
    assert card["warnings"][1] == "classes without a box, which are not learned: 1 (bird)"


def test_pictures_without_boxes_are_kept_or_left_out(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "data")
    (root / "labels" / "3.txt").unlink()
    assert [len(e.target.labels) for e in read(root, tmp_path)] == [2, 1, 0, 0]
    source = BoxesSource(path=str(root), fraction=0.0, negatives=False)
    assert [len(e.target.labels) for e in source.examples("train", tmp_path)] == [2, 1]
    card = source.card(tmp_path)
    assert card["pictures_left_out"] == {"pictures without boxes": 2}
    assert card["met_in_files"]["pictures without a file of boxes, in which nothing is"] == 1


def test_boxes_are_cut_off_at_the_edges(tmp_path: Path) -> None:
    content = coco_content(write_pictures(tmp_path / "data"))
    content["annotations"][0]["bbox"] = [-5, 20, 15, 15]
    (tmp_path / "data" / "a.json").write_text(json.dumps(content))
    source = BoxesSource(path=str(tmp_path / "data"), fraction=0.0)
    target = source.examples("train", tmp_path)[0].target
    assert target.corners[0].tolist() == [0.0, 20.0, 10.0, HEIGHT]
    noted = source.card(tmp_path)["met_in_files"]
    assert noted == {"boxes cut off at the edges of their picture": 1}


def test_polygons_alone_give_a_box_and_an_area(tmp_path: Path) -> None:
    content = coco_content(write_pictures(tmp_path / "data"))
    first = content["annotations"][0]
    del first["bbox"], first["area"]
    first["segmentation"] = [[2, 3, 12, 3, 2, 15]]
    (tmp_path / "data" / "a.json").write_text(json.dumps(content))
    source = BoxesSource(path=str(tmp_path / "data"), fraction=0.0)
    target = source.examples("train", tmp_path)[0].target
    assert target.corners[0].tolist() == [2, 3, 12, 15]
    assert target.areas[0] == 60
    noted = source.card(tmp_path)["met_in_files"]
    assert noted == {"boxes made of polygons, as there is no bbox": 1}
    root = write_yolo(tmp_path / "yolo")
    (root / "labels" / "3.txt").write_text("1 0.25 0.5 0.75 0.5 0.5 1.0\n")
    assert as_lists(read(root, tmp_path))[3] == [(10.0, 15.0, 30.0, 30.0, "cat")]


def test_what_an_unreadable_row_leaves(tmp_path: Path) -> None:
    content = coco_content(write_pictures(tmp_path / "data"))
    content["annotations"][0]["bbox"] = [5, 5, 0, 5]
    content["annotations"][3]["bbox"] = [5, 5, -2, 5]  # the only one of its picture
    (tmp_path / "data" / "a.json").write_text(json.dumps(content))
    source = BoxesSource(path=str(tmp_path / "data"), fraction=0.0, on_unreadable="skip")
    examples = source.examples("train", tmp_path)
    assert [e.name for e in examples] == ["0.png", "1.png", "2.png"]
    assert [len(e.target.labels) for e in examples] == [1, 1, 0]
    card = source.card(tmp_path)
    assert card["set_aside"]["boxes of no area"]["count"] == 1
    assert card["set_aside"]["boxes with corners swapped"]["count"] == 1
    assert card["pictures_left_out"] == {"pictures of which no box can be used": 1}
    assert "left out: 1 boxes of no area" in card["warnings"]


# ------------------------------------------------------------------------------------------ splits
def test_splits_as_coco_names_them(tmp_path: Path) -> None:
    (tmp_path / "data" / "annotations").mkdir(parents=True)
    for split, count in (("train2017", 4), ("val2017", 2)):
        names = write_pictures(tmp_path / "data" / split, count)
        (tmp_path / "data" / "annotations" / f"instances_{split}.json").write_text(
            json.dumps(coco_content(names))
        )
    captions = tmp_path / "data" / "annotations" / "captions_train2017.json"
    captions.write_text(json.dumps(coco_content(["0.png"])))
    for number in range(2):  # else they are copies of those of training
        picture = tmp_path / "data" / "val2017" / f"{number}.png"
        save(picture, 255 - np.asarray(Image.open(picture)))
    source = BoxesSource(path=str(tmp_path / "data"))
    sizes = {split: len(source.examples(split, tmp_path)) for split in source.splits()}
    assert sizes == {"train": 4, "validation": 2}
    assert source.examples("validation", tmp_path)[0].name == "val2017/0.png"
    # The same by the names of files alone.
    folder = tmp_path / "data" / "annotations"
    again = BoxesSource(
        path=str(folder / "instances_train2017.json"),
        validation=str(folder / "instances_val2017.json"),
    )
    assert {s: len(again.examples(s, tmp_path)) for s in again.splits()} == sizes
    assert again.card(tmp_path).get("warnings") is None


def test_copies_of_a_picture_are_on_one_side(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "data", 12)
    for number in range(12):
        shutil.copy(root / "images" / f"{number}.png", root / "images" / f"{number}b.png")
        shutil.copy(root / "labels" / f"{number}.txt", root / "labels" / f"{number}b.txt")
    source = BoxesSource(path=str(root), fraction=0.4)
    sides = {s: {e.name for e in source.examples(s, tmp_path)} for s in source.splits()}
    assert all(sides.values())
    for own in sides.values():
        assert {name.replace("b.png", ".png") for name in own} <= own


def test_splits_as_yolo_and_voc_name_them(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "yolo", 8)
    for number in range(8):
        side = "val" if number < 3 else "train"
        for kind, suffix in (("images", "png"), ("labels", "txt")):
            (root / kind / side).mkdir(exist_ok=True)
            (root / kind / f"{number}.{suffix}").rename(root / kind / side / f"{number}.{suffix}")
    source = BoxesSource(path=str(root / "data.yaml"))
    sizes = {split: len(source.examples(split, tmp_path)) for split in source.splits()}
    assert sizes == {"train": 5, "validation": 3}
    assert source.card(tmp_path)["class_ids"] == {"dog": "0", "cat": "1"}
    root = write_voc(tmp_path / "voc", 8)
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("0\n1\n2\n3\n")
    (lists / "val.txt").write_text("4\n5\n")
    (lists / "cat_train.txt").write_text("0 1\n")
    source = BoxesSource(path=str(root))
    sizes = {split: len(source.examples(split, tmp_path)) for split in source.splits()}
    assert sizes == {"train": 4, "validation": 2}
    left = source.card(tmp_path)["pictures_left_out"]
    assert left["pictures in no list of ImageSets"] == 2


# ------------------------------------------------------------------------------------------ formats
@pytest.mark.parametrize(
    ("difficult", "crowd", "count"), [("ignore", True, 2), ("keep", False, 2), ("skip", None, 0)]
)
def test_difficult_things(difficult: Any, crowd: bool | None, count: int, tmp_path: Path) -> None:
    root = write_voc(tmp_path / "data")
    hard = voc_text("0.png", list(BOXES[0]), "<difficult>1</difficult>")
    (root / "Annotations" / "0.xml").write_text(hard)
    target = read(root, tmp_path, difficult=difficult)[0].target
    assert len(target.labels) == count
    assert set(target.crowd.tolist()) == ({crowd} if count else set())


def test_boxes_that_begin_at_0_are_counted_from_0(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "data")
    (root / "Annotations" / "2.xml").write_text(voc_text("2.png", [(-1, 4, 9, 9, "cat")]))
    found = as_lists(read(root, tmp_path))
    assert found[2] == [(0.0, 5.0, 9.0, 9.0, "cat")]
    assert found[0][0] == (3.0, 4.0, 12.0, 15.0, "cat")


@pytest.mark.parametrize(
    ("header", "row", "settings"),
    [
        ("filename,width,height,class,xmin,ymin,xmax,ymax", "0.png,40,30,cat,2,3,12,15", {}),
        ("image_path,x,y,width,height,category", "0.png,2,3,10,12,cat", {}),
        ("Image,X1,Y1,X2,Y2,Label", "0.png,2,3,12,15,cat", {}),
        ("image_id,bbox,label", '0,"[2, 3, 10, 12]",cat', {}),
        ("image_id,bbox,label", "0.png,2 3 12 15,cat", {"box_layout": "xyxy"}),
        (
            "ImageID,LabelName,XMin,XMax,YMin,YMax",
            "0,cat,0.05,0.3,0.1,0.5",
            {"units": "relative"},
        ),
    ],
)
def test_columns_of_tables(header: str, row: str, settings: dict[str, Any], tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", 1)
    (tmp_path / "data" / "boxes.csv").write_text(f"{header}\n{row}\n")
    (found,) = as_lists(read(tmp_path / "data", tmp_path, **settings))
    assert found[0][4] == "cat"
    assert np.allclose(found[0][:4], [2, 3, 12, 15], atol=1e-5)


def test_a_row_for_each_picture_with_its_objects(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", 2)
    rows = [
        {"file_name": "0.png", "objects": {"bbox": [[2, 3, 10, 12]], "categories": ["cat"]}},
        {"file_name": "1.png", "objects": [{"bbox": [0, 0, 40, 30], "category": "dog"}]},
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "data" / "metadata.jsonl").write_text(lines)
    found = as_lists(read(tmp_path / "data", tmp_path))
    assert found == [[(2.0, 3.0, 12.0, 15.0, "cat")], [(0.0, 0.0, 40.0, 30.0, "dog")]]


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache")
def test_a_data_set_with_a_column_of_objects(tmp_path: Path) -> None:
    names = write_pictures(tmp_path / "pictures")
    column = [
        {"bytes": (tmp_path / "pictures" / name).read_bytes(), "path": None} for name in names
    ]
    objects = [
        {
            "bbox": [[a, b, c - a, d - b] for a, b, c, d, _ in own],
            "category": [["dog", "cat"].index(label) for *_, label in own],
        }
        for own in BOXES
    ]
    features = {
        "image": datasets.Image(),
        "objects": {
            "bbox": datasets.List(datasets.List(datasets.Value("float32"))),
            "category": datasets.List(datasets.ClassLabel(names=["dog", "cat"])),
        },
    }
    splits = {
        "train": {"image": column, "objects": objects},
        "validation": {"image": column[:1], "objects": objects[:1]},
    }
    folder = write_dataset(tmp_path / "hub", splits, features)
    source = BoxesSource(dataset=folder)
    assert source.splits() == ("train", "validation")
    # The picture that is held out as well is left out of training.
    assert as_lists(source.examples("train", tmp_path)) == [
        [(*map(float, box[:4]), box[4]) for box in own] for own in BOXES[1:]
    ]
    assert source.card(tmp_path)["class_ids"] == {"dog": "0", "cat": "1"}


def test_boxes_are_turned_with_their_picture(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    values = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    values[2:8, 5:25] = 255
    for way in (1, 5, 6, 7, 8):
        exif = Image.Exif()
        exif[0x0112] = way
        Image.fromarray(values).save(root / f"{way}.png", exif=exif)
    content = {
        "images": [
            {"id": way, "file_name": f"{way}.png", "width": WIDTH, "height": HEIGHT}
            for way in (1, 5, 6, 7, 8)
        ],
        "annotations": [
            {"id": way, "image_id": way, "category_id": 1, "bbox": [5, 2, 20, 6]}
            for way in (1, 5, 6, 7, 8)
        ],
        "categories": [{"id": 1, "name": "bar"}],
    }
    (root / "a.json").write_text(json.dumps(content))
    source = BoxesSource(path=str(root), fraction=0.0)
    examples = source.examples("train", tmp_path)
    reader = ImageConfig(size=(40, 40), resize="pad").fit(lambda: iter(examples))
    batch = with_boxes(reader, lambda: iter(examples)).encode(examples)
    for row in range(5):
        rows, columns = (batch["inputs"][row].mean(0) > 0.5).nonzero().unbind(1)
        around = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert batch["boxes"][row, 0].tolist() == [float(value) for value in around]
    assert source.card(tmp_path)["met_in_files"] == {
        "pictures whose boxes are turned upright with them, as EXIF says": 4
    }
