"""Texts that an encoder-decoder writes about inputs, or a language model after them."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor, nn

from groundup.contracts.models import EncoderDecoder
from groundup.contracts.processors import TextProcessor
from groundup.core.errors import RecipeError
from groundup.generation.beam_search import beam_search
from groundup.generation.decoding import generate_batch
from groundup.generation.options import DecodingOptions
from groundup.generation.scoring import device_of
from groundup.tasks.shared.text_generation import cut_at_stop, stop_check
from groundup.tasks.text_to_text.rows import pad_source

__all__ = ["check_language_model", "write_about"]

_ROWS = 64
"""Texts that are written at once, all beams counted."""


def write_about(
    model: nn.Module,
    inputs: Sequence[Tensor],
    writer: TextProcessor,
    options: DecodingOptions,
    ends: Collection[int],
) -> list[list[tuple[str, float]]]:
    """Return the ``options.n_best`` best texts about each input, each with its score.

    Args:
        model: An ``EncoderDecoder``; a language model reads the inputs as prompts.
        inputs: The tokens of each, int64.
        writer: The tokenizer of the outputs.
        options: How to choose tokens; stop texts are cut off.
        ends: The tokens that end an output.
    """
    found: list[list[tuple[str, float]]] = [[] for _ in inputs]
    # Inputs of like lengths together: what is padding is computed for nothing.
    order = sorted(range(len(inputs)), key=lambda number: len(inputs[number]))
    together = max(1, _ROWS // options.beams)
    for first in range(0, len(order), together):
        chosen = order[first : first + together]
        read = [inputs[number] for number in chosen]
        rows = _write_batch(model, read, writer, options, set(ends))
        for number, texts in zip(chosen, rows, strict=True):
            found[number] = texts
    return found


def _write_batch(
    model: nn.Module,
    inputs: Sequence[Tensor],
    writer: TextProcessor,
    options: DecodingOptions,
    ends: set[int],
) -> list[list[tuple[str, float]]]:
    # What its forward takes, a module does not say in types.
    decoder: Any = model
    prompts = [row.tolist() for row in inputs]
    read: dict[str, Tensor] | None = None
    if isinstance(model, EncoderDecoder):
        device = device_of(model)
        read = {name: values.to(device) for name, values in pad_source(inputs).items()}
        prompts = [[model.start_id]] * len(inputs)
    if options.beams > 1:
        searched = beam_search(decoder, prompts, options, ends, read)
        return [
            [(cut_at_stop(writer.decode(each.tokens), options.stop), each.score) for each in texts]
            for texts in searched
        ]
    finished = stop_check(writer, options.stop)
    written = generate_batch(decoder, prompts, options, ends, finished, read)
    return [[(cut_at_stop(writer.decode(tokens), options.stop), 0.0)] for tokens in written]


def check_language_model(model: nn.Module, source: int, target: int) -> None:
    """Check that a model goes on from inputs of at most ``source`` tokens with as many as
    ``target``.

    Raises:
        RecipeError: If it does not predict tokens, reads its inputs by an encoder, or has a shorter
            context.
    """
    if isinstance(model, EncoderDecoder):
        problem = f"is true, but {type(model).__name__} reads the inputs by its encoder"
        raise RecipeError("recipe.task.decoder_only", problem, "Remove it")
    takes = inspect.signature(model.forward).parameters
    if "tokens" not in takes or "targets" not in takes:
        problem = f"{type(model).__name__} predicts no tokens, which task text_to_text learns"
        raise RecipeError("recipe.model", problem, "Use model: gpt, or encoder_decoder")
    decoder: Any = model  # with a config, as whatever takes a text's tokens and targets
    context: int = decoder.config.context_length
    # The last token is predicted, and never read.
    if source + target - 1 > context:
        problem = (
            f"{source} and max_target_tokens {target} are more than the model's context of"
            f" {context} tokens, which holds both"
        )
        remedy = f"Use less, or model.context_length {source + target - 1}"
        raise RecipeError("recipe.task.max_source_tokens", problem, remedy)
