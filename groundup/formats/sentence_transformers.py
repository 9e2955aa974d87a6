"""How a folder of the library `sentence-transformers` says that the states of a text become a
vector: modules.json, and a folder for each module."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from groundup.core.errors import CheckpointError
from groundup.formats.huggingface_folder import read_object

__all__ = ["describe_modules", "read_left_out", "read_max_tokens", "read_pooling"]

_MODES = {  # theirs, and groundup's
    "mean": "mean",
    "cls": "first",
    "max": "max",
    "lasttoken": "last",
    "weightedmean": "weighted_mean",
    # A vector of length 1 is the same whatever a sum of states is divided by.
    "mean_sqrt_len_tokens": "mean",
}
_FLAGS = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "lasttoken": "pooling_mode_lasttoken",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
}
# A prompt that is left out of the mean is none here, where no prompt is put in front of a text.
_KNOWN = re.compile(r"pooling_mode(_.*)?|(word_)?embedding_dimension|include_prompt")
_FEWEST = 3  # tokens of a text: a word, and those around it
_READ = ("Transformer", "Pooling", "Normalize")


def _modules(folder: Path) -> list[tuple[str, str]]:
    """Return the kind and the folder of each module."""
    path = folder / "modules.json"
    if not path.is_file():
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [(str(each["type"]).rpartition(".")[2], str(each["path"])) for each in found]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            str(path), f"holds no list of modules: {type(error).__name__}", "Fetch the model again"
        ) from None


def read_pooling(folder: Path) -> str | None:
    """Return how a folder makes one vector of a text's states: ``mean``, ``first``, ``max``,
    ``last`` or ``weighted_mean``; None where it does not say.

    Raises:
        CheckpointError: If a file is damaged, or says what is not built here.
    """
    places = [place for kind, place in _modules(folder) if kind == "Pooling"] or ["1_Pooling"]
    path = folder / places[0] / "config.json"
    if not path.is_file():
        return None
    values = read_object(path)
    odd = [key for key in values if not _KNOWN.fullmatch(key) and values[key] not in (None, False)]
    if odd:
        raise CheckpointError(
            str(path), f"has keys that are not known here: {', '.join(odd)}", "Set task.pooling"
        )
    given = values.get("pooling_mode")
    if given is None:
        modes = [mode for mode, flag in _FLAGS.items() if values.get(flag)]
        others = {key for key in values if key.startswith("pooling_mode_")} - {*_FLAGS.values()}
        modes += [key for key in sorted(others) if values[key]]
        modes = modes or ["mean"]
    else:
        modes = given if isinstance(given, list) else [given]
    if len(modes) != 1 or modes[0] not in _MODES:
        problem = f"makes vectors by {', '.join(map(str, modes))}; allowed: one of"
        raise CheckpointError(
            str(path), f"{problem} {', '.join(_MODES)}", "Set task.pooling to what comes next to it"
        )
    return _MODES[modes[0]]


def read_max_tokens(folder: Path) -> int | None:
    """Return to how many tokens a folder cuts texts; None where it does not say.

    Raises:
        CheckpointError: If it is no number of tokens.
    """
    path = folder / "sentence_bert_config.json"
    found = read_object(path).get("max_seq_length") if path.is_file() else None
    if found is None:
        return None
    if type(found) is not int or found < _FEWEST:
        raise CheckpointError(
            str(path),
            f"max_seq_length is {str(found)[:40]}; allowed: a whole number from {_FEWEST}",
            "Set task.max_tokens",
        )
    return found


def read_left_out(folder: Path) -> list[str]:
    """Return what a folder does to make vectors that is not done here, in words."""
    notes = [
        f"{folder / 'modules.json'}: {place or kind} ({kind}) is left out: vectors are those that"
        " come before it"
        for kind, place in _modules(folder)
        if kind not in _READ
    ]
    kinds = [kind for kind, _ in _modules(folder)]
    if kinds and "Normalize" not in kinds:
        notes.append(
            f"{folder / 'modules.json'}: has no Normalize, but vectors have length 1 here: cosines"
            " are the same, dot products are not"
        )
    path = folder / "sentence_bert_config.json"
    if path.is_file() and read_object(path).get("do_lower_case"):
        notes.append(f"{path}: do_lower_case: texts are read as the tokenizer reads them")
    path = folder / "config_sentence_transformers.json"
    values = read_object(path) if path.is_file() else {}
    prompts = values.get("prompts")
    used = {k: v for k, v in prompts.items() if v} if isinstance(prompts, dict) else {}
    if used:
        name = values.get("default_prompt_name")
        said = f" (by default {name})" if name else ""
        notes.append(
            f"{path}: prompts{said} are not put in front of texts:"
            f" {', '.join(f'{k} {v!r}' for k, v in list(used.items())[:3])}; write them into the"
            " data where they belong"
        )
    return notes


def describe_modules(pooling: str, width: int, max_tokens: int) -> dict[str, dict[str, Any] | Any]:
    """Return files by name that tell `sentence-transformers` to make vectors of length 1 in this
    way.

    Args:
        pooling: As ``read_pooling`` returns it.
        width: Numbers of a vector.
        max_tokens: Longer texts are cut to it.
    """
    library = "sentence_transformers.models"
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"{library}.{kind}"}
        for number, (path, kind) in enumerate(kinds)
    ]
    flags = {flag: _MODES[mode] == pooling for mode, flag in _FLAGS.items()}
    flags[_FLAGS["mean_sqrt_len_tokens"]] = False
    return {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": max_tokens, "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": width, **flags},
    }
