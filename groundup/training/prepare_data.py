"""Preparing the data of a recipe before it is trained on: cleaned, a tokenizer learned from it,
tokenized; by one process, or in parts by many jobs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundup.contracts.data import (
    DataContext,
    KeepsTokens,
    LearnsFromSample,
    Part,
    PreparesInParts,
)
from groundup.contracts.models import context_length_of
from groundup.contracts.processors import TextProcessor
from groundup.core.errors import GroundupError, RecipeError
from groundup.recipe.recipe import Recipe, load_recipe
from groundup.runs.processor import cache_folder
from groundup.training.components import encode_with
from groundup.training.fit_processor import keep_processor

__all__ = ["parse_part", "prepare"]

_PART = re.compile(r"(\d+)/(\d+)")
_MOST_PARTS = 10_000


def prepare(
    source: str | Path | dict[str, Any],
    overrides: Mapping[str, Any] | None = None,
    *,
    part: str | None = None,
    join: int | None = None,
    to: str | None = None,
) -> str:
    """Clean a recipe's data, learn its tokenizer and make its tokens, where training finds them.

    Args:
        source: A YAML file or a dictionary.
        overrides: Dotted keys to values.
        part: Such as ``3/64``: only this part, one of as many jobs with one cache.
        join: Put together what so many parts have made.
        to: A folder or an address, such as ``s3://bucket/corpus``, that all of it is written to as
            well, for ``data: shards``.

    Returns:
        What was done, and what to do next.

    Raises:
        GroundupError: If the data cannot be prepared so, or a part is missing.
    """
    recipe = load_recipe(source, dict(overrides or {}))
    if part is not None and join is not None:
        raise GroundupError("--join", "has no effect with --part", "Remove one of them")
    for name, other in (("--part", part), ("--join", join)):
        if to is not None and other is not None:
            problem = f"has no effect with {name}"
            raise GroundupError("--to", problem, "Write it once all parts are joined, without")
    if part is not None:
        return _prepare_part(recipe, parse_part(part))
    if join is not None:
        return _join_parts(recipe, parse_part(f"1/{join}").of)
    return _prepare_all(recipe) if to is None else _write_to(recipe, to)


def parse_part(text: str) -> Part:
    """Return the part that ``3/64`` says.

    Raises:
        GroundupError: If it says none.
    """
    found = _PART.fullmatch(text.strip())
    if found is not None:
        number, of = map(int, found.groups())
        if 1 <= number <= of <= _MOST_PARTS:
            return Part(number, of)
    raise GroundupError(
        "--part",
        f"is {text!r}; allowed: a part and how many there are, from 1/1 to"
        f" {_MOST_PARTS}/{_MOST_PARTS}",
        "Write for example --part 3/64",
    )


def _prepare_all(recipe: Recipe) -> str:
    """Prepare all splits in this process, and return what is there now, in words."""
    if not recipe.data.packs_rows:
        raise RecipeError(
            "recipe.data",
            f"{recipe.data.registered_name!r} has no tokens that could be prepared",
            "Train: it reads its examples as they are needed",
        )
    for context in _contexts(recipe):
        recipe.data.open(context).close()
    return f"Prepared {', '.join(recipe.data.splits())} in {cache_folder()}"


def _prepare_part(recipe: Recipe, part: Part) -> str:
    """Prepare a part of the corpus, as far as can be now: its documents, or, where those of all
    parts are joined, their tokens. Return what to do next, in words."""
    source = _source_in_parts(recipe)
    cache = cache_folder()
    if not source.is_joined(cache):
        made = source.examine_part(part, cache, _sample_bytes(recipe))
        done = "is cleaned" if made else "was cleaned before"
        return f"Part {part} {done}. Once all parts are: groundup data prepare ... --join {part.of}"
    encoded = [source.encode_part(part, context) for context in _contexts(recipe)]
    done = "has its tokens" if any(encoded) else "had its tokens before"
    return f"Part {part} {done}. Once all parts have: groundup data prepare ... --join {part.of}"


def _join_parts(recipe: Recipe, parts: int) -> str:
    """Join what all parts have made: their documents first, from which a tokenizer is learned, and
    then their tokens. Return what to do next, in words.

    Raises:
        DataError: If a part is missing, or was made of other data or with other settings.
    """
    source = _source_in_parts(recipe)
    cache = cache_folder()
    if not source.is_joined(cache):
        source.join_examined(parts, cache, _sample_bytes(recipe))
        keep_processor(recipe)
        return f"{parts} parts are joined. Now once more for tokens: --part 1/{parts} and so on"
    for context in _contexts(recipe):
        source.join_encoded(parts, context)
    source.remove_parts(cache)
    return f"The tokens of {parts} parts are joined: groundup train finds them in {cache}"


def _write_to(recipe: Recipe, address: str) -> str:
    """Write processor, tokens and card to an address, and return what to train with, in words."""
    source = recipe.data
    if not isinstance(source, KeepsTokens):
        raise RecipeError(
            "recipe.data",
            f"{source.registered_name!r} has no tokens to write elsewhere; allowed: text",
            "Remove --to",
        )
    _, folder = keep_processor(recipe)
    size = source.write_tokens(address, folder, _contexts(recipe))
    return f"Wrote {size / 1e6:,.1f} MB to {address}: data: {{name: shards, path: {address}}}"


def _sample_bytes(recipe: Recipe) -> int:
    processor = recipe.processor
    return processor.sample_bytes if isinstance(processor, LearnsFromSample) else 0


def _source_in_parts(recipe: Recipe) -> PreparesInParts:
    if isinstance(recipe.data, PreparesInParts):
        return recipe.data
    raise RecipeError(
        "recipe.data",
        f"{recipe.data.registered_name!r} cannot be prepared in parts; allowed: text",
        "Run groundup data prepare without --part and --join",
    )


def _contexts(recipe: Recipe) -> list[DataContext]:
    """Return what each split is opened with; the processor is learned if it was not before."""
    processor, folder = keep_processor(recipe)
    encode, key = encode_with(recipe.task, processor, folder)
    end_id = processor.end_id if isinstance(processor, TextProcessor) else 0
    # Batches are the training's business: of them no token depends.
    return [
        DataContext(
            split=split,
            encode=encode,
            encode_key=key,
            end_id=end_id,
            sequence_length=context_length_of(recipe.model),
            batch_size=1,
            micro_batch_size=1,
            seed=recipe.seed,
            cache=cache_folder(),
        )
        for split in recipe.data.splits()
    ]
