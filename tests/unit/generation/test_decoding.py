"""Decoding: the cache, the choice of tokens, unequal prompts, the end of the context."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from groundup.generation.decoding import filter_logits, generate, generate_batch
from groundup.generation.options import DecodingOptions
from groundup.models.gpt import GPTConfig
from groundup.nn.transformer import DecoderLM

SHAPES: dict[str, dict[str, Any]] = {
    "rotary": {"kv_heads": 2, "qk_norm": True},
    "learned": {"positions": "learned", "norm": "layernorm", "activation": "gelu", "bias": "all"},
    "window": {"sliding_window": 4},
}
PROMPTS = [[1, 2, 3, 4, 5, 6, 7], [8], [9, 10, 11]]


def tiny(shape: str = "rotary", context: int = 32) -> DecoderLM:
    torch.manual_seed(3)
    config = GPTConfig(
        **{
            "vocabulary_size": 40,
            "width": 32,
            "heads": 4,
            "layers": 2,
            "context_length": context,
            "init_std": 0.2,
        },
        **SHAPES[shape],
    )
    return config.build().train()  # decoding must not depend on the mode


def greedy(**changes: Any) -> DecodingOptions:
    return DecodingOptions(**{"temperature": 0.0, "max_new_tokens": 10, **changes})


@pytest.mark.parametrize("shape", SHAPES)
def test_the_cache_changes_nothing(shape: str) -> None:
    model = tiny(shape).eval()
    tokens = torch.randint(40, (2, 20))
    with torch.no_grad():
        whole, cache = model(tokens), model.new_cache(2, 20)
        parts = [model(part, cache=cache) for part in tokens.split([7, 1, 1, 5, 6], 1)]
        assert (torch.cat(parts, 1) - whole).abs().max() < 1e-5
        last = model(tokens, cache=model.new_cache(2, 20), last_only=True)
    assert (last - whole[:, -1:]).abs().max() < 1e-5


class WithoutACache(torch.nn.Module):
    """A language model whose forward takes tokens alone."""

    def __init__(self, model: DecoderLM) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model(tokens)  # type: ignore[no-any-return]


@pytest.mark.parametrize("changes", [{"temperature": 0.0}, {"temperature": 1.0, "seed": 4}])
def test_a_model_without_a_cache_writes_the_same(changes: dict[str, Any]) -> None:
    model = tiny(context=12)
    options, plain = greedy(**changes), WithoutACache(model)
    wanted = generate_batch(model, PROMPTS, options)
    assert generate_batch(plain, PROMPTS, options) == wanted  # type: ignore[arg-type]
    assert max(map(len, wanted)) + len(PROMPTS[0]) > 12
    assert plain.training


@pytest.mark.parametrize("shape", SHAPES)
def test_greedy_equals_the_whole_forward_pass(shape: str) -> None:
    model = tiny(shape)
    texts = generate_batch(model, PROMPTS, greedy())
    assert model.training
    model.eval()
    for prompt, text in zip(PROMPTS, texts, strict=True):
        tokens = torch.tensor([prompt + text])
        with torch.no_grad():
            expected = model(tokens)[0, len(prompt) - 1 : -1].argmax(-1)
        assert text == expected.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "options", [greedy(), DecodingOptions(max_new_tokens=10, top_k=20, top_p=0.9, seed=5)]
)
def test_a_batch_equals_one_by_one(shape: str, options: DecodingOptions) -> None:
    model = tiny(shape)
    batch = generate_batch(model, PROMPTS, options, stop_ids=[0])
    # Row n of a batch draws as row n of any other batch.
    for number, prompt in enumerate(PROMPTS):
        others = [[1]] * number
        assert (
            generate_batch(model, [*others, prompt], options, stop_ids=[0])[number] == batch[number]
        )


@pytest.mark.slow
def test_seeds_and_rows_differ_and_repeat() -> None:
    model, prompts = tiny(), [[1, 2]] * 4
    options = DecodingOptions(temperature=2.0, max_new_tokens=12)
    texts = generate_batch(model, prompts, options)
    assert texts == generate_batch(model, prompts, options)
    assert len({tuple(text) for text in texts}) == 4
    assert texts != generate_batch(model, prompts, options.model_copy(update={"seed": 1}))


def test_equal_prompts_are_read_once() -> None:
    model = tiny()
    read: list[tuple[int, ...]] = []
    watch = model.register_forward_pre_hook(lambda _, given: read.append(tuple(given[0].shape)))
    options = DecodingOptions(temperature=1.5, max_new_tokens=4)
    prompts = [[1, 2, 3], [8], [1, 2, 3], [8], [1, 2, 3]]
    texts = generate_batch(model, prompts, options)
    assert read == [(2, 3), (5, 1), (5, 1), (5, 1)]
    watch.remove()
    # Each row's own draws: those of the row with the same number among prompts that differ.
    for number in (0, 4):
        others = [[20 + place] for place in range(5)]
        others[number] = [1, 2, 3]
        assert generate_batch(model, others, options)[number] == texts[number]
    assert texts[0] != texts[4]


@pytest.mark.slow
def test_streaming_stops_each_row_by_itself() -> None:
    model = tiny()
    texts = generate_batch(model, PROMPTS, greedy())
    stop = texts[0][2]
    steps = list(generate(model, PROMPTS, greedy(), stop_ids=[stop]))
    first = [step[0] for step in steps]
    assert first[: texts[0].index(stop)] == texts[0][: texts[0].index(stop)]
    assert all(token is None for token in first[texts[0].index(stop) :])
    asked = generate_batch(
        model, PROMPTS, greedy(), finished=lambda row, written: row == 1 and len(written) == 4
    )
    assert asked == [texts[0], texts[1][:4], texts[2]]
    assert generate_batch(model, [], greedy()) == []


@pytest.mark.slow
def test_the_end_of_the_context() -> None:
    model = tiny(context=12)
    rolled = generate_batch(model, [[1, 2, 3], [4] * 12], greedy(max_new_tokens=30))
    assert [len(text) for text in rolled] == [30, 30]
    assert rolled[1] == generate_batch(model, [[1], [4] * 12], greedy(max_new_tokens=30))[1]
    # 3 + 10 tokens are one too many: the last 6 are read again.
    again = generate_batch(model, [[1, 2, 3, *rolled[0][:10]][-6:]], greedy(max_new_tokens=7))
    assert again[0] == rolled[0][10:17]
    stopped = generate_batch(model, [[1, 2, 3]], greedy(max_new_tokens=30, overflow="stop"))
    assert stopped[0] == rolled[0][:10]
    assert generate_batch(model, [[7] * 50], greedy(max_new_tokens=3)) == generate_batch(
        model, [[7] * 12], greedy(max_new_tokens=3)
    )


def test_the_repetition_penalty_is_that_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    model = tiny().eval()
    processor = transformers.RepetitionPenaltyLogitsProcessor(1.7)
    text = [5, 6, 7]
    with torch.no_grad():
        for _ in range(10):
            scores = processor(torch.tensor([text]), model(torch.tensor([text]))[:, -1])
            text.append(int(scores.argmax()))
    assert generate_batch(model, [[5, 6, 7]], greedy(repetition_penalty=1.7)) == [text[3:]]


@pytest.mark.parametrize(
    "options",
    [{"top_k": 5}, {"top_p": 0.6}, {"min_p": 0.3}, {"top_k": 9, "top_p": 0.8, "min_p": 0.1}],
)
def test_filters_are_those_of_transformers(options: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers")
    logits = torch.randn(6, 30, generator=torch.Generator().manual_seed(0))
    expected = logits / 0.7
    warpers = {
        "top_k": transformers.TopKLogitsWarper,
        "top_p": transformers.TopPLogitsWarper,
        "min_p": transformers.MinPLogitsWarper,
    }
    for name, value in options.items():
        expected = warpers[name](value)(torch.zeros(6, 1, dtype=torch.int64), expected)
    assert torch.equal(filter_logits(logits, DecodingOptions(temperature=0.7, **options)), expected)


@pytest.mark.slow
def test_draws_follow_the_probabilities() -> None:
    model = tiny().eval()
    options = DecodingOptions(temperature=1.0, top_k=4, max_new_tokens=1)
    drawn = torch.tensor(generate_batch(model, [[1, 2]] * 3000, options))[:, 0]
    with torch.no_grad():
        expected = filter_logits(model(torch.tensor([[1, 2]]))[:, -1], options).softmax(-1)[0]
    found = drawn.bincount(minlength=40) / 3000
    assert (found[expected == 0] == 0).all()
    assert (found - expected).abs().max() < 0.04
