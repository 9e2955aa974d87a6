"""A processor that does not keep its contract is told which one, and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from own_parts import forget_own_parts

from groundup.contracts.processors import InputProcessor, ProcessorConfig, TextProcessor
from groundup.core import registry
from groundup.core.settings import setting
from groundup.processors.text.bytes import BytesConfig
from groundup.testing import ContractError, check_processor

END = "<|end|>"


class Bytes(TextProcessor):
    end_id = 256

    def __init__(self, fault: str) -> None:
        self.fault, self.calls = fault, 0
        self.special_tokens = {END: 256}

    @property
    def vocabulary_size(self) -> int:
        return 200 if self.fault == "size" else 257

    def encode_batch(self, texts: Sequence[str]) -> list[Any]:
        self.calls += 1
        if self.fault == "lists":
            return [list(text.encode()) for text in texts]
        extra = [97] * (self.calls > 1) if self.fault == "state" else []
        found = [np.array([*extra, *text.encode()], np.int32) for text in texts]
        if self.fault == "spelled":
            found = [
                np.append(tokens, np.int32(256)) if END in text else tokens
                for text, tokens in zip(texts, found, strict=True)
            ]
        return found

    def decode(self, tokens: Sequence[int], *, keep_special: bool = False) -> str:
        text = bytes(token for token in tokens if token < 256).decode("utf-8", errors="replace")
        if self.fault == "shown" and 256 in tokens:
            text += END
        return text.lower() if self.fault == "folds" else text

    def token_bytes(self) -> NDArray[np.int32]:
        return np.array([2 if self.fault == "bytes" else 1] * 256 + [0], np.int32)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = "numbers" if self.fault == "name" else "faulty"
        file = "tokens.json" if self.fault == "file" else "processor.json"
        (folder / file).write_text(json.dumps({"name": name, "fault": self.fault}))


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with forget_own_parts():
        registry.processor("faulty")(FaultyConfig)
        registry.processor("numbers")(NumbersConfig)
        yield


class FaultyConfig(ProcessorConfig):
    fault: str = setting("", "What is wrong")

    def fit(self, texts: Callable[[], Iterator[Any]]) -> Bytes:
        return Bytes(self.fault)

    @classmethod
    def load(cls, folder: Path) -> Bytes:
        saved = json.loads((folder / "processor.json").read_text())["fault"]
        loaded = Bytes(saved)
        if saved == "forgets":
            loaded.special_tokens = {}
        return loaded


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("file", r"save\(\) wrote tokens\.json"),
        ("name", r"FaultyConfig\.load\(\) returned Numbers, not Bytes"),
        ("lists", r"it returned list\. Return \[np\.array"),
        ("state", "has other tokens alone than among others"),
        ("size", r"its shape is \(257,\), but vocabulary_size is 200"),
        ("folds", "came back as .*exact=False"),
        ("bytes", "has 24 bytes, but its tokens state 48"),
        ("shown", "has 0 bytes and is decoded as '<|end|>'"),
        ("spelled", "'a <|end|> b' holds the special token 256"),
        ("forgets", "it makes others, or has other sizes"),
    ],
)
def test_a_tokenizer_with_a_fault(fault: str, message: str) -> None:
    exact = fault != "spelled"  # decoding leaves the special token out, and seems right
    with pytest.raises(ContractError, match=message.replace("|end|", r"\|end\|")):
        check_processor(FaultyConfig(fault=fault), exact=exact)


def test_a_tokenizer_that_folds_on_purpose() -> None:
    folds = FaultyConfig(fault="folds")
    check_processor(folds, exact=False)
    with pytest.raises(ContractError):
        check_processor(folds)


@pytest.mark.parametrize("config", [BytesConfig, FaultyConfig()])
def test_a_tokenizer_without_a_fault(config: Any) -> None:
    state = torch.random.get_rng_state()
    check_processor(config)
    assert torch.equal(torch.random.get_rng_state(), state)


class Numbers(InputProcessor):
    input_shape = (3,)

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def encode_inputs(self, inputs: Sequence[Any]) -> dict[str, torch.Tensor]:
        values = torch.tensor(np.array(inputs), dtype=torch.float32)
        if self.fault == "batch":
            values = values - values.mean(0)
        if self.fault == "rows":
            values = values[:1]
        if self.fault == "shape":
            values = values[:, :2]
        return {"numbers" if self.fault == "key" else "inputs": values}

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        saved = {"name": "numbers", "fault": self.fault}
        (folder / "processor.json").write_text(json.dumps(saved))


class NumbersConfig(ProcessorConfig):
    fault: str = setting("", "What is wrong")

    def fit(self, texts: Callable[[], Iterator[Any]]) -> Numbers:
        return Numbers(self.fault)

    @classmethod
    def load(cls, folder: Path) -> Numbers:
        return Numbers(json.loads((folder / "processor.json").read_text())["fault"])


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("rows", "'inputs' has 1 rows for 4 inputs"),
        ("shape", r"torch\.float32 \(4, 2\), and input_shape is \(3,\)"),
        ("key", "it returned numbers. Call what models read 'inputs'"),
        ("batch", "read the same alone and among others: numbers of input 0 differ by"),
    ],
)
def test_a_processor_of_inputs_with_a_fault(fault: str, message: str) -> None:
    rows = np.arange(12.0).reshape(4, 3)
    with pytest.raises(ContractError, match=message):
        check_processor(NumbersConfig(fault=fault), list(rows))
    check_processor(NumbersConfig(), list(rows))
