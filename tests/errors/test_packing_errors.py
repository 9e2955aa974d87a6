"""What a user reads when examples cannot become batches."""

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup.contracts.data import DataContext
from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import validate
from groundup.core.values import Document, TokenSequence
from groundup.data.stream import shard_writer as module
from groundup.data.stream.packing import Packing, plan_rows
from groundup.data.stream.sample_stream import SampleStream
from groundup.data.stream.token_stream import open_token_stream


def encode(examples: Sequence[Document]) -> list[TokenSequence]:
    return [
        TokenSequence(np.frombuffer(e.text.encode(), dtype=np.uint8).astype(np.int32))
        for e in examples
    ]


def answers(examples: Sequence[Document]) -> list[TokenSequence]:
    return [TokenSequence(s.tokens, np.arange(len(s.tokens)) > 2) for s in encode(examples)]


def never(examples: Sequence[Document]) -> list[TokenSequence]:
    return [TokenSequence(s.tokens, np.zeros(len(s.tokens), dtype=bool)) for s in encode(examples)]


def open_stream(
    folder: Path, texts: list[str], function: Any = encode, **changes: Any
) -> SampleStream:
    documents = [
        Document(f"name {i}", text, "chats.jsonl line 4" if i == 1 else "")
        for i, text in enumerate(texts)
    ]
    packing = changes.pop("packing", Packing())
    context = DataContext(
        "train",
        function,
        "",
        0,
        8,
        **{"batch_size": 4, "micro_batch_size": 2, **changes},
        seed=0,
        cache=folder,
    )
    return open_token_stream(lambda: iter(documents), "", context, packing)


def test_a_chat_longer_than_the_context(tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        open_stream(tmp_path, ["short", "x" * 20, "y" * 30], answers)
    assert (
        str(raised.value)
        == "chats.jsonl line 4 (example 1): has 20 tokens (1 more examples are too long); the"
        " context of 8 allows 9. Raise the sequence length, shorten the example, or set too_long"
        " to truncate, drop or split."
    )


def test_a_long_document_where_that_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"name 0 \(example 0\): has 20 tokens; the context of 8 allows 9"
    ):
        open_stream(tmp_path, ["x" * 20], packing=Packing(too_long="error"))
    with pytest.raises(DataError, match=r"example 2: has 11 tokens"):
        plan_rows(np.array([5, 6, 11]), 8, 0, Packing(too_long="error"), "train")


def test_no_examples(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is nothing to read: the split has no examples"):
        open_stream(tmp_path, [])
    assert list((tmp_path / "tokens").iterdir()) == []


@pytest.mark.parametrize("texts", [["", ""], ["a"]])
def test_nothing_to_predict(tmp_path: Path, texts: list[str]) -> None:
    with pytest.raises(
        DataError, match=r"data \(train\): there is nothing to train on: \d examples? with"
    ):
        open_stream(tmp_path, texts)


def test_no_token_is_trained_on(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 examples with 8 tokens, 0 of them trained on"):
        open_stream(tmp_path, ["abcd", "efgh"], never)


def test_every_example_is_dropped(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"1 examples with 20 tokens, 19 of them trained on, 1 examples dropped"
    ):
        open_stream(tmp_path, ["x" * 20], packing=Packing(too_long="drop"))


def test_dropping_some_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    open_stream(tmp_path, ["x" * 20, "abc"], packing=Packing(too_long="drop"))
    assert (
        "train: of 2 examples 1 were dropped and 0 truncated, being longer than the context of 8"
        in caplog.text
    )


def test_a_batch_that_cannot_be_shared_out(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"batch size: 5 is not a multiple of micro-batch 2 x ranks 1"
    ):
        open_stream(tmp_path, ["abc"], batch_size=5)


def test_a_task_that_gives_impossible_tokens(tmp_path: Path) -> None:
    bad: list[tuple[Any, str]] = [
        (
            lambda examples: [TokenSequence(np.array([1, -2]))],
            "gave the token -2; tokens are at least 0",
        ),
        (lambda examples: [], "gave 0 sequences for 1 examples"),
        (
            lambda examples: [TokenSequence(np.array([1, 2]), np.array([True]))],
            "gave 1 mask values for 2 tokens",
        ),
    ]
    for function, message in bad:
        with pytest.raises(DataError, match=message):
            open_stream(tmp_path, ["abc"], function)
    assert list((tmp_path / "tokens").iterdir()) == []


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(writer: Any, sequences: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module._Writer, "add", full)
    with pytest.raises(
        DataError, match=r"tokens could not be prepared: No space left on device. Free some space"
    ):
        open_stream(tmp_path, ["abc"])
    assert list((tmp_path / "tokens").iterdir()) == []


def test_settings_without_effect_are_refused() -> None:
    with pytest.raises(RecipeError, match=r'random_offset has no effect with too_long: "drop"'):
        validate(Packing, {"too_long": "drop", "random_offset": False}, "recipe.data.packing")
    with pytest.raises(RecipeError, match="evaluation_overlap"):
        validate(Packing, {"evaluation_overlap": 1.0}, "recipe.data.packing")
