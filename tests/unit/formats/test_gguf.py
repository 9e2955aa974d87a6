"""GGUF files: every type of metadata and of tensor, written and read; blocks by hand; whole
models."""

from __future__ import annotations

import hashlib
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ggufs import FAMILIES, header, pair, small_model, text, tokenizer, write_small

from groundup.core.errors import CheckpointError, MissingExtraError
from groundup.core.storage import Storage
from groundup.formats.gguf import open_gguf
from groundup.formats.gguf_blocks import KINDS, OTHER_KINDS, dequantize
from groundup.formats.gguf_writer import WRITABLE, quantize, write_gguf
from groundup.models.gpt import GPTConfig
from groundup.models.names.gguf import gpt as names
from groundup.weights.gguf import read_gguf, save_gguf

HALF, QUARTER = struct.pack("<e", 0.5), struct.pack("<e", 0.25)


# ----------------------------------------------------------------------------------------- metadata
def test_metadata_reads_back_as_written(tmp_path: Path) -> None:
    plain: dict[str, Any] = {
        "yes": True,
        "small": 7,
        "negative": -7,
        "large": 2**40,
        "huge": 2**63 + 1,
        "half": 0.5,
        "words": "naïve 床\n",
        "empty": "",
        "texts": ["a", "", "é"],
        "flags": [True, False],
        "whole": [-1, 2],
        "parts": [0.5, 2.0],
    }
    numbers = {
        dtype: np.dtype(dtype).type(3)
        for dtype in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")
    }
    lists = {f"{dtype}s": np.array([1, 2], dtype) for dtype in numbers}
    path = tmp_path / "a.gguf"
    write_gguf(path, {**plain, **numbers, **lists, "none": []}, {}, {})  # which the format lacks
    found = open_gguf(path).metadata
    expected = plain | dict.fromkeys(numbers, 3) | {name: [1, 2] for name in lists}
    assert found == expected
    assert {name: type(value) for name, value in found.items() if name in plain} == {
        name: type(value) for name, value in plain.items()
    }


def test_lists_of_lists_are_read(tmp_path: Path) -> None:
    inner = struct.pack("<IQ", 0, 2) + bytes([5, 6])
    nested = pair("n", 9, struct.pack("<IQ", 9, 2) + inner + inner)
    (tmp_path / "a.gguf").write_bytes(header(0, 1, version=2) + nested)
    assert open_gguf(tmp_path / "a.gguf").metadata == {"n": [[5, 6], [5, 6]]}


# ------------------------------------------------------------------------------------------ tensors
@pytest.mark.parametrize("alignment", [32, 64])
@pytest.mark.parametrize("kind", WRITABLE)
def test_tensors_read_back_as_their_kind_rounds_them(
    tmp_path: Path, kind: str, alignment: int
) -> None:
    path = tmp_path / "a.gguf"
    tensors = {"a": torch.randn(3, 2, 64), "b": torch.randn(32), "c": torch.randn(1, 2, 3, 32)}
    write_gguf(path, {"general.alignment": alignment}, tensors, dict.fromkeys(tensors, kind))
    file = open_gguf(path)
    assert path.stat().st_size % alignment == 0
    for name, tensor in tensors.items():
        row, numbers = file.tensors[name], tensor.numpy()
        assert (row.start % alignment, row.shape, row.kind.name) == (0, tuple(tensor.shape), kind)
        rounded = dequantize(quantize(numbers, KINDS[kind]), KINDS[kind]).reshape(numbers.shape)
        assert np.array_equal(file.read(name), rounded)
        steps = {"F32": 0.0, "F16": 1e-3, "BF16": 8e-3, "Q8_0": 1 / 127, "Q4_0": 1 / 7}
        assert np.abs(rounded - numbers).max() <= steps[kind] * np.abs(numbers).max()


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = np.random.default_rng(0).standard_normal((40, 256)).astype(np.float32)
    whole = {kind: quantize(numbers, KINDS[kind]) for kind in WRITABLE}
    back = {kind: dequantize(raw, KINDS[kind]) for kind, raw in whole.items()}
    monkeypatch.setattr("groundup.formats.gguf_blocks.CHUNK", 512)
    monkeypatch.setattr("groundup.formats.gguf_writer.CHUNK", 512)
    assert all(np.array_equal(quantize(numbers, KINDS[kind]), whole[kind]) for kind in WRITABLE)
    assert all(
        np.array_equal(dequantize(whole[kind], KINDS[kind]), back[kind]) for kind in WRITABLE
    )


def test_blocks_by_hand() -> None:
    def numbers(kind: str, raw: bytes) -> list[float]:
        return list(dequantize(np.frombuffer(raw, np.uint8), KINDS[kind]).tolist())

    assert numbers("F32", struct.pack("<2f", 1.5, -2)) == [1.5, -2]
    assert numbers("F16", HALF + QUARTER) == [0.5, 0.25]
    assert numbers("BF16", bytes([0xC0, 0x3F])) == [1.5]
    assert numbers("Q8_0", HALF + struct.pack("<32b", *range(-16, 16))) == [
        q / 2 for q in range(-16, 16)
    ]
    packed = bytes(low | (15 - low) << 4 for low in range(16))
    assert numbers("Q4_0", HALF + packed) == [(q - 8) / 2 for q in [*range(16), *range(15, -1, -1)]]
    assert numbers("Q4_1", HALF + QUARTER + packed) == [
        q / 2 + 0.25 for q in [*range(16), *range(15, -1, -1)]
    ]
    fifths = struct.pack("<I", 1 << 3 | 1 << 31)
    five = [q + 16 * (place in (3, 31)) for place, q in enumerate([*range(16), *range(15, -1, -1)])]
    assert numbers("Q5_0", HALF + fifths + packed) == [(q - 16) / 2 for q in five]
    assert numbers("Q5_1", HALF + QUARTER + fifths + packed) == [q / 2 + 0.25 for q in five]


@pytest.mark.parametrize("kind", ["Q4_K", "Q5_K"])
def test_a_block_of_eight_parts_by_hand(kind: str) -> None:
    scales, lowest = [1, 2, 3, 63, 5, 22, 39, 56], [0, 1, 62, 3, 40, 25, 10, 63]
    first = [scales[i] | scales[i + 4] >> 4 << 6 for i in range(4)]
    second = [lowest[i] | lowest[i + 4] >> 4 << 6 for i in range(4)]
    third = [scales[i + 4] & 15 | (lowest[i + 4] & 15) << 4 for i in range(4)]
    q = [
        [(3 * part + place) % (16 if kind == "Q4_K" else 32) for place in range(32)]
        for part in range(8)
    ]
    packed = [
        q[2 * two][place] & 15 | (q[2 * two + 1][place] & 15) << 4
        for two in range(4)
        for place in range(32)
    ]
    if kind == "Q5_K":
        packed = [
            sum((q[part][place] >> 4) << part for part in range(8)) for place in range(32)
        ] + packed
    raw = HALF + QUARTER + bytes([*first, *second, *third, *packed])
    expected = [
        [scales[part] * value / 2 - lowest[part] / 4 for value in q[part]] for part in range(8)
    ]
    assert dequantize(np.frombuffer(raw, np.uint8), KINDS[kind]).reshape(8, 32).tolist() == expected


def test_a_block_of_q6_k_by_hand() -> None:
    q = [(7 * place) % 64 for place in range(256)]
    scales = [part - 8 for part in range(16)]
    low, high = bytearray(128), bytearray(64)
    for place, value in enumerate(q):
        half, row, column = place // 128, place % 128 // 32, place % 32
        low[64 * half + 32 * (row % 2) + column] |= (value & 15) << 4 * (row // 2)
        high[32 * half + column] |= value >> 4 << 2 * row
    raw = bytes(low) + bytes(high) + struct.pack("<16b", *scales) + HALF
    expected = [scales[place // 16] * (value - 32) / 2 for place, value in enumerate(q)]
    assert dequantize(np.frombuffer(raw, np.uint8), KINDS["Q6_K"]).tolist() == expected


def test_rounding_by_hand() -> None:
    numbers = np.zeros(32, np.float32)
    numbers[:5] = 127, 0.5, -0.5, 2.5, 0.49999997
    raw = quantize(numbers, KINDS["Q8_0"])
    assert raw[:2].view(np.float16)[0] == 1
    assert raw[2:7].view(np.int8).tolist() == [127, 1, -1, 3, 0]  # halves away from zero
    numbers[:5] = -8, 8, 0.5, 0.49, -0.5  # of two as far from zero, the first one counts
    raw = quantize(numbers, KINDS["Q4_0"])
    assert raw[:2].view(np.float16)[0] == 1
    assert (raw[2:7] & 15).tolist() == [0, 15, 9, 8, 8]
    assert not quantize(np.full(32, 1e-40, np.float32), KINDS["Q8_0"]).any()
    assert (quantize(np.zeros(32, np.float32), KINDS["Q4_0"])[2:] == 0x88).all()
    ties = np.array([1 + 2**-8, 1 + 3 * 2**-8], np.float32)
    assert dequantize(quantize(ties, KINDS["BF16"]), KINDS["BF16"]).tolist() == [1.0, 1 + 2**-6]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    class Full(Storage):
        def write_parts(self, path: Path, parts: Iterable[bytes]) -> None:
            def some() -> Iterable[bytes]:
                yield next(iter(parts))
                raise OSError(28, "No space left on device")

            super().write_parts(path, some())

    path = tmp_path / "a.gguf"
    write_gguf(path, {"n": 1}, {}, {})
    before = path.read_bytes()
    with pytest.raises(
        CheckpointError, match=r"a\.gguf: could not be written: No space left on device\. Free some"
    ):
        write_gguf(path, {"n": 2}, {}, {}, Full())
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["a.gguf"]


# ------------------------------------------------------------------------------------------- models
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_reads_back_as_written(tmp_path: Path, family: str) -> None:
    config, weights = small_model(family, 320)
    processor = tokenizer().with_chat_template(
        "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    save_gguf(tmp_path / "a.gguf", config, weights, processor, "F32", "small")
    settings, back, read = read_gguf(tmp_path / "a.gguf")
    assert GPTConfig(**settings).completed() == config.completed()
    assert back.keys() == weights.keys()
    rows = open_gguf(tmp_path / "a.gguf").tensors.values()
    assert names.shapes(config.completed()) == {row.name: row.shape for row in rows}
    assert all(torch.equal(back[name], weights[name]) for name in weights)
    assert (
        open_gguf(tmp_path / "a.gguf").metadata["general.architecture"] == family.partition("-")[0]
    )
    sample = "def f(x):\n    return x + 12345  # it's 床 naïve <|user|>"
    assert read.encode_batch([sample])[0].tolist() == processor.encode_batch([sample])[0].tolist()
    assert (read.end_id, read.chat_template) == (processor.end_id, processor.chat_template)
    assert read.special_tokens == processor.special_tokens


@pytest.mark.parametrize("kind", WRITABLE)
def test_matrices_are_quantized_and_norms_are_not(tmp_path: Path, kind: str) -> None:
    weights = write_small(tmp_path / "a.gguf", kind=kind)
    kinds = {name: row.kind.name for name, row in open_gguf(tmp_path / "a.gguf").tensors.items()}
    assert kinds["blk.0.attn_norm.weight"] == "F32"
    assert kinds["blk.0.ffn_down.weight"] == kind
    assert kinds["token_embd.weight"] == ("Q8_0" if kind == "Q4_0" else kind)
    back = read_gguf(tmp_path / "a.gguf")[1]
    assert all((back[name] - weights[name]).abs().max() < 0.1 for name in weights)


def test_rows_that_do_not_divide_into_blocks_stay_16_bit(tmp_path: Path) -> None:
    config = GPTConfig(vocabulary_size=300, width=48, heads=2, layers=1, mlp_width=32)
    save_gguf(tmp_path / "a.gguf", config, config.build().state_dict(), tokenizer(), "Q8_0")
    kinds = {name: row.kind.name for name, row in open_gguf(tmp_path / "a.gguf").tensors.items()}
    assert (kinds["blk.0.attn_q.weight"], kinds["blk.0.ffn_down.weight"]) == ("F16", "Q8_0")


def test_what_a_file_leaves_out(tmp_path: Path) -> None:
    """Older files do not say how many channels a head has, nor llama.cpp's defaults."""
    config, weights = small_model("llama", 320, kv_heads=4, rope_theta=10000.0)
    save_gguf(tmp_path / "a.gguf", config, weights, tokenizer(), "F32")
    file = open_gguf(tmp_path / "a.gguf")
    out = (
        "key_length",
        "value_length",
        "head_count_kv",
        "dimension_count",
        "freq_base",
        "vocab_size",
    )
    metadata = {name: value for name, value in file.metadata.items() if not name.endswith(out)}
    settings = names.config_to_groundup(metadata, file.tensors, 320)
    assert GPTConfig(**settings).completed() == config.completed()


def test_rotary_pairs_are_neighbours_in_the_file() -> None:
    config = GPTConfig(layers=1, width=8, heads=2, kv_heads=1)
    own = {
        f"blocks.0.attention.{part}.weight": torch.arange(8.0)[:, None]
        for part in ("query", "key", "value")
    }
    llama = names.to_gguf(own, config.completed())
    qwen = names.to_gguf(own, config.model_copy(update={"qk_norm": True}).completed())
    assert llama["blk.0.attn_q.weight"].flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert llama["blk.0.attn_k.weight"].flatten().tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    assert llama["blk.0.attn_v.weight"].flatten().tolist() == list(range(8))
    assert qwen["blk.0.attn_q.weight"].flatten().tolist() == list(range(8))


def test_reading_leaves_the_random_state(tmp_path: Path) -> None:
    write_small(tmp_path / "a.gguf")
    state = torch.get_rng_state()
    read_gguf(tmp_path / "a.gguf")
    assert torch.equal(torch.get_rng_state(), state)


def test_the_bytes_of_a_small_file(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf", {"n": 1}, {"t": torch.ones(2, 1)}, {"t": "F32"})
    head = header(1, 1) + pair("n", 4, struct.pack("<I", 1))
    head += text("t") + struct.pack("<I2Q", 2, 1, 2) + struct.pack("<IQ", 0, 0)
    filled = head + bytes(-len(head) % 32)
    assert (tmp_path / "a.gguf").read_bytes() == filled + struct.pack("<2f", 1, 1) + bytes(24)


@pytest.mark.parametrize(
    ("kind", "digest"),
    [
        ("F32", "cb50963809e880ba"),
        ("F16", "4319cc1dadb22002"),
        ("BF16", "2aa48ef8b0f474d4"),
        ("Q8_0", "75495478c2143006"),
        ("Q4_0", "d2c4a3388c656ab5"),
    ],
)
def test_files_are_what_they_were_before_a_library_wrote_them(
    tmp_path: Path, kind: str, digest: str
) -> None:
    """The digests are of files by the writer of version 0.1.0, which was all our own."""
    random = np.random.default_rng(0)
    tensors = {
        "a": torch.from_numpy(random.standard_normal((3, 2, 64)).astype(np.float32)),
        "b": torch.from_numpy((random.standard_normal((40, 256)) * 300).astype(np.float32)),
        "zeros": torch.zeros(32),
    }
    metadata: dict[str, Any] = {
        "general.architecture": "llama",
        "yes": True,
        "small": 7,
        "negative": -7,
        "large": 2**40,
        "huge": 2**63 + 1,
        "half": 0.5,
        "words": "naïve 床\n",
        "empty": "",
        "texts": ["a", "", "é"],
        "flags": [True, False],
        "whole": [-1, 2],
        "parts": [0.5, 2.0],
        "u2": np.uint16(3),
        "f8s": np.array([1, 2], "f8"),
    }
    write_gguf(tmp_path / "a.gguf", metadata, tensors, dict.fromkeys(tensors, kind))
    content = (tmp_path / "a.gguf").read_bytes()
    assert hashlib.sha256(content).hexdigest()[:16] == digest


def test_without_the_library_an_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"groundup\[gguf\]"):
        write_gguf(tmp_path / "a.gguf", {"n": 1}, {}, {})


def test_kinds_are_laid_out_as_the_library_says() -> None:
    import gguf

    for kind in KINDS.values():
        number = gguf.GGMLQuantizationType[kind.name]
        assert (number, gguf.GGML_QUANT_SIZES[number]) == (kind.number, (kind.values, kind.size))
    for number, name in OTHER_KINDS.items():
        assert gguf.GGMLQuantizationType(number).name == name
