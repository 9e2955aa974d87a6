"""What is cut of inputs is counted, wherever it is cut."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup.core.values import CutInputs, Example
from groundup.media.audio import seconds_of
from groundup.processors.audio import AudioConfig, AudioProcessor
from groundup.processors.class_targets import SingleLabel
from groundup.processors.labelled import Labelled
from groundup.processors.sequences import FramesConfig, FramesProcessor
from groundup.processors.targets import FixedTargets
from groundup.processors.text.bytes import BytesConfig
from groundup.tasks.sentence_embedding import SentenceEmbedding
from groundup.tasks.token_classification import TokenClassification


def labelled(longest: int, **settings: Any) -> Labelled:
    tokenizer = BytesConfig().fit(lambda: iter(()))
    return Labelled(tokenizer, SingleLabel(["a", "b"]), longest, **settings)


def notes_of(processor: Any, **settings: Any) -> list[str]:
    assert isinstance(processor.cut, CutInputs)
    return processor.cut.notes(**settings)


def test_texts() -> None:
    processor = labelled(5)
    processor.encode_inputs(["abcde", "abc"])
    assert notes_of(processor) == []
    processor.encode_inputs(["abcdefghij", "a"])
    note = "1 of 4 texts are longer than max_tokens 5 and cut: 50% of their tokens are not read"
    assert notes_of(processor) == [note]
    assert notes_of(processor, named=3) == [f"{note} (number 3 has 10)"]
    assert notes_of(processor, counts=False)[0].startswith("25% of the texts are longer")
    processor.encode_inputs(["abcdefghij"] * 3)
    assert notes_of(processor, named=2)[0].endswith(
        "(number 3 has 10, number 5 has 10, and 2 more)"
    )


def test_pairs_sentences_and_texts_to_embed() -> None:
    pairs = labelled(5, pairs=True)
    pairs.encode_inputs([("abcd", "efgh"), ("a", "b")])
    assert notes_of(pairs) == [
        "1 of 2 pairs of texts are longer than max_tokens 5 and cut: 50% of their tokens are not"
        " read"
    ]
    sentences = labelled(6, head="tokens")
    words = [Example("0", ("abc", "def", "ghi"), ("a", "b", "a")), Example("1", ("ab",), ("b",))]
    TokenClassification().encode(words, sentences)
    assert notes_of(sentences) == [
        "1 of 2 sentences are longer than max_tokens 6 and cut: 33% of their words are not read"
    ]
    vectors = Labelled(sentences.inputs, FixedTargets(()), 4, head="none")
    SentenceEmbedding().encode([Example("0", ("abcdefgh", "ab"))], vectors)
    assert notes_of(vectors) == [
        "1 of 2 texts are longer than max_tokens 4 and cut: 50% of their tokens are not read"
    ]


def test_sequences(tmp_path: Path) -> None:
    examples = [Example(str(n), np.ones((length, 2)) * n) for n, length in enumerate((3, 8, 2))]
    fitted = FramesConfig(max_frames=4).fit(lambda: iter(examples))
    note = "1 of 3 sequences are longer than max_frames 4 and cut: 50% of their frames are not read"
    assert fitted.notes == (note,)
    fitted.save(tmp_path)
    again = FramesConfig.load(tmp_path)
    assert isinstance(again, FramesProcessor)
    assert again.notes == (note,)
    again.encode_inputs([example.inputs for example in examples])
    assert notes_of(again) == [note]


@pytest.mark.parametrize("normalise", ["mean_variance", "each_sound"])
def test_sounds_that_are_cut_and_changed(normalise: Any, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    wave = np.sin(np.arange(16000) / 9.0) * 0.5
    sounds = {
        "plain": (wave[:4000], 8000),
        "stereo": (np.stack([wave[:4000]] * 2, 1), 8000),
        "other rate": (wave, 16000),
        "silent": (np.zeros(4000), 8000),
        "clipped": (np.clip(wave[:4000] * 9, -1, 1), 8000),
        "long": (wave, 8000),
    }
    examples = []
    for name, (samples, rate) in sounds.items():
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, samples, rate, subtype="PCM_24")
        assert seconds_of(path) == len(samples) / rate
        examples.append(Example(name, path))
    config = AudioConfig(sample_rate=8000, max_seconds=1.0, normalise=normalise)
    fitted = config.fit(lambda: iter(examples))
    cut = "1 of 6 sounds are longer than max_seconds 1 and cut: 50% of their seconds are not read"
    changed = (
        "of 6 sounds 1 with several channels, which are averaged; 1 brought from 16,000 Hz to"
        " 8,000; 1 silent; 1 clipped: many samples are as loud as can be"
    )
    expected = {"mean_variance": (changed, cut), "each_sound": (cut,)}[normalise]
    assert fitted.notes == expected
    fitted.save(tmp_path / "saved")
    again = AudioConfig.load(tmp_path / "saved")
    assert isinstance(again, AudioProcessor)
    assert again.notes == expected
    again.encode_inputs([example.inputs for example in examples])
    assert notes_of(again) == [cut]


@pytest.mark.slow
def test_a_run_says_so_before_its_first_step_and_so_does_what_predicts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import groundup
    from groundup.runs.run import Run

    path = tmp_path / "texts.csv"
    long = "some words " * 40
    path.write_text("text,label\n" + "".join(f"{long} {n},{'ab'[n % 2]}\n" for n in range(40)))
    recipe = {
        "name": "cut",
        "model": {"name": "bag_of_ngrams"},
        "task": {"name": "classify", "max_tokens": 50},
        "processor": "bytes",
        "data": {"name": "labelled_text", "path": str(path)},
        "training": {"batch_size": 8, "steps": 1},
    }
    with caplog.at_level(logging.INFO, "groundup"):
        run = groundup.train(recipe, runs=tmp_path / "runs")
    (said,) = [m for m in caplog.messages if "longer than max_tokens 50 and cut" in m]
    card = Run.open(run.folder).read_json("data_card.json")
    assert card is not None
    assert [said] == [f"{path}: {warning}" for warning in card["warnings"]]
    caplog.clear()
    groundup.predict(run.folder, ["short", long])
    assert caplog.messages == [
        "1 of 2 texts are longer than max_tokens 50 and cut: 89% of their tokens are not read"
        " (number 2 has 440)"
    ]
