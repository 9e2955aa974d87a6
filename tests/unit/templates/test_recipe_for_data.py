"""A stranger's file of each of eleven kinds gets a recipe that works."""

from __future__ import annotations

import csv
import json
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from boxed_pictures import write_yolo

import groundup
from groundup import api
from groundup.core.errors import DataError
from groundup.data.sources.arrays import Arrays
from groundup.media.png import encode_png
from groundup.recipe.recipe import load_recipe
from groundup.templates import write_recipe_for

CITIES = ("Lisbon", "Oslo", "Cairo", "Lima", "Kyoto", "Quito", "Perth", "Turin")
THINGS = ("river", "harbour", "market", "tower", "library")
KINDS: dict[str, tuple[str, str]] = {
    "text": ("write_texts", "language_modeling"),
    "chats": ("write_chats", "chat"),
    "preferences": ("write_preferences", "preference"),
    "labelled text": ("write_reviews", "classify"),
    "table": ("write_iris", "classify"),
    "pictures": ("write_digits", "classify"),
    "boxes": ("write_boxes", "detect"),
    "sounds": ("write_tones", "classify"),
    "pairs": ("write_pairs", "sentence_embedding"),
    "inputs and outputs": ("write_translations", "text_to_text"),
    "speech": ("write_speech", "transcribe"),
}


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def questions() -> list[tuple[str, str]]:
    return [
        (f"Where is the {thing} of {city}?", f"The {thing} of {city} is in the old town.")
        for city in CITIES
        for thing in THINGS
    ]


def write_boxes(folder: Path) -> Path:
    return write_yolo(folder / "boxes", 24)


def write_texts(folder: Path) -> Path:
    """The beginning of some modules of Python's own library."""
    library = Path(json.__file__).parents[1]
    (folder / "texts").mkdir()
    for name in ("argparse", "ast", "bisect", "calendar", "cmd", "csv", "heapq", "queue"):
        text = (library / f"{name}.py").read_text(encoding="utf-8")[:4000]
        (folder / "texts" / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder / "texts"


def write_chats(folder: Path) -> Path:
    roles = ("user", "assistant")
    return lines(
        folder / "chats.jsonl",
        [
            {"messages": [{"role": r, "content": c} for r, c in zip(roles, pair, strict=True)]}
            for pair in questions()
        ],
    )


def write_preferences(folder: Path) -> Path:
    rows = [{"prompt": q, "chosen": a, "rejected": "No idea."} for q, a in questions()]
    return lines(folder / "preferred.jsonl", rows)


def write_reviews(folder: Path) -> Path:
    words = {"praise": "a wonderful and lively place", "blame": "a dull and dirty place"}
    rows = [
        {"review": f"The {thing} of {city} is {words[label]}", "sentiment": label}
        for city in CITIES
        for thing in THINGS
        for label in words
    ]
    return lines(folder / "reviews.jsonl", rows)


def write_iris(folder: Path) -> Path:
    from sklearn.datasets import load_iris

    iris = load_iris()
    with (folder / "iris.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*iris.feature_names, "species"])
        for row, label in zip(iris.data, iris.target, strict=True):
            writer.writerow([*row, iris.target_names[label]])
    return folder / "iris.csv"


def write_digits(folder: Path) -> Path:
    for number, example in enumerate(Arrays().examples("train", folder)[:60]):
        place = folder / "digits" / str(example.target)
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.asarray(example.inputs).reshape(8, 8) * 15
        (place / f"{number}.png").write_bytes(encode_png(pixels.astype(np.uint8)))
    return folder / "digits"


def write_tones(folder: Path) -> Path:
    for label, hertz in (("low", 200), ("high", 1500)):
        (folder / "tones" / label).mkdir(parents=True)
        for number in range(12):
            times = np.arange(4000 + 100 * number) / 8000
            samples = 0.5 * np.sin(2 * np.pi * (hertz + 5 * number) * times)
            with wave.open(str(folder / "tones" / label / f"{number}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(8000)
                file.writeframes((samples * 32767).astype("<i2").tobytes())
    return folder / "tones"


def write_pairs(folder: Path) -> Path:
    rows = [{"query": q, "passage": a} for q, a in questions()]
    return lines(folder / "pairs.jsonl", rows)


def write_translations(folder: Path) -> Path:
    rows = [
        {"en": f"The {thing} of {city}", "de": f"{thing.title()} von {city}"}
        for city in CITIES
        for thing in THINGS
    ]
    return lines(folder / "translated.jsonl", rows)


def write_speech(folder: Path) -> Path:
    tones = write_tones(folder)
    for number, path in enumerate(sorted(tones.rglob("*.wav"))):
        path.with_suffix(".txt").write_text(f"{path.parent.name} {number % 3}", encoding="utf-8")
    return tones


def writer_of(kind: str) -> Callable[[Path], Path]:
    return getattr(sys.modules[__name__], KINDS[kind][0])  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_data_of_every_kind_gets_a_recipe_that_trains(kind: str, tmp_path: Path) -> None:
    data = writer_of(kind)(tmp_path).relative_to(tmp_path)
    write_recipe_for(data, Path("mine.yaml"))
    text = Path("mine.yaml").read_text(encoding="utf-8")
    assert text.startswith(f"# {data} is taken for {kind}: ")
    settings = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(settings) <= 11, text
    assert text.count("#") >= len(settings) - 2, text  # all but the name have a reason, mostly
    recipe = yaml.safe_load(text)
    assert recipe["data"]["path"] == str(data)
    assert api.describe(load_recipe("mine.yaml"))["steps"] > 0
    short = {"training.steps": 2, "training.epochs": None, "machine.threads": 1}
    run = groundup.train("mine.yaml", short, runs=tmp_path / "runs")
    assert run.recipe.task.registered_name == KINDS[kind][1]
    assert run.finished


def test_reasons_name_the_label_and_why_it_is_that_column(tmp_path: Path) -> None:
    write_recipe_for(write_iris(tmp_path), Path("a.yaml"))
    text = Path("a.yaml").read_text(encoding="utf-8")
    assert "Column 'species' has 3 classes (setosa, versicolor, virginica); no other column" in text
    write_recipe_for(write_reviews(tmp_path), Path("b.yaml"))
    text = Path("b.yaml").read_text(encoding="utf-8")
    assert "column 'sentiment' has 2 classes (praise, blame); no other column has such a" in text
    assert load_recipe("b.yaml").data.text_column == "review"


def test_several_columns_that_could_be_the_label_are_asked_about(tmp_path: Path) -> None:
    path = tmp_path / "passengers.csv"
    rows = [f"{n},{n % 2},{n % 3 + 1},{20 + n % 7}.5\n" for n in range(1, 40)]
    path.write_text("id,survived,berth,age\n" + "".join(rows), encoding="utf-8")
    with pytest.raises(
        DataError,
        match=r"several columns could be the label: survived \(classes, 2 different: 1, 0\); "
        r"berth \(classes, 3 different: 2, 3, 1\).* Say which with --label COLUMN",
    ):
        write_recipe_for(path, Path("a.yaml"))
    assert not Path("a.yaml").exists()
    write_recipe_for(path, Path("a.yaml"), "survived")
    recipe = load_recipe("a.yaml")
    assert (recipe.task.registered_name, recipe.data.target) == ("classify", "survived")
    assert recipe.data.ignore == ("id",)
    write_recipe_for(path, Path("b.yaml"), "age")
    assert load_recipe("b.yaml").task.registered_name == "regression"
    with pytest.raises(DataError, match=r"there is no column 'survive'; did you mean 'survived'"):
        write_recipe_for(path, Path("c.yaml"), "survive")


def test_pairs_of_documents_are_held_out_together_and_chinese_is_cut_into_words(
    tmp_path: Path,
) -> None:
    rows = [{"source": f"Page {n}", "target": f"第{n}页", "Page": n // 4} for n in range(40)]
    write_recipe_for(lines(tmp_path / "a.jsonl", rows), Path("a.yaml"))
    recipe = yaml.safe_load(Path("a.yaml").read_text(encoding="utf-8"))
    assert recipe["data"]["group_column"] == "Page"
    assert recipe["task"]["bleu_tokenizer"] == "zh"
    translated = [{"translation": {"en": f"Page {n}", "fr": f"La page {n}"}} for n in range(40)]
    write_recipe_for(lines(tmp_path / "b.jsonl", translated), Path("b.yaml"))
    text = Path("b.yaml").read_text(encoding="utf-8")
    recipe = yaml.safe_load(text)
    assert recipe["data"]["source_language"] == "en"
    assert recipe["data"]["target_language"] == "fr"
    assert "texts have up to 7 characters" in text.lower()
    assert api.describe(load_recipe("b.yaml"))["steps"] > 0


def test_documents_with_summaries_and_questions_with_answers(tmp_path: Path) -> None:
    document = " ".join(f"It rained in {city}." for city in CITIES) * 8
    rows = [{"document": f"{n} {document}", "summary": f"rain {n}"} for n in range(30)]
    write_recipe_for(lines(tmp_path / "news.jsonl", rows), tmp_path / "a.yaml")
    text = (tmp_path / "a.yaml").read_text(encoding="utf-8")
    recipe = yaml.safe_load(text)
    assert recipe["task"]["name"] == "text_to_text"
    assert (recipe["data"]["source_column"], recipe["data"]["target_column"]) == (
        "document",
        "summary",
    )
    # The text that is read is not what rows belong together by.
    assert "group_column" not in recipe["data"]
    assert "what is longer is cut at its end (source_cut)" in text
    asked = [
        {"question": question, "context": answer, "answers": {"text": [answer]}}
        for question, answer in questions()
    ]
    write_recipe_for(lines(tmp_path / "qa.jsonl", asked), tmp_path / "b.yaml")
    recipe = load_recipe(tmp_path / "b.yaml")
    found = recipe.data.examples("train", tmp_path)
    assert len(found) > 20
    assert all(pair.inputs == f"{pair.inputs.splitlines()[0]}\n{pair.target}" for pair in found)
