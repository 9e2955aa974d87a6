"""Decoding: from a model's logits to the tokens of a text.

Shape legend: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from groundup.contracts.models import EncoderDecoder
from groundup.core.errors import DataError
from groundup.core.seeding import generator
from groundup.generation.forbidden_tokens import forbid
from groundup.generation.options import DecodingOptions
from groundup.generation.recorded_steps import reader_of
from groundup.generation.scoring import evaluating
from groundup.nn.kv_cache import KeyValueCache

__all__ = [
    "Decodable",
    "Engine",
    "check_engine_can",
    "encode_inputs",
    "feed",
    "filter_logits",
    "generate",
    "generate_batch",
]

Finished = Callable[[int, list[int]], bool]


class Decodable(Protocol):
    """A language model that can decode: logits (B, 1, V) from tokens, positions and a cache."""

    config: Any
    training: bool

    def new_cache(self, batch: int, length: int) -> KeyValueCache: ...

    def train(self, mode: bool = True) -> Any: ...

    def __call__(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        *,
        cache: KeyValueCache,
        last_only: bool,
    ) -> Tensor: ...


@runtime_checkable
class Engine(Protocol):
    """Another program that decodes in place of groundup's models; ``generate`` is given prompts and
    options that were checked."""

    config: Any

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        options: DecodingOptions,
        stop_ids: Collection[int] = (),
        finished: Finished | None = None,
    ) -> Iterator[list[int | None]]: ...


@dataclass
class _Row:
    """One text being written: ``context`` is what the model sees, of which the cache holds the
    first ``fed`` tokens."""

    number: int
    context: list[int]
    random: torch.Generator
    seen: set[int]
    written: list[int] = field(default_factory=list)
    fed: int = 0
    done: bool = False

    def append(self, token: int) -> None:
        """Write a token."""
        self.context.append(token)
        self.written.append(token)
        self.seen.add(token)


def generate(
    model: Decodable | Engine,
    prompts: Sequence[Sequence[int]],
    options: DecodingOptions,
    stop_ids: Collection[int] = (),
    finished: Finished | None = None,
    inputs: Mapping[str, Tensor] | None = None,
) -> Iterator[list[int | None]]:
    """Write on from each prompt, one token at a time.

    A row's text is a function of its prompt, its number and the seed: its neighbours change it by
    rounding at most. When a prompt and its text outgrow the context, see
    ``DecodingOptions.overflow``; a prompt that is longer from the start is cut to its last
    ``context_length`` tokens (roll) or refused (stop).

    Args:
        model: In any mode; it decodes in evaluation mode and without gradients. One that is not a
            ``Generates`` reads each text again for every token. Or an engine, which decodes by
            itself.
        prompts: B lists of token ids, of any lengths from 1.
        options: How to choose.
        stop_ids: Tokens that end a text. They are not part of it.
        finished: Called with a row's number and the tokens written so far after each token; true
            ends the row. This is where a caller looks for stop texts in what it has decoded.
        inputs: What an ``EncoderDecoder`` writes about, each (B, ...), a row for a prompt: read
            once, before the first token.

    Yields:
        For every step the new token of each row, or None for a row that has ended.

    Raises:
        DataError: If a prompt is empty, or too long for ``overflow: stop``.
    """
    # Prompts are checked first, whatever decodes.
    length: int = model.config.context_length
    rows = [_open(number, prompt, options, length) for number, prompt in enumerate(prompts)]
    if not rows:
        return
    # It has a cache, and a context, of its own.
    if isinstance(model, Engine):
        check_engine_can(options)
        yield from model.generate(prompts, options, stop_ids, finished)
        return
    reader: Any = reader_of(model)
    longest = max(len(row.context) for row in rows)
    # A row for each prompt that is another: answers to the same one begin with the same keys.
    places = list(range(len(rows))) if inputs else _distinct(rows)
    with torch.no_grad():
        cache = reader.new_cache(1 + max(places), min(length, longest + options.max_new_tokens - 1))
    if inputs is not None:
        encode_inputs(model, cache, inputs)
    for number in range(options.max_new_tokens):
        step: list[int | None] = [None] * len(prompts)
        # All rows advance together; those that have ended are dropped from the cache below.
        logits = _advance(reader, rows, cache) if number else _begin(reader, rows, places, cache)
        contexts = [row.context for row in rows]
        logits = forbid(logits, contexts, len(rows[0].written), options, stop_ids)
        for row, token in zip(rows, _choose(logits, rows, options), strict=True):
            row.done = token in stop_ids
            if row.done:
                continue
            step[row.number] = token
            row.append(token)
            row.done = finished is not None and finished(row.number, row.written)
            if cache.outgrown(row.fed, len(row.context)):
                row.fed = 0
            if len(row.context) > length:
                row.done = row.done or options.overflow == "stop"
                # Half at once: dropping one token a step would read everything again at each.
                row.context = row.context[-max(1, length // 2) :]
                row.fed = 0
        # A step in which every row ended says nothing.
        if any(token is not None for token in step):
            yield step
        kept = [index for index, row in enumerate(rows) if not row.done]
        if not kept:
            return
        if len(kept) < len(rows):
            cache.keep(kept)
            rows = [rows[index] for index in kept]


def generate_batch(
    model: Decodable | Engine,
    prompts: Sequence[Sequence[int]],
    options: DecodingOptions,
    stop_ids: Collection[int] = (),
    finished: Finished | None = None,
    inputs: Mapping[str, Tensor] | None = None,
) -> list[list[int]]:
    """Return the tokens written on from each prompt, without stop tokens. Arguments as in
    ``generate``."""
    texts: list[list[int]] = [[] for _ in prompts]
    for step in generate(model, prompts, options, stop_ids, finished, inputs):
        for text, token in zip(texts, step, strict=True):
            if token is not None:
                text.append(token)
    return texts


def filter_logits(logits: Tensor, options: DecodingOptions) -> Tensor:
    """Return logits (B, V), divided by the temperature (> 0), with -inf for the tokens that options
    exclude.

    Source:
        top-k: Fan et al., 2018 (arXiv:1805.04833); top-p: Holtzman et al., 2019 (arXiv:1904.09751),
        section 3.1; min-p: Nguyen et al., 2024 (arXiv:2407.01082).
    """
    logits = logits / options.temperature
    if options.top_k is not None:
        # Tokens as likely as the last of them stay too: which of these it is, is chance.
        lowest = logits.topk(min(options.top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < lowest, -torch.inf)
    if options.top_p is not None:
        ordered, order = logits.sort(descending=True, stable=True)
        probabilities = ordered.softmax(-1)
        # What the likelier tokens hold already decides, so that the likeliest one always stays.
        beyond = probabilities.cumsum(-1) - probabilities >= options.top_p
        logits = logits.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), -torch.inf)
    if options.min_p is not None:
        # Of the tokens that are left: min_p comes last.
        probabilities = logits.softmax(-1)
        logits = logits.masked_fill(
            probabilities < options.min_p * probabilities.amax(-1, True), -torch.inf
        )
    return logits


def _open(number: int, prompt: Sequence[int], options: DecodingOptions, length: int) -> _Row:
    if not prompt:
        raise DataError(
            f"prompt {number}",
            "is empty; a text needs a token to start from",
            "Begin it with the end token",
        )
    if len(prompt) > length and options.overflow == "stop":
        raise DataError(
            f"prompt {number}",
            f"has {len(prompt)} tokens; the model's context is {length}",
            "Shorten it or set overflow: roll",
        )
    return _Row(
        number, list(prompt[-length:]), generator(options.seed, "decoding", number), set(prompt)
    )


def encode_inputs(model: Any, cache: Any, inputs: Mapping[str, Tensor]) -> None:
    """Let a model read what it is to write about; the cache keeps it."""
    if not (isinstance(model, nn.Module) and isinstance(model, EncoderDecoder)):
        raise DataError(
            "inputs",
            f"{type(model).__name__} has no encoder, but there are {', '.join(inputs)}",
            "Put them into the prompt, or use a model with an encoder",
        )
    with evaluating(model):
        model.encode(cache, **inputs)


def check_engine_can(options: DecodingOptions) -> None:
    """Refuse what another program does not do: it would be passed over in silence.

    Raises:
        DataError: Naming the option.
    """
    asked = {
        "beams": options.beams > 1,
        "min_new_tokens": options.min_new_tokens > 0,
        "no_repeat_ngram": options.no_repeat_ngram is not None,
        "suppress_tokens": bool(options.suppress_tokens),
        "begin_suppress_tokens": bool(options.begin_suppress_tokens),
        "first_token": options.first_token is not None,
    }
    for name, given in asked.items():
        if given:
            remedy = f"Remove {name}, or use the engine groundup"
            raise DataError(f"options.{name}", "is nothing that this engine can do", remedy)


def _distinct(rows: Sequence[_Row]) -> list[int]:
    """Return for each row the number of its prompt among those that differ."""
    numbers: dict[tuple[int, ...], int] = {}
    return [numbers.setdefault(tuple(row.context), len(numbers)) for row in rows]


def _begin(model: Decodable, rows: list[_Row], places: list[int], cache: KeyValueCache) -> Tensor:
    """Read each prompt once, for all rows that begin with it, and return logits (B, V)."""
    first = [places.index(number) for number in range(max(places) + 1)]
    logits = _advance(model, [rows[place] for place in first], cache)
    if len(first) == len(rows):
        return logits
    for row in rows:
        row.fed = len(row.context)
    cache.keep(places)
    return logits.index_select(0, torch.tensor(places, device=logits.device))


def _advance(model: Decodable, rows: list[_Row], cache: KeyValueCache) -> Tensor:
    """Feed each row what it has not read yet, and return the next token's logits (B, V)."""
    unread = [row.context[row.fed :] for row in rows]
    fed = [row.fed for row in rows]
    for row in rows:
        row.fed = len(row.context)
    return feed(model, unread, fed, cache)


def feed(
    model: Decodable, unread: Sequence[Sequence[int]], fed: Sequence[int], cache: KeyValueCache
) -> Tensor:
    """Feed each row of a cache tokens, padded on the left, and return the next one's logits (B, V).

    Args:
        model: In any mode.
        unread: Of each row the tokens.
        fed: How many the row has read already.
        cache: What it has read.
    """
    width = max(map(len, unread))
    tokens = []
    positions = []
    for row, before in zip(unread, fed, strict=True):
        # A prompt of any length is read together with others; -1 marks what is no token of a row.
        pad = width - len(row)
        tokens.append([0] * pad + list(row))
        positions.append([-1] * pad + list(range(before, before + len(row))))
    device = cache.layers[0].keys.device
    # Each call of train visits every module, which a step of one token would feel.
    training = model.training
    if training:
        model.train(False)
    try:
        with torch.no_grad():
            given = torch.tensor(tokens, device=device)
            places = torch.tensor(positions, device=device)
            return model(given, places, cache=cache, last_only=True)[:, -1]
    finally:
        if training:
            model.train()


def _choose(logits: Tensor, rows: list[_Row], options: DecodingOptions) -> list[int]:
    logits = logits.float()
    if options.repetition_penalty != 1:
        logits = _penalise(logits, rows, options.repetition_penalty)
    if options.temperature == 0:
        return [int(token) for token in logits.argmax(-1).tolist()]
    # On the CPU and in float64: the same draw gives the same token whatever computed the logits.
    cumulative = filter_logits(logits, options).cpu().double().softmax(-1).cumsum(-1)
    draws = torch.stack([torch.rand((), generator=row.random, dtype=torch.float64) for row in rows])
    # The sum is not quite 1: a draw is a share of what it is, and never beyond the last token.
    tokens = torch.searchsorted(cumulative, draws[:, None] * cumulative[:, -1:], right=True)
    return [int(token) for token in tokens[:, 0].clamp(max=logits.shape[-1] - 1).tolist()]


def _penalise(logits: Tensor, rows: list[_Row], penalty: float) -> Tensor:
    """Make tokens of the text less likely. Source: Keskar et al., CTRL, 2019 (arXiv:1909.05858),
    section 4.1.

    Departs from the paper: a negative score is multiplied, not divided, as every implementation
        since does.
    """
    seen = torch.zeros_like(logits, dtype=torch.bool)
    for index, row in enumerate(rows):
        # A tokenizer may have tokens, such as an image's, that the model does not predict.
        seen[index, [token for token in row.seen if token < logits.shape[-1]]] = True
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
