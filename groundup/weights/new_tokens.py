"""Rows for tokens that the weights lack: those that a recipe adds to a tokenizer, or that it has
more of than the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from groundup.contracts.models import HasVocabulary, ModelConfig
from groundup.contracts.processors import AddsTokens, Processor, TextProcessor
from groundup.contracts.shared_weights import SharesTensors
from groundup.core.errors import RecipeError
from groundup.machine.meta_device import without_content
from groundup.nn.lora.adapters import fits
from groundup.nn.part_names import HEADS
from groundup.recipe.adapter import Adapter
from groundup.runs.run import Run

__all__ = ["add_rows", "make_room_for_tokens", "token_tables"]


def make_room_for_tokens(run: Run, model: ModelConfig, processor: Processor) -> ModelConfig:
    """Return settings with as many tokens as the tokenizer has, where the weights that a run starts
    from have fewer; what is new is said.

    Raises:
        RecipeError: If an adapter leaves the new rows as they begin.
    """
    reader = processor.reader
    if not isinstance(model, HasVocabulary) or not isinstance(reader, TextProcessor):
        return model
    init = run.recipe.init
    asked = [*init.add_tokens, *init.add_special_tokens]
    before, tokens = model.vocabulary_size, reader.vocabulary_size
    begins = not run.checkpoints.steps()
    # A padded embedding may have a row for them already.
    if asked and begins and isinstance(reader, AddsTokens):
        _say_what_has_a_row(run, reader, asked, before)
    if not 0 < before < tokens:
        return model
    # Many more are those of another tokenizer, which is an error unless the recipe asks for them.
    if tokens - before - len(asked) > before // 20 or (init.run is not None and not asked):
        return model
    grown = model.model_copy(update={"vocabulary_size": tokens})
    new = list(range(before, tokens))
    shown = f"{before}" if len(new) == 1 else f"{before} to {tokens - 1}"
    if begins:
        message = f"the tokenizer has {tokens} tokens and the weights {before}: rows for {shown}"
        run.event(0, f"{run.folder}: {message} are new, each the mean of the others")
    adapter = run.recipe.adapter
    if adapter is not None and not adapter.path:
        note = _check_adapter(grown, adapter, new, shown)
        if note and begins:
            run.event(0, f"{run.folder}: {note}")
    return grown


def add_rows(
    weights: Mapping[str, Tensor], tables: Mapping[str, torch.Size], known: int
) -> dict[str, Tensor]:
    """Return weights with a row for each token of a model that has more tokens than they.

    A new row is the mean of all others: it says nothing, and is in the midst of what the model
    knows.

    Args:
        weights: By groundup's names.
        tables: What ``token_tables`` returns for the model.
        known: How many tokens the weights have. Rows after these are padding, and begin again.

    Source:
        Hewitt, "Initializing new word embeddings for pretrained language models", 2021.
    """
    found = dict(weights)
    for name, wanted in tables.items():
        tensor = found.get(name)
        if tensor is None or tensor.shape[1:] != wanted[1:] or len(tensor) < known:
            continue
        mean = tensor[:known].to(torch.float32).mean(0, keepdim=True)
        new = mean.expand(wanted[0] - known, *tensor.shape[1:])
        found[name] = torch.cat([tensor[:known], new.to(tensor.dtype)])
    return found


def token_tables(config: Any) -> dict[str, torch.Size]:
    """Return the shapes of the tensors that have a row for each token, by name."""
    twice = config.model_copy(update={"vocabulary_size": 2 * config.vocabulary_size})
    with without_content():
        shapes = {name: tensor.shape for name, tensor in config.build().state_dict().items()}
        larger = twice.build().state_dict()
    # Their first dimension grows alone: of no other tensor does any.
    return {
        name: shape
        for name, shape in shapes.items()
        if shape != larger[name].shape and shape[1:] == larger[name].shape[1:]
    }


def _say_what_has_a_row(run: Run, reader: AddsTokens, asked: list[str], rows: int) -> None:
    """Say of added tokens which have a row in the weights already: files are often padded."""
    numbers = {word: reader.number_of(word) for word in asked}
    there = [f"{word!r} ({n})" for word, n in numbers.items() if n is not None and n < rows]
    if there:
        message = f"the weights have rows for {', '.join(there)}, which begin as they are there"
        if run.recipe.adapter is not None:
            message += "; the adapter trains those in adapter.trainable_token_indices"
        run.event(0, f"{run.folder}: {message}")


def _check_adapter(model: Any, adapter: Adapter, new: list[int], shown: str) -> str:
    """Return what there is to say of new rows that an adapter leaves as they begin.

    Raises:
        RecipeError: If these are of the embedding: the model could not tell the new tokens apart.
    """
    asked = [*adapter.modules_to_save, *(pattern for pattern, _ in adapter.patterns())]
    # A bias of the output layer goes with its matrix.
    matrices = [name for name in token_tables(model) if name.endswith(".weight")]
    layers = [name.removesuffix(".weight") for name in matrices]
    left = [name for name in layers if not any(fits(name, each, exactly=True) for each in asked)]
    tables = [name for name in left if not f"{name}.".startswith(HEADS)]
    if tables and not set(new) <= set(adapter.trainable_token_indices):
        problem = f"leaves the rows of the tokens that the weights lack ({shown}) as they begin"
        remedy = f"Set adapter.modules_to_save: [{', '.join(layers)}]"
        if not _is_shared(model, tables[0]):
            numbers = new if len(new) < 9 else "[...]"
            remedy += f"; or adapter.trainable_token_indices: {numbers}"
        raise RecipeError("recipe.adapter", problem, remedy)
    heads = [name for name in left if name not in tables]
    if not heads:
        return ""
    return (
        f"the adapter leaves rows {shown} of {', '.join(heads)} as they begin, so these tokens are"
        " read, but hardly predicted; adapter.modules_to_save:"
        f" [{', '.join(layers)}] trains both"
    )


def _is_shared(model: Any, layer: str) -> bool:
    """Return whether another layer computes with a layer's table past it, so that no rows of it can
    be trained apart."""
    with without_content():
        built = model.build()
    return isinstance(built, SharesTensors) and f"{layer}.weight" in built.tied.values()
