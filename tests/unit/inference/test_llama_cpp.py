"""llama.cpp in place of our own decoding: the same tokens, from a file that is made and checked
once."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import FakeServer
from ggufs import small_model, tokenizer

import groundup
from groundup.core.registry import lookup
from groundup.core.settings import validate
from groundup.generation.decoding import Engine, filter_logits, generate_batch
from groundup.generation.options import DecodingOptions
from groundup.inference import llama_cpp
from groundup.inference.llama_cpp import LlamaCppEngine, open_llama_cpp, sampling
from groundup.processors.text.tokenizer import TokenizerProcessor

PROMPT = [5, 280, 17, 9]
CASES: dict[str, tuple[list[list[int]], dict[str, Any], tuple[int, ...]]] = {
    "one": ([PROMPT], {"max_new_tokens": 9}, ()),
    "several": ([PROMPT, [30, 31], list(range(40, 50))], {"max_new_tokens": 6}, ()),
    "past the context, rolling": ([PROMPT], {"max_new_tokens": 60}, ()),
    "past the context, stopping": ([PROMPT], {"max_new_tokens": 60, "overflow": "stop"}, ()),
    "a prompt longer than the context": ([list(range(60))], {"max_new_tokens": 3}, ()),
    "repetition": ([PROMPT * 2], {"max_new_tokens": 20, "repetition_penalty": 1.7}, ()),
}


@pytest.fixture(scope="module")
def processor() -> TokenizerProcessor:
    return tokenizer()


def made(
    folder: Path, processor: TokenizerProcessor, weights: str = "fp32"
) -> tuple[torch.nn.Module, LlamaCppEngine]:
    """Return a model of ours, and the engine with its weights."""
    shape = {"vocabulary_multiple": 64, "context_length": 32, "layers": 1, "mlp_width": 64}
    config, tensors = small_model("llama", 300, **shape)
    model = config.build().eval()
    model.load_state_dict(tensors)
    return model, open_llama_cpp(config, tensors, processor, weights, folder)


def _same_tokens(model: Any, opened: LlamaCppEngine, case: str) -> None:
    prompts, options, stop_ids = CASES[case]
    asked = DecodingOptions(temperature=0, **options)
    ours = generate_batch(model, prompts, asked, stop_ids)
    assert generate_batch(opened, prompts, asked, stop_ids) == ours
    end = ours[0][
        len(ours[0]) // 2
    ]  # the same, ended by one of these tokens and by what a caller sees
    assert generate_batch(opened, prompts, asked, {end}) == generate_batch(
        model, prompts, asked, {end}
    )
    finished = lambda row, written: len(written) == 2  # noqa: E731
    assert [len(t) for t in generate_batch(opened, prompts, asked, (), finished)] == [
        2 for _ in prompts
    ]


@pytest.fixture(scope="module")
def fake(processor: TokenizerProcessor, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llama_cpp, "LlamaServer", FakeServer)
        return made(tmp_path_factory.mktemp("engine"), processor)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_tokens_are_those_of_our_own_decoding(fake: Any, case: str) -> None:
    _same_tokens(*fake, case)


def test_requests_are_few(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = fake[1]
    opened.server.requests.clear()
    generate_batch(opened, [PROMPT], DecodingOptions(temperature=0, max_new_tokens=17))
    counts = [
        (len(each["prompt"]), each["n_predict"], each["cache_prompt"])
        for each in opened.server.requests
    ]
    assert counts[0] == (4, 16, False)  # what an earlier text left there has no part in it
    assert all(kept for _, _, kept in counts[1:])
    assert opened.server.requests[0]["logit_bias"] == [[n, False] for n in range(300, 320)]
    assert isinstance(opened, Engine)
    monkeypatch.setattr(llama_cpp, "LlamaServer", FakeServer)
    opened.server.context = 14
    assert (
        len(generate_batch(opened, [PROMPT], DecodingOptions(temperature=0, max_new_tokens=3))[0])
        == 3
    )
    assert opened.server.context == 256  # room is made for longer texts, in steps of 256 tokens


def test_options_as_llama_cpp_has_them() -> None:
    assert sampling(DecodingOptions(temperature=0), 2**32 - 1, 9) == {
        **{"samplers": ["top_k", "temperature"], "top_k": 1, "temperature": 0.0, "seed": 0},
    }
    options = DecodingOptions(
        temperature=0.5, top_k=3, top_p=0.9, min_p=0.1, repetition_penalty=1.5
    )
    found = sampling(options, 7, 9)
    assert found["samplers"] == [
        "penalties",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
    ]  # the order of filter_logits
    assert (found["top_k"], found["top_p"], found["min_p"], found["seed"]) == (3, 0.9, 0.1, 7)
    assert (found["repeat_penalty"], found["repeat_last_n"]) == (1.5, 9)


@pytest.mark.slow
def test_a_file_is_made_and_checked_once(
    processor: TokenizerProcessor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(llama_cpp, "LlamaServer", FakeServer)
    with caplog.at_level(logging.INFO, "groundup"):
        _, opened = made(tmp_path, processor, "int8")
    assert caplog.messages[0].startswith("llama.cpp (fake) with weights in int8: ")
    assert "MB; checked against the tokens of groundup's own decoding, " in caplog.messages[0]
    note = opened.path.with_suffix(".json")
    record = json.loads(note.read_text())
    assert record["bytes"] == opened.path.stat().st_size
    assert (
        1e-3 < record["tolerance"] < 1
    )  # what rounding the activations does to the logits of these weights
    os.utime(opened.path, (1, 1))
    again = made(tmp_path, processor, "int8")[1]
    assert again.server.requests == []  # type: ignore[attr-defined]
    assert again.path.stat().st_mtime == 1
    note.write_text(json.dumps(record | {"library": "another version"}))
    assert made(tmp_path, processor, "int8")[1].server.requests  # type: ignore[attr-defined]
    opened.path.write_bytes(b"half a file")
    assert made(tmp_path, processor, "int8")[1].path.stat().st_size == record["bytes"]
    assert made(tmp_path, processor)[1].path != opened.path


# --------------------------------------------------------------------------------- llama.cpp itself
@pytest.mark.slow
def test_llama_cpp_writes_the_same_tokens(processor: TokenizerProcessor, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    model, opened = made(tmp_path, processor)
    for case in CASES:
        _same_tokens(model, opened, case)


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["bf16", "int8"])
def test_llama_cpp_with_smaller_weights(
    processor: TokenizerProcessor, tmp_path: Path, weights: str
) -> None:
    pytest.importorskip("xllamacpp")
    _, opened = made(tmp_path, processor, weights)
    record = json.loads(opened.path.with_suffix(".json").read_text())
    assert record["tokens"] >= 20
    assert record["same"] >= record["tokens"] - 2


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["fp32", "int8"])
@pytest.mark.parametrize("name", ["gemma3", "phi3"])
def test_llama_cpp_with_other_models(
    name: str, weights: str, processor: TokenizerProcessor, tmp_path: Path
) -> None:
    pytest.importorskip("xllamacpp")
    shape = {
        "layers": 2,
        "width": 64,
        "heads": 2,
        "kv_heads": 1,
        "mlp_width": 64,
        "context_length": 32,
    }
    own = (
        {"head_dim": 32, "sliding_window": 8, "global_every": 2}
        if name == "gemma3"
        else {"sliding_window": 32}
    )
    config: Any = validate(
        lookup("model", name), {"vocabulary_size": 320, **shape, **own}, "recipe.model"
    )
    torch.manual_seed(1)
    model: Any = config.build().eval()
    tensors = {
        key: value + 0.1 * torch.randn_like(value) for key, value in model.state_dict().items()
    }
    model.load_state_dict(tensors)
    opened = open_llama_cpp(config, tensors, processor, weights, tmp_path)
    if weights == "fp32":
        for case in ("several", "past the context, stopping"):
            prompts, options, stop_ids = CASES[case]
            asked = DecodingOptions(temperature=0, **options)
            assert generate_batch(opened, prompts, asked, stop_ids) == generate_batch(
                model, prompts, asked, stop_ids
            )


@pytest.mark.slow
def test_llama_cpp_draws_from_the_same_distribution(
    processor: TokenizerProcessor, tmp_path: Path
) -> None:
    pytest.importorskip("xllamacpp")
    model, opened = made(tmp_path, processor)
    shape = {"temperature": 1.5, "top_k": 12, "top_p": 0.9, "min_p": 0.05}
    with torch.no_grad():
        logits = model(torch.tensor([PROMPT]))[0, -1:]
    wanted = filter_logits(logits, DecodingOptions(**shape)).softmax(-1)[0]
    counts = torch.zeros(len(wanted))
    for seed in range(400):
        options = DecodingOptions(max_new_tokens=1, seed=seed, **shape)
        counts[generate_batch(opened, [PROMPT], options)[0][0]] += 1
    assert (counts > 0).sum() > 3
    assert not (counts > 0)[wanted == 0].any()
    deviations = (wanted * (1 - wanted) / 400).sqrt().clamp(min=1e-9)
    assert ((counts / 400 - wanted).abs() < 4 * deviations + 1e-6).all()
    options = DecodingOptions(max_new_tokens=40, **shape)
    assert generate_batch(opened, [PROMPT], options) == generate_batch(opened, [PROMPT], options)


@pytest.mark.slow
@pytest.mark.parametrize("base", ["", "int8"])
def test_a_run_writes_with_llama_cpp(recipe: dict[str, Any], tmp_path: Path, base: str) -> None:
    """A run with an adapter, merged; beside a quantized base, too."""
    pytest.importorskip("xllamacpp")
    recipe["model"] |= {"width": 64, "dropout": 0.0}
    recipe |= {
        "processor": {"name": "bpe", "vocab_size": 300},
        "training": {"batch_size": 4, "steps": 1},
    }
    folder = groundup.train(recipe, runs=tmp_path).folder
    parts = {key: recipe[key] for key in ("task", "data", "training", "machine")}
    adapter = {"name": "lora", "rank": 2} | ({"base": base} if base else {})
    start = {
        "name": "adapted",
        "init": {"run": str(folder)},
        "adapter": adapter,
        "optim": {"lr": 0.1},
    }
    run = groundup.train({**parts, **start}, runs=tmp_path).folder
    options: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": 24}
    opened = groundup.load(run, engine="llama.cpp")
    text = opened("The ", **options)
    assert text == groundup.load(run)("The ", **options)
    assert "".join(opened.stream("The ", **options)) == text
    stop = text[5:8]
    assert opened("The ", stop=[stop], **options) == text[: text.index(stop)]
    assert isinstance(groundup.load(run, weights="int8", engine="llama.cpp").model, LlamaCppEngine)
