"""Pictures with captions: the forms in which captions come, what is an example, who is held out,
what is left out and said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from captioned import WORDS, encoded, shade, write_captioned, write_tar
from hub import datasets, own_cache, png, write_dataset

from groundup.core.values import StoredFile
from groundup.data.reading.caption_folders import CAPTION_FORMS
from groundup.data.sources.captioned_images import CaptionedImages
from groundup.media.images import read_picture
from groundup.testing import check_data

__all__ = ["own_cache"]


def whole(root: Path, **settings: Any) -> CaptionedImages:
    return CaptionedImages(path=str(root), **{"fraction": 0.0, **settings})


def beside(root: Path) -> Path:
    """Return a cache that is not within what is read."""
    return root.with_name(f"{root.name}.cache")


def said(source: CaptionedImages, cache: Path, split: Any = "train") -> dict[str, Any]:
    return {example.name: example.target for example in source.examples(split, cache)}


# ------------------------------------------------------------------------------------------- forms
@pytest.mark.parametrize("written", ["csv", "jsonl", "text_files", "webdataset"])
def test_each_form_is_recognised_and_gives_the_same(written: str, tmp_path: Path) -> None:
    root = write_captioned(tmp_path / "图", written)
    source = whole(root)
    examples = source.examples("train", beside(tmp_path))
    assert [example.target for example in examples] == list(WORDS)
    for number, example in enumerate(examples):
        assert np.array_equal(read_picture(example.inputs, example.name), shade(number))
        assert isinstance(example.inputs, StoredFile if written == "webdataset" else Path)
    card = source.card(beside(tmp_path))
    form: Any = written if written in CAPTION_FORMS else "metadata"
    assert card["form"] == CAPTION_FORMS[form]
    assert (card["train"]["pictures"], card["left_out"]) == (4, {})
    assert card["train"]["captions"] == {
        "min_characters": 8.0,
        "median_characters": 13.5,
        "max_characters": 29.0,
    }
    assert "warnings" not in card
    named = whole(root, form=form).examples("train", beside(tmp_path))
    assert [example.target for example in named] == list(WORDS)
    tar = written == "webdataset"
    pictures = [name for name in source.contents() if name.endswith(".png")]
    assert len(source.contents()) == (1 if tar else {"text_files": 8}.get(written, 5))
    assert len(pictures) == (0 if tar else 4)


@pytest.mark.parametrize("form", ["csv", "text_files", "webdataset"])
def test_what_is_called_like_splits_is_these(form: str, tmp_path: Path) -> None:
    for part, folder in enumerate(("train", "val", "test")):
        write_captioned(tmp_path, form, WORDS[: 4 - part], 4 * part, folder)
    if form == "webdataset":  # archives lie next to each other, and are called so
        for folder in ("train", "val", "test"):
            (tmp_path / folder / f"{folder}-000.tar").rename(tmp_path / f"{folder}-000.tar")
    source = CaptionedImages(path=str(tmp_path))
    assert source.splits() == ("train", "validation", "test")
    counts = [len(source.examples(split, beside(tmp_path))) for split in source.splits()]
    assert counts == [4, 3, 2]
    named = CaptionedImages(path=str(tmp_path / "train"), validation=str(tmp_path / "val"))
    if form != "webdataset":
        assert named.splits() == ("train", "validation")
        assert len(named.examples("validation", beside(tmp_path))) == 3


def test_tables_of_other_names_with_splits_lists_and_groups(tmp_path: Path) -> None:
    rows = []
    for number in range(12):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / f"{number}.jpg").write_bytes(encoded(shade(number), "JPEG"))
        texts = [f"picture {number}", f"it is {number}"]
        rows.append({"image_path": f"{number}.jpg", "captions": texts, "who": number % 3})
    table = tmp_path / "all.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source = CaptionedImages(path=str(table), group_column="who", fraction=0.4)
    train, held_out = (
        source.examples(split, beside(tmp_path)) for split in ("train", "validation")
    )
    # An example of each caption, and all of a picture and of a group on one side.
    assert len(train) + len(held_out) == 24
    assert {e.name for e in train if e.name.startswith("1.")} in ({"1.jpg", "1.jpg#2"}, set())
    of = {
        example.name.split(".")[0]: side
        for side, s in (("t", train), ("v", held_out))
        for example in s
    }
    assert all(of[str(n)] == of[str(n % 3)] for n in range(12))
    assert len(set(of.values())) == 2
    (tmp_path / "more").mkdir()
    folder = whole(tmp_path)  # the table is recognised by its columns
    assert len(folder.examples("train", beside(tmp_path))) == 24
    other = whole(table, text_column="who")
    with pytest.raises(Exception, match="column 'who' is a number"):
        other.examples("train", beside(tmp_path))
    by_name = CaptionedImages(path=str(table), group=r"(\d)\.jpg", fraction=0.4)
    assert len(by_name.examples("train", beside(tmp_path))) < 24


def test_a_column_of_splits(tmp_path: Path) -> None:
    write_captioned(tmp_path, "csv")
    path = tmp_path / "metadata.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    sides = ["split", "train", "train", "dev", "test"]
    path.write_text(
        "\n".join(f"{line},{side}" for line, side in zip(lines, sides, strict=True)),
        encoding="utf-8",
    )
    source = CaptionedImages(path=str(tmp_path))
    assert source.splits() == ("train", "validation", "test")
    assert list(said(source, tmp_path, "test").values()) == [WORDS[3]]
    assert len(said(whole(tmp_path, split_column=""), beside(tmp_path))) == 4


def test_captions_in_many_languages(tmp_path: Path) -> None:
    texts = [
        "A frog.\nfr.utf8=Une grenouille.\npt_BR.utf8=Uma rã.\nca@valencia.utf8=Una granota.",
        "A tree.\n\nfr.utf8=Un arbre.\npt_BR.utf8=\nca@valencia.utf8=Un arbre.",
    ]
    write_captioned(tmp_path, "text_files", texts)
    for language, wanted in {
        None: ["A frog.", "A tree."],
        "en": ["A frog.", "A tree."],
        "fr": ["Une grenouille.", "Un arbre."],
        "ca@valencia": ["Una granota.", "Un arbre."],
    }.items():
        assert list(said(whole(tmp_path, language=language), beside(tmp_path)).values()) == wanted
    source = whole(tmp_path, language="pt_BR", on_missing="skip")
    assert list(said(source, beside(tmp_path)).values()) == ["Uma rã."]
    about = source.card(beside(tmp_path))["left_out"]["pictures with an empty caption"]
    assert about == {"count": 1, "first": ["0001.png"]}


# ----------------------------------------------------------------------------------------- archives
def test_archives_by_pattern_with_json_and_pairs(tmp_path: Path) -> None:
    for shard in range(3):
        members = []
        for number in range(2):
            key = f"all/{shard}{number}"
            row = json.dumps({"caption": f"shard {shard}", "place": shard, "url": "x"})
            members += [
                (f"{key}.hr.png", encoded(shade(2 * shard + number, 8))),
                (f"{key}.LR.png", encoded(shade(2 * shard + number, 4))),
                (f"{key}.json", row.encode()),
                (f"{key}.cls", b"3"),
            ]
        write_tar(tmp_path / f"s-{shard:03}.tar", [("all/._0.png", b"mac"), *members])
    pattern = str(tmp_path / "s-{000..002}.tar")
    source = CaptionedImages(
        path=pattern,
        image_column="lr.png",
        second_image_column="hr.png",
        group_column="place",
        fraction=0.4,
        seed=4,
    )
    found = {s: source.examples(s, beside(tmp_path)) for s in ("train", "validation")}
    assert sum(map(len, found.values())) == 6
    for examples in found.values():
        assert examples
        for example in examples:
            low, high = (read_picture(part, "") for part in example.inputs)
            assert (low.shape, high.shape) == ((4, 4, 3), (8, 8, 3))
            assert example.name.split("/")[-3:-1] == [f"s-00{example.target[-1]}.tar", "all"]
    sides = {e.target: split for split, examples in found.items() for e in examples}
    assert len(sides) == 3  # groups are not divided
    assert source.card(beside(tmp_path))["not_read"] == {".cls": 6, "hidden": 3}
    texts = whole(tmp_path, image_column="hr.png", text_column="url", fraction=0.0)
    assert set(said(texts, beside(tmp_path)).values()) == {"x"}


def test_an_archive_is_grouped_as_the_library_groups_it(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "own-000.tar")) as sink:
        for number, text in enumerate(WORDS):
            sink.write({"__key__": f"a/{number:03}", "png": encoded(shade(number)), "txt": text})
    read = webdataset.tariterators
    with (tmp_path / "own-000.tar").open("rb") as stream:
        files = [{"__url__": "", **each} for each in read.tar_file_iterator(stream)]
    samples = read.group_by_keys(iter(files))
    wanted = {each["__key__"]: (each["png"], each["txt"].decode()) for each in samples}
    examples = whole(tmp_path).examples("train", beside(tmp_path))
    found = {e.name.removeprefix("own-000.tar/"): (e.inputs.read(), e.target) for e in examples}
    assert found == wanted


# ------------------------------------------------------------------------------------------- others
def test_picture_pairs_in_a_table(tmp_path: Path) -> None:
    lines = ["low,high"]
    for number in range(5):
        for folder, side in (("low", 4), ("high", 8)):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"{number}.png").write_bytes(encoded(shade(number, side)))
        lines.append(f"low/{number}.png,high/{number}.png")
    (tmp_path / "pairs.csv").write_text("\n".join(lines), encoding="utf-8")
    pairs: dict[str, Any] = {"image_column": "low", "second_image_column": "high"}
    for place in (tmp_path / "pairs.csv", tmp_path):
        examples = whole(place, **pairs).examples("train", beside(tmp_path))
        assert [example.target for example in examples] == [None] * 5
        assert examples[3].inputs == (tmp_path / "low" / "3.png", tmp_path / "high" / "3.png")
    card = whole(tmp_path, **pairs).card(beside(tmp_path))
    assert card["train"] == {"examples": 5, "pictures": 5}
    assert card["sizes"] == {"4 x 4 RGB": 5, "8 x 8 RGB": 5}
    assert len(whole(tmp_path, **pairs).contents()) == 11


def test_copies_are_on_one_side_and_repeated_rows_are_read_once(tmp_path: Path) -> None:
    texts = [f"number {n}" for n in range(40)]
    write_captioned(tmp_path, "csv", texts)
    with (tmp_path / "metadata.csv").open("a", encoding="utf-8") as table:
        for number in range(40):
            copy = encoded(shade(number))
            (tmp_path / f"copy-{number}.png").write_bytes(copy)
            table.write(f"copy-{number}.png,again {number}\n0000.png,number 0\n")
    source = CaptionedImages(path=str(tmp_path), fraction=0.3)
    sides = [
        {e.target.split()[1] for e in source.examples(s, beside(tmp_path))} for s in source.splits()
    ]
    assert not sides[0] & sides[1]
    card = source.card(beside(tmp_path))
    assert card["left_out"] == {"the same picture and caption again": 40}
    assert card["train"]["examples"] + card["validation"]["examples"] == 80


def test_half_a_pair_is_left_out_and_counted(tmp_path: Path) -> None:
    write_captioned(tmp_path, "text_files")
    (tmp_path / "0001.txt").unlink()
    (tmp_path / "0002.png").unlink()
    (tmp_path / "0003.txt").write_text(" \n", encoding="utf-8")
    source = whole(tmp_path, on_missing="skip")
    assert said(source, beside(tmp_path)) == {"0000.png": WORDS[0]}
    card = source.card(beside(tmp_path))
    assert {reason: each["first"] for reason, each in card["left_out"].items()} == {
        "captions or pairs without a picture": ["0002.txt"],
        "pictures without a caption": ["0001.png"],
        "pictures with an empty caption": ["0003.png"],
    }
    assert len(card["warnings"]) == 3
    assert whole(tmp_path, on_missing="skip", limit=1).splits() == ("train",)


def test_damaged_pictures_are_left_out_and_counted(tmp_path: Path) -> None:
    write_captioned(tmp_path, "csv")
    (tmp_path / "0001.png").write_bytes(b"no picture")
    source = whole(tmp_path, on_unreadable="skip")
    assert list(said(source, beside(tmp_path))) == ["0000.png", "0002.png", "0003.png"]
    left_out = source.card(beside(tmp_path))["left_out"]["pictures that cannot be read"]
    assert left_out["count"] == 1
    assert left_out["first"][0].startswith("0001.png (is no readable picture")


def test_an_archive_that_ends_early_is_read_as_far_as_it_is_whole(tmp_path: Path) -> None:
    write_captioned(tmp_path, "webdataset")
    path = tmp_path / "shard-000.tar"
    content = path.read_bytes()
    path.write_bytes(content[: 6 * 1024 + 520])  # within the picture of the fourth sample
    source = whole(tmp_path, on_unreadable="skip")
    assert list(said(source, beside(tmp_path)).values()) == list(WORDS[:3])
    assert source.card(beside(tmp_path))["warnings"] == [
        "shard-000.tar: it ends within 0003.png, after 6 whole files"
    ]


@pytest.mark.usefixtures("own_cache")
def test_rows_of_a_data_set(tmp_path: Path) -> None:
    def columns(first: int, last: int) -> dict[str, Any]:
        numbers = range(first, last)
        return {
            "image": [{"bytes": png(shade(n)), "path": None} for n in numbers],
            "target": [{"bytes": png(shade(n, 8)), "path": None} for n in numbers],
            "captions": [[f"one {n}", f"two {n}"] for n in numbers],
        }

    features = {
        "image": datasets.Image(),
        "target": datasets.Image(),
        "captions": datasets.List(datasets.Value("string")),
    }
    splits = {"train": columns(0, 6), "test": columns(6, 8)}
    root = write_dataset(tmp_path / "set", splits, features)
    source = CaptionedImages(dataset=root, image_column="image", fraction=0.0)
    assert source.splits() == ("train", "test")
    examples = source.examples("train", beside(tmp_path))
    assert len(examples) == 12
    assert examples[1].target == "two 0"
    assert read_picture(examples[1].inputs, "").shape == (6, 6, 3)
    pairs = CaptionedImages(dataset=root, second_image_column="target", fraction=0.0)
    low, high = pairs.examples("test", beside(tmp_path))[0].inputs
    assert read_picture(low, "").shape == (6, 6, 3)
    assert read_picture(high, "").shape == (8, 8, 3)
    assert pairs.card(beside(tmp_path))["form"] == "column 'captions' of a data set"


def test_what_every_source_keeps(tmp_path: Path) -> None:
    texts = ["dark" if n < 15 else "bright" for n in range(30)]
    write_captioned(tmp_path / "data", "webdataset", texts)
    check_data(
        {
            "name": "captions",
            "model": {"name": "mlp", "hidden": [4]},
            "task": "classify",
            "processor": "image",
            "data": {"name": "captioned_images", "path": str(tmp_path / "data"), "fraction": 0.4},
            "training": {"batch_size": 4, "steps": 3},
            "machine": {"device": "cpu", "threads": 1},
        }
    )
