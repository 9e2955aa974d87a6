"""Pairs are read from every layout that people have, filtered by count, and split without leakage."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hub import datasets, own_cache, write_dataset
from tiny_runs import tiny_run

from groundup.core.settings import validate
from groundup.core.values import Example, Split
from groundup.data.reading.aligned_files import name_of_partner
from groundup.data.sources.parallel_text import ParallelText
from groundup.reports.data_notes import data_notes
from groundup.testing import check_data

__all__ = ["own_cache"]
LANGUAGES = {"source_language": "en", "target_language": "de"}
PAIRS = [(f"the house number {n}", f"das Haus Nummer {n}") for n in range(40)]
TMX = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header srclang="en"/><body>
<tu><prop type="file">a.htm</prop>
 <tuv xml:lang="EN-us"><seg>Press <bpt i="1">&lt;b&gt;</bpt>Enter<ept i="1">&lt;/b&gt;</ept> &amp; <hi>wait</hi>.</seg></tuv>
 <tuv xml:lang="fr"><seg>Attendez.</seg></tuv><tuv xml:lang="de"><seg>Warten.</seg></tuv></tu>
<tu><tuv lang="en"><seg>Only here</seg></tuv></tu>
<tu><tuv xml:lang="en"><seg>Two</seg></tuv><tuv xml:lang="de"><seg>Zwei</seg></tuv><tuv xml:lang="de-AT"><seg>Zwo</seg></tuv></tu>
</body></tmx>"""
PO = """# A translation.
msgid ""
msgstr "Content-Type: text/plain; charset=ISO-8859-1\\n"

#: src/a.c:3 src/b.c:9
msgctxt "menu"
msgid "Open"
msgstr "\u00d6ffnen"

#, fuzzy
msgid "Close"
msgstr "Schlie\u00dfer"

msgid "Print"
msgstr ""

#: src/b.c:4
msgid "%d file"
msgid_plural "%d files"
msgstr[0] "%d Datei"
msgstr[1] "%d Dateien"

#~ msgid "Old"
#~ msgstr "Alt"
"""


def opened(**settings: Any) -> ParallelText:
    """Return the source, of which nothing is drawn unless the settings say so."""
    return validate(ParallelText, {"fraction": 0.0, **settings}, "data")


def with_own_splits(**settings: Any) -> ParallelText:
    return validate(ParallelText, settings, "data")


def texts(pairs: Sequence[Example]) -> list[tuple[str, str]]:
    return [(pair.inputs, pair.target) for pair in pairs]


def write_lines(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    write_lines(path, [json.dumps(row) for row in rows])
    return path


# ------------------------------------------------------------------------------------------ layouts
def test_aligned_files_by_language(tmp_path: Path) -> None:
    for name, own in (("train", PAIRS), ("dev", [("dev", "x")]), ("test", [("t", "u")])):
        write_lines(tmp_path / f"{name}.en", [source for source, _ in own])
        write_lines(tmp_path / f"{name}.de", [target for _, target in own])
    write_lines(tmp_path / "readme.txt", ["about these files"])
    write_lines(tmp_path / "notes.en", ["not translated yet"])
    source = with_own_splits(path=str(tmp_path), **LANGUAGES)
    assert source.splits() == ("train", "validation", "test")
    assert texts(source.examples("train", tmp_path)) == PAIRS
    assert texts(source.examples("validation", tmp_path)) == [("dev", "x")]
    assert texts(source.examples("test", tmp_path)) == [("t", "u")]
    card = source.card(tmp_path)
    assert card["files"] == {
        "found": 8,
        "read": 6,
        "left_out": {"without a partner of the other language": 2},
    }
    notes = list(data_notes(card))
    assert any("notes.en, readme.txt" in note for note in notes)
    single = with_own_splits(
        path=str(tmp_path / "train.en"), validation=str(tmp_path / "dev.en"), **LANGUAGES
    )
    assert texts(single.examples("train", tmp_path)) == PAIRS
    assert texts(single.examples("validation", tmp_path)) == [("dev", "x")]
    assert set(single.contents().values()) == {
        tmp_path / f"{name}.{language}" for name in ("train", "dev") for language in ("en", "de")
    }
    assert texts(single.reading(str(tmp_path / "test.en")).examples("train", tmp_path)) == [
        ("t", "u")
    ]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "partner"),
    [
        ("train.en", "train.de"),
        ("en/a/train.txt", "de/a/train.txt"),
        ("corpus-EN.txt", "corpus-de.txt"),
        ("en/news.en.gz", "en/news.de.gz"),
        ("den.txt", None),
    ],
)
def test_names_of_partners(name: str, partner: str | None) -> None:
    assert name_of_partner(name, "en", "de") == partner
    assert name_of_partner("a.zh-CN.txt", "zh-CN", "en") == "a.en.txt"


def test_aligned_files_by_path(tmp_path: Path) -> None:
    sources = [*(source for source, _ in PAIRS), "line with\u2028a mark", ""]
    targets = [*(target for _, target in PAIRS), "Zeile\rmit", ""]
    for folder, lines in (("a", sources), ("b", targets)):
        write_lines(tmp_path / folder / "one.txt", lines)
        (tmp_path / f"{folder}.gz").write_bytes(gzip.compress("\r\n".join(lines).encode("utf-16")))
    expected = [*PAIRS, ("line with\u2028a mark", "Zeile\rmit")]
    folders = opened(path=str(tmp_path / "a"), target_path=str(tmp_path / "b"))
    assert texts(folders.examples("train", tmp_path)) == expected
    assert folders.card(tmp_path)["rows"] == {
        "found": 42,
        "read": 41,
        "left_out": {"with both sides empty": 1},
        "left_out_examples": {"with both sides empty": [f"{tmp_path}/a/one.txt line 42: '' -> ''"]},
    }
    file = tmp_path / "a" / "one.txt"
    lists = opened(path=[str(file)], target_path=[str(tmp_path / "b" / "one.txt")])
    assert texts(lists.examples("train", tmp_path)) == expected
    assert len(lists.contents()) == 2
    assert lists.reading("x.jsonl").target_path is None  # type: ignore[union-attr]
    assert [row.inputs for row in lists.unlabelled(str(file))] == [*sources[:-1]]


def test_rows(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.tsv", ["source\ttarget\tmore", "a\tb\tc", "\td\te"])
    assert texts(opened(path=str(tmp_path / "a.tsv")).examples("train", tmp_path)) == [("a", "b")]
    write_lines(tmp_path / "b.tsv", ['say "hi\tsag "hallo', "a\tb"])
    plain = opened(
        path=str(tmp_path / "b.tsv"), header=False, quotes=False, source_column=2, target_column=1
    )
    assert texts(plain.examples("train", tmp_path)) == [('sag "hallo', 'say "hi'), ("b", "a")]
    path = write_rows(
        tmp_path / "c.jsonl", [{"body": "long", "title": "t"}, {"body": "no title", "title": None}]
    )
    named = opened(path=str(path), source_column="body", target_column="title")
    assert texts(named.examples("train", tmp_path)) == [("long", "t")]
    assert [row.inputs for row in named.unlabelled(str(path))] == ["long", "no title"]
    rows = [
        {"id": n, "translation": {"de": t, "en": s, "fr": "x"}} for n, (s, t) in enumerate(PAIRS)
    ]
    dictionaries = opened(path=str(write_rows(tmp_path / "d.jsonl", rows)), **LANGUAGES)
    assert texts(dictionaries.examples("train", tmp_path)) == PAIRS
    asked = [row.inputs for row in dictionaries.unlabelled(str(tmp_path / "d.jsonl"))]
    assert asked == [source for source, _ in PAIRS]
    lines = write_rows(tmp_path / "e.jsonl", [{"en": "named by its language"}, {"text": "or so"}])
    asked = [row.inputs for row in dictionaries.unlabelled(str(lines))]
    assert asked == ["named by its language", "or so"]


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache")
@pytest.mark.xdist_group("datasets")
def test_a_data_set_of_translations(tmp_path: Path) -> None:
    rows = [{"en": source, "de": target} for source, target in PAIRS]
    splits = {"train": {"translation": rows[3:]}, "validation": {"translation": rows[:3]}}
    features = {"translation": datasets.Translation(languages=["en", "de"])}
    path = write_dataset(tmp_path / "pairs", splits, features)
    source = with_own_splits(dataset=path, **LANGUAGES)
    assert texts(source.examples("train", tmp_path)) == PAIRS[3:]
    assert texts(source.examples("validation", tmp_path)) == PAIRS[:3]
    files = with_own_splits(path=path, **LANGUAGES)
    assert texts(files.examples("validation", tmp_path)) == PAIRS[:3]


def test_translation_memories(tmp_path: Path) -> None:
    pytest.importorskip("defusedxml")
    (tmp_path / "a.tmx").write_text(TMX, encoding="utf-8")
    source = opened(path=str(tmp_path), **LANGUAGES)
    found = source.examples("train", tmp_path)
    assert texts(found) == [("Press Enter & wait.", "Warten."), ("Two", "Zwei")]
    assert found[1].origin == f"{tmp_path}/a.tmx unit 3"
    assert source.card(tmp_path)["met_in_files"] == {
        "further texts of a unit in one language, not read": 1,
        "units without both languages, not read": 1,
    }


def test_catalogs(tmp_path: Path) -> None:
    polib = pytest.importorskip("polib")
    expected = [("Open", "Öffnen"), ("%d file", "%d Datei"), ("%d files", "%d Dateien")]
    (tmp_path / "a.po").write_bytes(PO.encode("latin-1"))
    source = opened(path=str(tmp_path), group_column="reference")
    found = source.examples("train", tmp_path)
    assert texts(found) == expected
    assert [pair.name for pair in found] == ["train/a.po:1", "train/a.po:4", "train/a.po:4.2"]
    assert found[0].origin.endswith("a.po line 5")
    assert source.card(tmp_path)["met_in_files"] == {
        "files in ISO-8859-1": 1,
        "fuzzy entries, not read": 1,
        "obsolete entries, not read": 1,
        "untranslated entries, not read": 1,
    }
    compiled = polib.pofile(str(tmp_path / "a.po")).to_binary()
    (tmp_path / "b.mo").write_bytes(compiled)
    (tmp_path / "c.mo.gz").write_bytes(gzip.compress(compiled))
    for name in ("b.mo", "c.mo.gz"):
        assert sorted(
            texts(opened(path=str(tmp_path / name)).examples("train", tmp_path))
        ) == sorted(expected)
    # One form for all numbers is that of the plural; U+2028 is a letter.
    (tmp_path / "zh.po").write_text(
        'msgid "%d file"\nmsgid_plural "%d\u2028files"\nmsgstr[0] "%d 个文件"\n', encoding="utf-8"
    )
    assert texts(opened(path=str(tmp_path / "zh.po")).examples("train", tmp_path)) == [
        ("%d\u2028files", "%d 个文件")
    ]


# ------------------------------------------------------------------------------- filters and splits
def test_filters_are_counted(tmp_path: Path) -> None:
    rows = [
        ("Open the file", "打开文件"),
        ("Open the file", "打开文件"),
        ("  ", "空"),
        ("empty", ""),
        ("PDF", "PDF"),
        ("Save", "Save the file as it is"),
        ("Open", "Открыть"),
        ("文件", "文件夹"),
        ("Use LibreOffice Writer", "使用 LibreOffice 吧"),
        ("12", "34"),
        ("ｗｉｄｅ", "宽"),
    ]
    path = write_rows(
        tmp_path / "a.jsonl", [{"source": source, "target": target} for source, target in rows]
    )
    plain = opened(path=str(path)).card(tmp_path)["rows"]
    assert (plain["found"], plain["read"]) == (11, 8)
    filters = {
        "drop_copies": True,
        "max_length_ratio": 5.0,
        "source_script": "latin",
        "target_script": "han",
        "min_script_share": 0.2,
    }
    source = opened(path=str(path), filters=filters)
    assert texts(source.examples("train", tmp_path)) == [rows[0], rows[8], rows[9], rows[10]]
    card = source.card(tmp_path)
    assert card["rows"]["left_out"] == {
        "the same as an earlier pair": 1,
        "with an empty source": 1,
        "with an empty target": 1,
        "whose target is the source itself": 1,
        "with sides more than 5 times as long as the other": 1,
        "whose target is not in han letters": 1,
        "whose source is not in latin letters": 1,
    }
    (note,) = data_notes(card)
    assert f"{path}: of 11 rows 4 are read; left out: 1 the same as an earlier pair, " in note
    assert (
        len(
            opened(path=str(path), filters={"drop_duplicates": False}, limit=3).examples(
                "train", tmp_path
            )
        )
        == 2
    )


def sizes(source: ParallelText, cache: Path) -> dict[Split, int]:
    return {split: len(source.examples(split, cache)) for split in source.splits()}


def test_documents_are_held_out_whole_without_their_sources_in_training(tmp_path: Path) -> None:
    # Every document repeats some sentence of another, so that by sentences they all belong together.
    rows = [
        {"source": f"Sentence {n + 7 * k}", "target": f"Satz {n}.{k}", "page": f"p{n}"}
        for n in range(60)
        for k in range(3)
    ]
    path = write_rows(tmp_path / "a.jsonl", rows)
    source = opened(path=str(path), group_column="page", fraction=0.2, test=0.1)
    sides: dict[Split, list[Example]] = {
        split: source.examples(split, tmp_path) for split in source.splits()
    }
    page = {f"{path} line {n}": row["page"] for n, row in enumerate(rows, 1)}
    pages = {split: {page[pair.origin] for pair in own} for split, own in sides.items()}
    read = {split: {pair.inputs for pair in own} for split, own in sides.items()}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not pages[one] & pages[other]  # type: ignore[index]
        assert not read[one] & read[other]  # type: ignore[index]
    assert 5 < len(pages["validation"]) < 25
    repeated = source.card(tmp_path)["same_source_as_held_out"]
    assert repeated == len(rows) - sum(map(len, sides.values())) > 0
    # Without documents, those with the same source are on one side, and none is left out.
    pairs = opened(path=str(path), fraction=0.2)
    assert sum(sizes(pairs, tmp_path).values()) == len(rows)
    assert pairs.card(tmp_path)["same_source_as_held_out"] == 0


def test_files_are_documents(tmp_path: Path) -> None:
    for number in range(30):
        write_lines(tmp_path / "en" / f"{number}.txt", [f"{number} {n}" for n in range(4)])
        write_lines(tmp_path / "de" / f"{number}.txt", [f"{number}-{n}" for n in range(4)])
    source = opened(path=str(tmp_path), whole_files=True, fraction=0.3, **LANGUAGES)
    files = [
        {pair.inputs.split()[0] for pair in source.examples(split, tmp_path)}
        for split in source.splits()
    ]
    assert not files[0] & files[1]
    assert sum(sizes(source, tmp_path).values()) == 120


def test_named_held_out_sources_are_not_trained_on(tmp_path: Path) -> None:
    for name, rows in (("train", [("A  b", "1"), ("c", "2")]), ("dev", [("a B", "3")])):
        write_rows(tmp_path / f"{name}.jsonl", [{"source": s, "target": t} for s, t in rows])
    source = with_own_splits(path=str(tmp_path))
    assert texts(source.examples("train", tmp_path)) == [("c", "2")]
    assert source.card(tmp_path)["same_source_as_held_out"] == 1


@pytest.mark.slow
def test_contract(tmp_path: Path) -> None:
    check_data(tiny_run("encoder_decoder", tmp_path), {"training.batch_size": 8})
