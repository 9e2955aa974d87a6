"""What the files next to pretrained weights say that is not taken over, named key by key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundup.formats.generation_config import NAME, unused_keys
from groundup.formats.huggingface_folder import read_object

__all__ = ["notes_on"]

# What is read, or has no effect on which tokens a text is or how a model continues it.
_TOKENIZER = re.compile(
    r"(bos|eos|unk|sep|pad|cls|mask)_token(_id|_type_id)?|add_bos_token|chat_template"
    r"|(added_tokens_decoder|additional_special_tokens|extra_special_tokens|special_tokens)"
    r"|model_max_length|max_length|stride|(padding|truncation)(_side|_strategy)?|pad_to_multiple_of"
    r"|(tokenizer|processor)_class|auto_map|backend|is_local|legacy|use_fast|.*name_or_path|.*_file"
    r"|model_input_names|sp_model_kwargs|use_default_system_prompt|transformers_version|errors"
    r"|local_files_only|trust_remote_code|model_specific_special_tokens|vocab_size|image_token|audio_token|files_loaded"
    # Of these tokenizer.json has the effect.
    r"|do_lower_case|do_basic_tokenize|never_split|strip_accents|tokenize_chinese_chars|lowercase"
    r"|add_prefix_space|trim_offsets|normalization|remove_space|keep_accents|bos_token_id"
)
_NEUTRAL_TOKENIZER: dict[str, Any] = {
    "add_eos_token": False,
    "split_special_tokens": False,
    "clean_up_tokenization_spaces": False,
    "spaces_between_special_tokens": False,
}


def notes_on(folder: Path) -> list[str]:
    """Return what a reader should know about a folder: code that it names, which is not run, and
    what its files say that has no effect here."""
    files = {
        name: read_object(folder / name)
        for name in ("config.json", "tokenizer_config.json")
        if (folder / name).is_file()
    }
    notes = [
        f"{folder / name} names code of its own (auto_map), which is not run"
        for name in ("config.json", "tokenizer_config.json")
        if "auto_map" in files.get(name, {})
    ]
    said = _others(files.get("tokenizer_config.json", {}), _TOKENIZER, _NEUTRAL_TOKENIZER)
    if said:
        notes.append(f"{folder / 'tokenizer_config.json'}: not taken over: {said}")
    notes += _unused_templates(folder, files.get("tokenizer_config.json", {}))
    said = unused_keys(folder)
    if said:
        notes.append(f"{folder / NAME}: not done here: {said}")
    return notes


def _others(found: Mapping[str, Any], known: re.Pattern[str], neutral: Mapping[str, Any]) -> str:
    """Return the keys that are neither known nor neutral, with their values, in words."""
    left = [
        f"{key} {str(value)[:40]}"
        for key, value in found.items()
        if not known.fullmatch(key) and value not in (None, neutral.get(key))
    ]
    return ", ".join(left)


def _unused_templates(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """Return what there is to say of chat templates next to the one that is used."""
    listed = config.get("chat_template")
    names = [path.stem for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))]
    if isinstance(listed, list):
        names += [str(each.get("name")) for each in listed if isinstance(each, dict)]
    left = [name for name in dict.fromkeys(names) if name != "default"]
    if not left:
        return []
    used = "the one called default is used"
    if (folder / "chat_template.jinja").is_file():
        used = "chat_template.jinja is used"
    elif "default" not in names:
        used = "none is called default, so none is used; task.template takes one as a file"
    return [f"{folder}: chat templates {', '.join(left)} are left out: {used}"]
