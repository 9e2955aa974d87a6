"""What the files next to weights say that has no effect here is named, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

from groundup.formats.left_out import notes_on


def test_generation_settings_that_are_not_done(tmp_path: Path) -> None:
    values = {
        **{"bos_token_id": 1, "eos_token_id": [2, 5], "do_sample": True, "temperature": 0.6},
        **{"top_p": 0.9, "repetition_penalty": 1.1, "transformers_version": "5.23.0"},
        **{"no_repeat_ngram_size": 0, "max_length": 40, "bad_words_ids": []},
        **{"suppress_tokens": [3], "num_beams": 4},
    }
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps(values))
    assert notes_on(tmp_path) == [f"{path}: not done here: suppress_tokens [3], num_beams 4"]


def test_a_forced_first_token_is_done_where_texts_are_written_about_inputs(tmp_path: Path) -> None:
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({"forced_bos_token_id": 3}))
    assert notes_on(tmp_path) == [f"{path}: not done here: forced_bos_token_id 3"]
    (tmp_path / "config.json").write_text(json.dumps({"is_encoder_decoder": True}))
    assert notes_on(tmp_path) == []


def test_what_whisper_says_of_its_texts_is_read_elsewhere(tmp_path: Path) -> None:
    values = {"suppress_tokens": [3], "no_timestamps_token_id": 7, "alignment_heads": [[1, 2]]}
    (tmp_path / "generation_config.json").write_text(json.dumps(values))
    assert notes_on(tmp_path) == []


def test_a_tokenizers_settings(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer_config.json"
    values = {"eos_token": "</s>", "add_bos_token": True, "model_max_length": 10**30}
    path.write_text(json.dumps({**values, "add_eos_token": False}))
    assert notes_on(tmp_path) == []
    path.write_text(json.dumps({**values, "add_eos_token": True, "odd": [1]}))
    assert notes_on(tmp_path) == [f"{path}: not taken over: add_eos_token True, odd [1]"]
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": {}}))
    assert notes_on(tmp_path)[0].endswith("names code of its own (auto_map), which is not run")


def test_chat_templates_next_to_the_one_that_is_used(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer_config.json"
    named = [{"name": name, "template": "x"} for name in ("default", "tool_use")]
    path.write_text(json.dumps({"chat_template": named}))
    said = f"{tmp_path}: chat templates tool_use are left out"
    assert notes_on(tmp_path) == [f"{said}: the one called default is used"]
    path.write_text(json.dumps({"chat_template": named[1:]}))
    none = "none is called default, so none is used; task.template takes one as a file"
    assert notes_on(tmp_path) == [f"{said}: {none}"]
    path.write_text("{}")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("x")
    (tmp_path / "chat_template.jinja").write_text("x")
    assert notes_on(tmp_path) == [f"{said}: chat_template.jinja is used"]
