"""The files of a processor's folder, and what is wrong with a text that no file could hold."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from groundup.core.errors import DataError

__all__ = [
    "read_json",
    "read_template",
    "refuse_surrogates",
    "saved_settings",
    "tokenizer_config",
    "write_json",
    "write_text",
]


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        DataError: If the file is missing or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(str(path), "no such file", "Give the folder of a saved processor") from None
    except (ValueError, OSError) as error:
        raise DataError(
            str(path), f"cannot be read as JSON: {error}", "Save the processor again"
        ) from None
    if not isinstance(value, dict):
        raise DataError(str(path), "holds no JSON object", "Save the processor again")
    return value


@contextmanager
def saved_settings(folder: Path) -> Iterator[dict[str, Any]]:
    """Give what a processor's processor.json holds, to make the processor of.

    Raises:
        DataError: If the file is missing, or no processor can be made of it.
    """
    path = folder / "processor.json"
    saved = read_json(path)
    try:
        yield saved
    except (KeyError, TypeError, ValueError, IndexError) as error:
        first = f"{type(error).__name__} {error}".splitlines()[0]
        raise DataError(str(path), f"is damaged: {first}", "Train the run again") from None


def read_template(folder: Path) -> str | None:
    """Return the source in ``chat_template.jinja`` exactly, or None.

    Raises:
        DataError: If the file is not UTF-8.
    """
    path = folder / "chat_template.jinja"
    try:
        # Reading it as text would change its line ends, which are part of the template.
        return path.read_bytes().decode() if path.is_file() else None
    except UnicodeDecodeError as error:
        raise DataError(
            str(path), f"is not UTF-8 at byte {error.start}", "Save the template as UTF-8"
        ) from None


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON, readable and without escapes."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def write_text(path: Path, text: str | None) -> None:
    """Write a text exactly, or remove the file when there is none."""
    if text is None:
        path.unlink(missing_ok=True)
    else:
        # Line ends stay as they are, on Windows too.
        path.write_text(text, encoding="utf-8", newline="")


def tokenizer_config(
    end_token: str, start_token: str | None, encoder: Mapping[str, str] | None = None
) -> dict[str, object]:
    """Return what lets ``transformers.AutoTokenizer`` open the folder; ``encoder`` are tokens such
    as ``mask``."""
    config: dict[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": end_token,
    }
    config |= {f"{name}_token": token for name, token in (encoder or {}).items()}
    # Its default joins words and marks when decoding: text would not come back as it was.
    config["clean_up_tokenization_spaces"] = False
    if start_token:
        config["bos_token"] = start_token
    return config


def refuse_surrogates(texts: Sequence[str]) -> None:
    """Raise an error that says where the first lone surrogate of these texts is, if there is one.

    Raises:
        DataError: If a text holds one, which no UTF-8 text can.
    """
    for number, text in enumerate(texts):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            near = text[max(0, error.start - 20) : error.start]
            surrogate = f"U+{ord(text[error.start]):04X}"
            raise DataError(
                f"text {number} of the batch, character {error.start}",
                f"a lone surrogate {surrogate} after {near!r}, which UTF-8 cannot hold",
                "Clean the data, for example with text.encode('utf-8', 'replace').decode()",
            ) from None
