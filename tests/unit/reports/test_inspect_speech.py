"""What is shown of speech: counts, lengths, what is cut, tokens, and a picture of the features."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from voices import SAID, write_library

from groundup import api


def inspected(recipe: dict[str, Any], **options: Any) -> list[str]:
    console = Console(width=140, record=True, file=io.StringIO())
    for part in api.inspect_data(recipe, **options):
        console.print(part)
    return [" ".join(line.split()) for line in console.export_text().splitlines()]


def recipe_of(root: Path, **task: Any) -> dict[str, Any]:
    return {
        "name": "speech",
        "model": {"name": "ctc", "width": 16},
        "task": {"name": "transcribe", **task},
        "data": {"name": "speech", "path": str(root), "fraction": 0.3},
        "processor": {"name": "speech", "mel_bands": 20},
        "training": {"steps": 1},
    }


@pytest.mark.slow
def test_sounds_are_counted_measured_shown_and_drawn(tmp_path: Path) -> None:
    root = write_library(tmp_path / "data", "text_files")
    (root / "a0-0000.txt").unlink()
    augmentation = {"speed": 0.1, "time_masks": 1}
    lines = inspected(recipe_of(root, augmentation=augmentation), examples=2)
    (sounds,) = (line for line in lines if line.startswith("sounds "))
    train, validation = map(int, sounds.split()[1:])
    assert train + validation == 7
    assert any(line.startswith("seconds train ") for line in lines)
    assert any(line.startswith("frames validation ") for line in lines)
    assert any(line.startswith("tokens train ") for line in lines)
    assert any(line.startswith("frames / tokens train ") for line in lines)
    text = " ".join(lines)
    assert "1 sounds without a transcript are left out: a0-0000.wav" in text
    assert f"{train} brought from 8,000 Hz to 16,000" in text
    titles = [n for n, line in enumerate(lines) if re.match(r"train: .*s, \d+ frames\)", line)]
    assert len(titles) == 2
    said = lines[titles[0] + 1]
    assert said in SAID
    assert lines[titles[0] + 2] == f"{len(said)} tokens: {'|'.join(said)}"
    assert "the first 2 sounds of train above from top to bottom, each with 3 augmented" in text
    # A long path goes on in the next line.
    path = Path(text.rpartition(": ")[2].replace(" ", ""))
    pixels = np.asarray(Image.open(path))
    # Two sounds, four versions of each, 20 features of two rows each, white between.
    assert pixels.shape[0] == 2 * (4 * (2 * 20 + 6) + 6)
    assert pixels.min() == 0
    assert pixels.max() == 255


@pytest.mark.slow
def test_features_that_are_cut_are_said(tmp_path: Path) -> None:
    root = write_library(tmp_path / "data", "text_files")
    recipe = recipe_of(root) | {
        "processor": {"name": "speech", "features": "whisper", "pad_seconds": 0.3}
    }
    lines = inspected(recipe, examples=0)
    text = " ".join(lines)
    assert "sounds are longer than pad_seconds 0.3 and cut" in text
    assert "What a model reads" not in text


@pytest.mark.slow
def test_transcripts_that_cannot_be_emitted_are_named(tmp_path: Path) -> None:
    root = write_library(tmp_path / "data", "text_files")
    (root / "a0-0000.txt").write_text("far more than can be said in so short a time " * 9, "utf-8")
    text = " ".join(inspected(recipe_of(root) | {"model": {"name": "ctc", "size": "nano"}}))
    assert "need more frames than their sounds give this model (a0-0000.wav)" in text
    assert "task.on_too_long: skip" in text
