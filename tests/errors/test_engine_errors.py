"""Messages about what writes in place of our own decoding."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from engines import FakeServer
from ggufs import small_model, tokenizer

from groundup.core.errors import CheckpointError, DataError, MissingExtraError, RunError
from groundup.formats import llama_cpp
from groundup.generation.decoding import generate_batch
from groundup.generation.options import DecodingOptions
from groundup.inference.llama_cpp import LlamaCppEngine, check_engine, open_engine, open_llama_cpp
from groundup.inference.predictor import Predictor
from groundup.models.bert import BERTConfig
from groundup.models.phi3 import Phi3Config
from groundup.nn.rope import LongRope


@pytest.mark.parametrize(
    ("name", "weights", "expected"),
    [
        (
            "lama.cpp",
            "fp32",
            (
                "engine: 'lama.cpp' is no engine; did you mean 'llama.cpp'? allowed: groundup,"
                " llama.cpp."
            ),
        ),
        ("llama.cpp", "int9", "weights: 'int9' is no precision of weights"),
        (
            "llama.cpp",
            "int4",
            (
                "weights: int4 are not for the engine llama.cpp; allowed: fp32, bf16, int8. Use"
                " weights int8, or the engine groundup"
            ),
        ),
    ],
)
def test_what_is_chosen(name: str, weights: str, expected: str) -> None:
    with pytest.raises(RunError, match=re.escape(expected)):
        check_engine(name, weights)
    with pytest.raises(RunError, match=re.escape(expected)):
        Predictor.load(Path("nowhere"), weights=weights, engine=name)  # before the run is read


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "xllamacpp", None)
    with pytest.raises(
        MissingExtraError, match=r"xllamacpp: is not installed\. .*groundup\[gguf\]"
    ):
        check_engine("llama.cpp", "int8")
    check_engine("groundup", "fp32")


def _opened(folder: Path, weights: str = "fp32", **changes: Any) -> LlamaCppEngine:
    shape = {"context_length": 16, "layers": 1, "mlp_width": 64, **changes}
    config, tensors = small_model("llama", 300, **shape)
    return open_llama_cpp(config, tensors, tokenizer(), weights, folder)


def test_models_without_a_place_in_such_a_file(tmp_path: Path) -> None:
    with pytest.raises(
        RunError,
        match=r"weights: int8 of llama\.cpp has rows of a multiple of 32 numbers, and blocks",
    ):
        _opened(tmp_path, "int8", mlp_width=72)
    config = BERTConfig(vocabulary_size=300)
    with pytest.raises(
        CheckpointError,
        match=r"model: bert has no place in a GGUF file; allowed: gpt, gemma3, phi3",
    ):
        open_llama_cpp(config, {}, tokenizer(), "fp32", tmp_path)
    long = LongRope(original_context=256, short_factors=(1.0,), long_factors=(2.0,), amplitude=1.1)
    phi = Phi3Config(vocabulary_size=300).model_copy(update={"long_rope": long})
    with pytest.raises(
        CheckpointError,
        match=r"model: long_rope takes its wavelengths by the length of a text, and",
    ):
        open_llama_cpp(phi, {}, tokenizer(), "fp32", tmp_path)
    task = types.SimpleNamespace(registered_name="classify")
    run = types.SimpleNamespace(
        folder=Path("runs/x"), recipe=types.SimpleNamespace(model=config, task=task)
    )
    with pytest.raises(RunError, match=r"runs/x: task 'classify' writes nothing"):
        open_engine(cast(Any, run), 1, torch.nn.Linear(2, 2), None, "fp32")


class _Wrong(FakeServer):
    """Takes the next best token at the third place."""

    def complete(self, request: dict[str, Any]) -> dict[str, Any]:
        answer = super().complete(request)
        tokens = answer["__verbose"]["tokens"]
        tokens[2] = (tokens[2] + 1) % 300
        return answer


class _Silent(FakeServer):
    def complete(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"choices": []}


@pytest.mark.slow
def test_another_text_than_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundup.inference.llama_cpp.LlamaServer", _Wrong)
    message = (
        r"takes token \d+ '.*' as number 3 after 'The capital of France is', but groundup's own"
        r" model with the same "
    )
    for _ in range(2):  # every time: nothing says that the file was found good
        with pytest.raises(
            CheckpointError,
            match=message + r"weights \d+ '.*', whose logit is [\d.]+ higher \(allow",
        ):
            _opened(tmp_path)
    monkeypatch.setattr("groundup.inference.llama_cpp.LlamaServer", _Silent)
    with pytest.raises(
        CheckpointError, match=r"wrote nothing after \d+ tokens. Delete .*gguf and try again"
    ):
        _opened(tmp_path)


def test_options_that_llama_cpp_does_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundup.inference.llama_cpp.LlamaServer", FakeServer)
    opened = _opened(tmp_path)
    asked = {"temperature": 0.0, "repetition_penalty": 1.5, "max_new_tokens": 20}
    message = (
        r"repetition_penalty: and texts of up to 22 tokens, when the context is 16: llama\.cpp"
        r" forgets"
    )
    with pytest.raises(DataError, match=message):
        generate_batch(opened, [[1, 2]], DecodingOptions(**asked))
    assert len(generate_batch(opened, [[1, 2]], DecodingOptions(**asked, overflow="stop"))[0]) <= 15


def test_what_an_engine_does_not_do() -> None:
    run = cast(Any, types.SimpleNamespace(folder=Path("runs/x")))
    predictor = Predictor(run, torch.nn.Linear(2, 2), None, cast(Any, None), 3, engine="llama.cpp")
    with pytest.raises(
        RunError, match=r"runs/x: its weights are with llama\.cpp by now, which an adapter cannot"
    ):
        predictor.use(None)
    with pytest.raises(
        RunError, match=r"runs/x: llama\.cpp writes and evaluates nothing. Load it without engine"
    ):
        predictor.evaluate(3)


LIBRARY = """
import json, os, sys
__version__ = "1"
class Anything:
    def __getattr__(self, name):
        return self.__dict__.setdefault(name, Anything())
CommonParams, ggml_type, llama_flash_attn_type = Anything, Anything(), Anything()
class Server:
    def __init__(self, settings):
        print("said by the library, which is no answer")
        if settings.model.path == "bad.gguf":
            raise RuntimeError("no model")
    def handle_completions(self, request, callback):
        asked = json.loads(request)
        if asked.get("die"):
            os._exit(3)
        callback(json.dumps({"choices": [asked["n"]]} if "n" in asked else {"error": {"message": "no room"}}))
"""


def test_what_llama_cpp_itself_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "xllamacpp.py").write_text(LIBRARY)
    monkeypatch.delitem(sys.modules, "xllamacpp", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        CheckpointError,
        match=r"llama\.cpp \(xllamacpp 1\): does not open bad\.gguf: no model\. Buy one",
    ):
        llama_cpp.LlamaServer(Path("bad.gguf"), 8, 1, "Buy one")
    server = llama_cpp.LlamaServer(Path("good.gguf"), 8, 1, "Buy one")
    assert server.complete({"n": 5}) == {"choices": [5]}
    with pytest.raises(
        CheckpointError, match=r"answers \{'error': \{'message': 'no room'\}\}\. Buy one"
    ):
        server.complete({})
    server._process.stdin.write('[0, {"n": 6}]\n')  # type: ignore[union-attr]  # asked before an interruption
    assert server.complete({"n": 7}) == {"choices": [7]}
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"ended with exit code 3\. Buy one"):
            server.complete({"die": 1})
    process = server._process
    del server
    assert process.poll() == 3
