"""Several sources in one run: exact shares, rows that follow from their numbers alone, and what is
repeated."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup.contracts.data import DataContext
from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import validate
from groundup.core.values import Conversation, TokenSequence
from groundup.data.sources.mixture import Mixture, Schedule
from groundup.processors.text.bytes import BytesConfig
from groundup.tasks.chat.task import Chat

PROCESSOR = BytesConfig().fit(lambda: iter(()))


@pytest.mark.parametrize(
    ("weights", "counts"),
    [
        ([2, 1], [2, 1]),
        ([0.7, 0.3], [7, 3]),
        ([4, 2], [2, 1]),
        ([0.5, 0.25, 0.25], [2, 1, 1]),
        ([300, 45], [20, 3]),
    ],
)
def test_each_part_has_its_share_at_any_time(weights: list[float], counts: list[int]) -> None:
    schedule = Schedule(weights)
    assert schedule.counts == counts
    placed = [schedule.place(sample) for sample in range(3 * schedule.cycle)]
    for part, count in enumerate(counts):
        rows = [row for where, row in placed if where == part]
        assert rows == list(range(3 * count))
        had = np.cumsum([where == part for where, _ in placed])
        owed = (np.arange(len(placed)) + 1) * count / schedule.cycle
        assert np.abs(had - owed).max() < len(counts)


def test_shares_that_no_short_cycle_has_are_rounded() -> None:
    schedule = Schedule([1 / 3, 2 / 3 + 1e-9])
    assert schedule.cycle == 10_000
    assert schedule.counts == [3333, 6667]


def sections(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return a mixture of 40 conversations, 5 others and 12 texts, a row each."""
    chats = [{"prompt": f"a{n}", "completion": "A" * 5} for n in range(40)]
    few = [{"instruction": f"b{n}", "input": "", "output": "B" * 5} for n in range(5)]
    texts = [{"text": f"c{n} " + "C" * 5} for n in range(12)]
    for name, rows in (("chats", chats), ("few", few), ("texts", texts)):
        (folder / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    packing = {"packing": {"pack": False}}
    parts = {
        "chats": (
            {
                "name": "conversations",
                "path": str(folder / "chats.json"),
                "fraction": 0.2,
            }
            | packing
        ),
        "few": (
            {
                "name": "conversations",
                "path": str(folder / "few.json"),
                "fraction": 0.0,
            }
            | packing
        ),
        "texts": ({"name": "text", "path": str(folder / "texts.json"), "fraction": 0.3} | packing),
    }
    return {"parts": parts, "weights": {"chats": 2, "few": 1, "texts": 1}} | changes


def opened(folder: Path, source: Mixture, split: Any = "train", **changes: Any) -> Any:
    def encode(examples: Sequence[Any]) -> list[TokenSequence]:
        return Chat().encode(examples, PROCESSOR)

    given = {"batch_size": 4, "micro_batch_size": 4, "seed": 3} | changes
    return source.open(
        DataContext(split, encode, "", PROCESSOR.end_id, 48, cache=folder / "cache", **given)
    )


def rows_of(batch: dict[str, torch.Tensor]) -> list[tuple[Any, ...]]:
    """Return each row's text, trained tokens and where its pieces begin."""
    width, begins = batch["tokens"].shape[1], batch["boundaries"].tolist()
    return [
        (
            PROCESSOR.decode(row[: int(positions.max()) + 1].tolist()).strip(),
            int((targets >= 0).sum()),
            sorted(
                {
                    begin - number * width
                    for begin in begins
                    if number * width <= begin < (number + 1) * width
                }
            ),
        )
        for number, (row, targets, positions) in enumerate(
            zip(batch["tokens"], batch["targets"], batch["positions"], strict=True)
        )
    ]


@pytest.mark.slow
def test_rows_follow_from_their_numbers_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = validate(Mixture, sections(tmp_path), "recipe.data")
    with caplog.at_level(logging.INFO, "groundup"):
        stream = opened(tmp_path, source)
    chats = sum(
        1 for example in source.examples("train", tmp_path) if example.name.startswith("chats/")
    )
    texts = sum(
        1 for example in source.examples("train", tmp_path) if example.name.startswith("texts/")
    )
    epoch = max(2 * chats, 4 * 5, 4 * texts)
    assert stream.samples_per_epoch == epoch
    assert (
        f"few: 25.0 % of the rows; its 5 rows are seen {epoch / 20:.2f} times an epoch"
        in caplog.text
    )
    rows = [row for _ in range(epoch // 4) for row in rows_of(next(stream))]
    small = [row[0] for row in rows if "B" in row[0]]
    assert len(small) == len(rows) // 4
    assert len(set(small)) == 5
    assert sum("A" in row[0] for row in rows) == len(rows) // 2
    again = opened(tmp_path, source, micro_batch_size=2)
    again.load_state_dict({"samples": 8})
    assert [row for _ in range(4) for row in rows_of(next(again))] == rows[8:16]
    ranks = [opened(tmp_path, source, micro_batch_size=2, rank=rank, world=2) for rank in (0, 1)]
    assert [row for stream in ranks for row in rows_of(next(stream))] == rows[:4]
    other = [row for stream in [opened(tmp_path, source, seed=4)] for row in rows_of(next(stream))]
    assert other != rows[:4]


def test_validation_reads_every_held_out_row_once(tmp_path: Path) -> None:
    source = validate(Mixture, sections(tmp_path, weights={}), "recipe.data")
    held_out = list(source.examples("validation", tmp_path))
    stream = opened(tmp_path, source, "validation")
    rows = [row for batch in stream for row in rows_of(batch)]
    assert len(held_out) == stream.samples_per_epoch == sum(row[1] > 0 for row in rows)
    assert {example.name.split("/")[0] for example in held_out} == {"chats", "texts"}
    assert source.card(tmp_path)["few"]["formats"] == {"alpaca": 5}


def test_without_weights_every_part_is_seen_alike(tmp_path: Path) -> None:
    source = validate(Mixture, sections(tmp_path, weights={}), "recipe.data")
    assert opened(tmp_path, source).samples_per_epoch == len(
        list(source.examples("train", tmp_path))
    )


def test_it_is_written_as_it_was_read(tmp_path: Path) -> None:
    source = validate(Mixture, sections(tmp_path), "recipe.data")
    assert validate(Mixture, json.loads(source.model_dump_json()), "recipe.data") == source
    assert isinstance(next(iter(source.examples("train", tmp_path))), Conversation)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"weights": {"chats": 1}},
            "weights: 'few' is a part without a weight; parts: chats, few, texts",
        ),
        (
            {"weights": {"chats": 1, "few": 1, "texts": 1, "fwe": 1}},
            "weights: 'fwe' is no part; parts: chats, few, texts",
        ),
        (
            {"weights": {"chats": 0, "few": 1, "texts": 1}},
            "weights gives part 'chats' 0.0; allowed: more than 0",
        ),
        ({"parts": {}}, "parts: got {}; allowed: "),
        (
            {"parts": {"a": {"path": "x"}}},
            "part 'a' has no name of a source. Write for example name: conversations",
        ),
        (
            {"parts": {"a": {"name": "images", "path": "x"}}},
            "'images' makes no rows of tokens; allowed: text, conv",
        ),
        ({"parts": {"a": {"name": "mixture", "parts": {}}}}, "'mixture' makes no rows of tokens"),
        (
            {"parts": {"a": {"name": "text", "pth": "x"}}},
            "recipe.data.parts.a.pth: unknown key; did you mean 'path'",
        ),
    ],
)
def test_mixtures_that_cannot_be(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError) as caught:
        validate(Mixture, sections(tmp_path, **changes), "recipe.data")
    assert problem in str(caught.value)


def test_a_part_with_an_impossible_row_is_named(tmp_path: Path) -> None:
    section = sections(tmp_path)
    (tmp_path / "few.json").write_text('[{"instruction": "x", "output": ""}]', encoding="utf-8")
    with pytest.raises(
        DataError, match=r"part 'few', .*few.json row 1: turn 2 \(assistant\) has no content"
    ):
        opened(tmp_path, validate(Mixture, section, "recipe.data"))
