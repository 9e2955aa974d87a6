"""Cleaning counts what it does, finds near-duplicates, and splits without leakage; text sources end
to end."""

from __future__ import annotations

import json
import pydoc_data.topics
from pathlib import Path

import pytest

from groundup.core.settings import validate
from groundup.core.values import Document
from groundup.data.cleaning.cleaning import Cleaning, clean, repetition
from groundup.data.cleaning.duplicates import NearDuplicates, words_of
from groundup.data.sources.text import TextSource
from groundup.data.splitting.hash_split import UnionFind, split_of

TOPICS = [text for _, text in sorted(pydoc_data.topics.topics.items()) if len(text) > 2000]


def documents(*texts: str) -> list[Document]:
    return [Document(f"d{n}", text) for n, text in enumerate(texts)]


def nearly(text: str) -> str:
    words = text.split(" ")
    return " ".join([*words[:40], "altered", *words[41:]])


def test_every_removal_is_counted_with_an_example() -> None:
    settings = Cleaning(
        min_characters=5, max_characters=3000, max_repetition=0.3, near_duplicates="keep"
    )
    fine = TOPICS[0][:2500]
    cleaned = clean(
        documents(
            fine, "hi", "x" * 4000, "again and again\n" * 20, fine, "bell\x07 e\u0301t\u00e9"
        ),
        settings,
    )
    assert [document.text for document in cleaned] == [fine, "bell \u00e9t\u00e9"]
    report = cleaned.report
    assert report.removed == {"too_short": 1, "too_long": 1, "repetitive": 1, "exact_duplicate": 1}
    assert (report.documents, report.kept, report.changed) == (6, 2, 1)
    assert report.kept + sum(report.removed.values()) == report.documents
    assert report.examples["too_short"] == [{"name": "d1", "origin": "", "beginning": "hi"}]
    json.dumps(report.as_dict())


def test_near_duplicates_are_dropped_after_the_first() -> None:
    cleaned = clean(
        documents(TOPICS[0], TOPICS[1], nearly(TOPICS[0])), Cleaning(near_duplicates="drop")
    )
    assert [document.name for document in cleaned] == ["d0", "d1"]
    assert cleaned.report.removed == {"near_duplicate": 1}


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_groups_do_not_depend_on_the_order(order: tuple[int, ...]) -> None:
    four = documents(TOPICS[0], nearly(TOPICS[0]), TOPICS[1], TOPICS[0])
    cleaned = clean([four[n] for n in order], Cleaning(drop_exact_duplicates=False))
    assert len(list(cleaned)) == 4
    assert [cleaned.group_of(f"d{n}") for n in range(4)] == ["d0", "d0", "d2", "d0"]
    assert (cleaned.report.near_duplicate_groups, cleaned.report.near_duplicates_grouped) == (1, 3)


@pytest.mark.slow
def test_no_false_alarms_between_unlike_topics() -> None:
    near = NearDuplicates(0.8)
    assert not any(near.match(text)[1] for text in TOPICS)
    assert all(near.match(nearly(text))[1] == [n] for n, text in enumerate(TOPICS))


def test_ideographs_are_words_of_their_own() -> None:
    assert words_of("床前明月光, Hello") == ["床", "前", "明", "月", "光", "hello"]


def test_repetition_is_a_share() -> None:
    assert repetition("") == repetition("one line") == 0.0
    assert repetition("same line\n" * 4) == 0.75
    run = " ".join(f"w{n}" for n in range(20))
    assert repetition(f"{run} {run}") == pytest.approx(0.5)
    assert repetition(TOPICS[0]) < 0.3


def test_splits_are_keyed_and_have_the_right_share() -> None:
    names = [f"name {n}" for n in range(4000)]
    held_out = {name for name in names if split_of(name, 0.1, seed=0) == "validation"}
    other = {name for name in names if split_of(name, 0.1, seed=1) == "validation"}
    assert 0.08 < len(held_out) / len(names) < 0.12
    assert len(held_out & other) < len(held_out) / 2
    assert held_out <= {name for name in names if split_of(name, 0.2, seed=0) == "validation"}
    assert {split_of("a", 0.0), split_of("b", 1.0)} == {"train", "validation"}


def test_union_find_names_sets_by_their_smallest_member() -> None:
    sets = UnionFind()
    for one, other in [(7, 3), (9, 7), (1, 2)]:
        sets.join(one, other)
    assert sets.members() == {1: [1, 2], 3: [3, 7, 9]}
    assert sets.find(5) == 5


# ------------------------------------------------------------------------------------- text sources
def corpus(folder: Path, texts: list[str]) -> str:
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return str(path)


@pytest.mark.slow
def test_near_duplicates_stay_on_one_side(tmp_path: Path) -> None:
    path = corpus(tmp_path, [*TOPICS, *map(nearly, TOPICS)])
    source = validate(TextSource, {"path": path, "fraction": 0.4, "licence": "PSF"}, "recipe.data")
    train = [document.text for document in source.examples("train", tmp_path)]
    validation = {document.text for document in source.examples("validation", tmp_path)}
    assert len(train) + len(validation) == 2 * len(TOPICS)
    assert not validation & {nearly(text) for text in train}
    assert not validation & set(train)
    card = source.card(tmp_path)
    assert card["licence"] == "PSF"
    assert card["train"]["documents"] == len(train)
    assert card["train"]["bytes"] == sum(len(text.encode()) for text in train)
    assert card["cleaning"]["near_duplicate_groups"] == len(TOPICS)


@pytest.mark.slow
def test_sides_do_not_depend_on_other_documents(tmp_path: Path) -> None:
    def held_out(texts: list[str], name: str) -> set[str]:
        (tmp_path / name).mkdir()
        source = TextSource(path=corpus(tmp_path / name, texts), fraction=0.5)
        return {document.text for document in source.examples("validation", tmp_path)}

    whole = held_out(TOPICS, "whole")
    assert held_out(TOPICS[::-1], "reversed") == whole
    assert held_out(TOPICS[:10], "part") == whole & set(TOPICS[:10])


def test_named_validation_files_are_kept_out_of_training(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "held_out.txt").write_text(TOPICS[0], encoding="utf-8")
    path = corpus(tmp_path / "train", [TOPICS[1], TOPICS[0], nearly(TOPICS[0])])
    source = TextSource(path=path, validation=str(tmp_path / "held_out.txt"))
    assert [document.text for document in source.examples("train", tmp_path)] == [TOPICS[1]]
    assert [document.text for document in source.examples("validation", tmp_path)] == [TOPICS[0]]
    cleaning = source.card(tmp_path)["cleaning"]
    assert cleaning["removed"] == {"exact_duplicate": 1, "near_duplicate_of_validation": 1}
    assert cleaning["kept"] == 2


def test_copies_of_validation_never_train_even_where_duplicates_are_kept(tmp_path: Path) -> None:
    (tmp_path / "held_out.txt").write_text(TOPICS[0], encoding="utf-8")
    cleaning = Cleaning(drop_exact_duplicates=False, near_duplicates="keep")
    path = corpus(tmp_path, [TOPICS[1], TOPICS[0], TOPICS[1]])
    source = TextSource(path=path, validation=str(tmp_path / "held_out.txt"), cleaning=cleaning)
    assert [document.text for document in source.examples("train", tmp_path)] == [TOPICS[1]] * 2
    assert source.card(tmp_path)["cleaning"]["removed"] == {"same_as_validation": 1}


def test_what_was_decided_is_kept_until_the_files_change(tmp_path: Path) -> None:
    path = corpus(tmp_path, TOPICS)
    source = TextSource(path=path, limit=20)
    assert source.card(tmp_path)["cleaning"]["documents"] == 20
    assert len(list(tmp_path.glob("text-*"))) == 1
    corpus(tmp_path, TOPICS[:5])
    assert source.card(tmp_path)["cleaning"]["documents"] == 5
    assert len(list(tmp_path.glob("text-*/sides.bin"))) == 2


def test_a_list_of_lines_is_one_document(tmp_path: Path) -> None:
    rows = [
        {"text": ["秦川雄帝宅", "函谷壯皇居"]},
        {"text": []},
        {"text": "plain text of one line"},
    ]
    (tmp_path / "poems.json").write_text(json.dumps(rows))
    source = TextSource(path=str(tmp_path / "poems.json"), fraction=0.0)
    assert [d.text for d in source.examples("train", tmp_path)] == [
        "秦川雄帝宅\n函谷壯皇居",
        "plain text of one line",
    ]
