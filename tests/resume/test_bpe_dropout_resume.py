"""Texts that are cut into other tokens each time: a function of the sample alone, so that a run goes
on as if it had never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from resuming import stopped_and_resumed
from tiny_runs import tiny_run

import groundup
from groundup.contracts.ragged import ragged_rows
from groundup.core.errors import RecipeError
from groundup.core.settings import validate
from groundup.core.values import Example
from groundup.processors.text.bpe import BPEConfig
from groundup.tasks.text_to_text.task import TextToText


def run_of(folder: Path, **processor: Any) -> dict[str, Any]:
    recipe = tiny_run("encoder_decoder", folder)
    task = {**recipe["task"], "bpe_dropout": 0.2, "metrics": []}
    machine = {**recipe["machine"], "micro_batch_size": 8}
    training = {"batch_size": 16, "steps": 8}
    return {
        **recipe,
        "task": task,
        "machine": machine,
        "processor": processor,
        "training": training,
    }


def test_rows_are_cut_again_by_their_samples() -> None:
    texts = [f"the newest house number {n} is not lower than others, 打开" for n in range(12)]
    processor = BPEConfig(vocab_size=330).fit(lambda: iter(texts))
    examples = [Example(text, text, text[4:], predicts_text=True) for text in texts]
    settings = {"bpe_dropout": 0.3, "metrics": ["rouge_l"], "max_target_tokens": 24}
    task = validate(TextToText, settings, "recipe.task")
    plain = task.encode(examples, processor)
    found = task.augment(plain, np.arange(40, 52), dict, processor, 1)
    again = task.augment(
        task.encode(examples[3:5], processor), np.array([43, 44]), dict, processor, 1
    )
    for side in ("source", "target"):
        rows = [row.tolist() for row in ragged_rows(found, side)]
        assert rows[3:5] == [row.tolist() for row in ragged_rows(again, side)]
        assert rows != [row.tolist() for row in ragged_rows(plain, side)]
        assert {row[-1] for row in rows} == {processor.end_id}
    assert [processor.decode(row.tolist()) for row in ragged_rows(found, "source")] == texts
    assert max(map(len, ragged_rows(found, "target"))) <= 24
    assert task.augments
    assert not task.augments_held_out
    assert not validate(TextToText, {}, "recipe.task").augments


@pytest.mark.slow
def test_a_resumed_run_is_the_one_that_was_never_stopped(tmp_path: Path) -> None:
    recipe = run_of(tmp_path, name="bpe", vocab_size=290)
    stopped_and_resumed(recipe, tmp_path / "runs", (3, 8))


@pytest.mark.slow
def test_a_tokenizer_without_merges(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="bpe_dropout: needs a byte-level BPE tokenizer"):
        groundup.trainer(run_of(tmp_path, name="bytes"), runs=tmp_path / "runs")


@pytest.mark.slow
def test_with_a_tokenizer_for_each_side(tmp_path: Path) -> None:
    sides = {"source": {"name": "bpe", "vocab_size": 290}, "target": {"name": "bpe"}}
    recipe = run_of(tmp_path, name="two_tokenizers", **sides)
    stopped_and_resumed(recipe, tmp_path / "runs", (3, 8))
