"""Every message of sounds and of sequences of frames."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from groundup.core.errors import DataError, MissingExtraError, RecipeError
from groundup.core.settings import validate
from groundup.core.values import Example
from groundup.data.sources.audio import Audio
from groundup.data.sources.sequences import Sequences
from groundup.media.audio import read_sound
from groundup.processors.audio import AudioConfig
from groundup.processors.sequences import FramesConfig, FramesProcessor


def write(path: Path, samples: Any = (0.1, 0.2), rate: int = 8000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(
        path,
        np.asarray(samples, np.float32),
        rate,
        **({"subtype": "FLOAT"} if path.suffix == ".wav" else {}),
    )
    return path


def audio(root: Path, **settings: Any) -> None:
    source = Audio(path=str(root), **settings)
    for split in ("train", "validation"):
        source.examples(split, root.parent / "cache")


def classes(root: Path, names: str = "ab", files: int = 6) -> Path:
    for label in names:
        for number in range(files):
            write(root / label / f"{number}.wav", [0.01 * number, 0.02 * ord(label) / 100])
    return root


# ------------------------------------------------------------------------------------------- sounds
def test_files_that_are_no_sound(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"没有.wav: no such file"):
        read_sound(tmp_path / "没有.wav")
    (tmp_path / "坏.wav").write_bytes(b"RIFF and nothing")
    with pytest.raises(
        DataError, match=r"坏\.wav: cannot be read as sound: Format not recognised\. Check the file"
    ):
        read_sound(tmp_path / "坏.wav")
    (tmp_path / "a.raw").write_bytes(b"1234")
    with pytest.raises(DataError, match="cannot be read as sound"):
        read_sound(tmp_path / "a.raw")
    with pytest.raises(DataError, match="a sound: cannot be read as sound"):
        read_sound(b"nothing")
    with pytest.raises(DataError, match=r"empty.wav: the sound is empty: it holds no samples"):
        read_sound(write(tmp_path / "empty.wav", []))
    with pytest.raises(DataError, match=r"nan.wav: sample 1 is no finite number"):
        read_sound(write(tmp_path / "nan.wav", [0.0, np.nan]))


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (3, "sound 7: is int; allowed: a path, the bytes of a file, or"),
        ((np.zeros(3), "8000"), "sound 7: is tuple; allowed: a path"),
        ((np.zeros(3), 0), "the sample rate is 0; allowed: 1 or more"),
        ((np.zeros(3), 0.5), "the sample rate is 0.5; allowed"),
        (
            (np.zeros((2, 3, 4)), 8000),
            r"the samples have shape \(2, 3, 4\) and type float64; allowed: numbers",
        ),
        ((np.array(["a"]), 8000), "and type <U1; allowed: numbers"),
        ((np.zeros((2, 100)), 8000), r"shape \(2, 100\), which says 100 channels; .* Transpose"),
        ((np.zeros(0), 8000), "the sound is empty"),
    ],
)
def test_what_is_no_sound(source: Any, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        read_sound(source, "sound 7")


def test_without_soundfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.wav")
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(
        MissingExtraError, match=r"soundfile: is not installed.*groundup\[classic\]"
    ):
        read_sound(path)


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"highest_hz": 9000.0}, "highest_hz 9000.0 is above half the sample rate 16000"),
        ({"lowest_hz": 9000.0}, "lowest_hz 9000.0 is not below the highest, 8000.0"),
        ({"hop_ms": 30.0}, "hop_ms 30.0 is above window_ms 25.0, which skips sound"),
        ({"window_ms": 0.05, "hop_ms": 0.01}, "a frame has fewer than 2 samples"),
        ({"coefficients": 50}, "coefficients 50 is above mel_bands 40"),
        ({"mel_bands": 400}, "mel band 1 of 400 is narrower than frames of 25.0 ms tell apart"),
        ({"features": "log_mel", "coefficients": 12}, "coefficients has no effect with features"),
    ],
)
def test_settings_of_features(section: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        validate(AudioConfig, section, "recipe.processor")


def test_fitting_and_loading_features(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no training examples"):
        AudioConfig().fit(lambda: iter(()))
    fitted = AudioConfig().fit(lambda: iter([Example("a", (np.ones(9), 8000))]))
    with pytest.raises(DataError, match="sound 1: is NoneType"):
        fitted.encode_inputs([(np.ones(9), 8000), None])
    with pytest.raises(DataError, match="no such file"):
        AudioConfig.load(tmp_path)
    for damaged in ('{"name": "audio"}', '{"mean": [1], "scale": [1], "settings": {}}'):
        (tmp_path / "processor.json").write_text(damaged)
        with pytest.raises(DataError, match="is damaged"):
            AudioConfig.load(tmp_path)


# ---------------------------------------------------------------------------------- folders, tables
def test_folders_without_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder; allowed: a folder"):
        audio(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is a file; allowed: a folder"):
        audio(write(tmp_path / "a.wav"))
    with pytest.raises(DataError, match="there are no class folders, and 1 files without one"):
        audio(tmp_path)
    root = classes(tmp_path / "root")
    (root / "空").mkdir()
    with pytest.raises(
        DataError, match=r"the class folder '空' holds no file of the kinds .wav.*; it is empty"
    ):
        audio(root)
    (root / "空" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"it has .txt 1\. Put files into it"):
        audio(root)


def test_splits_that_cannot_be(tmp_path: Path) -> None:
    root = classes(tmp_path / "root" / "train").parent
    for label in ("a", "b"):
        for number in range(6):
            write(root / "val" / label / f"{number}.wav", [0.01 * number, 0.02 * ord(label) / 100])
    with pytest.raises(
        DataError,
        match="nothing is left for train, without what cannot be used and what is held out",
    ):
        audio(root)
    for path in (root / "val").rglob("*.wav"):
        write(
            path,
            np.random.default_rng(len(list(path.parent.glob("*")))).uniform(
                -1, 1, 9 + int(path.stem)
            ),
        )
    write(root / "val" / "c" / "1.wav")
    with pytest.raises(
        DataError, match="the class 'c' has held-out examples only; training has a, b"
    ):
        audio(root)
    with pytest.raises(
        RecipeError, match=r"folds: has no effect: .*root has a folder of its own for validation"
    ):
        audio(root, folds=2)
    one = classes(tmp_path / "one", "a", 1)
    with pytest.raises(DataError, match=r"nothing is left for \w+ \(fraction 0.1\)"):
        audio(one)
    with pytest.raises(DataError, match=r"nothing is left for \w+ \(fold 1 of 2\)"):
        Audio(path=str(one), folds=2, fold=1).examples("validation", tmp_path)


def test_unreadable_files_stop(tmp_path: Path) -> None:
    root = classes(tmp_path / "root")
    for name in ("x.wav", "y.wav"):
        (root / "a" / name).write_bytes(b"nothing")
    with pytest.raises(
        DataError,
        match=r"x.wav: cannot be read as sound.* \(1 other sounds too\).*on_unreadable: skip",
    ):
        audio(root)


def test_groups(tmp_path: Path) -> None:
    root = classes(tmp_path / "root")
    with pytest.raises(
        DataError, match=r"data.group 'speaker\(\\\\d\)' finds nothing in 'a/0.wav'"
    ):
        audio(root, group=r"speaker(\d)")
    with pytest.raises(RecipeError, match=r"group '\(' is no regular expression: missing"):
        validate(Audio, {"path": "a", "group": "("}, "recipe.data")


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("file_name,lable\na.wav,x\n", "there is no column 'label'; did you mean 'lable'"),
        ("file_name,label\nb.wav,x\n", "row 1 .*: there is no file .*b.wav"),
        ("file_name,label\na.wav,x\na.wav,y\n", "row 2 .*: a.wav has a row already"),
        ("file_name,label\na.wav,\n", "row 1 .*: a.wav has no label"),
    ],
)
def test_tables(tmp_path: Path, table: str, problem: str) -> None:
    write(tmp_path / "root" / "a.wav")
    (tmp_path / "root" / "metadata.csv").write_text(table)
    with pytest.raises(DataError, match=problem):
        audio(tmp_path / "root")


@pytest.mark.parametrize("cls", [Audio, Sequences])
@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"fold": 1}, "fold has no effect without folds"),
        ({"folds": 3, "fold": 3}, "fold 3 of 3; allowed: 0 to 2"),
        ({"folds": 3, "fraction": 0.2}, "fraction has no effect with folds"),
    ],
)
def test_folds_that_cannot_be(cls: Any, section: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        validate(cls, {"path": "a"} | section, "recipe.data")


# ------------------------------------------------------------------------------------------- frames
GOOD: dict[str, Any] = {"X": np.ones((5, 2)), "lengths": [2, 3], "y": [0, 1]}


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        (
            {"x": np.ones((5, 2)), "lengths": [2, 3], "y": [0, 1]},
            "there is no array 'X'; .*arrays: x, lengths, y",
        ),
        (
            {**GOOD, "X": np.array([np.ones((2, 2)), np.ones((3, 2))], dtype=object)},
            "'X' holds Python objects, as rag",
        ),
        (
            {**GOOD, "X": np.ones(5)},
            r"the frames have shape \(5,\) and type float64; allowed: numbers",
        ),
        ({**GOOD, "X": np.ones((2, 5, 2))}, "sequences of one length are read by data arrays"),
        (
            {**GOOD, "lengths": [2.0, 3.0]},
            r"the lengths have shape \(2,\) and type float64; allowed: whole numbers",
        ),
        ({"X": np.ones((0, 2)), "lengths": np.zeros(0, int), "y": []}, "there are no sequences"),
        ({**GOOD, "lengths": [5, 0]}, "sequence 2 has 0 frames; allowed: 1 or more"),
        ({**GOOD, "lengths": [2, 2]}, "the lengths sum to 4, but there are 5 frames"),
        ({**GOOD, "y": [0, 1, 2]}, r"y has shape \(3,\), but there are 2 sequences"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, arrays: dict[str, Any], problem: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=problem):
        Sequences(path=str(tmp_path / "a.npz")).examples("train", tmp_path)


def test_files_that_are_no_npz(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        Sequences(path=str(tmp_path / "a.npz")).examples("train", tmp_path)
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(DataError, match=r"cannot be read as .npz"):
        Sequences(path=str(tmp_path / "a.npz")).examples("train", tmp_path)
    np.save(tmp_path / "a.npy", np.ones(3))
    with pytest.raises(
        DataError, match=r"the suffix '.npy' is not a kind of file that is read here; allowed: .npz"
    ):
        Sequences(path=str(tmp_path / "a.npy")).examples("train", tmp_path)
    np.savez(tmp_path / "b.npz", **GOOD)
    with pytest.raises(DataError, match="there is no array 'speaker'"):
        Sequences(path=str(tmp_path / "b.npz"), groups_key="speaker").examples("train", tmp_path)
    with pytest.raises(DataError, match=r"nothing is left for \w+ \(fraction 1e-09\)"):
        Sequences(path=str(tmp_path / "b.npz"), fraction=1e-9).examples("validation", tmp_path)
    with pytest.raises(RecipeError, match="groups_key has no effect with validation"):
        validate(Sequences, {"path": "a", "validation": "b", "groups_key": "c"}, "recipe.data")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (np.ones((3, 5)), r"sequence 0: has shape \(3, 5\); allowed: \(frames, 2\)"),
        (np.ones((0, 2)), r"has shape \(0, 2\); allowed"),
        ([[1.0, float("nan")]], "feature 2 of frame 1 is nan; allowed: finite numbers"),
        ([["a", "b"]], "is no table of numbers"),
    ],
)
def test_sequences_that_do_not_fit(values: Any, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        FramesProcessor([0.0, 0.0], [1.0, 1.0], None).encode_inputs([values])


def test_fitting_and_loading_frames(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no training examples"):
        FramesConfig().fit(lambda: iter(()))
    uneven = [Example("1", np.ones((2, 2))), Example("2", np.ones((2, 3)), None, "file row 2")]
    with pytest.raises(DataError, match=r"file row 2: has shape \(2, 3\); allowed: \(frames, 2\)"):
        FramesConfig().fit(lambda: iter(uneven))
    (tmp_path / "processor.json").write_text('{"name": "frames"}')
    with pytest.raises(DataError, match="is damaged: KeyError"):
        FramesConfig.load(tmp_path)
