"""Runs that start from a Whisper of ``transformers``: trained on, resumed, opened again by that
library, which then writes the same texts; with all weights, and with an adapter."""

from __future__ import annotations

import json
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretrained_folders import transformers, write_tokenizer
from resuming import stopped_and_resumed
from test_whisper_parity import hf_whisper

import groundup
from groundup.core.errors import RecipeError
from groundup.inference.predictor import Predictor

pytestmark = pytest.mark.slow
RATE = 16000


def write_sound(path: Path, seed: int, seconds: float = 0.6) -> None:
    """Write tones with noise."""
    draws = np.random.default_rng(seed)
    places = np.arange(round(seconds * RATE)) / RATE
    samples = 0.3 * np.sin(2 * np.pi * (300 + 200 * (seed % 5)) * places)
    samples += 0.05 * draws.normal(size=len(places))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples * 32000).astype(np.int16).tobytes())


def base_folder(
    folder: Path, suppressed: Sequence[int] = (5, 6), loud: float = 1.0, **changed: Any
) -> Any:
    """Write a small Whisper that reads one second, and return it.

    Args:
        folder: Where to.
        suppressed: Tokens that are not written.
        loud: What the decoder's weights are multiplied with: of small ones, it writes the same
            about every sound.
        **changed: Settings of the library's.
    """
    model = hf_whisper(
        vocab_size=320,
        max_source_positions=50,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=1,
        suppress_tokens=list(suppressed),
        begin_suppress_tokens=[7],
        **changed,
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "encoder_attn" in name or "decoder.layers" in name:
                parameter.mul_(loud)
    settings = model.generation_config
    settings.no_timestamps_token_id = 319
    settings.is_multilingual = False
    settings.suppress_tokens = list(suppressed)
    settings.begin_suppress_tokens = [7]
    model.save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=1).save_pretrained(folder)
    write_tokenizer(folder, template=None)
    return model


def recipe_of(folder: Path, **parts: Any) -> dict[str, Any]:
    sounds = folder / "sounds"
    sounds.mkdir()
    rows = ["file_name,text"]
    for number in range(12):
        write_sound(sounds / f"{number}.wav", number)
        rows.append(f"{number}.wav,the lamp {number % 5}")
    (sounds / "metadata.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return {
        "name": "whisper",
        "init": {"pretrained": str(folder / "base")},
        "task": {"name": "transcribe"},
        "data": {"name": "speech", "path": str(sounds), "fraction": 0.3},
        "optim": {"lr": 1e-3},
        "training": {"batch_size": 4, "steps": 3},
        "machine": {"threads": 1, "compile": False, "precision": "fp32", "micro_batch_size": 2},
        **parts,
    }


@pytest.mark.parametrize("part", [{}, {"adapter": {"name": "lora", "rank": 2}}])
def test_trained_on_resumed_and_opened_again(part: dict[str, Any], tmp_path: Path) -> None:
    base = base_folder(tmp_path / "base")
    recipe = recipe_of(tmp_path, **part)
    recipe["task"] |= {"window_seconds": 2.0, "overlap_seconds": 0.5}
    with pytest.raises(RecipeError, match=r"window_seconds: is 2, but processor\.pad_seconds"):
        groundup.train(recipe, runs=tmp_path / "refused")
    del recipe["task"]["window_seconds"]
    stopped_and_resumed(recipe, tmp_path, (1, 3))
    run = groundup.train(recipe, runs=tmp_path / "parts")
    folder = run.folder / "model"
    settings = run.recipe.model
    assert settings.prompt_ids == (319,)
    assert settings.suppress_tokens == (5, 6)

    tuned = transformers.WhisperForConditionalGeneration.from_pretrained(folder).eval()
    query = "model.decoder.layers.2.encoder_attn.q_proj.weight"
    moved = (tuned.get_parameter(query) - base.get_parameter(query)).abs().max()
    assert 0 < moved < 0.1
    kept = "model.encoder.embed_positions.weight"
    assert torch.equal(tuned.get_parameter(kept), base.get_parameter(kept))
    said = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    assert said["suppress_tokens"] == [5, 6]
    assert said["forced_decoder_ids"] == [[1, 319]]
    frames = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    assert frames["feature_size"] == 8

    predictor = groundup.load(run.folder)
    sound = tmp_path / "sounds" / "3.wav"
    found = predictor(str(sound), max_new_tokens=8)
    extract = transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    with wave.open(str(sound)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16) / 32768
    given = extract(samples, sampling_rate=RATE, return_tensors="pt").input_features
    rows = tuned.generate(given, max_new_tokens=8)[0].tolist()
    text = predictor.processor.tokenizer.decode([token for token in rows if token not in (3, 319)])
    assert found["text"] == text.strip()
    check_words(found, predictor)


def check_words(found: dict[str, Any], predictor: Predictor) -> None:
    """Check that every word of a text is there once, each after the one before."""
    assert " ".join(word["word"] for word in found["words"]).split() == found["text"].split()
    begins = [word["begin_s"] for word in found["words"]]
    assert begins == sorted(begins)
    assert all(0 <= word["begin_s"] < word["end_s"] <= 1.0 for word in found["words"])


def test_pretrained_weights_transcribe_as_they_are(tmp_path: Path) -> None:
    base_folder(tmp_path / "base")
    write_sound(tmp_path / "one.wav", 1)
    predictor = groundup.load(tmp_path / "base")
    assert predictor(str(tmp_path / "one.wav"), max_new_tokens=4).keys() == {"text", "words"}
