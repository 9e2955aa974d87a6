"""Beam search: the best texts, their scores, when it stops, and what may not be written."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from test_decoding import PROMPTS, WithoutACache, tiny
from torch import Tensor

from groundup.core.errors import DataError
from groundup.generation.beam_search import beam_search
from groundup.generation.decoding import generate_batch
from groundup.generation.forbidden_tokens import repeating_tokens
from groundup.generation.options import DecodingOptions
from groundup.models.encoder_decoder import EncoderDecoderConfig
from groundup.nn.kv_cache import KeyValueCache
from groundup.nn.transformer import DecoderLM

STOP = 7


def beams(**changes: Any) -> DecodingOptions:
    return DecodingOptions(**{"temperature": 0.0, "max_new_tokens": 6, "beams": 4, **changes})


def log_probabilities(model: DecoderLM, prompt: list[int], texts: Tensor) -> Tensor:
    """Return log p of texts (N, T) after a prompt, (N,) in nats, by one forward pass."""
    rows = torch.cat((torch.tensor([prompt]).expand(len(texts), -1), texts), 1)
    with torch.no_grad():
        logits = model.eval()(rows).log_softmax(-1)[:, len(prompt) - 1 : -1]
    return logits.gather(2, texts[..., None])[..., 0].sum(1)


@pytest.mark.slow
def test_many_beams_find_the_best_of_all_texts() -> None:
    model = tiny()
    # Tokens from 6 on are ruled out, so that all texts can be tried.
    with torch.no_grad():
        model.embed.weight[6:] = 0.0
        model.embed.weight[6:] -= 100 * model.embed.weight[:1].sign()
    prompt = [1, 2]
    options = beams(beams=36, max_new_tokens=2, length_penalty=0.7, n_best=3)
    (found,) = beam_search(model, [prompt], options, {5})
    pairs = torch.tensor([text for text in product(range(40), repeat=2) if text[0] != 5])
    scores = log_probabilities(model, prompt, pairs) / 2**0.7
    every = dict(zip(map(tuple, pairs.tolist()), scores.tolist(), strict=True))
    every[5,] = float(log_probabilities(model, prompt, torch.tensor([[5]])))
    best = sorted(every, key=lambda text: -every[text])[:3]
    assert [tuple(each.tokens) for each in found] == [
        text[:-1] if text[-1] == 5 else text for text in best
    ]
    assert [each.score for each in found] == pytest.approx([every[text] for text in best], rel=1e-4)


def test_a_batch_equals_one_by_one_and_needs_no_cache() -> None:
    model = tiny()
    options = beams(n_best=2)
    together = beam_search(model, PROMPTS, options, {STOP})
    assert model.training
    for prompt, found in zip(PROMPTS, together, strict=True):
        (alone,) = beam_search(WithoutACache(model), [prompt], options, {STOP})
        assert [each.tokens for each in alone] == [each.tokens for each in found]
        assert [each.score for each in alone] == pytest.approx([e.score for e in found], rel=1e-4)
        assert found[0].score >= found[1].score


def test_what_may_not_be_written() -> None:
    model = tiny()
    short = beam_search(model, PROMPTS, beams(), {STOP, 3, 11, 20})
    long = beam_search(model, PROMPTS, beams(min_new_tokens=5), {STOP, 3, 11, 20})
    assert min(len(each[0].tokens) for each in long) >= 5
    assert [each[0].tokens for each in short] != [each[0].tokens for each in long]
    for options in (beams(no_repeat_ngram=1), DecodingOptions(temperature=0, no_repeat_ngram=1)):
        if options.beams > 1:
            texts = [each[0].tokens for each in beam_search(model, PROMPTS, options)]
        else:
            texts = generate_batch(model, PROMPTS, options.model_copy(update={"max_new_tokens": 6}))
        for prompt, text in zip(PROMPTS, texts, strict=True):
            assert len({*prompt, *text}) == len(prompt) + len(text)
    assert repeating_tokens([1, 2, 3, 1, 2], 3) == {3}
    assert repeating_tokens([1, 2, 1, 3, 1], 2) == {2, 3}
    assert repeating_tokens([1, 2], 3) == set()
    assert repeating_tokens([4, 5], 1) == {4, 5}


def test_texts_end_with_the_context() -> None:
    model = tiny(context=10)
    found = beam_search(model, [[1] * 8, [2]], beams(max_new_tokens=9))
    # The prompts are one batch: the longest leaves room for three.
    assert [len(each[0].tokens) for each in found] == [3, 3]
    assert beam_search(model, [], beams()) == []
    with pytest.raises(DataError, match=r"prompt 0: has 11 tokens; the model's context is 10"):
        beam_search(model, [[1] * 11], beams())
    with pytest.raises(DataError, match=r"prompt 0: is empty"):
        beam_search(model, [[]], beams())


def test_early_stopping_and_length() -> None:
    model = tiny()
    stops = set(range(0, 40, 3))
    early = beam_search(model, PROMPTS, beams(early_stopping=True), stops)
    patient = beam_search(model, PROMPTS, beams(), stops)
    assert all(a[0].score <= b[0].score + 1e-6 for a, b in zip(early, patient, strict=True))
    longer = beam_search(model, PROMPTS, beams(length_penalty=5.0), stops)
    assert sum(len(e[0].tokens) for e in longer) > sum(len(e[0].tokens) for e in patient)


def test_what_was_read_of_an_input_is_shared_or_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    config = EncoderDecoderConfig(
        vocabulary_size=40, width=16, heads=2, layers=1, init_std=0.4, context_length=12
    )
    model = config.build()
    source = torch.randint(40, (3, 5))
    mask = torch.arange(5) < torch.tensor([[5], [2], [4]])
    inputs = {"source": source, "source_mask": mask}
    prompts = [[0]] * 3
    wanted = beam_search(model, prompts, beams(n_best=3), {STOP, 3, 11, 20}, inputs)
    make = model.new_cache

    def repeated(batch: int, length: int) -> KeyValueCache:
        cache = make(batch, length)
        cache.shares_inputs = False
        return cache

    monkeypatch.setattr(model, "new_cache", repeated)
    found = beam_search(model, prompts, beams(n_best=3), {STOP, 3, 11, 20}, inputs)
    assert [[e.tokens for e in row] for row in found] == [[e.tokens for e in r] for r in wanted]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beams": 3}, r"beams 3 search for the likeliest text, but temperature 0\.8 draws"),
        ({"n_best": 2}, "n_best 2 is more than beams 1"),
        ({"length_penalty": 2.0}, "length_penalty has no effect with one beam"),
        ({"early_stopping": True}, "early_stopping has no effect with one beam"),
        (
            {"beams": 2, "temperature": 0, "repetition_penalty": 2.0},
            "repetition_penalty is not built for several beams",
        ),
        ({"min_new_tokens": 9, "max_new_tokens": 8}, "min_new_tokens 9 is more than"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecodingOptions(**options)
