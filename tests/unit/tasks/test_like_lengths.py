"""Batches in parts of like lengths: every row once, little padding, and the same sums."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from groundup.contracts.ragged import ragged_rows
from groundup.core.settings import validate
from groundup.models.encoder_decoder import EncoderDecoderConfig
from groundup.tasks.text_to_text.like_lengths import parts_of_like_lengths, run_in_parts
from groundup.tasks.text_to_text.rows import pack
from groundup.tasks.text_to_text.task import TextToText


def batch_of(rows: int, longest: int = 100) -> Any:
    torch.manual_seed(0)
    # Lengths as of texts: most are short, a few are long.
    lengths = (torch.rand(rows) ** 3 * longest + 1).long().tolist()
    source = [torch.randint(3, 250, (length,)) for length in lengths]
    target = [
        torch.randint(3, 250, (length + number % 4,)) for number, length in enumerate(lengths)
    ]
    return pack(source, target)


def padding(parts: list[Any]) -> float:
    real, all_ = 0, 0
    for part in parts:
        for side in ("source", "target"):
            lengths = [len(row) for row in ragged_rows(part, side)]
            real += sum(lengths)
            all_ += max(lengths) * len(lengths)
    return 1 - real / all_


def test_every_row_is_in_one_part_and_little_is_padding() -> None:
    batch = batch_of(64)
    assert padding([batch]) > 0.6
    parts = parts_of_like_lengths(batch)
    assert padding(parts) < 0.1
    found = sorted(tuple(row.tolist()) for part in parts for row in ragged_rows(part, "source"))
    assert found == sorted(tuple(row.tolist()) for row in ragged_rows(batch, "source"))
    for part in parts:
        pairs = zip(ragged_rows(part, "source"), ragged_rows(part, "target"), strict=True)
        assert all(0 <= len(target) - len(source) < 4 for source, target in pairs)


@pytest.mark.parametrize("rows", [1, 2, 33, 130])
def test_batches_of_any_size(rows: int) -> None:
    parts = parts_of_like_lengths(batch_of(rows))
    assert sum(len(ragged_rows(part, "source")) for part in parts) == rows
    even = pack([torch.arange(9)] * rows, [torch.arange(5)] * rows)
    assert len(parts_of_like_lengths(even)) == 1


def test_the_sums_are_those_of_the_whole_batch() -> None:
    shape = {"vocabulary_size": 260, "width": 16, "heads": 2, "layers": 1, "dropout": 0.0}
    model = EncoderDecoderConfig(**shape).build()
    batch = batch_of(20, 40)
    chosen = validate(TextToText, {"metrics": ["rouge_l"]}, "recipe.task")
    whole = model(**chosen.inputs(batch))
    sizes = []

    def inputs(part: Any) -> Any:
        sizes.append(len(ragged_rows(part, "source")))
        return chosen.inputs(part)

    found = run_in_parts(model, batch, inputs, sums=True)
    assert len(sizes) > 2
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(chosen.forward(model, batch), whole, rtol=1e-5, atol=1e-3)
    logits = run_in_parts(model, batch, chosen.prediction_inputs, sums=False)
    assert len(logits) == 20
