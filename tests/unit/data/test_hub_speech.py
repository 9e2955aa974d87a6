"""Speech in the rows of a Hugging Face data set: its columns, splits and speakers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import soundfile
from hub import datasets, own_cache, write_dataset
from voices import hum

from groundup.core.errors import DataError
from groundup.core.values import StoredFile
from groundup.data.sources.speech import Speech
from groundup.media.audio import read_sound

pytestmark = [pytest.mark.usefixtures("own_cache"), pytest.mark.xdist_group("datasets")]
__all__ = ["own_cache"]


def rows(first: int, count: int, **changed: Any) -> dict[str, list[Any]]:
    sounds = []
    for number in range(first, first + count):
        buffer = io.BytesIO()
        soundfile.write(buffer, hum("one two", seed=number), 8000, format="FLAC")
        sounds.append({"bytes": buffer.getvalue(), "path": None})
    texts = [f"one two {number}" for number in range(count)]
    return {
        "audio": sounds,
        "sentence": texts,
        "speaker_id": [n % 3 for n in range(count)],
        **changed,
    }


def features() -> dict[str, Any]:
    return {
        "audio": datasets.Audio(),
        "sentence": datasets.Value("string"),
        "speaker_id": datasets.Value("int64"),
    }


def test_rows_of_a_data_set(tmp_path: Path) -> None:
    texts = ["one two", "", "two"]
    folder = write_dataset(
        tmp_path / "data",
        {"train": rows(0, 12), "test": rows(20, 3, sentence=texts)},
        features(),
    )
    source = Speech(dataset=folder, fraction=0.4, seed=1)
    assert source.splits() == ("train", "validation", "test")
    speakers = {
        split: {int(e.name.partition(":")[2]) % 3 for e in source.examples(split, tmp_path)}
        for split in ("train", "validation")
    }
    assert not speakers["train"] & speakers["validation"]
    test = source.examples("test", tmp_path)
    assert [(e.name, e.target) for e in test] == [("test:1", "one two"), ("test:3", "two")]
    assert isinstance(test[0].inputs, StoredFile)
    assert read_sound(test[0].inputs).rate == 8000
    card = source.card(tmp_path)
    assert card["left_out"]["sounds with an empty transcript"]["first"] == ["test:2"]
    assert card["kept_together"] == "each of 3 speakers, and the same samples"
    assert card["form"] == "column 'sentence' of a data set"
    assert len(source.contents()) == 2


def test_a_test_split_without_transcripts_is_none(tmp_path: Path) -> None:
    splits = {"train": rows(0, 12), "test": rows(20, 3, sentence=[None] * 3)}
    folder = write_dataset(tmp_path / "data", splits, features())
    source = Speech(dataset=folder, fraction=0.4, by_speaker=False)
    assert source.splits() == ("train", "validation")
    assert source.card(tmp_path)["without_labels"] == ["test"]


def test_columns_that_are_missing(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", {"train": rows(0, 3)}, features())
    with pytest.raises(DataError, match=r"there is no column 'sentense'; did you mean 'sentence'"):
        Speech(dataset=folder, text_column="sentense").splits()
    with pytest.raises(DataError, match=r"there is no column 'sound'"):
        Speech(dataset=folder, audio_column="sound").splits()
    other = {**rows(0, 3), "words": ["a", "b", "c"]}
    del other["sentence"]
    named = {**features(), "words": datasets.Value("string")}
    del named["sentence"]
    folder = write_dataset(tmp_path / "other", {"train": other}, named)
    with pytest.raises(
        DataError, match=r"no column of the usual names: text, .*Name the column of"
    ):
        Speech(dataset=folder).splits()
