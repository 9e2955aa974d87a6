"""A tokenizer with more tokens than the weights: new rows, each the mean of the others."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrained_folders import transformers, write_model, write_tokenizer
from safetensors.torch import load_file

import groundup
from groundup.core.errors import RecipeError
from groundup.processors.text.tokenizer_json import TokenizerJSONConfig


def recipe(folder: Path, family: str = "llama2", **parts: Any) -> dict[str, Any]:
    write_tokenizer(folder / "base")
    files = TokenizerJSONConfig(path=str(folder / "base"))
    known = files.fit(lambda: iter(()))
    write_model(folder / "base", family, vocab_size=known.vocabulary_size - 2)
    write_tokenizer(folder / "base")
    texts = folder / "texts"
    texts.mkdir()
    for number in range(20):
        (texts / f"{number}.txt").write_text(f"the lamp and the river {number} " * 20)
    return {
        "name": "more",
        "init": {"pretrained": str(folder / "base")},
        "model": {"context_length": 32},
        "task": "language_modeling",
        "data": {"name": "text", "path": str(texts)},
        "optim": {"lr": 1e-3, "weight_decay": 0.0},
        "training": {"batch_size": 2, "steps": 4},
        "machine": {"threads": 1, "compile": False, "precision": "fp32"},
        **parts,
    }


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama2", "gpt2"])
def test_rows_are_new_saved_exported_and_resumed(tmp_path: Path, family: str) -> None:
    made = recipe(tmp_path, family)
    trainer = groundup.trainer(made, runs=tmp_path)
    own = trainer.model.state_dict()
    there = load_file(tmp_path / "base" / "model.safetensors")
    table = next(v for k, v in there.items() if k.endswith(("embed_tokens.weight", "wte.weight")))
    rows = len(table)
    assert own["embed.weight"].shape[0] == rows + 2
    assert torch.equal(own["embed.weight"][:rows], table)
    for row in (rows, rows + 1):
        torch.testing.assert_close(own["embed.weight"][row], table.mean(0))
    if "head.weight" in own:
        torch.testing.assert_close(own["head.weight"][-1], own["head.weight"][:rows].mean(0))
    said = (trainer.run.folder / "metrics.jsonl").read_text()
    assert f"rows for {rows} to {rows + 1} are new, each the mean of the others" in said
    list(islice(trainer.steps(), 2))
    trainer.save()
    trainer.close()
    resumed = groundup.train(made, runs=tmp_path)
    whole = groundup.train({**made, "name": "whole"}, runs=tmp_path)
    one, other = (run.checkpoints.load(4).model for run in (resumed, whole))
    assert all(torch.equal(one[name], other[name]) for name in one)
    exported = transformers.AutoModelForCausalLM.from_pretrained(resumed.folder / "model")
    tokens = torch.tensor([[1, 5, rows + 1]])
    with torch.no_grad():
        ours = groundup.load(resumed.folder).model(tokens)
        assert (exported(tokens).logits - ours).abs().max() < 1e-4


@pytest.mark.slow
def test_adapters_say_what_becomes_of_new_rows(tmp_path: Path) -> None:
    made = recipe(tmp_path, adapter={"rank": 2})
    with pytest.raises(
        RecipeError, match=r"recipe.adapter: leaves the rows of the tokens"
    ) as found:
        groundup.train(made, runs=tmp_path)
    # The two remedies, as they are written there.
    tokens = found.value.remedy.partition("trainable_token_indices: ")[2].partition("]")[0]
    rows = [int(token) for token in tokens.removeprefix("[").split(",")]
    for name, remedy in (
        ("rows", {"trainable_token_indices": rows}),
        ("weight", {"modules_to_save": ["embed"]}),
    ):
        run = groundup.train(
            {**made, "name": name, "adapter": {"rank": 2, **remedy}}, runs=tmp_path
        )
        assert f"embed.{name}" in run.checkpoints.load(4).model
        assert len(groundup.load(run.folder).model.get_submodule("embed").weight) == rows[-1] + 1


@pytest.mark.slow
def test_fewer_tokens_than_the_weights_are_refused(tmp_path: Path) -> None:
    made = recipe(tmp_path, model={"vocabulary_size": 50})
    with pytest.raises(RecipeError, match=r"vocabulary_size: is 50, but the weights of .* have"):
        groundup.train(made, runs=tmp_path)
