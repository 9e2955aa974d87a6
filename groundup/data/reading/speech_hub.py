"""Sounds and transcripts in the rows of a Hugging Face data set."""

from __future__ import annotations

from typing import Any

from groundup.core.errors import DataError, did_you_mean
from groundup.data.reading.hub import HubTable
from groundup.data.reading.hub_splits import HubOrigin, file_column
from groundup.data.reading.speech_tables import TEXT_COLUMNS, speaker_of
from groundup.data.reading.utterances import SpeechColumns, Transcripts, Utterance, one_line

__all__ = ["read_hub_speech"]


def read_hub_speech(
    hub: HubOrigin, columns: SpeechColumns
) -> tuple[Transcripts, str, dict[str, Any]]:
    """Return what is said in the sounds of all splits, none of which is read; a key that changes
    when a row does; and what a data card says of the data set.

    Raises:
        DataError: If a column is missing or cannot be found.
    """
    names = hub.names()
    tables = {split: hub.table(name) for split, name in names.items()}
    text = _text_column(tables["train"], columns.text)
    # Challenges publish their test without transcripts, which is then none.
    if "test" in tables and hub.test is None and not _has_texts(tables["test"], text):
        del tables["test"]
    transcripts = Transcripts(f"column {text!r} of a data set")
    for split, table in tables.items():
        audio = file_column(table, "audio", columns.audio)
        if text not in table.columns:
            raise _missing(table, text)
        others = [name for name in table.columns if table.columns[name] in ("text", "value")]
        rows = {name: table.values(name) for name in others}
        for number, value in enumerate(table.values(text)):
            where = table.origin(number)
            row = {name: values[number] for name, values in rows.items()}
            name = f"{table.split}:{number + 1}"
            words = one_line(value, where, f"column {text!r}")
            sound = table.file(audio, number)
            transcripts.add(Utterance(sound, name, words, where, speaker_of(row), split, "", row))
    key = "".join(table.key for table in tables.values())
    return transcripts, key, hub.about(tables)


def _text_column(table: HubTable, named: str | None) -> str:
    if named is not None and named in table.columns:
        return named
    found = [name for name in TEXT_COLUMNS if name in table.columns]
    if named is None and found:
        return found[0]
    raise _missing(table, named)


def _missing(table: HubTable, named: str | None) -> DataError:
    wanted = f"of the usual names: {', '.join(TEXT_COLUMNS)}"
    if named is not None:
        wanted = repr(named)
    guess = did_you_mean(named or "text", table.columns)
    return DataError(
        table.where,
        f"there is no column {wanted}; {guess}columns: {', '.join(table.columns)}",
        "Name the column of the transcripts as data.text_column",
    )


def _has_texts(table: HubTable, text: str) -> bool:
    return text in table.columns and any(table.values(text))
