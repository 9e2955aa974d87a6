"""Beam search: the likeliest texts that were found, not one token after the other.

Shape legend: N inputs that are not done, K beams, V vocabulary, L tokens of a text so far.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from groundup.core.errors import DataError
from groundup.generation.decoding import Engine, check_engine_can, encode_inputs, feed
from groundup.generation.forbidden_tokens import forbid
from groundup.generation.options import DecodingOptions
from groundup.generation.recorded_steps import reader_of
from groundup.generation.scoring import evaluating

__all__ = ["Hypothesis", "beam_search"]

# Below every score: what must not be chosen. Not -inf, of which a sum or a quotient may be NaN.
_NEVER = -1.0e9
# Tokens of the vocabulary whose largest log-probability is found at once.
_GROUP = 64


class Hypothesis(NamedTuple):
    """A text that was found.

    Attributes:
        tokens: What was written, without the token that ended it.
        score: Its log-probability in nats, divided by its length to the power of
            ``length_penalty``.
    """

    tokens: list[int]
    score: float


@dataclass
class _Search:
    """The search for one prompt: texts that are whole, the best ones first, at most K."""

    prompt: list[int]
    whole: list[Hypothesis] = field(default_factory=list)


def beam_search(
    model: Any,
    prompts: Sequence[Sequence[int]],
    options: DecodingOptions,
    stop_ids: Collection[int] = (),
    inputs: Mapping[str, Tensor] | None = None,
) -> list[list[Hypothesis]]:
    """Return the best ``options.n_best`` texts that go on from each prompt, the best first.

    Each prompt is searched by itself: its neighbours change its texts by rounding at most. At each
    step the best K texts go on; of those among them that end, the K best are kept. A search ends
    when no text that goes on is better than the worst of K whole ones, by its score so far
    (``early_stopping``: when there are K), or after ``max_new_tokens``.

    Args:
        model: A language model, in any mode. One that is not a ``Generates`` reads each text again
            for every token.
        prompts: Lists of token ids, of any lengths from 1.
        options: With ``temperature`` 0.
        stop_ids: Tokens that end a text. They count in its length, and are not returned.
        inputs: What an ``EncoderDecoder`` writes about, each (B, ...), a row for a prompt.

    Raises:
        DataError: If a prompt is empty, or leaves no room in the model's context.

    Source:
        Sutskever et al., 2014 (arXiv:1409.3215), section 3.2; the score by length and when to stop
        are those of ``transformers``, whose texts these are, token for token.
    """
    length: int = model.config.context_length
    if isinstance(model, Engine):
        check_engine_can(options)
    searches = [_open(number, prompt, length) for number, prompt in enumerate(prompts)]
    if not searches:
        return []
    reader: Any = reader_of(model)
    longest = max(len(search.prompt) for search in searches)
    steps = min(options.max_new_tokens, length - longest + 1)
    beams = options.beams
    with evaluating(model):
        cache = reader.new_cache(len(searches), min(length, longest + steps - 1))
        if inputs is not None:
            encode_inputs(model, cache, inputs)
        active = list(range(len(searches)))
        logits = feed(reader, [search.prompt for search in searches], [0] * len(active), cache)
        cache.keep_beams([row for row in active for _ in range(beams)], active)
        # One text of each prompt at first: K equal ones would find the same.
        scores = torch.full((len(active), beams), _NEVER, device=logits.device)
        scores[:, 0] = 0.0
        logits = logits.repeat_interleave(beams, 0)
        texts = torch.empty((len(active), beams, 0), dtype=torch.int64, device=logits.device)
        for step in range(steps):
            contexts = _contexts(searches, active, texts, options)
            log_probs = logits.float().log_softmax(-1)
            log_probs = forbid(log_probs, contexts, step, options, stop_ids)
            found = _extend(log_probs, scores, texts, stop_ids, last=step == steps - 1)
            _keep_whole(found, searches, active, stop_ids, options)
            scores, chosen = (found.scores + found.ends * _NEVER).topk(beams)
            texts = found.texts.gather(1, chosen[..., None].expand(-1, -1, step + 1))
            parents = found.parents.gather(1, chosen)
            best = scores[:, 0].tolist()
            going = [
                place
                for place, number in enumerate(active)
                if _may_improve(searches[number].whole, best[place], step + 1, options)
            ]
            if step == steps - 1 or not going:
                break
            # Rows of finished prompts are dropped: the others no longer pay for them.
            rows = torch.arange(len(active), device=parents.device)[:, None] * beams + parents
            cache.keep_beams(rows[going].flatten().tolist(), going)
            active = [active[place] for place in going]
            scores, texts = scores[going], texts[going]
            fed = [len(searches[number].prompt) + step for number in active for _ in range(beams)]
            logits = feed(reader, texts[..., -1:].flatten(0, 1).tolist(), fed, cache)
    return [search.whole[: options.n_best] for search in searches]


class _Extended(NamedTuple):
    """The best texts with one token more.

    Attributes:
        texts: (N, M, L + 1) tokens.
        scores: (N, M) their log-probabilities in nats, falling.
        parents: (N, M) the beams that they go on from.
        ends: (N, M) whether nothing comes after them.
    """

    texts: Tensor
    scores: Tensor
    parents: Tensor
    ends: Tensor


def _extend(
    log_probs: Tensor, scores: Tensor, texts: Tensor, stop_ids: Collection[int], *, last: bool
) -> _Extended:
    """Return the best texts with a token more, so many that K of them do not end."""
    beams = scores.shape[1]
    # Each end may fill a place among the best: with one more for every way to end, K remain.
    many = min(max(2, 1 + len(stop_ids)) * beams, beams * log_probs.shape[-1])
    best, parents, tokens = _find_best(log_probs, scores, many)
    before = texts.gather(1, parents[..., None].expand(-1, -1, texts.shape[-1]))
    ends = torch.zeros_like(tokens, dtype=torch.bool)
    for token in stop_ids:
        ends |= tokens == token
    return _Extended(torch.cat((before, tokens[..., None]), -1), best, parents, ends | last)


def _find_best(log_probs: Tensor, scores: Tensor, many: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the ``many`` best continuations of each input, the best first.

    Args:
        log_probs: (N * K, V) of the next token.
        scores: (N, K) of the texts so far.
        many: M.

    Returns:
        Their scores, beams and tokens, each (N, M).
    """
    inputs, beams = scores.shape
    kinds = log_probs.shape[-1]
    groups = kinds // _GROUP
    if groups * beams < many:
        totals = log_probs.view(inputs, beams, kinds) + scores[..., None]
        best, index = totals.flatten(1).topk(many)
        return best, index // kinds, index % kinds
    # Finding maxima takes a tenth of the time of ``topk``. The M best tokens are in the M groups
    # with the largest maxima, and only these are looked through.
    rows = len(log_probs)
    # A view: each group stays where it is in its row.
    grouped = log_probs[:, : groups * _GROUP].view(rows, groups, _GROUP)
    whole = grouped.amax(-1)
    if groups * _GROUP < kinds:
        whole = torch.cat((whole, log_probs[:, groups * _GROUP :].amax(-1, keepdim=True)), 1)
    maxima = whole.view(inputs, beams, -1) + scores[..., None]
    group = maxima.flatten(1).topk(many).indices
    beam = group // maxima.shape[-1]
    within = torch.arange(_GROUP, device=scores.device)
    tokens = (group % maxima.shape[-1])[..., None] * _GROUP + within
    # The last group may be a short one.
    places = beam[..., None] * kinds + tokens.clamp(max=kinds - 1)
    found = log_probs.view(inputs, -1).gather(1, places.flatten(1)).view_as(tokens)
    found = found + scores.gather(1, beam)[..., None]
    found = found.masked_fill(tokens >= kinds, -torch.inf)
    best, index = found.flatten(1).topk(many)
    return best, beam.gather(1, index // _GROUP), tokens.flatten(1).gather(1, index)


def _keep_whole(
    found: _Extended,
    searches: list[_Search],
    active: list[int],
    stop_ids: Collection[int],
    options: DecodingOptions,
) -> None:
    """Add the texts that end to those that are whole, and keep the K best."""
    beams = options.beams
    # Those after the best K are there so that K go on, not to be results.
    ends = found.ends[:, :beams]
    if not ends.any():
        return
    long = found.texts.shape[-1] ** options.length_penalty
    scores = (found.scores[:, :beams] / long).tolist()
    texts = found.texts[:, :beams].tolist()
    for place, number in enumerate(active):
        search = searches[number]
        for beam, ended in enumerate(ends[place].tolist()):
            if ended and scores[place][beam] > _NEVER / 2:
                text = texts[place][beam]
                tokens = text[:-1] if text[-1] in stop_ids else text
                search.whole.append(Hypothesis(tokens, scores[place][beam]))
        # Stable: of equal ones the first that was found stays before the others.
        search.whole.sort(key=lambda each: -each.score)
        del search.whole[beams:]


def _may_improve(
    whole: list[Hypothesis], best: float, length: int, options: DecodingOptions
) -> bool:
    """Whether a text that goes on may become one of the K best whole ones."""
    if len(whole) < options.beams:
        return True
    if options.early_stopping:
        return False
    possible: float = best / length**options.length_penalty
    return possible > whole[-1].score


def _contexts(
    searches: list[_Search], active: list[int], texts: Tensor, options: DecodingOptions
) -> list[list[int]]:
    """Return the N * K texts with their prompts, where something is forbidden because of them."""
    if options.no_repeat_ngram is None:
        return [[]] * (len(active) * options.beams)
    return [
        searches[number].prompt + text
        for number, own in zip(active, texts.tolist(), strict=True)
        for text in own
    ]


def _open(number: int, prompt: Sequence[int], length: int) -> _Search:
    if not prompt:
        problem, remedy = "is empty; a text needs a token to start from", "Begin it with a token"
        raise DataError(f"prompt {number}", problem, remedy)
    if len(prompt) > length:
        problem = f"has {len(prompt)} tokens; the model's context is {length}"
        raise DataError(f"prompt {number}", problem, "Shorten it")
    return _Search(list(prompt))
