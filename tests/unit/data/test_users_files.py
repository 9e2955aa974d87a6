"""Files as users have them: what is in them is read, counted, or refused with what to do."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from user_files import make, notes, sizes, texts, write

from groundup.core import registry
from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import validate
from groundup.data.reading.json_files import read_json_file
from groundup.data.reading.listing import list_files

PAIRS = [{"prompt": f"q{number}", "completion": f"a{number}"} for number in range(12)]
SPLITS = {"train": 6, "validation": 4, "test": 2}


# --------------------------------------------------------------------------------------------- JSON
ROW = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    ("content", "rows", "note"),
    [
        ({"data": {"train": PAIRS}}, PAIRS, "the keys of splits (train 12)"),
        (
            {"train": {"a": [1]}, "dev": {"a": [2]}},
            [{"a": 1, "split": "train"}, {"a": 2, "split": "dev"}],
            "(train 1, dev 1)",
        ),
        ({"data": PAIRS, "version": 1}, PAIRS, "under the key 'data' (not read: version)"),
        (json.dumps({"rows": PAIRS}), PAIRS, "under the key 'rows'"),
        ({"conversations": [{"conversations": ROW}]}, [{"conversations": ROW}], "under the key"),
        ({"0": {"a": 1}, "1": {"a": 2}}, [{"a": 1}, {"a": 2}], "rows by their names"),
        ({"a": {"0": 1, "1": 2}}, [{"a": 1}, {"a": 2}], "files of columns, not of rows"),
        ({"a": [1, 2], "b": [3, 4]}, [{"a": 1, "b": 3}, {"a": 2, "b": 4}], "files of columns"),
        ({"columns": ["a"], "index": [0], "data": [[1]]}, [{"a": 1}], "as pandas splits them"),
        ({"messages": ROW}, [{"messages": ROW}], ""),
        ([ROW], [{"messages": ROW}], ""),
        ('{\n"a": 1}\n{\n"a": 2}', [{"a": 1}, {"a": 2}], ""),
        ({"messages": ROW, "tools": [{"name": "f"}]}, None, ""),
        ({"tokens": ["x", "y"]}, None, ""),
    ],
)
def test_json_files(content: Any, rows: list[Any] | None, note: str, tmp_path: Path) -> None:
    file = list_files(write(tmp_path / "a.json", content)).files[0]
    with file.path.open("rb") as handle:
        found = [row for _, _, row in read_json_file(file, handle)]
    assert found == ([content] if rows is None else rows)
    assert note in " ".join(file.notes)


def test_json_as_python_prints_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", "{'text': 'x'}\n")
    with pytest.raises(DataError, match="as Python prints it: write it with json"):
        list(make("text", path).examples("train", tmp_path))
    cell = str(ROW).replace('"', '""')
    path = write(tmp_path / "b.csv", f'messages\n"{cell}"\n')
    assert texts(make("conversations", path, fraction=0.0), tmp_path) == ["q\na"]


# ------------------------------------------------------------------------------------------- splits
@pytest.mark.parametrize("name", ["conversations", "text", "labelled_text", "table"])
@pytest.mark.parametrize("column", ["split", "Set", None])
def test_a_column_of_splits(name: str, column: str | None, tmp_path: Path) -> None:
    names = [split for split, count in SPLITS.items() for _ in range(count)]
    rows = [
        {"prompt": f"q{n}", "completion": "a", "text": f"t{n}", "label": n % 2} for n in range(12)
    ]
    if column is None and name != "table":
        path = write(
            tmp_path / "a.json",
            {s: [r for r, own in zip(rows, names, strict=True) if own == s] for s in SPLITS},
        )
    else:
        header = [*rows[0], column or "split"]
        lines = [",".join(map(str, [*r.values(), s])) for r, s in zip(rows, names, strict=True)]
        path = write(tmp_path / "a.csv", "\n".join([",".join(header), *lines]))
    settings = {"target": "label"} if name == "table" else {}
    source = make(name, path, **settings)
    assert sizes(source, tmp_path) == SPLITS
    said = f"column {column or 'split'!r} says which split a row is: train 6, validation 4, test 2"
    assert said in notes(source, tmp_path)
    whole = make(name, path, split_column="", fraction=0.0, **settings)
    assert sizes(whole, tmp_path) == {"train": 12}


def test_a_column_that_says_what_is_validation(tmp_path: Path) -> None:
    rows = "".join(f"t{number},{number % 2},{number % 4 == 0}\n" for number in range(12))
    path = write(tmp_path / "a.csv", f"text,label,is_valid\n{rows}")
    assert sizes(make("labelled_text", path), tmp_path) == {"train": 9, "validation": 3}


def test_columns_of_other_splits_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,split\na,train\nb,test\nc,extra\n")
    with pytest.raises(DataError, match=r"'extra' is none; it holds 'train' 1, 'test' 1, 'extra'"):
        make("text", path).splits()
    assert sizes(make("text", path, split_column="", fraction=0.0), tmp_path) == {"train": 3}
    with pytest.raises(DataError, match="no column 'spilt'; did you mean 'split'"):
        make("text", path, split_column="spilt").splits()
    path = write(tmp_path / "b.csv", "text,part\na,test\nb,dev\n")
    with pytest.raises(DataError, match="column 'part' says that no row is train; it holds test"):
        make("text", path, split_column="part").splits()


def test_rows_of_splits_that_are_not_used(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label,split\na,1,train\nb,,test\nc,0,train\nd,1,val\n")
    write(tmp_path / "v.csv", "text,label\nx,1\n")
    source = make("labelled_text", path, validation=str(tmp_path / "v.csv"))
    assert sizes(source, tmp_path) == {"train": 2, "validation": 1}
    said = notes(source, tmp_path)
    assert "1 of validation are not used: data.validation names others" in said
    assert "1 of test have no 'label', and are left out" in said


def test_splits_called_so_in_chinese(tmp_path: Path) -> None:
    for name, split in (("训练集", "train"), ("测试集_1", "test")):
        write(tmp_path / "data" / f"{name}.jsonl", f'{{"text": "{split}"}}\n')
    assert sizes(make("text", tmp_path / "data", fraction=0.0), tmp_path) == {"train": 1, "test": 1}


def test_what_competitions_publish(tmp_path: Path) -> None:
    rows = "".join(f"{number},t{number},{number % 2}\n" for number in range(30))
    write(tmp_path / "train.csv", f"id,text,label\n{rows}")
    write(tmp_path / "test.csv", "id,text\n1,q\n")
    write(tmp_path / "sample_submission.csv", "id,label\n1,0\n")
    source = make("labelled_text", tmp_path)
    assert sum(sizes(source, tmp_path).values()) == 30
    assert "sample_submission.csv has not all columns of the others" in notes(source, tmp_path)


def test_one_group_cannot_be_divided(tmp_path: Path) -> None:
    rows = [{"prompt": "Hi", "completion": f"a{number}"} for number in range(30)]
    path = write(tmp_path / "a.json", rows)
    with pytest.raises(DataError, match=r"there is a single first question.*data.fraction: 0"):
        sizes(make("conversations", path), tmp_path)
    assert sizes(make("conversations", path, fraction=0.0), tmp_path) == {"train": 30}


@pytest.mark.parametrize("name", ["conversations", "labelled_text", "text"])
def test_the_seed_of_the_remedy_draws_some(name: str, tmp_path: Path) -> None:
    rows = [{**row, "text": row["prompt"], "label": "x"} for row in PAIRS[:4]]
    path = write(tmp_path / "a.json", rows)
    with pytest.raises(
        DataError, match=r"of 4 different .* none was drawn\. Set data.seed"
    ) as told:
        sizes(make(name, path, fraction=0.02), tmp_path)
    seed = int(str(told.value).split("data.seed: ")[1].split(",")[0])
    assert sizes(make(name, path, fraction=0.02, seed=seed), tmp_path)["validation"] > 0


# ---------------------------------------------------------------------------------- missing, unused
def test_cells_that_stand_for_nothing(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv", "instruction,input,output\na,nan,x\nb,None,nan\nc,of,y\nd,N/A,z\n"
    )
    source = make("conversations", path, fraction=0.0)
    assert texts(source, tmp_path) == ["a\nx", "b\nnan", "c\nof\ny", "d\nz"]
    said = notes(source, tmp_path)
    assert "cells of 'input' that say nan, None or the like, read as empty 3" in said
    assert "1 cells of 'output' are nan, null or the like, and learned as that word" in said
    path = write(tmp_path / "b.jsonl", '{"text": NaN, "label": 1}\n{"text": "x", "label": 0}\n')
    source = make("labelled_text", path, fraction=0.0)
    assert sizes(source, tmp_path) == {"train": 1}
    assert "1 rows without a text are left out, as" in notes(source, tmp_path)


def test_columns_that_are_not_used(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label,url,date\na,1,u,d\nb,0,u,d\n")
    said = notes(make("labelled_text", path, fraction=0.0), tmp_path)
    assert f"{path}: columns that are not used: url, date" in said


@pytest.mark.parametrize(
    ("row", "said", "expected"),
    [
        ({"instruction": "q", "context": "c", "response": "a"}, "context → input", "q\nc\na"),
        ({"Question": "q", "Answer": "a"}, "Question → question", "q\na"),
        ({"query": "q", "output": "a", "id": 1}, "query → prompt", "q\na"),
        ({"messages": [{"role": "User", "content": "q"}, ROW[1]]}, "", "q\na"),
    ],
)
def test_other_names(row: dict[str, Any], said: str, expected: str, tmp_path: Path) -> None:
    source = make("conversations", write(tmp_path / "a.json", [row]), fraction=0.0)
    assert texts(source, tmp_path) == [expected]
    assert said in notes(source, tmp_path)
    (asked,) = source.unlabelled(str(tmp_path / "a.json"))
    assert asked.problem == ""


@pytest.mark.parametrize("as_python", [False, True])
def test_messages_as_text_in_cells(as_python: bool, tmp_path: Path) -> None:
    asked, chosen = (str(turns) if as_python else json.dumps(turns) for turns in (ROW[:1], ROW[1:]))
    rejected = json.dumps({"role": "assistant", "content": "b"})
    row = {"prompt": asked, "chosen": chosen, "rejected": rejected}
    source = make("preferences", write(tmp_path / "a.json", [row]), fraction=0.0)
    found = source.examples("train", tmp_path)[0]
    assert [turn.content for turn in (*found.prompt, *found.answers[0], *found.answers[1])] == [
        "q",
        "a",
        "b",
    ]
    row = {"prompt": asked, "completion": chosen}
    source = make("conversations", write(tmp_path / "b.json", [row]), fraction=0.0)
    assert texts(source, tmp_path) == ["q\na"]
    row = {"instruction": "q", "output": "a", "history": '[["x", "y"]]'}
    source = make("conversations", write(tmp_path / "c.json", [row]), fraction=0.0)
    assert texts(source, tmp_path) == ["x\ny\nq\na"]


def test_other_names_of_preferences(tmp_path: Path) -> None:
    row = {"query": "q", "preferred": "a", "dispreferred": "b"}
    source = make("preferences", write(tmp_path / "a.json", [row]), fraction=0.0)
    assert sizes(source, tmp_path) == {"train": 1}
    assert "dispreferred → rejected" in notes(source, tmp_path)
    path = write(tmp_path / "b.json", [{"prompt": "q", "chosen": "a", "rejected": ["b", "c"]}])
    with pytest.raises(DataError, match=r"there are 2 texts in a list.* Write a row for each"):
        make("preferences", path, fraction=0.0).examples("train", tmp_path)


@pytest.mark.parametrize("ignore", [False, True])
def test_keys_of_the_parts_of_a_content(ignore: bool, tmp_path: Path) -> None:
    part = {"type": "input_text", "text": "q", "cache_control": {"type": "ephemeral"}}
    rows = [{"messages": [{"role": "user", "content": [part]}, ROW[1]]}]
    path = write(tmp_path / "a.json", rows)
    named = {"ignore": ["cache_control"]} if ignore else {}
    source = make("conversations", path, fraction=0.0, **named)
    if ignore:
        assert texts(source, tmp_path) == ["q\na"]
        return
    with pytest.raises(DataError, match=r"or set data.ignore: \[cache_control\]; or set data.inv"):
        texts(source, tmp_path)


def test_answers_of_one_label_and_empty_system_prompts(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": ""}, *ROW]
    path = write(tmp_path / "a.json", [{"messages": turns, "label": True}])
    source = make("preferences", path, fraction=0.0)
    assert "all answers to train on are labelled good" in notes(source, tmp_path)
    assert [turn.role for turn in source.examples("train", tmp_path)[0].prompt] == ["user"]


def test_held_out_by_another_name(tmp_path: Path) -> None:
    for name in ("train", "holdout"):
        write(tmp_path / "data" / f"{name}.jsonl", f'{{"text": "{name}"}}\n')
    said = notes(make("text", tmp_path / "data", fraction=0.0), tmp_path)
    assert "trained on, although called like held-out rows" in said


# --------------------------------------------------------------------------------- files and folders
def test_what_is_about_the_data_is_no_row(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", '{"text": "x"}\n')
    write(tmp_path / "dataset_infos.json", {"default": {}})
    write(tmp_path / "README.md", "about")
    listing = list_files(tmp_path)
    assert [file.relative for file in listing.files] == ["a.jsonl"]
    assert listing.left_out["about the data (read-mes, licences, data set infos)"] == 2
    (tmp_path / "a.jsonl").unlink()
    assert [file.relative for file in list_files(tmp_path).files] == ["README.md"]


def test_files_without_text_among_others(tmp_path: Path) -> None:
    write(tmp_path / "data" / "a.txt", " \n")
    write(tmp_path / "data" / "b.txt", "text")
    source = make("text", tmp_path / "data", fraction=0.0)
    assert texts(source, tmp_path) == ["text"]
    assert "files without rows, or of white space alone 1" in notes(source, tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "note"),
    [
        ("a.txt", '{"text": "x"}\n', "look like lines of JSON, read as text: call them .jsonl"),
        ("a.md", "---\nt: x\n---\ntext", "begin with front matter"),
        ("a.txt", "The Project Gutenberg eBook", "Project Gutenberg's words"),
        ("a.jsonl", '{"text": "x"}\n\ufeff{"text": "y"}\n', "byte-order marks at later lines"),
    ],
)
def test_what_texts_begin_with(name: str, text: str, note: str, tmp_path: Path) -> None:
    source = make("text", write(tmp_path / name, text), fraction=0.0)
    assert note in notes(source, tmp_path)


def test_a_name_in_another_form(tmp_path: Path) -> None:
    write(tmp_path / unicodedata.normalize("NFD", "Köln.txt"), "text")
    assert sizes(make("text", tmp_path / "Köln.txt", fraction=0.0), tmp_path) == {"train": 1}


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("https://example.com/a.txt", "curl -L -O https://example.com/a.txt"),
        ("s3://bucket/a.txt", "aws s3 cp s3://bucket/a.txt ."),
        ("https://huggingface.co/datasets/a/b", "Write dataset: a/b in place of it"),
        ("file:///tmp/a.txt", "Write /tmp/a.txt"),
    ],
)
def test_addresses(path: str, remedy: str) -> None:
    with pytest.raises(RecipeError, match="path is an address") as told:
        validate(registry.lookup("data", "text"), {"path": path}, "recipe.data")
    assert remedy in str(told.value)
