"""What an export is checked on: examples of the run's own validation data, or a few fixed texts."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from groundup.contracts.models import EncoderDecoder, Generates, context_length_of
from groundup.contracts.processors import TextProcessor
from groundup.contracts.speech import EmitsFrames, ListensOnce, ReadsSpeech
from groundup.contracts.two_tokenizers import tokenizers_of
from groundup.core.errors import GroundupError
from groundup.core.seeding import generator
from groundup.core.values import Example, TokenSequence
from groundup.export.verify import Sample
from groundup.generation.decoding import generate_batch
from groundup.generation.options import DecodingOptions
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
# frames of a sound that nobody recorded, of which every window has more
_FRAMES = 32
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
    if isinstance(model, ListensOnce) and isinstance(processor, ReadsSpeech):
        return _write_about_sounds(run, model, processor, prompts, new_tokens)
    if isinstance(model, EncoderDecoder):
        return _write_about(run, model, processor, prompts, new_tokens)
    if not isinstance(processor, TextProcessor) or not isinstance(model, Generates):
        return _encode_examples(run, model, processor), "validation data"
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


def _write_about(
    run: Run, model: Any, processor: Any, prompts: int, new_tokens: int
) -> tuple[list[Sample], str]:
    """Return the inputs of validation examples, each with what the model writes about it."""
    task = run.recipe.task
    examples = [Example(text, text, text, predicts_text=True) for text in TEXTS]
    origin = "fixed texts"
    # the data may be gone, or of another machine
    with suppress(GroundupError, OSError):
        found = list(islice(run.recipe.data.examples("validation", cache_folder()), prompts))
        if found:
            examples, origin = found, "validation data"
    batch: Any = task.encode(examples[:prompts], processor)
    inputs = task.prediction_inputs(batch)
    context = context_length_of(run.recipe.model) or 2 * _LONGEST
    options = DecodingOptions(temperature=0, max_new_tokens=max(min(new_tokens, context - 1), 1))
    samples = []
    writer = tokenizers_of(processor)[1]
    for row, real in zip(inputs["source"], inputs["source_mask"], strict=True):
        # Without padding, and so one by one: what another tool does with it is its own affair.
        source = row[real][None]
        ends = set(writer.end_ids)
        text = generate_batch(model, [[model.start_id]], options, ends, None, {"source": source})[0]
        if len(text) < options.max_new_tokens:
            text.append(writer.end_id)
        tokens = torch.tensor([[model.start_id, *text]])
        samples.append(Sample({"source": source, "tokens": tokens}, 1))
    return samples, origin


def _write_about_sounds(
    run: Run, model: Any, processor: ReadsSpeech, prompts: int, new_tokens: int
) -> tuple[list[Sample], str]:
    """Return the frames of validation sounds, with the silence after each, and what the model
    writes about it."""
    task = run.recipe.task
    batches: list[Any] = []
    origin = "fixed noise"
    # the data may be gone, or of another machine
    with suppress(GroundupError, OSError):
        examples = islice(run.recipe.data.examples("validation", cache_folder()), prompts)
        batches = [task.inputs(cast(Any, task.encode([each], processor))) for each in examples]
        origin = "validation data" if batches else origin
    if not batches:
        random = generator(0, "export", 0)
        size = (1, _FRAMES, processor.input_shape[1])
        batches = [{"inputs": torch.randn(size, generator=random) / 2} for _ in TEXTS]
    never, first = model.suppressed
    prompt = [model.start_id, *model.prompt_ids]
    # half of the context is a text's, in every program that writes with such a model
    room = (context_length_of(run.recipe.model) or 2 * _LONGEST) // 2 - len(prompt)
    options = DecodingOptions(
        temperature=0,
        max_new_tokens=max(min(new_tokens, room), 1),
        suppress_tokens=never,
        begin_suppress_tokens=first,
    )
    samples = []
    for batch in batches[:prompts]:
        frames = model.in_window(batch["inputs"], batch.get("lengths"))
        ends = set(processor.tokenizer.end_ids)
        text = generate_batch(model, [prompt], options, ends, None, {"inputs": frames})[0]
        if len(text) < options.max_new_tokens:
            text.append(processor.tokenizer.end_id)
        tokens = torch.tensor([[*prompt, *text]])
        samples.append(Sample({"inputs": frames, "tokens": tokens}, len(prompt)))
    return samples, origin


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


def _encode_examples(run: Run, model: nn.Module, processor: Any) -> list[Sample]:
    """Return the inputs of what writes no text: several examples at once, and one alone."""
    source = run.recipe.data
    task = run.recipe.task
    examples = list(islice(source.examples("validation", cache_folder()), _BATCH))
    batches: list[Any] = [task.encode(some, processor) for some in (examples, examples[:1])]
    if task.augments_held_out:
        # What is no input without its noise, as pictures on their way: the noise of validations.
        batches = [
            task.augment(batches[place], np.arange(count), lambda which=0: {}, processor, -1)
            for place, count in enumerate((len(examples), 1))
        ]
    found = [Sample(task.inputs(batch)) for batch in batches]
    # Of sounds a model gives fewer frames than it reads.
    if isinstance(model, EmitsFrames):
        kept = [model.output_lengths(sample.inputs["lengths"]) for sample in found]
        found = [replace(each, kept=own) for each, own in zip(found, kept, strict=True)]
    return found
