"""What generation_config.json says of how a model's text is written: which tokens end it, how the
next one is chosen, and what is not done here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundup.core.errors import CheckpointError
from groundup.formats.huggingface_folder import GENERATION, read_object

__all__ = [
    "NAME",
    "describe_generation",
    "read_decoding",
    "read_end_ids",
    "read_first_token",
    "unused_keys",
]

NAME = GENERATION
# What is read by the names of ``DecodingOptions``, and the values that choose nothing.
_SAMPLING: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
_PENALTY = "repetition_penalty"
_FIRST = "forced_bos_token_id"
_WITHOUT_EFFECT = re.compile(
    r"(bos|eos|pad|decoder_start)_token_id|_from_model_config|transformers_version|use_cache"
    r"|return_dict.*|output_.*|trust_remote_code|do_sample|cache_.*|max_(new_tokens|length)"
    r"|(max|prefill_chunk)_(time|size)|disable_compile|compile_config|use_model_defaults|_.*"
)
# Of Whisper's files: the task that transcribes reads them, or makes the same of other keys.
_OF_WHISPER = re.compile(
    r"(begin_)?suppress_tokens|forced_decoder_ids|no_timestamps_token_id|prev_sot_token_id"
    r"|alignment_heads|is_multilingual|lang_to_id|task_to_id|max_initial_timestamp_index"
)
_NEUTRAL: dict[str, Any] = {
    "typical_p": 1.0,
    "length_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "num_beams": 1,
    "num_beam_groups": 1,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "num_return_sequences": 1,
    "diversity_penalty": 0.0,
    "min_length": 0,
    "min_new_tokens": 0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "top_h": 1.0,
    "guidance_scale": 1.0,
}


def read_end_ids(folder: Path) -> tuple[int, ...]:
    """Return the tokens that end a text, as generation_config.json lists them, else config.json;
    () where neither does.

    Raises:
        CheckpointError: If what is there are no tokens.
    """
    for path in (folder / NAME, folder / "config.json"):
        found = _read(path).get("eos_token_id")
        if found is None:
            continue
        ends = found if isinstance(found, list) else [found]
        # -1 is written where there is none.
        if all(type(end) is int for end in ends):
            return tuple(dict.fromkeys(end for end in ends if end >= 0))
        raise CheckpointError(
            str(path),
            f"eos_token_id is {str(found)[:60]}; allowed: a token's number, or a list of them",
            "Fetch the model again",
        )
    return ()


def read_first_token(folder: Path) -> str | int | None:
    """Return the token that every text begins with, as generation_config.json says, or config.json
    where there is no such file; by its name in tokenizer.json, where it has one.

    Raises:
        CheckpointError: If what is there is no token.
    """
    path = folder / NAME
    if not path.is_file():
        path = folder / "config.json"
    found = _read(path).get(_FIRST)
    if found is None:
        return None
    if type(found) is not int or found < 0:
        problem = f"{_FIRST} is {str(found)[:60]}; allowed: a token's number"
        raise CheckpointError(str(path), problem, "Correct or remove it")
    added = _read(folder / "tokenizer.json").get("added_tokens")
    for each in added if isinstance(added, list) else ():
        if isinstance(each, dict) and each.get("id") == found and each.get("special"):
            return str(each.get("content"))
    return found


def read_decoding(folder: Path) -> dict[str, Any]:
    """Return how the next token is chosen where nothing else is asked for, as ``DecodingOptions``
    names it; {} where the file does not say.

    Temperature, top_k, top_p and min_p count with ``do_sample`` alone, as in ``transformers``.

    Raises:
        CheckpointError: If a value is no number, or not one that can be.
    """
    path = folder / NAME
    values = _read(path)
    found: dict[str, Any] = {}
    for key, neutral in {**_SAMPLING, _PENALTY: 1.0}.items():
        value = values.get(key)
        if value is None or (key != _PENALTY and not values.get("do_sample")):
            continue
        # In Python true is a number, and would be a temperature of 1.
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value < 1e6 or (key in ("top_p", "min_p") and value > 1):
            problem = f"{key} is {str(value)[:60]}; allowed: a number that {key} can be"
            raise CheckpointError(str(path), problem, "Correct or remove it")
        if value != neutral:
            found[key] = value
    # A file may say no more than that tokens are drawn: by their own probabilities then.
    if values.get("do_sample"):
        found.setdefault("temperature", 1.0)
        if found["temperature"] == 0:
            found = {key: found[key] for key in ("temperature", _PENALTY) if key in found}
    if found.get("top_k"):
        found["top_k"] = int(found["top_k"])
    return found


def unused_keys(folder: Path) -> str:
    """Return what the file says that is not done here, key by key; empty: nothing."""
    values = _read(folder / NAME)
    done = {*_SAMPLING, _PENALTY}
    # What goes on from a text is not made to begin in any way.
    if _read(folder / "config.json").get("is_encoder_decoder"):
        done.add(_FIRST)
    # No other family says how its texts begin where no times are wanted.
    elsewhere = _OF_WHISPER if "no_timestamps_token_id" in values else _WITHOUT_EFFECT
    left = [
        f"{key} {str(value)[:40]}"
        for key, value in values.items()
        # False and what is empty ask for nothing, whatever they are about.
        if not (_WITHOUT_EFFECT.fullmatch(key) or elsewhere.fullmatch(key))
        and key not in done
        and value not in (None, False, [], {}, "", _NEUTRAL.get(key))
    ]
    return ", ".join(left)


def describe_generation(
    begin: int, ends: tuple[int, ...], decoding: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the contents of generation_config.json."""
    values: dict[str, Any] = {"bos_token_id": begin}
    values["eos_token_id"] = list(ends) if len(ends) > 1 else ends[0]
    # A temperature is what tells that tokens are drawn.
    if decoding.get("temperature"):
        values["do_sample"] = True
    return values | dict(decoding)


def _read(path: Path) -> dict[str, Any]:
    return read_object(path) if path.is_file() else {}
