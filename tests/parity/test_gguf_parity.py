"""Blocks, files and models against the ``gguf`` package and ``transformers``' reading of GGUF,
where installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ggufs import FAMILIES, small_model, tokenizer, write_small
from later import Library

from groundup.formats.gguf import open_gguf
from groundup.formats.gguf_blocks import KINDS, dequantize
from groundup.formats.gguf_writer import WRITABLE, quantize
from groundup.models.gpt import GPTConfig
from groundup.weights.gguf import read_gguf, save_gguf

gguf: Any = Library("gguf")
quants: Any = Library("gguf.quants")


def _type(kind: str) -> Any:
    return getattr(gguf.GGMLQuantizationType, kind)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("F32", "F16")])
def test_any_bytes_mean_the_same_to_the_last_bit(kind: str) -> None:
    size = KINDS[kind].size
    raw = np.random.default_rng(0).integers(0, 256, (200, size), dtype=np.uint8)
    with np.errstate(all="ignore"):
        theirs = np.asarray(quants.dequantize(raw, _type(kind)), np.float32).reshape(-1)
    ours = dequantize(raw.reshape(-1), KINDS[kind])
    known = ~np.isnan(ours)
    assert np.array_equal(np.isnan(theirs), ~known)
    assert known.mean() > 0.5
    assert np.array_equal(ours[known].view(np.uint32), theirs[known].view(np.uint32))


@pytest.mark.parametrize("scale", [1.0, 1e-3, 300.0])
@pytest.mark.parametrize("kind", [kind for kind in WRITABLE if kind != "F32"])
def test_numbers_are_rounded_to_the_same_bytes(kind: str, scale: float) -> None:
    random = np.random.default_rng(0)
    numbers = (random.standard_normal((200, 256)) * scale).astype(np.float32)
    numbers[0], numbers[1] = 0, random.integers(-127, 128, 256) / 2
    numbers[1, ::32], numbers[2] = 63.5, np.sign(numbers[2])
    theirs = quants.quantize(numbers, _type(kind)).view(np.uint8).reshape(-1)
    assert np.array_equal(quantize(numbers, KINDS[kind]), theirs)


@pytest.mark.parametrize("kind", WRITABLE)
def test_their_reader_reads_what_ours_writes(tmp_path: Path, kind: str) -> None:
    write_small(tmp_path / "a.gguf", "qwen2", kind)
    ours, theirs = open_gguf(tmp_path / "a.gguf"), gguf.GGUFReader(tmp_path / "a.gguf")
    fields = {
        name: field.contents()
        for name, field in theirs.fields.items()
        if not name.startswith("GGUF.")
    }
    assert fields == ours.metadata
    assert [t.name for t in theirs.tensors] == list(ours.tensors)
    for tensor in theirs.tensors:
        row = ours.tensors[tensor.name]
        assert (tensor.tensor_type.name, tensor.data_offset, tensor.n_bytes) == (
            row.kind.name,
            row.start,
            row.size,
        )
        numbers = quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(np.asarray(numbers).reshape(row.shape), ours.read(tensor.name))


def test_our_reader_reads_what_theirs_writes(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_custom_alignment(64)
    writer.add_array("texts", ["a", "é"])
    writer.add_int16("short", -3)
    numbers = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    writer.add_tensor("t", numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = open_gguf(tmp_path / "a.gguf")
    expected = {
        "general.architecture": "llama",
        "general.alignment": 64,
        "texts": ["a", "é"],
        "short": -3,
    }
    assert file.metadata == expected
    assert np.array_equal(file.read("t"), numbers)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "llama-biased"])
def test_transformers_computes_the_same_logits_from_the_file(tmp_path: Path, family: str) -> None:
    """It knows the turned query and key weights of the architecture llama, and reads no biases of
    it.

    Nor does it read how many channels a head of Qwen3 has: it takes 128.
    """
    transformers = pytest.importorskip("transformers")
    config, weights = small_model(family, 320, **({"head_dim": 128} if family == "qwen3" else {}))
    save_gguf(tmp_path / "a.gguf", config, weights, tokenizer(), "F32")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="a.gguf", dtype=torch.float32
    )
    settings, read, processor = read_gguf(tmp_path / "a.gguf")
    model = GPTConfig(**settings).build()
    model.load_state_dict(read, strict=True)
    tokens = torch.tensor(
        [processor.encode_batch(["the capital of France is Paris, it's 2024."])[0].tolist()]
    )
    with torch.no_grad():
        assert (model.eval()(tokens) - theirs.eval()(tokens).logits).abs().max() < 1e-4
