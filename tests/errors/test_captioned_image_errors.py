"""Every message of pictures with captions: of folders, tables, archives and settings."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from captioned import WORDS, encoded, shade, write_captioned, write_tar
from hub import datasets, own_cache, png, write_dataset

from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import validate
from groundup.data.reading.tar_members import expand_braces, index_tar
from groundup.data.sources.captioned_images import CaptionedImages

__all__ = ["own_cache"]


def read(root: Path | str, **settings: Any) -> None:
    source = CaptionedImages(path=str(root), **{"fraction": 0.0, **settings})
    for split in source.splits():
        source.examples(split, Path(str(root) + ".cache"))


# ------------------------------------------------------------------------------------------ folders
def test_folders_without_captions(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        read(tmp_path / "nowhere")
    root = tmp_path / "data"
    root.mkdir()
    with pytest.raises(DataError, match="no file to read in this folder"):
        read(root)
    (root / "a.png").write_bytes(encoded(shade(0)))
    (root / "b.csv").write_text("x,y\n1,2\n")
    (root / "other.txt").write_text("no caption")
    problem = (
        r"no captions are found for 1 pictures; looked for: metadata\.csv.*; other texts and"
        r" tables: b\.csv, other\.txt\. Write a metadata\.csv"
    )
    with pytest.raises(DataError, match=problem):
        read(root)
    with pytest.raises(DataError, match=r"looked for: a \.tar whose files of one name are"):
        read(root, form="webdataset")
    (root / "c.csv").write_text("file_name,text\n1,2,3\n")
    with pytest.raises(DataError, match="the row has 3 cells and the header 2"):
        read(root / "c.csv")


def test_captions_in_two_forms(tmp_path: Path) -> None:
    write_captioned(tmp_path, "csv")
    write_captioned(tmp_path, "text_files", first=4)
    problem = r"several forms: metadata \(metadata\.csv\), text_files \(0004\.txt\)\. Name one"
    with pytest.raises(DataError, match=problem):
        read(tmp_path)
    read(tmp_path, form="metadata", on_missing="skip")


def test_halves_of_pairs_stop(tmp_path: Path) -> None:
    root = write_captioned(tmp_path / "data", "csv")
    (root / "0002.png").unlink()
    (root / "more.png").write_bytes(encoded(shade(9)))
    problem = (
        r"data: 1 captions or pairs without a picture: 0002\.png \(.*metadata\.csv row 3 \(ends on"
        r" line 4\)\); 1 pictures without a caption: more\.png\. Add what is missing, or set"
        r" data\.on_missing: skip"
    )
    with pytest.raises(DataError, match=problem):
        read(root)
    (root / "metadata.csv").write_text("file_name,text\nmore.png,\n,words\n")
    problem = (
        r"no picture has a caption: 1 captions or pairs without a picture: no name \(.* row 2.*\);"
        r" 3 pictures without a caption: .*; 1 pictures with an empty caption: more\.png\. Correct"
    )
    with pytest.raises(DataError, match=problem):
        read(root, on_missing="skip")


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    root = write_captioned(tmp_path / "data", "csv")
    table = root / "metadata.csv"
    with pytest.raises(DataError, match=r"no column 'texts'; did you mean 'text'\? .*text_column"):
        read(table, text_column="texts")
    with pytest.raises(DataError, match=r"no column 'low'; columns: .* data\.image_column"):
        read(table, image_column="low")
    with pytest.raises(DataError, match=r"no column 'high'; .* data\.second_image_column"):
        read(table, second_image_column="high")
    with pytest.raises(DataError, match=r"no column 'who'; .* data\.group_column"):
        read(table, group_column="who")
    table.write_text("picture_name,text\n0000.png,x\n")
    with pytest.raises(DataError, match=r"no column of the usual names: file_name, image"):
        read(table)
    table.write_text("file_name,title\n0000.png,x\n")
    with pytest.raises(DataError, match=r"no column of the usual names: text, caption"):
        read(table)


def test_two_pictures_with_one_text(tmp_path: Path) -> None:
    root = write_captioned(tmp_path / "data", "text_files")
    (root / "0001.jpg").write_bytes(encoded(shade(1), "JPEG"))
    with pytest.raises(DataError, match=r"0001\.png: has the same name as 0001\.jpg but for the"):
        read(root)


def test_languages_that_are_not_there(tmp_path: Path) -> None:
    root = write_captioned(tmp_path / "data", "text_files")
    with pytest.raises(DataError, match=r"data: language 'fr': no caption has lines such as fr\."):
        read(root, language="fr")
    (root / "0000.txt").write_text("A frog.\nfr.utf8=Une grenouille.\npt_BR.utf8=Uma rã.")
    problem = r"language 'pt': the captions are in en, fr, pt_BR\. did you mean 'pt_BR'\? Correct"
    with pytest.raises(DataError, match=problem):
        read(root, language="pt")


def test_pictures_that_cannot_be_read(tmp_path: Path) -> None:
    root = write_captioned(tmp_path / "data", "csv")
    for name in ("0001.png", "0002.png"):
        (root / name).write_bytes(b"none")
    problem = r"data: 0001\.png: is no readable picture: .* \(1 other pictures too\)\. Replace"
    with pytest.raises(DataError, match=problem):
        read(root)
    for name in ("0000.png", "0003.png"):
        (root / name).write_bytes(b"none")
    with pytest.raises(DataError, match="none of 4 pictures can be read"):
        read(root, on_unreadable="skip")


# ----------------------------------------------------------------------------------------- archives
def sample(name: str, number: int = 0) -> list[tuple[str, bytes]]:
    return [(f"{name}.png", encoded(shade(number))), (f"{name}.txt", b"words")]


def test_archives_that_are_damaged(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [*sample("0"), *sample("1", 1)])
    content = path.read_bytes()
    whole = 4 * 1024
    for kept, problem in (
        (whole - 1000, r"a\.tar: it ends within a header, after 3 whole files\. Fetch or write"),
        (whole - 500, r"a\.tar: it ends within 1\.txt, after 4 whole files"),
        (whole - 512 + 2, r"a\.tar: it ends within 1\.txt, after 3 whole files"),
        (whole + 20, r"a\.tar: it ends within a header, after 4 whole files"),
    ):
        path.write_bytes(content[:kept])
        with pytest.raises(DataError, match=problem):
            read(path)
    path.write_bytes(content[:whole])
    assert index_tar(path).warning.startswith("it has no end mark")
    read(path)
    path.write_bytes(content[: 2 * 1024] + b"x" * 512 + content[2 * 1024 :])
    with pytest.raises(DataError, match="what begins at byte 2,048 is no header: it is damaged"):
        read(path)
    path.write_bytes(content + content)
    with pytest.raises(DataError, match="another archive is appended after the end mark at byte 4"):
        read(path)
    path.write_bytes(b"no archive at all" * 100)
    with pytest.raises(DataError, match=r"a\.tar: is no tar archive"):
        read(path)
    path.write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=r"is a compressed archive.*Decompress it.*: gunzip a\.tar"):
        read(path)
    with pytest.raises(DataError, match=r"b\.tar: cannot be read: No such file"):
        index_tar(tmp_path / "b.tar")


def test_an_archive_that_is_cut_after_it_was_listed(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", sample("0"))
    member = index_tar(path).members[0]
    path.write_bytes(path.read_bytes()[:550])
    with pytest.raises(DataError, match=r"a\.tar: 0\.png: the archive ends after 38 of its"):
        member.read()
    path.unlink()
    with pytest.raises(DataError, match=r"a\.tar: 0\.png: cannot be read: "):
        member.read()


def test_samples_that_are_not_clear(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_tar(path, [*sample("0"), ("0.jpg", encoded(shade(1), "JPEG"))])
    problem = r"the sample 'a\.tar/0' has several pictures: png, jpg\. Name the one that is read"
    with pytest.raises(DataError, match=problem):
        read(path)
    read(path, image_column="jpg")
    write_tar(path, [*sample("0"), *sample("0")])
    with pytest.raises(DataError, match=r"a\.tar: 0\.png: the sample '0' has 'png' twice"):
        read(path)
    write_tar(path, [("0.png", encoded(shade(0))), ("0.json", b"[1]")])
    with pytest.raises(DataError, match=r"0\.json: holds a list; allowed: an object with named"):
        read(path)
    write_tar(path, [("0.png", encoded(shade(0))), ("0.txt", b"\xff\xfe")])
    with pytest.raises(DataError, match=r"0\.txt: is not UTF-8: .* at byte 0"):
        read(path)
    write_tar(path, [*sample("0"), ("1.png", encoded(shade(1))), ("2.txt", b"words")])
    problem = r"without a picture: a\.tar/2 \(.*\); 1 pictures without a caption: a\.tar/1\."
    with pytest.raises(DataError, match=problem):
        read(path)


def test_what_is_no_file_in_an_archive_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name, content in sample("0"):
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("1.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    source = CaptionedImages(path=str(path), fraction=0.0)
    assert [e.name for e in source.examples("train", tmp_path / "cache")] == ["a.tar/0"]
    assert source.card(tmp_path / "cache")["not_read"] == {"no files (links, devices)": 1}


def test_patterns(tmp_path: Path) -> None:
    assert expand_braces("a-{08..11}.tar") == [f"a-{n}.tar" for n in ("08", "09", "10", "11")]
    assert expand_braces("{0..1}{8..10}") == ["08", "09", "010", "18", "19", "110"]
    assert expand_braces("plain.tar") == ["plain.tar"]
    with pytest.raises(DataError, match=r"\{3\.\.1\} stands for 0 names; allowed: 1 to"):
        read("a-{3..1}.tar")
    write_tar(tmp_path / "a-0.tar", sample("0"))
    with pytest.raises(DataError, match=r"a-1\.tar: there is no such file or folder"):
        read(tmp_path / "a-{0..1}.tar")


# ----------------------------------------------------------------------------------------- settings
@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"time_column": "t"}, "time_column has no effect: pictures are not held out by time"),
        ({"group": "a", "group_column": "b"}, "group has no effect with group_column"),
        ({"group": "("}, "group '\\(' is no regular expression"),
        ({"image_column": "a", "second_image_column": "a"}, "second_image_column is image_column"),
        ({"language": "fr", "form": "metadata"}, "language has no effect with form metadata"),
        ({"stratify": True}, "stratify has no effect: data captioned_images has no labels"),
        ({"streaming": True}, "streaming has no effect with path"),
    ],
)
def test_settings_that_contradict_themselves(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        validate(CaptionedImages, {"path": "x", **settings}, "recipe.data")


def test_settings_of_files_with_a_data_set() -> None:
    for name, value in (("language", "fr"), ("form", "metadata"), ("group", "a")):
        with pytest.raises(RecipeError, match=f"{name} has no effect with dataset"):
            validate(CaptionedImages, {"dataset": "x", name: value}, "recipe.data")


def test_splits_that_cannot_be_drawn(tmp_path: Path) -> None:
    write_captioned(tmp_path, "csv", WORDS[:1])
    with pytest.raises(DataError, match=r"nothing is left for validation \(fraction 0\.1\)"):
        read(tmp_path, fraction=0.1)
    root = tmp_path / "named"
    for part, folder in enumerate(("train", "test")):
        write_captioned(root, "text_files", first=4 * part, folder=folder)
    with pytest.raises(RecipeError, match="has pictures of its own for test"):
        read(root, test=0.2)


@pytest.mark.usefixtures("own_cache")
def test_data_sets_without_the_columns(tmp_path: Path) -> None:
    columns = {"image": [{"bytes": png(shade(0)), "path": None}], "title": ["x"]}
    features = {"image": datasets.Image(), "title": datasets.Value("string")}
    root = write_dataset(tmp_path / "set", {"train": columns}, features)

    def read_set(**settings: Any) -> None:
        source = CaptionedImages(dataset=root, fraction=0.0, **settings)
        source.examples("train", tmp_path)

    with pytest.raises(DataError, match=r"no column of the usual names: text, caption"):
        read_set()
    with pytest.raises(DataError, match=r"no column 'titel'; did you mean 'title'"):
        read_set(text_column="titel")
    with pytest.raises(DataError, match=r"there is no column 'picture'"):
        read_set(text_column="title", image_column="picture")
    with pytest.raises(DataError, match=r"column 'title' holds text values; allowed: image"):
        read_set(text_column="title", second_image_column="title")
    with pytest.raises(DataError, match=r"there is no column 'who'"):
        read_set(text_column="title", group_column="who")
    read_set(text_column="title")
