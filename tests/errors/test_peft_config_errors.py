"""Keys of adapter_config.json: honoured, at a value that changes nothing, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from groundup.core.errors import CheckpointError
from groundup.formats.huggingface_folder import read_config
from groundup.weights.peft_config import read_peft_config
from groundup.weights.peft_layout import read_files

FILE = Path("folder/adapter_config.json")
PLAIN: dict[str, Any] = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (
            {"r": -2},
            r"adapter_config.json: r is -2; allowed: a whole number above 0\. Restore the file",
        ),
        ({"r": "two"}, 'r is "two"; allowed: a whole'),
        ({"r": 1.5}, "r is 1.5; allowed"),
        ({"lora_alpha": 0}, "lora_alpha is 0; allowed: a number above 0"),
        ({"lora_alpha": None}, "lora_alpha is null"),
        ({"lora_alpha": float("nan")}, "lora_alpha is NaN"),
        ({"lora_alpha": [1]}, r"lora_alpha is \[1\]"),
        ({"use_dora": "yes"}, 'use_dora is "yes"; allowed: true or false'),
        ({"use_rslora": 3}, "use_rslora is 3"),
        ({"target_modules": 7}, "target_modules is 7; allowed: names"),
        ({"modules_to_save": [3]}, r"modules_to_save is \[3\]"),
        ({"layers_pattern": 3}, "layers_pattern is 3"),
        ({"rank_pattern": ["q"]}, r"rank_pattern is \[\"q\"\]; allowed: numbers by modules' names"),
        ({"alpha_pattern": "q"}, 'alpha_pattern is "q"'),
        ({"alpha_pattern": {"q(": 2}}, r"alpha_pattern is \"q\(\"; allowed: regular expressions"),
        ({"alpha_pattern": {"q": "two"}}, 'alpha_pattern q is "two"; allowed: a number above 0'),
        ({"alpha_pattern": {"q": -1}}, "alpha_pattern q is -1"),
        ({"peft_type": ["LORA"]}, r'peft_type is \["LORA"\]; allowed: LORA'),
        ({"peft_type": None}, "peft_type is null; allowed: LORA"),
        (
            {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4},
            "allowed: LORA. Use another adapter: one that is put in front of texts cannot be merged",
        ),
        ({"lora_dropout": 1.5}, "lora_dropout is 1.5; allowed: a number from 0 to below 1"),
        ({"rank_pattern": {"q": 0}}, "rank_pattern q is 0; allowed: a whole number above 0"),
        ({"trainable_token_indices": [-1]}, r"trainable_token_indices is \[-1\]; allowed: numbers"),
        ({"init_lora_weights": "corda"}, "init_lora_weights is corda: it took directions that"),
        ({"init_lora_weights": "loftq"}, "init_lora_weights is loftq: it took what few bits lose"),
        ({"init_lora_weights": "lora_ga"}, "init_lora_weights is lora_ga: it took gradients of"),
        ({"init_lora_weights": "best"}, 'init_lora_weights is "best"; allowed: true, false, gaus'),
        ({"layer_replication": [[0, 1]]}, "layer_replication is .*: layers are repeated, which is"),
        ({"use_qalora": True}, "use_qalora is true: inputs are pooled"),
        ({"target_parameters": ["x"]}, "target_parameters is .*: parameters that are no layers"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens is .*: the adapter begins at"),
        (
            {"lora_bais": True},
            "lora_bais is true, a key that is not known here; did you mean 'lora_b",
        ),
    ],
)
def test_values_that_are_refused(changed: dict[str, Any], expected: str) -> None:
    with pytest.raises(CheckpointError, match=expected):
        read_peft_config(FILE, PLAIN | changed)


@pytest.mark.parametrize(
    "neutral",
    [
        {"a_key_of_tomorrow": None},
        {"kasa_config": {}},
        {"target_parameters": []},
        {"use_qalora": False, "qalora_group_size": 16},
        {"eva_config": {"rho": 2.0}, "init_lora_weights": "eva"},
        {"auto_mapping": {"base_model_class": "X", "unsloth_fixed": True}},
    ],
)
def test_values_that_change_nothing(neutral: dict[str, Any]) -> None:
    assert read_peft_config(FILE, PLAIN | neutral) == read_peft_config(FILE, PLAIN)


def test_what_is_honoured() -> None:
    found = read_peft_config(
        FILE,
        PLAIN
        | {
            "use_dora": True,
            "use_rslora": True,
            "lora_dropout": 0.1,
            "rank_pattern": {"q_proj": 2},
            "alpha_pattern": {r"layers\.1\..*": 32},
            "trainable_token_indices": {"embed_tokens": [1, 2]},
            "ensure_weight_tying": True,
        },
    )
    assert (found.settings.name, found.settings.dropout) == ("dora", 0.1)
    assert (found.rank("model.layers.0.q_proj"), found.rank("model.layers.0.v_proj")) == (2, 4)
    assert found.scale("model.layers.1.v_proj", 4) == 16.0
    assert found.scale("model.layers.0.v_proj", 4) == 4.0
    assert found.tokens == {"embed_tokens": (1, 2)}
    assert found.tied


def test_an_adapter_as_pickle_and_in_place_of_a_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "a/b"}))
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=r"as pickle only \(adapter_model.bin\), which can run"
    ):
        read_files(tmp_path)
    with pytest.raises(CheckpointError, match=r"holds an adapter .* and no model") as caught:
        read_config(tmp_path)
    remedy = f"Start from its base (a/b), and set adapter: {{path: {tmp_path}}}"
    assert caught.value.remedy == remedy
