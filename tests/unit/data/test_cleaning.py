"""Cleaning counts what it does, finds near-duplicates, and splits without leakage; text sources end
to end."""

from __future__ import annotations

import json
import pydoc_data.topics
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from one_by_one_duplicates import OneByOne

from groundup.core.settings import validate
from groundup.core.values import Document
from groundup.data.cleaning import equal_keys, survey
from groundup.data.cleaning.cleaning import Cleaning, text_digest
from groundup.data.cleaning.decisions import Decisions
from groundup.data.cleaning.equal_keys import sort_by_key, split_equal
from groundup.data.cleaning.facts import FactsWriter
from groundup.data.cleaning.minhash import PERMUTATIONS, choose_bands, signatures_of, words_of
from groundup.data.cleaning.repetition import repetition
from groundup.data.sources.text import TextSource
from groundup.data.splitting.hash_split import UnionFind, split_of

TOPICS = [text for _, text in sorted(pydoc_data.topics.topics.items()) if len(text) > 2000]


def nearly(text: str) -> str:
    words = text.split(" ")
    return " ".join([*words[:40], "altered", *words[41:]])


def clean(folder: Path, texts: list[str], settings: Cleaning) -> tuple[list[str], dict[str, Any]]:
    """What cleaning keeps of the texts, and its report."""
    folder.mkdir(exist_ok=True)
    path = corpus(folder, texts)
    source = TextSource(path=path, cleaning=settings, fraction=0.0)
    kept = [document.text for document in source.examples("train", folder)]
    return kept, source.card(folder)["cleaning"]


def groups_of(folder: Path, texts: list[str], settings: Cleaning) -> list[str]:
    """What each text is drawn by."""
    with FactsWriter(folder, settings) as writer:
        for number, text in enumerate(texts):
            writer.add("train", Document(str(number), text))
    return [group for _, part in Decisions(folder, settings).groups() for group in part]


def test_every_removal_is_counted_with_an_example(tmp_path: Path) -> None:
    settings = Cleaning(
        min_characters=5, max_characters=3000, max_repetition=0.3, near_duplicates="keep"
    )
    fine = TOPICS[0][:2500]
    texts = [fine, "hi", "x" * 4000, "again and again\n" * 20, fine, "bell\x07 e\u0301t\u00e9"]
    kept, report = clean(tmp_path, texts, settings)
    assert kept == [fine, "bell \u00e9t\u00e9"]
    assert report["removed"] == {
        "too_short": 1,
        "too_long": 1,
        "repetitive": 1,
        "exact_duplicate": 1,
    }
    assert (report["documents"], report["kept"], report["changed"]) == (6, 2, 1)
    assert report["kept"] + sum(report["removed"].values()) == report["documents"]
    assert report["characters"] == sum(map(len, texts))
    assert report["kept_characters"] == sum(map(len, kept))
    names = {
        reason: [each["name"] for each in shown] for reason, shown in report["examples"].items()
    }
    assert names == {
        "too_short": ["corpus.jsonl:2"],
        "too_long": ["corpus.jsonl:3"],
        "repetitive": ["corpus.jsonl:4"],
        "exact_duplicate": ["corpus.jsonl:5"],
    }
    assert report["examples"]["exact_duplicate"][0]["beginning"] == fine[:120]


def test_near_duplicates_are_dropped_after_the_first(tmp_path: Path) -> None:
    texts = [TOPICS[0], TOPICS[1], nearly(TOPICS[0])]
    kept, report = clean(tmp_path, texts, Cleaning(near_duplicates="drop"))
    assert kept == TOPICS[:2]
    assert report["removed"] == {"near_duplicate": 1}
    assert [each["name"] for each in report["examples"]["near_duplicate"]] == ["corpus.jsonl:3"]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_groups_do_not_depend_on_the_order(order: tuple[int, ...], tmp_path: Path) -> None:
    texts = [TOPICS[0], nearly(TOPICS[0]), TOPICS[1], TOPICS[0]]
    settings = Cleaning(drop_exact_duplicates=False)
    found = groups_of(tmp_path, [texts[n] for n in order], settings)
    label = min(text_digest(texts[0]), text_digest(texts[1]))
    by_text = {order[place]: group for place, group in enumerate(found)}
    assert by_text == {0: label, 1: label, 2: text_digest(texts[2]), 3: label}
    _, report = clean(tmp_path / "card", [texts[n] for n in order], settings)
    assert (report["near_duplicate_groups"], report["near_duplicates_grouped"]) == (1, 3)


def real_texts() -> list[str]:
    """Pieces of the library's own sources, of which some repeat others, and altered ones."""
    root = Path(sysconfig.get_path("stdlib"))
    texts = ["", "one", "one two three", "...", "café über alles", "床前明月光，疑是地上霜。"]
    for path in sorted(root.glob("encodings/*.py")):
        text = path.read_text(encoding="utf-8")
        texts += [text[start : start + 500] for start in range(0, min(len(text), 3000), 500)]
    texts += TOPICS[:20]
    # altered in one place to five, so that some pairs are on either side of the threshold
    for number, text in enumerate(TOPICS[:20]):
        words = text.split(" ")[:200]
        for place in range(number % 5):
            words[place * 37 % len(words)] = "altered"
        texts += [" ".join(words), " ".join(text.split(" ")[:200])]
    return texts


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_near_duplicates_are_those_of_one_by_one(threshold: float, tmp_path: Path) -> None:
    """As datasketch finds them in memory, document by document."""
    texts = real_texts()
    sets = UnionFind()
    grouped = OneByOne(threshold)
    numbers = []
    for text in texts:
        number, near = grouped.match(text)
        numbers.append(number)
        for match in near:
            sets.join(number, match)
    wanted = [sets.find(number) for number in numbers]
    settings = Cleaning(
        min_characters=0, drop_exact_duplicates=False, near_duplicate_threshold=threshold
    )
    found = groups_of(tmp_path, texts, settings)
    assert len(set(wanted)) < len(texts) - 50
    assert partition(found) == partition(wanted)
    dropping = OneByOne(threshold)
    kept = [n for n, text in enumerate(texts) if not dropping.match(text, remember=False)[1]]
    decisions = Decisions(tmp_path, settings.model_copy(update={"near_duplicates": "drop"}))
    assert np.flatnonzero(decisions.removed == 0).tolist() == kept


def partition(labels: Sequence[Any]) -> list[list[int]]:
    """The places of equal labels."""
    found: dict[Any, list[int]] = {}
    for place, label in enumerate(labels):
        found.setdefault(label, []).append(place)
    return sorted(found.values())


def test_signatures_are_those_of_datasketch() -> None:
    texts = [*real_texts()[:40], "word " * 20_000 + "and others that follow them"]
    other = OneByOne(0.8)
    wanted = [other.minhash(text).hashvalues for text in texts]
    assert np.array_equal(signatures_of(texts), wanted)


@pytest.mark.slow
def test_bands_are_those_of_datasketch() -> None:
    import datasketch

    for threshold in (0.05, 0.3, 0.5, 0.8, 0.95):
        index = datasketch.MinHashLSH(threshold, PERMUTATIONS, weights=(0.02, 0.98))
        assert choose_bands(threshold) == (index.b, index.r)


def test_more_keys_than_memory_holds_are_sorted_in_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(equal_keys, "_ROWS_AT_ONCE", 64)
    keys = np.random.default_rng(0).integers(0, 2**63, 200, dtype=np.uint64) * np.uint64(2)
    rows = np.stack((np.repeat(keys, 3), np.arange(600, dtype=np.uint64)), axis=1)
    shuffled = np.random.default_rng(1).permutation(rows)
    found = list(sort_by_key([shuffled[:250], shuffled[250:]], len(rows), tmp_path))
    assert len(found) > 5
    assert np.array_equal(np.concatenate(found), rows[np.lexsort(rows.T[::-1])])
    for part in found:
        starts, sizes = split_equal(part, 1)
        assert len(starts) == len(part) // 3
        assert set(sizes.tolist()) == {3}
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_no_false_alarms_between_unlike_topics(tmp_path: Path) -> None:
    settings = Cleaning()
    assert len(set(groups_of(tmp_path, TOPICS, settings))) == len(TOPICS)
    both = groups_of(tmp_path, [*TOPICS, *map(nearly, TOPICS)], settings)
    assert both[: len(TOPICS)] == both[len(TOPICS) :]
    assert len(set(both)) == len(TOPICS)


def test_ideographs_are_words_of_their_own() -> None:
    assert words_of("床前明月光, Hello") == ["床", "前", "明", "月", "光", "hello"]


def test_repetition_is_a_share() -> None:
    assert repetition("") == repetition("one line") == 0.0
    assert repetition("same line\n" * 4) == 0.75
    run = " ".join(f"w{n}" for n in range(20))
    assert repetition(f"{run} {run}") == pytest.approx(0.5)
    assert repetition(TOPICS[0]) < 0.3


def test_percentiles_of_lengths_are_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "_COUNTED_LENGTHS", 300)
    chance = np.random.default_rng(0)
    lengths = [*chance.integers(1, 600, 90).tolist(), 5000]
    texts = [f"{n} {'x' * length}" for n, length in enumerate(lengths)]
    source = TextSource(path=corpus(tmp_path, texts), fraction=0.0)
    found = source.card(tmp_path)["train"]["length_percentiles_characters"]
    counted = [len(text) for text in texts]
    assert found == {
        f"p{rank}": round(float(np.percentile(counted, rank))) for rank in (1, 10, 50, 90, 99)
    }


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
    assert len(list(tmp_path.glob("*text-*"))) == 1
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
