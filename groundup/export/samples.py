"""What an export is checked on: examples of the run's own validation data, or a few fixed texts."""

from __future__ import annotations

from itertools import islice
from typing import Any, cast

import torch
from torch import nn

from groundup.contracts.models import Generates, context_length_of
from groundup.contracts.processors import TextProcessor
from groundup.core.errors import GroundupError
from groundup.core.values import TokenSequence
from groundup.export.verify import Sample
from groundup.generation.decoding import DecodingOptions, generate_batch
from groundup.runs.processor import cache_folder
from groundup.runs.run import Run

__all__ = ["TEXTS", "samples_of"]

TEXTS = (
    "The capital of France is Paris, and in 2024 it had about 2,100,000 people.",
    "def area(width, height):\n    return width * height  # in m\u00b2\n",
    "  Two  spaces,\ttabs, na\u00efve caf\u00e9s,"
    " \u5e8a\u524d\u660e\u6708\u5149 and I'm sure it's fine!?",
)
# tokens of a prompt
_LONGEST = 48
# examples of a classifier
_BATCH = 16


def samples_of(
    run: Run, model: nn.Module, processor: Any, prompts: int, new_tokens: int
) -> tuple[list[Sample], str]:
    """Return what to compare readers on, and in words where it is from.

    Args:
        run: The run.
        model: The trained model, which continues the prompts.
        processor: The run's.
        prompts: How many texts.
        new_tokens: How many tokens are written after each, at most half the model's context.
    """
    if not isinstance(processor, TextProcessor) or not isinstance(model, Generates):
        return _encode_examples(run, processor), "validation data"
    context = context_length_of(run.recipe.model) or 2 * _LONGEST
    new_tokens = max(min(new_tokens, context // 2), 1)
    # other tools keep room for one token more
    longest = max(min(_LONGEST, context - new_tokens - 1), 1)
    found = _choose_prompts(run, processor, prompts, longest)
    origin = "validation data"
    if len(found) < prompts:
        origin = f"validation data ({len(found)}) and fixed texts" if found else "fixed texts"
        fixed = [tokens.tolist()[:longest] for tokens in processor.encode_batch(TEXTS)]
        found += fixed[: prompts - len(found)]
    options = DecodingOptions(temperature=0, max_new_tokens=new_tokens)
    # That its forward takes a cache, ``Generates`` only says in words.
    texts = generate_batch(cast(Any, model), found, options)
    pairs = zip(found, texts, strict=True)
    return [
        Sample({"tokens": torch.tensor([[*start, *text]])}, len(start)) for start, text in pairs
    ], origin


def _choose_prompts(run: Run, processor: Any, prompts: int, longest: int) -> list[list[int]]:
    """Return the beginnings of validation examples; of a conversation what comes before its first
    trained token."""
    source = run.recipe.data
    task = run.recipe.task
    try:
        examples = list(islice(source.examples("validation", cache_folder()), prompts))
        sequences: Any = task.encode(examples, processor)
    except (GroundupError, OSError):
        # the data is gone, or of another machine
        return []
    found = []
    for sequence in sequences:
        if isinstance(sequence, TokenSequence) and len(sequence.tokens) > 1:
            tokens = sequence.tokens.tolist()
            first = 0
            if sequence.trained is not None and sequence.trained.any():
                first = int(sequence.trained.argmax())
            # the end of a question, but the beginning of a text
            found.append(tokens[:first][-longest:] or tokens[:longest])
    return found


def _encode_examples(run: Run, processor: Any) -> list[Sample]:
    """Return a classifier's inputs: several examples at once, and one alone."""
    source = run.recipe.data
    task = run.recipe.task
    examples = list(islice(source.examples("validation", cache_folder()), _BATCH))
    batches: list[Any] = [task.encode(some, processor) for some in (examples, examples[:1])]
    return [Sample(task.inputs(batch)) for batch in batches]
