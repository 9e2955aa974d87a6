"""Every message about merging adapters, and what is said of one that is merged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from groundup.cli.main import app
from groundup.core.errors import CheckpointError, GroundupError, RunError
from groundup.weights.merge_adapters import merge_adapters

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
Q, V, HEAD = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj", "lm_head"


def write(
    folder: Path,
    tensors: dict[str, torch.Tensor] | None = None,
    header: dict[str, str] | None = None,
    **config: Any,
) -> Path:
    """Write an adapter of rank 2 for a layer from 6 numbers to 5."""
    folder.mkdir()
    values = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "task_type": "CAUSAL_LM"}
    values |= {"base_model_name_or_path": "some/base", "target_modules": ["q_proj"], **config}
    (folder / CONFIG).write_text(json.dumps(values))
    torch.manual_seed(len(folder.name))
    held = {"lora_A.weight": torch.randn(2, 6), "lora_B.weight": torch.randn(5, 2)}
    own = {f"base_model.model.{Q}.{name}": value for name, value in held.items()}
    given = {f"base_model.model.{name}": value for name, value in (tensors or {}).items()}
    save_file(own | given, folder / WEIGHTS, metadata=header)
    return folder


def read(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        header = dict(file.metadata() or {})
    return json.loads((folder / CONFIG).read_text()), load_file(folder / WEIGHTS), header


def change(tensors: dict[str, torch.Tensor], module: str = Q) -> torch.Tensor:
    name = f"base_model.model.{module}"
    return tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"]


# ------------------------------------------------------------------------------------- what is said
def test_the_sum_its_settings_and_its_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    more = {f"{V}.lora_A.weight": torch.ones(3, 6), f"{V}.lora_B.weight": torch.ones(4, 3)}
    one = write(tmp_path / "a", header={"base_sha256": "1234"})
    two = write(tmp_path / "bb", more, use_rslora=True, lora_alpha=3, base_model_name_or_path=None)
    nothing = write(tmp_path / "ccc")
    with caplog.at_level("INFO", "groundup"):
        merged = merge_adapters([one, two, nothing], [0.5, -2, 0], tmp_path / "deep" / "out")
    values, tensors, header = read(merged)
    wanted = 0.5 * 2 * change(read(one)[1]) - 2 * 3 / 2**0.5 * change(read(two)[1])
    torch.testing.assert_close(change(tensors), wanted)
    torch.testing.assert_close(change(tensors, V), torch.full((4, 6), -2 * 3 / 3**0.5 * 3))
    assert (values["r"], values["lora_alpha"], values["use_rslora"]) == (4, 4, False)
    assert (values["rank_pattern"], values["alpha_pattern"]) == ({V: 3}, {V: 3.0})
    assert values["base_model_name_or_path"] == "some/base"
    assert header["base_sha256"] == "1234"
    assert json.loads(header["merged"])[1] == {"adapter": str(two), "weight": -2}
    assert caplog.messages == [
        f"{two} does not name its base, which is taken for that of the others",
        f"{one}: weight 0.5, rank 2, alpha 4, 1 layers",
        f"{two}: weight -2, rank 2, 3, alpha 3, 2 layers",
        f"{nothing}: weight 0, rank 2, alpha 4, 1 layers; left out",
        f"{merged}: 3 adapters merged, ranks 3 to 4, 2 layers",
    ]


def test_what_all_hold_alike_is_taken_over(tmp_path: Path) -> None:
    whole = {f"{HEAD}.weight": torch.ones(7, 5)}
    folders = [write(tmp_path / name, whole, modules_to_save=["lm_head"]) for name in ("a", "bb")]
    values, tensors, _ = read(merge_adapters(folders, [1, 1], tmp_path / "out"))
    assert values["modules_to_save"] == ["lm_head"]
    assert torch.equal(tensors[f"base_model.model.{HEAD}.weight"], torch.ones(7, 5))


def test_a_base_in_other_precision_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = write(tmp_path / "a", header={"base_quantised": "int8"})
    merged = merge_adapters([one, write(tmp_path / "bb")], [1, 1], tmp_path / "out")
    assert "trained next to a base in fp32 and int8; merged, they work a little less" in caplog.text
    assert "base_quantised" not in read(merged)[2]
    alike = merge_adapters([one, one], [1, 1], tmp_path / "alike")
    assert read(alike)[2]["base_quantised"] == "int8"


# --------------------------------------------------------------------------------- the command line
@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    one, two = write(tmp_path / "a"), write(tmp_path / "bb")
    out = tmp_path / "out"
    given = ["merge", str(one), str(two), "--out", str(out)]
    done = CliRunner().invoke(app, [*given, "--weights", "-0.5, 1.5"])
    assert done.stdout == f"Wrote {out}\n"
    wanted = -0.5 * 2 * change(read(one)[1]) + 1.5 * 2 * change(read(two)[1])
    torch.testing.assert_close(change(read(out)[1]), wanted)
    done = CliRunner().invoke(app, [*given, "--weights", "1;2"])
    assert isinstance(done.exception, GroundupError)
    assert str(done.exception) == (
        "--weights: '1;2' is no number; allowed: numbers with commas between them. Write it so:"
        " --weights 0.7,0.3."
    )


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([1.0], r"--weights: 1 weights for 2 adapters\. Give one for each adapter, such as --w"),
        ([1.0, 2.0, 3.0], r"3 weights for 2 adapters\. .*--weights 0\.5,0\.5\.$"),
        ([0.0, 0.0], r"--weights: all are 0, which leaves the base as it is\. Give one"),
        ([1.0, float("nan")], "--weights: nan is no weight; allowed: any finite number"),
        ([1.0, float("inf")], "--weights: inf is no weight; allowed: any finite number"),
    ],
)
def test_weights_that_cannot_be(tmp_path: Path, weights: list[float], expected: str) -> None:
    with pytest.raises(RunError, match=expected):
        merge_adapters([tmp_path / "a", tmp_path / "bb"], weights, tmp_path / "out")


def test_a_folder_that_is_there(tmp_path: Path) -> None:
    one = write(tmp_path / "a")
    with pytest.raises(RunError, match=r"a: exists; nothing there was touched\. Choose another -"):
        merge_adapters([one], [1], one)


# ------------------------------------------------------------------------------ what has to be alike
LOW = {f"{V}.lora_A.weight": torch.ones(2, 6), f"{V}.lora_B.weight": torch.ones(5, 2)}
TOKENS = "model.embed_tokens.token_adapter.trainable_tokens_delta"
LEAVE_OUT = r"Leave this adapter out: only changes of low rank can be added up\.$"


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (
            {"header": {"base_sha256": "a" * 64}},
            {"header": {"base_sha256": "b" * 64}},
            r"bb: is for other weights \(SHA-256 bbbbbbbbbbbb\.\.\.\) than .*a \(aaaaaaaaaaaa\.\.\.\)"
            r"\. Merge adapters of one base only\.$",
        ),
        (
            {},
            {"base_model_name_or_path": "other/base", "header": {"base_sha256": "a"}},
            r"base_model_name_or_path is other/base \(main\), but that of .*a is some/base \(main\)\."
            r" Merge adapters of one base only\. If the two are the same weights, write one name in",
        ),
        ({}, {"revision": "v2"}, r"is some/base \(v2\), but that of .*a is some/base \(main\)"),
        ({}, {"task_type": "SEQ_CLS"}, "task_type is SEQ_CLS, but that of .*a is CAUSAL_LM"),
        (
            {},
            {"tensors": {f"{Q}.lora_magnitude_vector": torch.ones(5)}, "use_dora": True},
            rf"bb: is DoRA, which also scales the base's rows\. {LEAVE_OUT}",
        ),
        (
            {},
            {"init_lora_weights": "pissa"},
            r"bb: began with pissa, which took a part off the base\. Save it in PEFT as plain LoRA",
        ),
        (
            {},
            {"tensors": {f"{Q}.lora_B.bias": torch.ones(5)}, "lora_bias": True},
            rf"bb: has lora_bias for {Q}\. {LEAVE_OUT}",
        ),
        (
            {"tensors": {"lm_head.weight": torch.zeros(7, 5)}},
            {"tensors": {"lm_head.weight": torch.ones(7, 5)}},
            r"bb: has other numbers for base_model.model.lm_head.weight than .*a"
            rf" \(modules_to_save\)\. {LEAVE_OUT}",
        ),
        (
            {},
            {"tensors": {f"{Q}.base_layer.bias": torch.ones(5)}, "bias": "all"},
            r"differ: only one of them has .*q_proj.base_layer.bias \(bias\)\. Leave",
        ),
        (
            {"tensors": {TOKENS: torch.ones(1, 6)}, "trainable_token_indices": [3]},
            {"tensors": {TOKENS: torch.ones(1, 6)}, "trainable_token_indices": [4]},
            "bb/adapter_config.json: trainable_token_indices are others than those of .*a",
        ),
        (
            {"tensors": {TOKENS: torch.zeros(1, 6)}, "trainable_token_indices": [3]},
            {"tensors": {TOKENS: torch.ones(1, 6)}, "trainable_token_indices": [3]},
            r"trainable_tokens_delta than .*a \(trainable_token_indices\)",
        ),
        (
            {"ensure_weight_tying": True},
            {
                "tensors": {
                    "lm_head.lora_A.weight": torch.ones(2, 6),
                    "lm_head.lora_B.weight": torch.ones(9, 2),
                }
            },
            "bb: changes lm_head alone; another changes it with ensure_weight_tying",
        ),
        (
            {"tensors": LOW},
            {
                "tensors": {
                    f"{V}.lora_A.weight": torch.ones(2, 6),
                    f"{V}.lora_B.weight": torch.ones(8, 2),
                }
            },
            rf"bb: adapts {V} from 6 numbers to 8, but .*a from 6 to 5\. Merge adapters of one",
        ),
        (
            {},
            {"tensors": {f"{V}.lora_A.weight": torch.ones(2, 6)}},
            rf"bb: lacks lora_B of {V}\. Restore it",
        ),
        ({}, {"peft_type": "IA3"}, "bb/adapter_config.json: peft_type is .*; allowed: LORA"),
        ({}, {"layer_replication": [[0, 1]]}, "layer_replication is .*, which is not built here"),
    ],
)
def test_adapters_that_do_not_go_together(
    tmp_path: Path, one: dict[str, Any], other: dict[str, Any], expected: str
) -> None:
    folders = [write(tmp_path / "a", **one), write(tmp_path / "bb", **other)]
    with pytest.raises(CheckpointError, match=expected):
        merge_adapters(folders, [1, 1], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "bb"]


def test_no_adapter(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(CheckpointError, match=r"a: holds no adapter .* Give a folder in PEFT's"):
        merge_adapters([tmp_path / "a"], [1], tmp_path / "out")


def test_one_base_by_two_names_and_the_remedy(tmp_path: Path) -> None:
    one = write(tmp_path / "a")
    two = write(tmp_path / "bb", base_model_name_or_path="copy/of-base")
    with pytest.raises(CheckpointError, match="write one name in both files"):
        merge_adapters([one, two], [1, 1], tmp_path / "out")
    values = json.loads((two / CONFIG).read_text())
    (two / CONFIG).write_text(json.dumps(values | {"base_model_name_or_path": "some/base"}))
    merge_adapters([one, two], [1, 1], tmp_path / "out")
    # Where both say what weights they are for, their names do not matter.
    header = {"base_sha256": "1"}
    known = [
        write(tmp_path / name, header=header, base_model_name_or_path=name) for name in ("d", "ee")
    ]
    merge_adapters(known, [1, 1], tmp_path / "known")
