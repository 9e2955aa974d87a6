"""Folders with random encoder-decoders of other families than the models here, and recipes that
start from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pretrained_folders import transformers, write_tokenizer
from tiny_families import tiny_config
from tiny_runs import tiny_run

__all__ = ["recipe_from", "write_encoder_decoder"]


def write_encoder_decoder(family: str, folder: Path, **changed: Any) -> Any:
    """Write random weights of a family and a tokenizer of 320 tokens; return the model."""
    tokens = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    own = {"vocab_size": 320, "decoder_start_token_id": 1, **tokens, **changed}
    torch.manual_seed(3)
    config = tiny_config(family, **own)
    model = transformers.AutoModelForSeq2SeqLM.from_config(config, dtype=torch.float32)
    model.generation_config.forced_eos_token_id = None
    model.save_pretrained(folder)
    write_tokenizer(folder, template=None)
    return model


def recipe_from(folder: Path, **parts: Any) -> dict[str, Any]:
    """Return the recipe of three steps from the weights in ``folder / "base"``."""
    recipe = {**tiny_run("encoder_decoder", folder), **parts}
    recipe["model"] = {"context_length": 60}
    del recipe["processor"]
    recipe["init"] = {"pretrained": str(folder / "base")}
    recipe["training"] = {"batch_size": 16, "steps": 3}
    return recipe
