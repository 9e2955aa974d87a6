"""Whispers in other programs: CTranslate2 and transformers compute the same about held-out sounds,
and write the same."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_whisper_runs import base_folder, recipe_of

import groundup
from groundup.api import export
from groundup.core.errors import CheckpointError
from groundup.export import ctranslate2
from groundup.export.ctranslate2_whisper import whisper_token_names
from groundup.generation.decoding import generate_batch
from groundup.generation.options import DecodingOptions

pytestmark = pytest.mark.slow
SUPPRESSED = (5, 6, 317, 318, 319)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps that reads 0.8 seconds, where its weights read 1."""
    folder = tmp_path_factory.mktemp("whisper")
    # Numbered as published ones: texts, the start, no speech, no times.
    base_folder(folder / "base", SUPPRESSED, 3.0, decoder_start_token_id=317)
    recipe = recipe_of(folder, model={"window_frames": 80}, processor={"pad_seconds": 0.8})
    recipe["training"]["steps"] = 1
    return groundup.train(recipe, runs=folder).folder


def compared(folder: Path) -> dict[str, Any]:
    """Return the last comparison."""
    record = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    assert record["samples_from"] == "validation data"
    found: dict[str, Any] = record["comparisons"][-1]
    return found


def test_ctranslate2_writes_the_same(run: Path) -> None:
    folder = export(run, "ctranslate2", new_tokens=7)
    found = compared(folder)
    assert found["other"].startswith("ctranslate2 ")
    assert found["same_continuations"] == found["samples"] > 0
    assert found["relative_difference"] < 1e-4
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert settings["suppress_ids"] == list(SUPPRESSED)
    assert settings["suppress_ids_begin"] == [7]
    assert settings["lang_ids"] == []
    assert settings["alignment_heads"] == [[1, 0], [1, 1], [2, 0], [2, 1]]
    names = {"tokenizer.json", "preprocessor_config.json", "processor.json", "model.bin"}
    assert names <= {path.name for path in folder.iterdir()}
    check_held_out(run, folder)


def check_held_out(run: Path, folder: Path) -> None:
    """Check that greedy texts about sounds that nobody compared are the same."""
    predictor = groundup.load(run)
    model: Any = predictor.model
    processor = predictor.processor
    draws = np.random.default_rng(7)
    sounds = [draws.normal(size=12000) * loud for loud in (0.01, 0.03, 0.1, 0.3, 1.0) * 2]
    batch = processor.encode_samples(sounds)
    frames = model.in_window(batch["inputs"], batch["lengths"])
    assert frames.shape == (10, 80, 8)
    options = DecodingOptions(
        temperature=0, max_new_tokens=7, suppress_tokens=SUPPRESSED, begin_suppress_tokens=(7,)
    )
    ends = set(processor.tokenizer.end_ids)
    own = generate_batch(model, [[317, 319]] * 10, options, ends, inputs={"inputs": frames})
    library = ctranslate2.require_ctranslate2()
    other = library.models.Whisper(str(folder), compute_type="float32")
    view = library.StorageView.from_array(frames.transpose(1, 2).contiguous().numpy())
    written = other.generate(view, [[317, 319]] * 10, beam_size=1, max_length=14)
    assert [each.sequences_ids[0] for each in written] == own
    assert len({tuple(row) for row in own}) > 1


def test_in_fewer_bits(run: Path, tmp_path: Path) -> None:
    sizes = {}
    for dtype in ("fp32", "fp16", "int8"):
        folder = export(run, "ctranslate2", dtype=dtype, out=tmp_path / dtype, tolerance=0.5)
        sizes[dtype] = (folder / "model.bin").stat().st_size
    assert sizes["int8"] < sizes["fp16"] < 0.6 * sizes["fp32"]


def test_transformers_gives_the_same(run: Path) -> None:
    folder = export(run, "huggingface")
    assert compared(folder)["other"].startswith("transformers ")
    # It reads as many frames as it has positions for.
    assert json.loads((folder / "config.json").read_text())["max_source_positions"] == 40


def test_weights_as_they_came(run: Path, tmp_path: Path) -> None:
    base = run.parent / "base"
    folder = export(base, "ctranslate2", out=tmp_path / "out", prompts=2)
    record = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    assert record["samples_from"] == "fixed noise"
    assert record["samples"] == 2


def test_what_has_no_place(run: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="models that write about sounds are not exported to"):
        export(run, "onnx")
    predictor = groundup.load(run)
    model: Any = predictor.model
    model.tokens = type(model.tokens)((), no_speech=318)
    message = (
        "model.prompt_ids: CTranslate2 writes times unless the last token of the prompt says there"
        " are none. Set model.no_timestamps_id, and end model.prompt_ids with it"
    )
    with pytest.raises(CheckpointError, match=re.escape(message)):
        whisper_token_names(tmp_path, model, predictor.processor)


def test_texts_with_tokens_of_prompts(tmp_path: Path) -> None:
    base_folder(tmp_path / "base", loud=3.0)
    message = (
        r"model\.start_id: token \d+ of a transcript is between start_id 3 and no_timestamps_id"
    )
    with pytest.raises(CheckpointError, match=message):
        export(tmp_path / "base", "ctranslate2", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_of_tokens(run: Path, tmp_path: Path) -> None:
    predictor = groundup.load(run)
    model: Any = predictor.model
    model.tokens = type(model.tokens)((317,), no_speech=316)
    model.shape = replace(model.shape, start_id=3)
    (tmp_path / "tokenizer").mkdir()
    stored = {"model": {"vocab": {"a": 0, "<|startoftranscript|>": 2}}}
    stored["added_tokens"] = [{"id": 316, "content": "<|nocaptions|>"}]  # type: ignore[assignment]
    (tmp_path / "tokenizer" / "tokenizer.json").write_text(json.dumps(stored), encoding="utf-8")
    names = whisper_token_names(tmp_path, model, predictor.processor)
    end = predictor.processor.tokenizer.end_id
    assert names[0] == "a"
    # What is looked up by its name is there once.
    assert names[2] == "<token_2>"
    assert names[3] == "<|startoftranscript|>"
    assert names[end] == "<|endoftext|>"
    assert names[316:] == ["<|nocaptions|>", "<|notimestamps|>", "<|0.00|>", "<|0.02|>"]
