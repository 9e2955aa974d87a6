"""Base runs of one step of the models that write one sequence about another, for tests of
fine-tuning."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tiny_families import tiny_config
from tiny_runs import tiny_run
from torch import Tensor

import groundup

__all__ = ["WRITERS", "base_recipe", "outputs_of"]

WRITERS = ("encoder_decoder", "whisper", "ctc", "hub bart", "hub mt5")


def base_recipe(name: str, folder: Path) -> dict[str, Any]:
    """Return the recipe of a model of ``WRITERS``, without its budget."""
    model, _, family = name.partition(" ")
    recipe = tiny_run(model, folder, reads="pairs" if family else "")
    if family:
        # Room for all bytes.
        shape: dict[str, Any] = {"vocab_size": 264, "decoder_start_token_id": 2}
        if family == "mt5":
            shape["num_decoder_layers"] = 2
        values = json.loads(tiny_config(family, **shape).to_json_string())
        recipe["model"] = {"name": "hub", "config": values, "dropout": 0.1, "context_length": 64}
    else:
        # One more block, so that some may be trained without the others.
        recipe["model"]["layers"] = 2
        if model == "ctc":
            # LSTMs are no linear layers, next to which adapters are.
            recipe["model"] |= {"blocks": "conformer", "heads": 2, "kernel": 3}
    recipe["task"]["measured"] = 0
    recipe["name"] = "base"
    recipe["training"] = {"batch_size": 16, "steps": 1}
    return recipe


@torch.no_grad()
def outputs_of(run: Any, model: Any) -> Tensor:
    """Return what a model gives for two training examples of a run: logits, or sums of losses."""
    recipe = run.recipe
    predictor = groundup.load(run.folder)
    examples = list(islice(recipe.data.examples("train", run.folder / "cache"), 2))
    batch = recipe.task.encode(examples, predictor.processor)
    found = recipe.task.forward(model.eval(), batch)
    return found if isinstance(found, Tensor) else found[0]
