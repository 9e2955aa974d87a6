"""Speech with transcripts: the forms in which transcripts come, who is held out, what is left out
and said."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from voices import SAID, hum, say, write_library, write_lines, write_sound

from groundup.contracts.data import DataContext
from groundup.core.values import Batch
from groundup.data.cleaning.transcripts import spell
from groundup.data.reading.speech_folders import FORMS
from groundup.data.sources.speech import Speech
from groundup.data.splitting.drawing import say_once
from groundup.media.audio import read_sound
from groundup.reports.data_notes import data_notes


def whole(root: Path, **settings: Any) -> Speech:
    return Speech(path=str(root), fraction=0.0, **settings)


def said(source: Speech, cache: Path, split: Any = "train") -> dict[str, Any]:
    return {Path(e.name).stem: e.target for e in source.examples(split, cache)}


# ----------------------------------------------------------------------------------------- forms
@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_recognised_and_gives_the_same(form: Any, tmp_path: Path) -> None:
    source = whole(write_library(tmp_path / "库", form))
    examples = source.examples("train", tmp_path / "cache")
    assert [e.target for e in sorted(examples, key=lambda e: e.inputs[-6:])] == SAID
    assert all(Path(example.inputs).is_file() for example in examples)
    card = source.card(tmp_path / "cache")
    assert card["form"] == FORMS[form]
    assert (card["train"]["sounds"], card["left_out"]) == (8, {})
    assert "warnings" not in card
    named = whole(tmp_path / "库", form=form)
    assert [e.target for e in named.examples("train", tmp_path / "cache")] == [
        e.target for e in examples
    ]
    assert len(source.contents()) > 8
    speakers = {"common_voice", "librispeech", "kaldi"}
    assert ("speakers" in card["kept_together"]) == (form in speakers)


@pytest.mark.parametrize("form", ["metadata", "kaldi", "text_files", "librispeech"])
def test_folders_called_like_splits_are_these(form: Any, tmp_path: Path) -> None:
    for part, folder in enumerate(("train-clean", "dev-clean", "test-clean")):
        write_library(tmp_path, form, folder=folder)
        for number, path in enumerate(sorted((tmp_path / folder).rglob("*.wav"))):
            write_sound(path, hum("one two", seed=100 * part + number))
    source = Speech(path=str(tmp_path))
    assert source.splits() == ("train", "validation", "test")
    for split in source.splits():
        assert len(source.examples(split, tmp_path / "cache")) == 8


def test_a_prompt_that_is_called_test_is_none(tmp_path: Path) -> None:
    for number, name in enumerate(("train", "test", "dev", "valid")):
        say(tmp_path / f"{name}.wav", "one two", seed=number)
        (tmp_path / f"{name}.txt").write_text(name, encoding="utf-8")
    (tmp_path / "README.txt").write_text("about the sounds", encoding="utf-8")
    source = whole(tmp_path)
    assert source.splits() == ("train",)
    card = source.card(tmp_path / "cache")
    assert card["train"]["sounds"] == 4
    assert card["left_out"] == {"of other kinds": 1}


def test_tables_of_rows_and_their_columns(tmp_path: Path) -> None:
    for number in range(6):
        say(tmp_path / "clips" / f"{number}.wav", "one two", seed=number)
    sides = ["train", "train", "train", "dev", "test", "train"]
    rows = [
        {
            "audio_filepath": f"clips/{n}.wav",
            "sentence": f" one  two {n}",
            "split": side,
            "who": n % 2,
        }
        for n, side in enumerate(sides)
    ]
    write_lines(tmp_path / "manifest.jsonl", list(map(json.dumps, rows)))
    source = Speech(path=str(tmp_path / "manifest.jsonl"))
    assert source.splits() == ("train", "validation", "test")
    assert said(source, tmp_path)["0"] == "one two 0"
    assert len(said(source, tmp_path)) == 4
    assert list(said(source, tmp_path, "test")) == ["4"]
    all_rows = Speech(
        path=str(tmp_path / "manifest.jsonl"), split_column="", group_column="who", seed=11
    )
    sides_of = {
        split: {int(name) % 2 for name in said(all_rows, tmp_path, split)}
        for split in all_rows.splits()
    }
    assert not sides_of["train"] & sides_of["validation"]
    other = Speech(path=str(tmp_path / "manifest.jsonl"), text_column="split", split_column="")
    assert said(other, tmp_path)["0"] == "train"


def test_tables_of_common_voice_are_the_splits(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_library(root / "de", "common_voice")
    rows = (root / "de" / "validated.tsv").read_text(encoding="utf-8").splitlines()
    for name, own in (("train", rows[1:4]), ("dev", rows[4:6]), ("test", rows[6:7])):
        write_lines(root / "de" / f"{name}.tsv", [rows[0], *own])
    source = Speech(path=str(root))
    found = {split: len(source.examples(split, tmp_path / "cache")) for split in source.splits()}
    # Of three people who speak in several tables, each is where the data say.
    assert found == {"train": 3, "validation": 2, "test": 1}
    card = source.card(tmp_path / "cache")
    assert card["warnings"] == ["tables that are not used: de/validated.tsv"]
    assert card["left_out"]["of other kinds"] == 1
    # Sounds of the other tables have a transcript there.
    assert "sounds without a transcript" not in card["left_out"]
    one = Speech(path=str(root / "de" / "train.tsv"), validation=str(root / "de" / "dev.tsv"))
    assert len(one.examples("train", tmp_path / "cache")) == 3
    assert len(one.examples("validation", tmp_path / "cache")) == 2


def test_several_paths_and_a_folder_held_out_by_name(tmp_path: Path) -> None:
    for number, folder in enumerate(("a", "b", "c")):
        for form in ("text_files",):
            write_library(tmp_path / folder, form)
        for path in (tmp_path / folder).glob("*.wav"):
            write_sound(path, hum("one two", seed=number * 100 + int(path.stem[-4:])))
    paths = [str(tmp_path / "a"), str(tmp_path / "b")]
    source = Speech(path=paths, validation=str(tmp_path / "c"))
    names = {e.name for e in source.examples("train", tmp_path / "x")}
    assert len(names) == 16
    assert len(source.examples("validation", tmp_path / "x")) == 8
    inside = Speech(path=str(tmp_path), validation=str(tmp_path / "c"), form="text_files")
    assert len(inside.examples("train", tmp_path / "x")) == 16


@pytest.mark.parametrize("kind", ["flac", "ogg", "mp3"])
def test_other_kinds_rates_and_channels(kind: str, tmp_path: Path) -> None:
    for number, rate in enumerate((8000, 16000, 44100)):
        sound = hum("one two", rate=rate, seed=number)
        write_sound(tmp_path / f"{number}.{kind}", np.stack([sound, sound], 1), rate)
        (tmp_path / f"{number}.txt").write_text("one two", encoding="utf-8")
    card = whole(tmp_path).card(tmp_path / "cache")
    assert set(card["sample_rates"]) == {"8000", "16000", "44100"}
    assert card["channels"] == {"2": 3}


def test_parts_of_recordings(tmp_path: Path) -> None:
    root = write_library(tmp_path / "data", "kaldi")
    sounds = [hum(text, seed=number) for number, text in enumerate(SAID)]
    ends = np.cumsum([len(each) for each in sounds]) / 8000
    write_sound(root / "wav" / "meeting.wav", np.concatenate(sounds))
    write_lines(root / "wav.scp", ["meeting wav/meeting.wav", "gone nowhere.wav"])
    names = [line.split()[0] for line in (root / "text").read_text(encoding="utf-8").splitlines()]
    parts = zip(names, [0.0, *ends[:-1]], ends, strict=True)
    lines = [f"{name} meeting {begin:.3f} {end:.3f}" for name, begin, end in parts]
    write_lines(root / "segments", [*lines[:-1], f"{names[-1]} gone 0 1", "b-1 meeting 0 0.2"])
    source = whole(root)
    examples = source.examples("train", tmp_path)
    assert [e.target for e in examples] == SAID[:-1]
    for example, expected in zip(examples, sounds, strict=False):
        found = read_sound(example.inputs)
        assert (found.rate, len(found.samples)) == (8000, len(expected))
        np.testing.assert_allclose(found.samples, expected, atol=1e-4)
    card = source.card(tmp_path)
    assert card["left_out"]["transcripts without a sound"]["count"] == 1
    assert card["left_out"]["sounds without a transcript"]["first"][0] == f"b-1 ({root})"
    assert len(source.contents()) == 4 + 7


# ------------------------------------------------------------------------------------ held out
def test_speakers_and_groups_are_on_one_side(tmp_path: Path) -> None:
    root = write_library(tmp_path / "data", "kaldi")
    for settings in ({"seed": 2}, {"group": r"^(a\d)", "by_speaker": True, "seed": 2}):
        source = Speech(path=str(root), fraction=0.4, **settings)
        sides = {
            split: {name[:2] for name in said(source, tmp_path, split)} for split in source.splits()
        }
        assert sides["train"] | sides["validation"] == {"a0", "a1", "a2"}
        assert not sides["train"] & sides["validation"]
    alone = Speech(path=str(root), fraction=0.4, by_speaker=False, seed=2)
    assert alone.card(tmp_path)["kept_together"] == "the same samples"
    folded = Speech(path=str(root), folds=3, fold=1)
    assert {name[:2] for name in said(folded, tmp_path, "validation")} in ({"a0"}, {"a1"}, {"a2"})


def test_the_same_sound_is_never_on_both_sides(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number in range(12):
        write_sound(root / f"{number}.wav", hum("one two", seed=number // 2))
        (root / f"{number}.txt").write_text(f"one two {number // 2}", encoding="utf-8")
    for seed in range(5):
        source = Speech(path=str(root), fraction=0.4, seed=seed)
        sides = {split: set(said(source, tmp_path, split).values()) for split in source.splits()}
        assert not sides["train"] & sides["validation"]
    write_sound(tmp_path / "other" / "x.wav", hum("one two", seed=3))
    (tmp_path / "other" / "x.txt").write_text("three", encoding="utf-8")
    named = Speech(path=str(root), validation=str(tmp_path / "other"))
    assert len(named.examples("train", tmp_path)) == 10
    warnings = named.card(tmp_path)["warnings"]
    assert any("are the same as another one with another transcript" in w for w in warnings)


# ------------------------------------------------------------------------------------- left out
def test_what_does_not_fit_together_is_counted_and_named(tmp_path: Path) -> None:
    root = write_library(tmp_path / "data", "metadata")
    say(root / "unheard.wav", "one", seed=99)
    with (root / "metadata.csv").open("a", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["gone.wav", "one two"], ["silent.wav", "  "]])
    say(root / "silent.wav", "one", seed=98)
    source = whole(root)
    left_out = source.card(tmp_path)["left_out"]
    where = f"gone.wav ({root / 'metadata.csv'} row 9 (ends on line 10))"
    assert left_out["transcripts without a sound"] == {"count": 1, "first": [where]}
    assert left_out["sounds without a transcript"] == {"count": 1, "first": ["unheard.wav"]}
    assert left_out["sounds with an empty transcript"] == {"count": 1, "first": ["silent.wav"]}
    text = "; ".join(data_notes(source.card(tmp_path)))
    assert "1 transcripts without a sound are left out: gone.wav" in text
    assert "1 sounds without a transcript are left out: unheard.wav" in text
    assert "1 sounds with an empty transcript are left out: silent.wav" in text


def test_long_and_unreadable_sounds_are_set_aside(tmp_path: Path) -> None:
    root = write_library(tmp_path / "data", "text_files")
    write_sound(root / "a0-0000.wav", hum("one " * 20))
    write_sound(root / "a1-0001.wav", [])
    (root / "a2-0002.wav").write_bytes(b"no sound")
    write_lines(root / "a0-0003.txt", ["..."])
    source = whole(root, max_seconds=4.0, on_unreadable="skip", spelling="letters")
    card = source.card(tmp_path)
    assert card["train"]["sounds"] == 4
    left_out = card["left_out"]
    assert left_out["sounds longer than max_seconds 4"]["first"] == ["a0-0000.wav (5.0 s)"]
    unreadable = left_out["sounds that cannot be read"]
    assert unreadable["count"] == 2
    assert "a1-0001.wav (the sound is empty: it holds no samples)" in unreadable["first"]
    assert left_out["sounds with an empty transcript"]["first"] == ["a0-0003.wav"]
    assert "2 sounds that cannot be read are left out" in " ".join(card["warnings"])
    longer = whole(root, max_seconds=None, on_unreadable="skip")
    assert longer.card(tmp_path)["train"]["sounds"] == 6


def test_a_limit_is_of_each_split(tmp_path: Path) -> None:
    source = whole(write_library(tmp_path / "data", "text_files"), limit=3)
    assert len(source.examples("train", tmp_path)) == 3
    assert source.card(tmp_path)["left_out"] == {"beyond data.limit": 5}


def test_what_only_held_out_transcripts_have_is_said(tmp_path: Path) -> None:
    write_library(tmp_path / "data", "text_files")
    write_library(tmp_path / "other", "text_files")
    for number, path in enumerate(sorted((tmp_path / "other").glob("*.wav"))):
        write_sound(path, hum("one two", seed=50 + number))
    write_lines(tmp_path / "other" / "a0-0000.txt", ["größe"])
    source = Speech(path=str(tmp_path / "data"), validation=str(tmp_path / "other"))
    card = source.card(tmp_path)
    warning = (
        "characters of validation transcripts that are in no training transcript: 'g' 1, 'ö' 1"
    )
    assert any(each.startswith(warning) for each in card["warnings"])
    about = card["validation"]
    assert about["characters_not_in_training"] == {"g": 1, "ö": 1, "ß": 1}
    assert about["same_transcript_in_training"] == 7


# ---------------------------------------------------------------------------------- spelling
@pytest.mark.parametrize(
    ("spelling", "expected"),
    [
        ("as_written", "It's 5 o'clock, 'Zürich' – naïve!"),
        ("lower", "it's 5 o'clock, 'zürich' – naïve!"),
        ("letters", "it's 5 o'clock zürich naïve"),
    ],
)
def test_transcripts_as_they_are_spelt(spelling: Any, expected: str) -> None:
    assert spell("It’s 5  o'clock, 'Zürich' – naïve!".replace("’", "'"), spelling) == expected


def test_letters_keep_marks_and_other_scripts() -> None:
    assert spell("हिन्दी में, ठीक?", "letters") == "हिन्दी में ठीक"
    assert spell("你好，世界。", "letters") == "你好 世界"


# ----------------------------------------------------------------------------------- streams
def context(cache: Path, batch_size: int = 4) -> DataContext:
    def encode(examples: Any) -> Batch:
        import torch

        lengths = [len(str(example.target)) for example in examples]
        return {"characters": torch.tensor(lengths)}

    return DataContext(
        split="train",
        encode=encode,
        encode_key="",
        end_id=0,
        sequence_length=1,
        batch_size=batch_size,
        micro_batch_size=batch_size,
        seed=0,
        cache=cache,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("in_memory", "similar"), [(True, True), (False, True), (True, False), (False, False)]
)
def test_a_batch_is_of_sounds_of_similar_lengths(
    in_memory: bool, similar: bool, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    for number in range(64):
        text = "one " * (1 + number % 16)
        say(root / f"{number}.wav", text, seed=number)
        write_lines(root / f"{number}.txt", [text])
    own = {} if similar else {"similar_lengths": False}  # so they are by default
    stream = whole(root, in_memory=in_memory, **own).open(context(tmp_path))
    batches = [next(stream)["characters"] for _ in range(16)]
    stream.close()
    padding = sum(int(b.max() * len(b) - b.sum()) for b in batches)
    assert (padding / sum(int(b.max()) * len(b) for b in batches) < 0.1) == similar
    assert len({int(b[0]) for b in batches}) > 8


def test_sounds_to_predict_from(tmp_path: Path) -> None:
    root = write_library(tmp_path / "data", "text_files")
    source = whole(root)
    rows = list(source.unlabelled(str(root)))
    assert [row.columns for row in rows][:2] == [{"file": "a0-0000.wav"}, {"file": "a0-0003.wav"}]
    (alone,) = source.unlabelled(str(root / "a0-0000.wav"))
    assert alone.inputs == root / "a0-0000.wav"
    other = source.reading(str(root))
    assert other is not None
    assert len(list(other.examples("train", tmp_path))) == 8


def test_transcripts_are_read_again_when_they_change(tmp_path: Path) -> None:
    root = write_library(tmp_path / "data", "text_files")
    source = whole(root)
    assert said(source, tmp_path)["a2-0002"] == "three"
    write_lines(root / "a2-0002.txt", ["four"])
    assert said(source, tmp_path)["a2-0002"] == "four"
    say_once.cache_clear()
