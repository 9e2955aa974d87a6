"""Boxes in YOLO's lists of pictures, in run lengths, and in tables with columns of splits and
groups."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boxed_pictures import HEIGHT, WIDTH, coco_content, write_pictures, write_table, write_yolo
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.core.errors import DataError, RecipeError
from groundup.core.values import Split
from groundup.data.reading.run_lengths import read_region
from groundup.data.sources.boxes import BoxesSource


def names(root: Path, cache: Path, split: Split, **settings: Any) -> list[str]:
    source = BoxesSource(path=str(root), **settings)
    return [Path(example.name).name for example in source.examples(split, cache)]


def refused(root: Path, cache: Path, **settings: Any) -> str:
    with pytest.raises((DataError, RecipeError)) as caught:
        names(root, cache, "train", **settings)
    return str(caught.value)


# -------------------------------------------------------------------------------------------- YOLO
@pytest.mark.parametrize("yaml", [True, False])
def test_lists_of_pictures_are_splits(yaml: bool, tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "data", 8)
    lists = {
        # As programs write them: of another machine, with dots, with backslashes.
        "train": ["/home/me/data/images/0.png", "./images/1.png", "images\\2.png", "", "3.png"],
        "val": ["images/4.png", "images/5.png"],
        "test": ["./images/6.png"],
    }
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    named = "path: ../data\ntrain: ./train.txt\nval: [val.txt]\ntest: test.txt\n" if yaml else ""
    (root / "data.yaml").write_text(f"names: [dog, cat]\n{named}")
    found = [names(root, tmp_path, split) for split in ("train", "validation", "test")]  # type: ignore[arg-type]
    assert found == [["0.png", "1.png", "2.png", "3.png"], ["4.png", "5.png"], ["6.png"]]
    card = BoxesSource(path=str(root)).card(tmp_path)
    assert card["pictures_left_out"] == {"pictures in no list of a split": 1}
    # Texts of pictures that are left out are read for nothing, but none is unknown.
    assert "left_out" not in card["files"]


def test_lists_that_are_wrong(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "data")
    (root / "data.yaml").write_text("names: [dog, cat]\ntrain: lists/train.txt\nval: images\n")
    assert (
        "data.yaml: names lists/train.txt as the list of pictures of train, but there"
        in refused(root, tmp_path)
    )
    (root / "lists").mkdir()
    train = root / "lists" / "train.txt"
    train.write_text("images/0.png\nimages/9.png\n")
    found = refused(root, tmp_path)
    assert "train.txt line 2: there is no picture images/9.png" in found
    (root / "data.yaml").write_text(
        "names: [dog, cat]\ntrain: lists/train.txt\nval: lists/val.txt\n"
    )
    train.write_text("images/0.png\nimages/1.png\n")
    (root / "lists" / "val.txt").write_text("images/3.png\nimages/1.png\n")
    found = refused(root, tmp_path)
    assert "val.txt line 2: images/1.png is listed for validation, but for train as well" in found


# ------------------------------------------------------------------------------------- run lengths
@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), height=st.integers(1, 9), width=st.integers(1, 9))
def test_run_lengths_are_the_pixels(seed: int, height: int, width: int) -> None:
    masks = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(seed)
    mask = (rng.random((height, width)) < rng.random()).astype(np.uint8)
    packed = masks.encode(np.asfortranarray(mask))
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [2]])))
    plain = np.diff(np.concatenate([[0], edges])).tolist()
    for counts in (packed["counts"].decode(), plain):
        segmentation = {"size": [height, width], "counts": counts}
        if not mask.any():
            with pytest.raises(ValueError, match="no pixel is inside"):
                read_region(segmentation)
            continue
        found = read_region(segmentation)
        left, top, wide, high = masks.toBbox(packed).tolist()
        assert found.corners == (left, top, left + wide, top + high)
        assert found.area == int(masks.area(packed))


def test_a_box_is_made_of_run_lengths(tmp_path: Path) -> None:
    root = tmp_path / "data"
    content = coco_content(write_pictures(root))
    first = content["annotations"][0]
    # Two columns from 3 on, 5 pixels high from 4 on.
    begin = 3 * HEIGHT + 4
    counts = [begin, 5, HEIGHT - 5, 5]
    counts.append(HEIGHT * WIDTH - sum(counts))
    first |= {"bbox": None, "area": 0}
    first["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": counts}
    (root / "annotations.json").write_text(json.dumps(content))
    source = BoxesSource(path=str(root), fraction=0.0)
    target = source.examples("train", tmp_path)[0].target
    assert target.corners[0].tolist() == [3, 4, 5, 9]
    assert target.areas[0] == 10
    noted = source.card(tmp_path)["met_in_files"]
    assert noted["boxes made of run lengths, as there is no bbox"] == 1


# ------------------------------------------------------------------------------------------ tables
def with_columns(root: Path, **columns: list[str]) -> Path:
    """Write boxes.csv with columns that are a picture's."""
    write_table(root, 6)
    head, *rows = (root / "boxes.csv").read_text().splitlines()
    lines = [",".join([head, *columns])]
    for row in rows:
        number = int(row.partition(".")[0])
        lines.append(",".join([row, *(values[number] for values in columns.values())]))
    (root / "boxes.csv").write_text("\n".join(lines) + "\n")
    return root


def test_columns_of_splits_and_groups(tmp_path: Path) -> None:
    splits = ["train", "valid", "train", "test", "train", "train"]
    root = with_columns(tmp_path / "data", side=splits, film=["a", "b", "a", "c", "b", "a"])
    assert names(root, tmp_path, "validation") == ["1.png"]
    assert names(root, tmp_path, "test") == ["3.png"]
    # Taken alike, films are on one side.
    for seed in range(4):
        rule = {"split_column": "", "group_column": "film", "fraction": 0.5, "seed": seed}
        held_out = set(names(root, tmp_path, "validation", **rule))
        films = [{"0.png", "2.png", "5.png"}, {"1.png", "4.png"}, {"3.png"}]
        assert all(film <= held_out or not film & held_out for film in films)


def test_columns_that_are_wrong(tmp_path: Path) -> None:
    root = with_columns(
        tmp_path / "data",
        split=["train", "valid", "train", "tset", "train", "train"],
        film=["a", "b", "a", "", "b", "a"],
    )
    found = refused(root, tmp_path)
    assert "boxes.csv: column 'split' says which split a row is, but 'tset' is none" in found
    found = refused(root, tmp_path, split_column="", group_column="film")
    assert "group_column 'film' is empty" in found
    assert "boxes.csv line" in found or "boxes.csv row" in found
    found = refused(root, tmp_path, split_column="", group_column="flim")
    assert "there is no column 'flim'; did you mean 'film'?" in found
    text = (root / "boxes.csv").read_text()
    (root / "boxes.csv").write_text(text.replace("tset", "test") + "1.png,1,1,9,9,dog,train,b\n")
    found = refused(root, tmp_path)
    assert "the split of 1.png is train, but validation in " in found
    with pytest.raises(ValueError, match="time_column has no effect"):
        BoxesSource(path=str(root), time_column="film")
    with pytest.raises(ValueError, match="group has no effect with group_column"):
        BoxesSource(path=str(root), group_column="film", group="a")


def test_columns_of_what_is_no_table(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "data")
    found = refused(root, tmp_path, group_column="film")
    assert "recipe.data.group_column: has no effect: the boxes are in YOLO's texts" in found
