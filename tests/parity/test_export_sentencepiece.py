"""Models with a SentencePiece BPE as GGUF files: llama.cpp reads texts and conversations as the
same tokens.

So it does conversations with a byte-level BPE.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ggufs import sentencepiece, tokenizer

import groundup
from groundup.api import export
from groundup.core.errors import CheckpointError
from groundup.processors.text.tokenizer import TokenizerProcessor
from groundup.processors.text.tokenizer_json import TokenizerJSONConfig

pytestmark = pytest.mark.xdist_group("transformers")  # llama.cpp is opened by one worker at a time

LONG = {
    "original_context": 256,
    "short_factors": [1.0, 1.1, 1.2],
    "long_factors": [4.0, 5.0, 6.0],
    "amplitude": 1.2,
}
MODELS: dict[str, dict[str, Any]] = {
    "gpt": {"layers": 2},
    "gemma3": {
        "head_dim": 16,
        "sliding_window": 8,
        "global_every": 2,
        "logit_cap": 20.0,
        "layers": 3,
    },
    "phi3": {"rotary_share": 0.4, "long_rope": LONG, "sliding_window": 512, "layers": 2},
}


def trained(
    recipe: dict[str, Any],
    model: str,
    processor: TokenizerProcessor,
    template: str | None = None,
    dtype: str = "fp32",
) -> dict[str, Any]:
    """Train for a step and export; return what was compared."""
    shape = {
        "name": model,
        "context_length": 256,
        "width": 32,
        "heads": 2,
        "kv_heads": 1,
        "mlp_width": 64,
    }
    processor.save(Path("tokenizer"))
    recipe |= {
        "model": {**shape, **MODELS[model], "init_std": 0.1},
        "training": {"batch_size": 4, "steps": 1},
    }
    recipe |= {"processor": {"name": "tokenizer_json", "path": str(Path("tokenizer").absolute())}}
    if template is not None:
        rows = [
            {
                "messages": [
                    {"role": "user", "content": f"What is {n} + 2?"},
                    {"role": "assistant", "content": f"{n + 2}."},
                ]
            }
            for n in range(20)
        ]
        Path("talks.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
        )
        data = {
            "name": "conversations",
            "path": str(Path("talks.jsonl").absolute()),
            "fraction": 0.3,
        }
        recipe |= {"task": {"name": "chat", "template": template}, "data": data}
    folder = export(groundup.train(recipe, runs="runs").folder, "gguf", dtype=dtype)
    found: dict[str, Any] = json.loads((folder / "export.json").read_text())["comparisons"][-1]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "prefix", "name", "template", "dtype"),
    [
        ("gpt", True, "", None, "fp32"),
        ("gpt", True, "", "llama2", "q8_0"),
        ("gemma3", False, "", "groundup", "fp32"),
        ("phi3", True, "Phi-3", "phi", "fp32"),
        ("gpt", None, "", "groundup", "fp32"),
    ],
)
def test_a_file_for_llama_cpp(
    recipe: dict[str, Any],
    model: str,
    prefix: bool | None,
    name: str,
    template: str | None,
    dtype: str,
) -> None:
    pytest.importorskip("xllamacpp")
    metadata = sentencepiece(add_space_prefix=prefix) | {"general.name": name}
    read = tokenizer() if prefix is None else TokenizerJSONConfig.from_gguf(metadata)
    found = trained(recipe, model, read, template, dtype)
    assert found["other"].startswith("llama.cpp")
    assert found["kl_nats"] < 1e-3
    assert dtype != "fp32" or found["same_continuations"] == found["samples"]


@pytest.mark.slow
def test_a_conversation_that_llama_cpp_reads_otherwise(
    recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the name of Phi-3 its special tokens leave the blanks behind them."""
    pytest.importorskip("xllamacpp")
    monkeypatch.setattr(
        "groundup.processors.text.gguf_bpe.display_name", lambda name, described: name
    )
    read = TokenizerJSONConfig.from_gguf(sentencepiece() | {"general.name": "Phi-3"})
    with pytest.raises(
        CheckpointError, match=r"llama\.cpp .* reads other tokens than the run's .* in '<\|user\|>"
    ):
        trained(recipe, "gpt", read, "phi")
