"""Pretrained weights that are missing, damaged or do not fit, and what is said of each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_pretrained_errors import read

from groundup.core.errors import (
    CheckpointError,
)
from groundup.formats.huggingface_folder import weight_files

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


# ------------------------------------------------------------------------------------------ weights
def test_pickled_weights_are_refused_with_the_way_to_convert_them(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    message = (
        r"base: holds its weights as pickle only \(pytorch_model.bin\), which can run code when it"
        r" is opened. "
        r"Convert it once, .*"
        r" AutoModelForCausalLM.from_pretrained\(FOLDER\).save_pretrained\(NEW_FOLDER\)"
    )
    with pytest.raises(CheckpointError, match=message):
        read(folder)


def test_no_weights_and_weights_of_another_name(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    with pytest.raises(
        CheckpointError,
        match=r"holds model-00001-of-00002.safetensors, but neither .* with its index",
    ):
        read(folder)
    (folder / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"holds no weights: neither .*\*.bin only: convert it once"
    ):
        read(folder)


def test_truncated_files(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    for size in (0, 7, 100, len(content) // 2, len(content) - 1):
        (folder / WEIGHTS).write_bytes(content[:size])
        with pytest.raises(
            CheckpointError,
            match=r"model.safetensors: is damaged, or no safetensors file: .* Fetch",
        ):
            read(folder)


@pytest.mark.slow
def test_flipped_bits_of_the_header(folder: Path) -> None:
    """Each is an error, or changes nothing (as in the header's free text)."""
    content, before = (folder / WEIGHTS).read_bytes(), read(folder)
    header = 8 + int.from_bytes(content[:8], "little")
    seen = 0
    for place in [*range(8), *range(8, header, 23)]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 7
        (folder / WEIGHTS).write_bytes(damaged)
        try:
            after = read(folder)
        except CheckpointError:
            seen += 1
        else:
            assert all(torch.equal(before[name], after[name]) for name in before)
    assert seen > 60


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.pop("lm_head.weight"),
            r"base: tensor lm_head.weight \[320, 32\] is missing, but config\.json does not say that",
        ),
        (lambda t: t.update(extra=torch.ones(1)), "base: no place for extra. Check that"),
        (
            lambda t: t.update({"model.norm.weight": torch.ones(33)}),
            r"tensor model.norm.weight has shape \[33\]; config.json says \[32\]",
        ),
        (
            lambda t: t.update({"model.norm.weight": torch.ones(32, dtype=torch.int8)}),
            (
                "tensor model.norm.weight is int8; allowed: float64, float32, float16, bfloat16."
                " Use another model"
            ),
        ),
        (
            lambda t: t.update({"model.norm.weight": torch.ones(32).to(torch.float8_e4m3fn)}),
            "tensor model.norm.weight is float8_e4m3fn; allowed",
        ),
        (
            lambda t: t.update({"model.norm.weight": torch.ones(32, dtype=torch.complex64)}),
            "tensor model.norm.weight is of the unknown dtype C64",
        ),
    ],
)
def test_tensors_that_do_not_fit(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], None], message: str
) -> None:
    change_weights(folder, change)
    with pytest.raises(CheckpointError, match=message):
        read(folder)


def change_index(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    values = json.loads((folder / INDEX).read_text())
    change(values)
    (folder / INDEX).write_text(json.dumps(values))


def test_missing_shards(sharded: Path) -> None:
    shards = sorted(sharded.glob("model-*.safetensors"))
    assert len(shards) == 4
    shards[1].unlink()
    with pytest.raises(
        CheckpointError,
        match=rf"1 of 4 files that {INDEX} names are missing: {shards[1].name}. Fetch",
    ):
        read(sharded)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index.pop("weight_map"), f"{INDEX}: has no weight_map"),
        (
            lambda index: index["weight_map"].update({"lm_head.weight": "../secret.safetensors"}),
            (
                "places lm_head.weight in '../secret.safetensors'; allowed: a .safetensors file of"
                " the same folder"
            ),
        ),
        (
            lambda index: index["weight_map"].update({"lm_head.weight": "weights.bin"}),
            "places lm_head.weight in 'weig",
        ),
        (
            lambda index: index["weight_map"].update({"lm_head.weight": 3}),
            "places lm_head.weight in 3; allowed",
        ),
        (
            lambda index: index["weight_map"].pop("model.norm.weight"),
            f"tensor model.norm.weight is in it and not in {INDEX}. Fetch the model again",
        ),
        (
            lambda index: index["weight_map"].update(other=index["weight_map"]["lm_head.weight"]),
            f"tensor other is not in it but in {INDEX}",
        ),
    ],
)
def test_indexes(sharded: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    change_index(sharded, change)
    with pytest.raises(CheckpointError, match=message):
        read(sharded)


def test_the_single_file_comes_before_the_index(sharded: Path, folder: Path) -> None:
    shutil.copy(folder / WEIGHTS, sharded)
    assert weight_files(sharded) == {WEIGHTS: None}
