"""What is said about GGUF files that are damaged, hostile, or of a kind that is not read."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ggufs import header, pair, small_model, text, tokenizer, write_small

from groundup.core.errors import CheckpointError
from groundup.formats.gguf import open_gguf
from groundup.formats.gguf_blocks import KINDS
from groundup.formats.gguf_writer import write_gguf
from groundup.models.names.gguf.gpt import config_to_gguf
from groundup.processors.text.bytes import BytesConfig
from groundup.processors.text.tokenizer_json import TokenizerJSONConfig
from groundup.weights.gguf import read_gguf, save_gguf

ONE = struct.pack("<I", 1)


def row(name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    sizes = struct.pack(f"<{len(shape)}Q", *shape)
    return text(name) + struct.pack("<I", len(shape)) + sizes + struct.pack("<IQ", kind, offset)


NESTED = b"".join(struct.pack("<IQ", 9, 1) for _ in range(9))
DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", r"is no GGUF file: it begins with b'', not b'GGUF'\. Give a \.gguf file"),
    "other": (b"PK\3\4" + bytes(60), r"is no GGUF file: it begins with b'PK"),
    "old": (
        header(0, 0, version=1),
        "has GGUF version 1, but only versions 2 and 3, little-endian, are read",
    ),
    "big": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "is big-endian, but only versions 2 and 3"),
    "short": (
        header(0, 0)[:12],
        "ends within the header: it needs 8 bytes from byte 8 on, but 4 are left",
    ),
    "tensors": (
        header(2**60, 0),
        r"says it has 1152921504606846976 tensors, but only 0 bytes follow",
    ),
    "pairs": (
        header(0, 2**63),
        r"says it has 9223372036854775808 metadata, but only 0 bytes follow",
    ),
    "name": (
        header(0, 1) + struct.pack("<Q", 2**40) + bytes(20),
        "ends within the name of metadata 0: it needs",
    ),
    "utf-8": (
        header(0, 1) + pair("n", 8, struct.pack("<Q", 1) + b"\xff"),
        "metadata 'n' is not UTF-8",
    ),
    "type": (header(0, 1) + pair("n", 13, ONE), "metadata 'n' has the unknown type 13"),
    "bool": (
        header(0, 1) + pair("n", 7, b"\2"),
        "metadata 'n' has a boolean that is neither 0 nor 1",
    ),
    "list": (
        header(0, 1) + pair("n", 9, struct.pack("<IQ", 12, 2**61)),
        r"ends within metadata 'n': it needs 18446744073709551616 bytes",
    ),
    "texts": (
        header(0, 1) + pair("n", 9, struct.pack("<IQ", 8, 2**40)),
        "ends within metadata 'n', a list of 109951",
    ),
    "nested": (
        header(0, 1) + pair("n", 9, NESTED),
        "metadata 'n' has arrays within arrays, more than 4 deep",
    ),
    "twice": (header(0, 2) + pair("n", 4, ONE) * 2, "has metadata 'n' twice"),
    "alignment": (
        header(0, 1) + pair("general.alignment", 4, struct.pack("<I", 24)),
        r"general\.alignment is 24, but it must be a power of two from 8 on",
    ),
    "tensor twice": (header(2, 0) + row("t", (1,)) * 2 + bytes(99), "has tensor 't' twice"),
    "dimensions": (
        header(1, 0) + row("t", (1,) * 5),
        "tensor 't' has 5 dimensions; allowed: 1 to 4",
    ),
    "no rows": (
        header(1, 0) + row("t", (4, 0)),
        r"tensor 't' has shape \[0, 4\], but F32 comes in blocks of 1 of a row",
    ),
    "blocks": (
        header(1, 0) + row("t", (33, 2), 8),
        r"has shape \[2, 33\], but Q8_0 comes in blocks of 32 of a row",
    ),
    "kind": (
        header(1, 0) + row("t", (256,), 10),
        (
            "tensor 't' is stored as Q2_K, which is not read. Convert it to one of these, for"
            " example with llama-q"
        ),
    ),
    "no kind": (
        header(1, 0) + row("t", (256,), 99),
        "stored as number 99, which is unknown, which is not read",
    ),
    "outside": (
        header(1, 0) + row("t", (2**40, 2**10)),
        (
            "tensor 't' is outside of the file: its 4503599627370496 bytes begin at byte 96, but"
            " the file has 65"
        ),
    ),
    "offset": (
        header(1, 0) + row("t", (1,), 0, 4) + bytes(99),
        "begins at offset 4, which is not a multiple of the alignment 32",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files(tmp_path: Path, name: str) -> None:
    content, message = DAMAGED[name]
    (tmp_path / "a.gguf").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"a\.gguf: .*{message}"):
        open_gguf(tmp_path / "a.gguf")


@pytest.mark.slow
def test_no_file_cut_anywhere_is_read(tmp_path: Path) -> None:
    write_small(tmp_path / "a.gguf", kind="Q8_0")
    content = (tmp_path / "a.gguf").read_bytes()
    for size in [*range(0, 400), *range(400, len(content) - 32, 4999), len(content) - 33]:
        (tmp_path / "b.gguf").write_bytes(content[:size])
        with pytest.raises(CheckpointError, match=r"b\.gguf: "):
            open_gguf(tmp_path / "b.gguf")


@pytest.mark.slow
def test_changed_bytes_give_errors_of_ours_or_none(tmp_path: Path) -> None:
    write_small(tmp_path / "a.gguf")
    content = (tmp_path / "a.gguf").read_bytes()
    random, read = np.random.default_rng(0), 0
    for place in random.integers(0, 2500, 60).tolist():
        changed = bytearray(content)
        changed[place] ^= int(random.integers(1, 256))
        (tmp_path / "b.gguf").write_bytes(changed)
        with contextlib.suppress(CheckpointError):
            read_gguf(tmp_path / "b.gguf")
            read += 1
    assert read < 60, "no change was noticed"


def test_a_missing_file_and_a_missing_tensor(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a\.gguf: cannot be read: No such file"):
        open_gguf(tmp_path / "a.gguf")
    write_gguf(tmp_path / "a.gguf", {}, {"weight": torch.ones(2)}, {"weight": "F32"})
    with pytest.raises(CheckpointError, match="has no tensor 'weigth'; did you mean 'weight'"):
        open_gguf(tmp_path / "a.gguf").read("weigth")


# ------------------------------------------------------------------------------------------ writing
@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (
            {"n": None},
            r"metadata 'n' is 'None' \(NoneType\), which GGUF cannot hold\. Give a boolean",
        ),
        ({"n": 2**64}, r"metadata 'n' is '18446744073709551616' \(int\), which GGUF cannot hold"),
        ({"n": 1e300}, r"metadata 'n' is '1e\+300' \(float\), which GGUF cannot hold"),
        (
            {"n": [1, "a"]},
            "metadata 'n' is a list of int, str, which GGUF cannot hold. Give one kind of value",
        ),
        (
            {"general.alignment": 12},
            r"general\.alignment is 12, but it must be a power of two from 8 on\. Leave it out",
        ),
    ],
)
def test_metadata_that_cannot_be_written(
    tmp_path: Path, metadata: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        write_gguf(tmp_path / "a.gguf", metadata, {}, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("tensor", "kind", "message"),
    [
        (
            torch.ones(2, 33),
            "Q8_0",
            r"'t' has shape \[2, 33\], but Q8_0 needs 1 to 4 dimensions, the last a mul",
        ),
        (
            torch.tensor(1.0),
            "F32",
            r"'t' has shape \[\], but F32 needs 1 to 4 dimensions.*\. Give it another shape",
        ),
        (
            torch.ones(256),
            "Q4_K",
            "'t' cannot be stored as 'Q4_K'; allowed: F32, F16, BF16, Q8_0, Q4_0",
        ),
        (
            torch.tensor([1.0, torch.nan]),
            "F32",
            "'t' holds numbers that are not finite and cannot be stored as F32",
        ),
        (
            torch.tensor([1e5]),
            "F16",
            "'t' holds numbers beyond 65504, the largest in 16 bits and cannot be stored as",
        ),
        (
            torch.full((32,), 1e8),
            "Q8_0",
            "'t' holds numbers beyond 65504, the largest in 16 bits and cannot be stored",
        ),
        (
            torch.tensor([3.4e38]),
            "BF16",
            "'t' holds numbers beyond what BF16 can hold and cannot be stored as BF16",
        ),
    ],
)
def test_tensors_that_cannot_be_written(
    tmp_path: Path, tensor: torch.Tensor, kind: str, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        write_gguf(tmp_path / "a.gguf", {}, {"t": tensor}, {"t": kind})
    assert list(tmp_path.iterdir()) == []


def test_models_that_have_no_place_in_a_file(tmp_path: Path) -> None:
    config, weights = small_model("llama", 320)
    path = tmp_path / "a.gguf"
    with pytest.raises(CheckpointError, match="kind: 'Q8' cannot be written; did you mean 'Q8_0'"):
        save_gguf(path, config, weights, tokenizer(), "Q8")
    for change, message in (
        ({"sliding_window": 8}, "no GGUF architecture has a sliding window of 8 here"),
        ({"positions": "learned"}, "no Hugging Face family has learned"),
    ):
        changed = type(config)(**{**config.model_dump(exclude={"rope_theta"}), **change})
        with pytest.raises(CheckpointError, match=message):
            save_gguf(path, changed, weights, tokenizer())
    with pytest.raises(
        CheckpointError, match="model: stretched rotary wavelengths are not written to GGUF here"
    ):
        config_to_gguf(config.completed() | {"rope_scaling": {"kind": "linear"}})
    with pytest.raises(
        CheckpointError, match="CharacterProcessor has no place in a GGUF file; a BPE tokenizer has"
    ):
        save_gguf(path, config, weights, BytesConfig().fit(lambda: iter(())))


# ------------------------------------------------------------------------------------------ reading
def _rewritten(path: Path, change: dict[str, Any], tensors: dict[str, Any] | None = None) -> None:
    """Write a small file again with other metadata or tensors; None leaves one out."""
    write_small(path)
    file = open_gguf(path)
    found = {name: torch.from_numpy(file.read(name)) for name in file.tensors} | (tensors or {})
    kept = {name: tensor for name, tensor in found.items() if tensor is not None}
    metadata = {
        name: value for name, value in (file.metadata | change).items() if value is not None
    }
    write_gguf(path, metadata, kept, dict.fromkeys(kept, "F32"))


METADATA: list[tuple[dict[str, Any], str]] = [
    (
        {"general.architecture": "mamba"},
        r"general\.architecture is 'mamba'; supported: llama, qwen2, qwen3",
    ),
    ({"general.architecture": None}, r"general\.architecture is None"),
    ({"llama.block_count": None}, r"llama\.block_count is missing"),
    ({"llama.block_count": 99}, r"llama\.block_count is 99, but the file has 20 tensors"),
    (
        {"llama.attention.head_count": [4, 4]},
        r"head_count is \[4, 4\]; allowed: one number from 0 to 1048576, the same",
    ),
    (
        {"llama.embedding_length": 2**30},
        r"embedding_length is 1073741824; allowed: one number from 0 to 1048576",
    ),
    ({"llama.rope.freq_base": 1}, r"llama\.rope\.freq_base is 1; allowed: one number"),
    (
        {"llama.rope.dimension_count": 8},
        r"heads have 8 and 16 channels for keys, values and rotary positions",
    ),
    (
        {"llama.rope.scaling.type": "yarn"},
        r"llama\.rope\.scaling\.type is 'yarn', which is not built here",
    ),
    ({"llama.expert_count": 8}, r"llama\.expert_count is 8, which is not built here"),
    (
        {"llama.attention.head_count_kv": 3},
        r"metadata heads 4 is not a multiple of kv_heads 3\. Use kv_heads 2",
    ),
    (
        {"llama.feed_forward_length": 95},
        r"tensor 'blk\.0\.ffn_gate\.weight' has shape \[96, 64\]; the metadata says \[",
    ),
    (
        {"tokenizer.ggml.model": "t5"},
        r"tokenizer\.ggml\.model is 't5'; read are 'gpt2' \(byte-level BPE\), 'llama' \(Sent",
    ),
    (
        {"tokenizer.ggml.pre": "new"},
        r"tokenizer\.ggml\.pre is 'new'; known: gpt-2, smollm, llama-bpe, qwen2, default",
    ),
    ({"tokenizer.ggml.tokens": None}, r"tokenizer\.ggml\.tokens is missing"),
    (
        {"tokenizer.ggml.tokens": [1, 2]},
        r"tokenizer\.ggml\.tokens is no list of texts but \[1, 2\]",
    ),
    (
        {"tokenizer.ggml.tokens": ["a", "b", "a"]},
        r"tokenizer\.ggml\.tokens has the token 'a' twice",
    ),
    (
        {"tokenizer.ggml.merges": ["a b", "ab"]},
        r"tokenizer\.ggml\.merges entry \d is 'a.*', no two tokens that make a",
    ),
    (
        {"tokenizer.ggml.token_type": [1, 1]},
        r"tokenizer\.ggml\.token_type has 2 entries for 320 tokens",
    ),
    ({"tokenizer.ggml.token_type": 1}, r"tokenizer\.ggml\.token_type has 1 for 320 tokens"),
    (
        {"tokenizer.ggml.eos_token_id": None},
        r"eos_token_id is missing: nothing says which token ends a text",
    ),
    (
        {"tokenizer.ggml.bos_token_id": 320},
        r"tokenizer\.ggml\.bos_token_id is 320; there are 320 tokens",
    ),
    ({"tokenizer.chat_template": 5}, r"tokenizer\.chat_template is no text but 5"),
]


@pytest.mark.parametrize(("change", "message"), METADATA)
def test_models_that_are_not_read(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    _rewritten(tmp_path / "a.gguf", change)
    with pytest.raises(CheckpointError, match=rf"a\.gguf: .*{message}"):
        read_gguf(tmp_path / "a.gguf")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"output_norm.weight": None}, r"tensors lack 'output_norm\.weight', with shape \[64\]"),
        (
            {"blk.0.odd": torch.ones(2), "x": torch.ones(1)},
            r"tensors hold blk\.0\.odd, x, which such a model has not",
        ),
        (
            {f"x{n}": torch.ones(1) for n in range(5)},
            "tensors hold x0, x1, x2 and 2 more, which such a model has not",
        ),
        (
            {"blk.1.attn_k.weight": torch.ones(64, 64)},
            r"'blk\.1\.attn_k\.weight' has shape \[64, 64\]; the metadata says",
        ),
        (
            {"rope_freqs.weight": torch.ones(8)},
            r"rope_freqs\.weight stretches the rotary wavelengths",
        ),
        (
            {"token_embd.weight": torch.ones(310, 64)},
            r"tokenizer\.ggml\.tokens has 320 tokens, but the embedding 310",
        ),
        ({"token_embd.weight": None}, r"vocabulary_size|lack 'token_embd\.weight'"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path: Path, tensors: dict[str, Any], message: str) -> None:
    _rewritten(tmp_path / "a.gguf", {}, tensors)
    with pytest.raises(CheckpointError, match=message):
        read_gguf(tmp_path / "a.gguf")


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    write_small(tmp_path / "a.gguf")
    at = open_gguf(tmp_path / "a.gguf").tensors["output_norm.weight"].start
    content = bytearray((tmp_path / "a.gguf").read_bytes())
    content[at : at + 4] = struct.pack("<f", float("nan"))
    (tmp_path / "b.gguf").write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"tensor 'output_norm\.weight' holds numbers that are not finite"
    ):
        read_gguf(tmp_path / "b.gguf")


def test_every_kind_that_is_read_has_one_number() -> None:
    assert len({kind.number for kind in KINDS.values()}) == len(KINDS)
    assert TokenizerJSONConfig.from_gguf(tokenizer().to_gguf(300)).vocabulary_size == 300
