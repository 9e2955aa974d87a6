"""Runs of encoder-decoders in other programs: CTranslate2, onnxruntime and transformers write the
same tokens about held-out inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from encoder_decoders import ENCODER_DECODERS
from tiny_runs import tiny_run

import groundup
from groundup.api import export
from groundup.core.errors import CheckpointError, MissingExtraError
from groundup.export import ctranslate2
from groundup.export.onnx_two_stacks import OnnxTwoStacks
from groundup.export.verify import Model, Sample
from groundup.models.encoder_decoder import EncoderDecoderConfig

pytestmark = pytest.mark.slow
SIZES = {"width": 32, "heads": 2, "context_length": 96}
FAMILIES: dict[str, dict[str, Any]] = {
    "own": {},
    "t5": {
        "positions": "relative",
        "attention_scale": 1.0,
        "activation": "relu",
        "output_scale": True,
        "head_dim": 12,
    },
    "bart": {
        "positions": "learned",
        "position_offset": 2,
        "norm": "layernorm",
        "norm_eps": 1e-5,
        "norm_placement": "post",
        "activation": "gelu",
        "bias": "all",
        "embedding_norm": True,
        "output_bias": True,
    },
    "marian": {
        "positions": "sinusoidal",
        "norm": "layernorm",
        "norm_eps": 1e-5,
        "norm_placement": "post",
        "activation": "silu",
        "bias": "all",
        "embedding_scale": True,
        "output_bias": True,
    },
}


def train(
    folder: Path, family: str = "own", processor: dict[str, Any] | None = None, **changes: Any
) -> Path:
    recipe = tiny_run("encoder_decoder", folder, {**SIZES, **FAMILIES[family], **changes})
    recipe["processor"] = processor or {"name": "bpe", "vocab_size": 300}
    recipe["optim"] = {"lr": 0.01}
    return groundup.train(recipe, runs=folder).folder


def compared(folder: Path) -> list[dict[str, Any]]:
    record = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    assert record["samples_from"] == "validation data"
    found: list[dict[str, Any]] = record["comparisons"]
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_ctranslate2_writes_the_same(family: str, tmp_path: Path) -> None:
    run = train(tmp_path, family)
    folder = export(run, "ctranslate2", new_tokens=40)
    assert folder == run / "export" / "ctranslate2-fp32"
    (found,) = compared(folder)
    assert found["other"].startswith("ctranslate2 ")
    assert found["same_continuations"] == found["samples"] == 8
    assert found["relative_difference"] < 1e-4
    # As a user translates: the names of tokens, from the folder alone.
    predictor = groundup.load(run)
    names = ctranslate2.token_names(folder, predictor.processor.vocabulary_size)
    translator = ctranslate2.require_ctranslate2().Translator(str(folder))
    text = "_@@_"
    source = [*predictor.processor.encode_batch([text])[0].tolist(), predictor.processor.end_id]
    options = {"beam_size": 1, "max_decoding_length": 12, "min_decoding_length": 0}
    written = translator.translate_batch([[names[token] for token in source]], **options)
    tokens = [names.index(name) for name in written[0].hypotheses[0]]
    assert predictor.processor.decode(tokens) == predictor(text, max_new_tokens=12)


def test_ctranslate2_in_fewer_bits(tmp_path: Path) -> None:
    run = train(tmp_path)
    sizes = {}
    for dtype in ("fp32", "fp16", "bf16", "int8"):
        folder = export(run, "ctranslate2", dtype=dtype, tolerance=0.5)
        compared(folder)
        sizes[dtype] = (folder / "model.bin").stat().st_size
    assert sizes["int8"] < sizes["fp16"] == sizes["bf16"] < 0.6 * sizes["fp32"]


def test_what_ctranslate2_has_not(tmp_path: Path) -> None:
    run = train(tmp_path, copying=True)
    message = (
        r"model: CTranslate2 has no decoder that copies tokens of its input \(copying: true\)\."
        " Export it to onnx, or train with copying: false"
    )
    with pytest.raises(CheckpointError, match=message):
        export(run, "ctranslate2")
    other = tmp_path / "gpt"
    other.mkdir()
    model = groundup.train(tiny_run("gpt", other), runs=other).folder
    with pytest.raises(CheckpointError, match="model: DecoderLM is no encoder with a decoder"):
        export(model, "ctranslate2")
    assert not list((run / "export").glob("*"))


def test_a_folder_that_ctranslate2_does_not_open(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"does not open the folder .* of ctranslate2"):
        ctranslate2.CTranslate2(tmp_path, (["a"], ["a"]), "fp32")


def test_names_of_tokens_without_a_tokenizer(tmp_path: Path) -> None:
    assert ctranslate2.token_names(tmp_path, 2) == ["<token_0>", "<token_1>"]


def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ctranslate2", None)
    with pytest.raises(MissingExtraError, match=r"ctranslate2"):
        ctranslate2.require_ctranslate2()


@pytest.mark.parametrize(("family", "changes"), [("own", {"copying": True}), ("bart", {})])
def test_onnxruntime_writes_the_same(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    run = train(tmp_path, family, **changes)
    folder = export(run, "onnx", new_tokens=40)
    (found,) = compared(folder)
    assert found["other"].startswith("onnxruntime ")
    assert found["same_continuations"] == found["samples"] == 8
    assert {"encoder.onnx", "decoder.onnx", "tokenizer.json"} <= {p.name for p in folder.iterdir()}
    # Any number of tokens at once after any number of others.
    model = groundup.load(run).model
    assert isinstance(model, torch.nn.Module)
    reader = OnnxTwoStacks(folder, model)  # type: ignore[arg-type]
    tokens = torch.tensor([[0, 5, 6, 7, 8]])
    sample = Sample({"source": torch.tensor([[5, 9, 4]]), "tokens": tokens}, 1)
    wanted = Model("the model", model).outputs(sample, range(5))
    for sizes in ([5], [2, 1, 2], [1, 4]):
        kept = reader._read(sample)
        parts = []
        for part in tokens.split(sizes, 1):
            logits, kept = reader._write(kept, part)
            parts.append(logits[0])
        assert (torch.cat(parts) - wanted).abs().max() < 1e-4


@pytest.mark.parametrize("family", ["t5", "bart", "marian"])
def test_transformers_gives_the_same(family: str, tmp_path: Path) -> None:
    folder = export(train(tmp_path, family), "huggingface")
    own, other = compared(folder)
    assert own["other"] == "groundup's reload of the folder"
    assert other["other"].startswith("transformers ")


TWO = {
    "name": "two_tokenizers",
    "source": {"name": "bpe", "vocab_size": 290},
    "target": {"name": "bpe", "vocab_size": 300},
}


@pytest.mark.parametrize("to", ["ctranslate2", "onnx", "huggingface"])
def test_two_vocabularies_elsewhere(to: str, tmp_path: Path) -> None:
    run = train(tmp_path, "marian", TWO)
    model = json.loads((run / "model" / "config.json").read_text(encoding="utf-8"))
    assert (model["vocab_size"], model["decoder_vocab_size"]) == (290, 300)
    assert not model["share_encoder_decoder_embeddings"]
    found = compared(export(run, to, new_tokens=20))
    assert found[-1]["same_continuations"] == (None if to == "huggingface" else 8)


def test_every_shape_in_ctranslate2(tmp_path: Path) -> None:
    shapes = [each for each in ENCODER_DECODERS["encoder_decoder"] if "copying" not in each]
    for number, settings in enumerate(shapes):
        torch.manual_seed(0)
        model = EncoderDecoderConfig(**settings, init_std=0.3).build().eval()
        if model.output_bias is not None:
            model.output_bias.normal_()
        folder = tmp_path / str(number)
        folder.mkdir()
        source = settings.get("source_vocabulary_size", 30)
        names = (ctranslate2.token_names(folder, source), ctranslate2.token_names(folder, 30))
        before = {name: values.clone() for name, values in model.state_dict().items()}
        ctranslate2.write_folder(folder, model, names, 7, "int8")
        # The library makes integers of copies.
        assert all(torch.equal(before[name], v) for name, v in model.state_dict().items())
        ctranslate2.write_folder(folder, model, names, 7, "fp32")
        reader = ctranslate2.CTranslate2(folder, names, "fp32")
        given = {"source": torch.randint(source, (1, 6)), "tokens": torch.randint(30, (1, 5))}
        given["tokens"][0, 0] = model.start_id
        sample = Sample(given, 1)
        wanted = Model("the model", model).outputs(sample, range(5))
        assert (reader.outputs(sample, range(5)) - wanted).abs().max() < 1e-4
