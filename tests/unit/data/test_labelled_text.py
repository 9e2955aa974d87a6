"""Texts with labels: every way they are read, how they are split, and a classifier trained on
them."""

from __future__ import annotations

import json
import pydoc_data.topics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import groundup
from groundup.contracts.models import ModelConfig
from groundup.core import registry
from groundup.core.errors import DataError
from groundup.core.settings import setting
from groundup.core.values import Example
from groundup.data.sources.labelled_text import LabelledText
from groundup.data.splitting.drawing import say_once

ROWS = [(f"text number {n}, 第{n}句", "ab"[n % 2]) for n in range(40)]


def both(source: LabelledText) -> list[Example]:
    return source.examples("train", Path()) + source.examples("validation", Path())


def pairs(source: LabelledText) -> list[tuple[Any, Any]]:
    return sorted((e.inputs, e.target) for e in both(source))


def texts(source: LabelledText, split: Any) -> list[str]:
    return [e.inputs for e in source.examples(split, Path())]


def write(path: Path, content: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return str(path)


def jsonl(path: Path, rows: list[tuple[str, Any]] = ROWS) -> str:
    return write(
        path, "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
    )


# ------------------------------------------------------------------------------------------ reading
def test_rows_of_every_kind_of_file(tmp_path: Path) -> None:
    kinds = {
        "a.csv": "text,label\n" + "".join(f'"{text}",{label}\n' for text, label in ROWS),
        "a.tsv": "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in ROWS),
        "a.json": json.dumps([{"text": text, "label": label} for text, label in ROWS]),
    }
    for name, content in kinds.items():
        assert pairs(LabelledText(path=write(tmp_path / name, content))) == sorted(ROWS)
    assert pairs(LabelledText(path=jsonl(tmp_path / "a.jsonl"))) == sorted(ROWS)


def test_parquet(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"body": [t for t, _ in ROWS], "stars": [n % 5 for n in range(40)]})
    parquet.write_table(table, tmp_path / "a.parquet")
    source = LabelledText(
        path=str(tmp_path / "a.parquet"), text_column="body", label_column="stars"
    )
    assert {e.target for e in both(source)} == {0, 1, 2, 3, 4}


def test_tables_without_a_header_and_with_other_separators(tmp_path: Path) -> None:
    lines = [f'{label}\t"{text} "so' for text, label in ROWS]
    expected = sorted((f'"{text} "so', label) for text, label in ROWS)
    settings: dict[str, Any] = {"header": False, "text_column": 2, "label_column": 1}
    path = write(tmp_path / "a.tsv", "\n".join(lines))
    assert pairs(LabelledText(path=path, quotes=False, **settings)) == expected
    path = write(tmp_path / "a.txt", "\n".join(lines))
    assert pairs(LabelledText(path=path, separator="\t", **settings)) == expected
    path = write(
        tmp_path / "b.csv", "\n".join(["label;text", *(f"{label};{text}" for text, label in ROWS)])
    )
    assert pairs(LabelledText(path=path, separator=";")) == sorted(ROWS)


def test_a_folder_of_texts_for_each_class(tmp_path: Path) -> None:
    for number, (text, label) in enumerate(ROWS):
        write(
            tmp_path / "情感" / ("正面" if label == "a" else "neg") / f"{number}.txt", f"{text}\n"
        )
    write(tmp_path / "情感" / "notes.txt", "about these files")
    write(tmp_path / "情感" / "neg" / "empty.txt", "\n")
    source = LabelledText(path=str(tmp_path / "情感"))
    assert {e.target for e in both(source)} == {"正面", "neg"}
    assert len(both(source)) == 40
    card = source.card(tmp_path)
    assert card["files"]["left_out"] == {"without a class folder": 1}
    assert card["set_aside"] == 1
    assert card["set_aside_empty"][0].endswith("empty.txt")


def test_folders_that_are_splits_and_a_folder_held_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    say_once.cache_clear()
    for split, rows in (("train", ROWS[:30]), ("dev", ROWS[28:])):
        for number, (text, label) in enumerate(rows):
            write(tmp_path / split / label / f"{number}.txt", text)
    for source in (
        LabelledText(path=str(tmp_path)),
        LabelledText(path=str(tmp_path / "train"), validation=str(tmp_path / "dev")),
    ):
        assert sorted(texts(source, "validation")) == sorted(text for text, _ in ROWS[28:])
        assert sorted(texts(source, "train")) == sorted(text for text, _ in ROWS[:28])
        assert source.card(tmp_path)["same_as_held_out"] == 2
    assert "2 examples are left out, being held out as well" in caplog.text


def test_several_labels_are_counted_each(tmp_path: Path) -> None:
    source = LabelledText(
        path=jsonl(tmp_path / "a.jsonl", [(t, [x, "all"]) for t, x in ROWS]), folds=4
    )
    assert source.card(tmp_path)["train"]["labels"] == {"a": 15, "all": 30, "b": 15}


# ---------------------------------------------------------------------------------------- splitting
def test_the_same_text_is_on_one_side(tmp_path: Path) -> None:
    source = LabelledText(
        path=jsonl(tmp_path / "a.jsonl", [*ROWS, *[(f" {text}", "a") for text, _ in ROWS]])
    )
    sides = [{text.strip() for text in texts(source, split)} for split in ("train", "validation")]
    assert not sides[0] & sides[1]
    card = source.card(tmp_path)
    assert (card["same_text"], card["same_text_with_other_labels"]) == (40, 20)
    assert card["train"]["min_characters"] >= 17
    other = LabelledText(path=source.path, seed=3, fraction=0.3)
    assert set(texts(other, "validation")) != set(texts(source, "validation"))


def test_the_side_of_a_text_does_not_depend_on_the_others(tmp_path: Path) -> None:
    few = LabelledText(path=jsonl(tmp_path / "a.jsonl", ROWS), fraction=0.3)
    more = LabelledText(path=jsonl(tmp_path / "b.jsonl", [*ROWS[::-1], ("new", "a")]), fraction=0.3)
    assert set(texts(few, "validation")) <= set(texts(more, "validation"))


def test_folds_are_even_and_every_text_is_held_out_once(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [*ROWS, ROWS[0], ROWS[1]])
    folds = [LabelledText(path=path, folds=5, fold=fold) for fold in range(5)]
    held_out = [set(texts(source, "validation")) for source in folds]
    assert [len(fold) for fold in held_out] == [8] * 5
    assert set.union(*held_out) == {text for text, _ in ROWS}
    for source in folds:
        labels = source.card(tmp_path)["validation"]["labels"]
        assert abs(labels["a"] - labels["b"]) <= 1
        assert not set(texts(source, "train")) & set(texts(source, "validation"))


def test_files_held_out_by_name_and_empty_texts(tmp_path: Path) -> None:
    train = jsonl(tmp_path / "train.jsonl", [*ROWS, ("  ", "a")])
    source = LabelledText(
        path=train, validation=jsonl(tmp_path / "held.jsonl", [*ROWS[:2], ("new", "c")])
    )
    assert texts(source, "validation") == [ROWS[0][0], ROWS[1][0], "new"]
    card = source.card(tmp_path)
    assert (card["same_as_held_out"], card["set_aside"], card["labels_only_in_validation"]) == (
        2,
        1,
        ["c"],
    )


# ----------------------------------------------------------------------------------------- training
class _Averages(nn.Module):
    def __init__(self, vocabulary_size: int, outputs: int) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(vocabulary_size, 16), nn.Linear(16, outputs)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        inside = (torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None])[..., None]
        return self.head((self.embed(tokens) * inside).sum(1) / lengths[:, None])  # type: ignore[no-any-return]


@pytest.fixture
def averages() -> Iterator[str]:
    """Register a model that averages what each token stands for, and forget it afterwards."""

    @registry.model("test_averages")
    class Averages(ModelConfig):
        vocabulary_size: int = setting(0, "Tokens")
        outputs: int = setting(0, "Classes")

        def complete_from(self, processor: Any) -> ModelConfig:
            sizes = {"vocabulary_size": processor.vocabulary_size, "outputs": processor.outputs}
            return self.model_copy(update=sizes)

        def build(self) -> nn.Module:
            return _Averages(self.vocabulary_size, self.outputs)

    yield "test_averages"
    del registry._registered["model"]["test_averages"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "processor", [{"name": "characters"}, {"name": "bpe", "vocab_size": 300}, {"name": "bytes"}]
)
def test_a_classifier_from_recipe_to_prediction(
    tmp_path: Path, averages: str, processor: dict[str, Any]
) -> None:
    """Which language a line is in: English of Python's documentation, or the same letters shifted
    by three."""
    lines = [
        line.strip() for topic in pydoc_data.topics.topics.values() for line in topic.split("\n")
    ]
    lines = [line for line in dict.fromkeys(lines) if len(line) > 40][:300]
    shifted = [
        line.translate({c: chr((c - 94) % 26 + 97) for c in range(97, 123)}) for line in lines
    ]
    path = jsonl(
        tmp_path / "a.jsonl",
        [*((line, "plain") for line in lines), *((line, "shifted") for line in shifted)],
    )
    recipe = {
        **{"name": "tiny", "model": averages, "task": "classify", "processor": processor},
        **{"data": {"name": "labelled_text", "path": path, "folds": 5, "fold": 2}},
        **{"optim": {"lr": 3e-2}, "training": {"batch_size": 32, "steps": 60}},
        **{
            "evaluation": {"every": 60},
            "checkpoints": {"every": 60},
            "machine": {"precision": "fp32", "threads": 1},
        },
    }
    run = groundup.train(recipe, runs=tmp_path)
    found = groundup.evaluate(run.folder)["runs"][0]["evaluation"]
    assert found["metrics"]["held_out_examples"] == 120
    assert found["metrics"]["accuracy"] > 0.9
    assert groundup.predict(run.folder, [lines[0], shifted[0]]) == ["plain", "shifted"]


@pytest.mark.parametrize(
    "header", ["review,sentiment", "Text,Label", "id,text,category", "评论,标签"]
)
def test_columns_with_common_names_are_found(tmp_path: Path, header: str) -> None:
    path = tmp_path / "a.csv"
    width = header.count(",")
    rows = "".join(f"{'7,' * (width - 1)}text {n},{n % 2}\n" for n in range(40))
    path.write_text(f"{header}\n{rows}", encoding="utf-8")
    source = LabelledText(path=str(path))
    examples = source.examples("train", tmp_path)
    assert {example.target for example in examples} == {"0", "1"}
    assert all(example.inputs.startswith("text ") for example in examples)
    assert next(source.unlabelled(str(path))).inputs == "text 0"


@pytest.mark.parametrize("header", ["id,phrase,emo", "review,comment,emo", "emo,text,rating,topic"])
def test_the_settings_that_an_error_names_for_columns_are_right(
    tmp_path: Path, header: str
) -> None:
    path = tmp_path / "a.csv"
    names = header.split(",")
    text = "phrase" if "phrase" in names else "text" if "text" in names else "review"
    with path.open("w", encoding="utf-8") as file:
        file.write(f"{header}\n")
        for n in range(40):
            values = dict.fromkeys(names, f"{n}") | {"emo": f"{n % 2}", text: f"long text {n}"}
            file.write(",".join(values[name] for name in names) + "\n")
    settings = {"text_column": text, "label_column": "emo"}
    remedy = "text_column: {text_column}, label_column: {label_column}; or on the command line: "
    remedy += "'data.text_column={text_column}' 'data.label_column={label_column}'"
    with pytest.raises(DataError, match=remedy.format(**settings)):
        LabelledText(path=str(path)).examples("train", tmp_path)
    source = LabelledText(path=str(path), **settings)  # type: ignore[arg-type]
    assert source.examples("train", tmp_path)
