"""Tokens on disk: what is read is what was encoded; folders are complete or absent; damaged ones
are made again."""

import json
import logging
import multiprocessing
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from groundup.core.values import Document, TokenSequence
from groundup.data.stream import shard_writer as module
from groundup.data.stream.shard_writer import prepare_shards
from groundup.data.stream.shards import Shards

TEXTS = ["", "a", "bc", "déf" * 50, "x" * 1000, "last"]


def documents() -> list[Document]:
    return [Document(f"d{i}", text) for i, text in enumerate(TEXTS * 5)]


def encode(examples: Sequence[Document]) -> list[TokenSequence]:
    return [
        TokenSequence(np.frombuffer(e.text.encode("utf-32-le"), dtype=np.int32)) for e in examples
    ]


def half_trained(examples: Sequence[Document]) -> list[TokenSequence]:
    found = encode(examples)
    return [
        s if e.text == "last" else TokenSequence(s.tokens, s.tokens % 2 == 0)
        for s, e in zip(found, examples, strict=True)
    ]


def assert_holds(shards: Shards, expected: list[TokenSequence]) -> None:
    assert shards.lengths.tolist() == [len(sequence.tokens) for sequence in expected]
    for number, sequence in enumerate(expected):
        tokens, trained = shards.read(number, 0, len(sequence.tokens))
        assert np.array_equal(tokens, sequence.tokens)
        if sequence.trained is not None:
            assert trained is not None
            assert np.array_equal(trained, sequence.trained)
        elif trained is not None:
            assert trained.all()


def test_tokens_come_back_across_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH_CHARACTERS", 1200)
    shards = prepare_shards(tmp_path / "s", documents, encode, shard_bytes=2000)
    assert len(shards.files) > 2
    assert not shards.masked
    assert shards.trained_tokens == sum(max(len(d.text) - 1, 0) for d in documents())
    assert_holds(shards, encode(documents()))
    assert shards.read(4, 10, 13)[0].tolist() == [ord("x")] * 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s"]


def test_masks_start_late_and_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH_EXAMPLES", 2)

    def late(examples: Sequence[Document]) -> list[TokenSequence]:
        return encode(examples) if examples[0].name < "d2" else half_trained(examples)

    shards = prepare_shards(tmp_path / "s", documents, late, shard_bytes=9000)
    expected = [s for i in range(0, 30, 2) for s in late(documents()[i : i + 2])]
    assert shards.masked
    assert_holds(shards, expected)
    count = sum(
        int((np.ones(len(s.tokens)) if s.trained is None else s.trained)[1:].sum())
        for s in expected
    )
    assert shards.trained_tokens == count


def test_large_vocabularies_change_to_uint32_when_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH_EXAMPLES", 1)
    texts = ["abc", "\U0001f600 d", "e"]
    shards = prepare_shards(tmp_path / "s", lambda: [Document(t, t) for t in texts], encode)
    assert [file.dtype for file in shards.files] == ["uint16", "uint32"]
    assert_holds(shards, encode([Document(t, t) for t in texts]))


def test_the_cache_is_used_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="groundup")
    prepare_shards(tmp_path / "s", documents, encode)
    assert "Made" in caplog.text

    def never() -> list[Document]:
        raise AssertionError("the examples were read again")

    caplog.clear()
    assert_holds(prepare_shards(tmp_path / "s", never, encode), encode(documents()))
    assert "Reusing" in caplog.text


@pytest.mark.parametrize("damage", ["short", "missing", "index", "offsets", "version"])
def test_damaged_tokens_are_made_again(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "s"
    prepare_shards(folder, documents, encode)
    if damage == "short":
        os.truncate(folder / "tokens-00000.bin", 10)
    elif damage == "missing":
        (folder / "tokens-00000.bin").unlink()
    elif damage == "index":
        (folder / "index.json").write_text("{")
    elif damage == "offsets":
        np.save(folder / "offsets.npy", np.arange(5))
    else:
        index = json.loads((folder / "index.json").read_text())
        (folder / "index.json").write_text(json.dumps(index | {"format": 0}))
    assert_holds(prepare_shards(folder, documents, encode), encode(documents()))
    assert "damaged" in caplog.text
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def fails(examples: Sequence[Document]) -> list[TokenSequence]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        prepare_shards(tmp_path / "s", documents, fails)
    assert list(tmp_path.iterdir()) == []


def _make(folder: Path) -> None:
    assert_holds(prepare_shards(folder, documents, encode), encode(documents()))


@pytest.mark.slow
def test_processes_may_make_the_same_tokens_at_once(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    makers = [fork.Process(target=_make, args=(tmp_path / "s",)) for _ in range(4)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert [maker.exitcode for maker in makers] == [0] * 4
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_the_first_to_finish_wins(tmp_path: Path) -> None:
    folder = tmp_path / "s"

    def overtaken(examples: Sequence[Document]) -> list[TokenSequence]:
        if not folder.exists():
            prepare_shards(folder, documents, encode)
            (folder / "first").touch()
        return encode(examples)

    assert_holds(prepare_shards(folder, documents, overtaken), encode(documents()))
    assert (folder / "first").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    old, young = tmp_path / ".s.000.partial", tmp_path / ".s.111.partial"
    for partial in (old, young):
        partial.mkdir()
        (partial / "lock").touch()
    os.utime(old, (time.time() - 3600,) * 2)
    prepare_shards(tmp_path / "s", documents, encode)
    assert not old.exists()
    assert young.exists()


def test_shards_travel_to_another_process_without_their_tokens(tmp_path: Path) -> None:
    shards = prepare_shards(tmp_path / "s", documents, encode)
    shards.read(3, 0, 5)
    rebuild, arguments = shards.__reduce__()
    assert len(repr(arguments)) < 1000
    assert_holds(rebuild(*arguments), encode(documents()))
