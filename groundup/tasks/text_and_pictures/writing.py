"""Pictures and captions written token by token, each by tokens of its own alone.

Legend: N prompts, P codes of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from groundup.core.errors import DataError
from groundup.generation.decoding import Decodable, generate_batch
from groundup.generation.options import DecodingOptions
from groundup.processors.picture_tokens import PictureTokens
from groundup.tasks.shared.text_generation import decoding_options, write

__all__ = ["draw_pictures", "write_captions"]

_ROWS = 64
# What says how long a text is, or how it ends: a picture has always as many codes.
_OF_TEXTS = ("max_new_tokens", "stop", "min_new_tokens", "beams", "n_best", "length_penalty")


def draw_pictures(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    processor: PictureTokens,
    options: dict[str, Any],
) -> Tensor:
    """Return the tokens (N, P) of a picture after each prompt, drawn from its codes alone.

    A picture is a function of its prompt, its number among them, and the seed.

    Raises:
        DataError: If an option is for texts.
    """
    for name in _OF_TEXTS:
        if name in options and options[name] != DecodingOptions.model_fields[name].default:
            problem = "is for texts: a picture has always as many codes, which are drawn one by one"
            raise DataError(f"options.{name}", problem, "Remove it")
    # Every token must be a code, or there is no picture.
    others = tuple(range(processor.picture_id + 1))
    length = processor.picture_length
    own = {"temperature": 1.0, **options, "max_new_tokens": length}
    own["suppress_tokens"] = (*own.get("suppress_tokens", ()), *others)
    chosen = decoding_options(own)
    found = []
    for first in range(0, len(prompts), _ROWS):
        # What its forward takes, a module does not say in types.
        decoder = cast(Decodable, model)
        rows = generate_batch(decoder, prompts[first : first + _ROWS], _from(chosen, first))
        found += rows
    return torch.tensor(found, dtype=torch.int64).view(-1, length)


def _from(options: DecodingOptions, first: int) -> DecodingOptions:
    """Return the options for the prompts from number ``first`` on: other draws than the first
    ones."""
    return options.model_copy(update={"seed": options.seed + first})


def write_captions(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    processor: PictureTokens,
    options: dict[str, Any],
    longest: int,
) -> list[str]:
    """Return the caption after each prompt, without any token of a picture."""
    pictures = tuple(range(processor.picture_id, processor.vocabulary_size))
    own = {"temperature": 0.0, "max_new_tokens": longest, **options}
    own["suppress_tokens"] = (*own.get("suppress_tokens", ()), *pictures)
    return write(model, prompts, processor, decoding_options(own), processor.end_ids)
