"""Every message of pairs of texts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from groundup.core.errors import DataError, MissingExtraError, RecipeError
from groundup.core.settings import validate
from groundup.data.sources.parallel_text import ParallelText

LANGUAGES = {"source_language": "en", "target_language": "de"}
BOMB = """<!DOCTYPE tmx [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;&lol;">]>
<tmx version="1.4"><body><tu><tuv xml:lang="en"><seg>&lol2;</seg></tuv></tu></body></tmx>"""
OUTSIDE = """<!DOCTYPE tmx [<!ENTITY % file SYSTEM "file:///etc/passwd"> %file;]><tmx/>"""


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path, **settings: Any) -> None:
    validate(ParallelText, {"path": str(path), **settings}, "recipe.data").examples("train", path)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"source_language": "en"},
            "one language is given, but there are two. Set target_language",
        ),
        ({"source_language": "en", "target_language": "en"}, "both languages are 'en'. Name two"),
        (
            {**LANGUAGES, "context_column": "a"},
            "context_column has no effect: with languages, texts are in the column 'translation'",
        ),
        ({"target_path": "b", "context_column": "a"}, "context_column has no effect with target_"),
        ({"context_column": 3}, "context_column is 3, but header is true; allowed: a name"),
        (
            {**LANGUAGES, "source_column": "a"},
            "source_column has no effect: with languages, texts are in the column 'translation'",
        ),
        (
            {"translation_column": "a"},
            "translation_column has no effect without source_language and target_language",
        ),
        ({"target_path": "b", **LANGUAGES}, "source_language has no effect with target_path"),
        ({"target_path": "b", "quotes": False}, "quotes has no effect with target_path"),
        ({"target_path": "b", "group_column": "a"}, "group_column has no effect with target_path"),
        ({"target_path": "b", "time_column": "a"}, "time_column has no effect with target_path"),
        ({"target_path": ["b", "c"]}, "path and target_path name different numbers of files"),
        (
            {"target_path": "b", "validation": "c"},
            "validation names sources, but target_path no targets for them. Call files by their",
        ),
        ({"header": False}, "source_column is 'source', but header is false; allowed: a number"),
        ({"target_column": 2}, "target_column is 2, but header is true; allowed: a name"),
        ({"target_column": "source"}, "source_column and target_column are both 'source'"),
        ({"filters": {"min_script_share": 0.5}}, "min_script_share has no effect without source_"),
        (
            {"filters": {"source_script": "runic"}},
            "source_script: got .runic.; allowed: 'arabic', 'cyrillic'",
        ),
        ({"filters": {"max_length_ratio": 1.0}}, "max_length_ratio: got 1.0; allowed: greater"),
    ],
)
def test_settings(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        validate(ParallelText, {"path": "a", **settings}, "recipe.data")
    if "target_path" in settings:
        data = {"dataset": "a", "target_path": "b"}
        with pytest.raises(RecipeError, match="target_path has no effect with dataset"):
            validate(ParallelText, data, "recipe.data")


# ------------------------------------------------------------------------------------------- rows
@pytest.mark.parametrize(
    ("row", "settings", "problem"),
    [
        (
            {"source": "a", "targets": "b"},
            {},
            "line 1: there is no column 'target'; did you mean 'targets'. columns: source, targets",
        ),
        ({"source": "a", "target": ["b"]}, {}, "line 1: target 'target' is a list"),
        (
            {"question": "a", "answers": [1]},
            {},
            r"line 1: column 'answers' holds \[1\]; allowed: a text, a list of texts, or",
        ),
        (
            {"question": "a", "context": 7, "answer": "b"},
            {},
            "line 1: context 'context' is a number",
        ),
        (
            {"question": "a", "reply": "b"},
            {},
            "line 1: there is no column 'target'; columns: question, reply",
        ),
        (
            {"translation": "a"},
            LANGUAGES,
            r"line 1: column 'translation' holds 'a'; allowed: a text for each language, as \{",
        ),
        (
            {"translation": {"en": "a", "den": "b"}},
            LANGUAGES,
            "line 1: column 'translation' has no 'de'; did you mean 'den'. languages: en, den",
        ),
        ({"source": " ", "target": "b"}, {}, "nothing is left for train"),
        ({"source": "a", "target": "b"}, {"fraction": 0.5}, "nothing is left for validation"),
        (
            {"source": "a", "target": "b"},
            {"group_column": "page"},
            "there is no column 'page'",
        ),
    ],
)
def test_rows(row: dict[str, Any], settings: dict[str, Any], problem: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps(row))
    with pytest.raises(DataError, match=problem):
        read(path, **{"fraction": 0.0, **settings})


# ---------------------------------------------------------------------------------- aligned files
@pytest.mark.parametrize(
    ("source", "target", "problem"),
    [
        ("a\nb\n", "A\nB\nC\n", r"b\.de line 3: has no partner: .*a\.en ends after line 2.*is 'C'"),
        ("a\nb", "A", r"a\.en line 2: has no partner: .*b\.de ends after line 1.*the line is 'b'"),
        ("a\n", "\n", "nothing is left for train"),
        ("a\n", b"\xe4\xf6\xfc", "byte 0 .0xe4. is not UTF-8"),
    ],
)
def test_aligned_files(source: str, target: str | bytes, problem: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.en", source)
    with pytest.raises(DataError, match=problem):
        read(path, target_path=str(write(tmp_path / "b.de", target)), fraction=0.0)


def test_files_without_a_partner(tmp_path: Path) -> None:
    write(tmp_path / "data" / "a.en", "a\n")
    with pytest.raises(
        DataError,
        match=r"no file has a partner in the other language; looked for names such as train\.en"
        r" next to train\.de; found: a\.en\. Correct data\.source_language",
    ):
        read(tmp_path / "data", **LANGUAGES)
    write(tmp_path / "lines" / "a.txt", "a\n")
    with pytest.raises(
        DataError, match="one of path and target_path is a folder, and the other is"
    ):
        read(tmp_path / "lines", target_path=str(tmp_path / "data" / "a.en"))
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="no file to read in this folder; it has no files"):
        read(tmp_path / "lines", target_path=str(tmp_path / "other"))
    with pytest.raises(DataError, match=r"there is no such file or folder; .* has no 'b\.en'"):
        read(tmp_path / "data" / "a.en", target_path=str(tmp_path / "data" / "b.en"))
    write(tmp_path / "data" / "a.de", "a\n")
    with pytest.raises(DataError, match=r"there is no column 'page'; .*columns: source, target"):
        read(tmp_path / "data", group_column="page", **LANGUAGES)


# --------------------------------------------------------------------- translation memories, gettext
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("this is no XML", "is not XML: syntax error: line 1, column 0. Correct it there"),
        ("<tmx><body><tu>", "is not XML: no element found: line 1, column 15"),
        (BOMB, "declares the entity 'lol', which may expand without end; allowed: none"),
        (OUTSIDE, "declares the entity 'file'|refers to another file"),
        ("<xliff/>", "begins with <xliff>; allowed: <tmx>"),
        (
            "<tmx><body><tu><tuv xml:lang='fr'><seg>a</seg></tuv><tuv/></tu></body></tmx>",
            r"no unit has a text in both 'en' and 'de'; languages: fr \(1 texts\), none \(1 texts\)",
        ),
    ],
)
def test_translation_memories(content: str, problem: str, tmp_path: Path) -> None:
    pytest.importorskip("defusedxml")
    with pytest.raises(DataError, match=problem):
        read(write(tmp_path / "a.tmx", content), **LANGUAGES)


def test_a_translation_memory_without_languages(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has texts in several languages, and no two are named"):
        read(write(tmp_path / "a.tmx", "<tmx/>"))


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.po", 'msgid "a"\nmsgstrr "b"\n', r"cannot be read as \.po: Syntax error .*line 2"),
        ("a.po", b'msgid "a"\nmsgstr "\xe4\xf6"\n', "byte 18 .0xe4. is not UTF-8"),
        ("a.mo", b"no catalog", r"cannot be read as \.mo: Invalid mo file, magic number"),
        ("a.mo", b"\xde\x12\x04\x95\0\0\0\0\xff\xff\xff\xff", r"cannot be read as \.mo: unpack"),
    ],
)
def test_catalogs(name: str, content: str | bytes, problem: str, tmp_path: Path) -> None:
    pytest.importorskip("polib")
    with pytest.raises(DataError, match=problem):
        read(write(tmp_path / name, content))


def test_languages_without_effect(tmp_path: Path) -> None:
    path = write(tmp_path / "a.po", 'msgid "a"\nmsgstr "b"\n')
    with pytest.raises(RecipeError, match=r"source_language: has no effect: .* has \.po and \.mo"):
        read(path, **LANGUAGES)


@pytest.mark.parametrize(
    ("library", "name", "content"),
    [("defusedxml", "a.tmx", "<tmx/>"), ("polib", "a.po", 'msgid "a"\nmsgstr "b"\n')],
)
def test_missing_libraries(
    library: str, name: str, content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    settings = LANGUAGES if name == "a.tmx" else {}
    with pytest.raises(MissingExtraError, match=rf"{library}: .*groundup\[translation\]"):
        read(write(tmp_path / name, content), **settings)


def test_files_in_lines_without_languages(tmp_path: Path) -> None:
    """What to set is said by the names of the files."""
    write(tmp_path / "data" / "a.en", "a\n")
    path = write(tmp_path / "data" / "a.zh", "b\n")
    problem = r"no file to read.* set their languages.*_language=en data\.target_language=zh"
    with pytest.raises(DataError, match=problem):
        read(tmp_path / "data")
    with pytest.raises(DataError, match="lines of another file, name that one"):
        read(path)
    rows = write(tmp_path / "rows.csv", "source,targte\na,b\n")
    with pytest.raises(DataError, match=r"no column 'target'; did you mean 'targte'.*data section"):
        read(rows)
