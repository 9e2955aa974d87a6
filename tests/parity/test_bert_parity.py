"""BERT, RoBERTa and DistilBERT read from folders that transformers wrote are the same model, and
leave as they came."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrained_folders import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from groundup.core.settings import validate
from groundup.formats.huggingface_folder import find_pretrained, read_config
from groundup.models.bert import BERT, BERTConfig
from groundup.weights.load import read_pretrained

SHAPE: dict[str, Any] = {
    **{"vocab_size": 61, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{
        "intermediate_size": 24,
        "max_position_embeddings": 20,
        "num_labels": 3,
        "attn_implementation": "eager",
    },
}
DISTILBERT: dict[str, Any] = {
    **{
        "vocab_size": 61,
        "dim": 16,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 24,
        "max_position_embeddings": 20,
    },
    **{"num_labels": 3, "attn_implementation": "eager"},
}
SHAPES = {
    "Bert": SHAPE,
    "Roberta": (
        SHAPE | {"max_position_embeddings": 22, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
    ),
    "DistilBert": DISTILBERT,
}
KINDS = ("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification")
CASES = [(family, kind) for family in SHAPES for kind in KINDS]
LENGTHS = torch.tensor([18, 7, 1])


def write(folder: Path, family: str, kind: str, **changed: Any) -> Any:
    """Write a random model with ``save_pretrained`` and return it."""
    torch.manual_seed(1)
    module = getattr(transformers, family + kind)(
        getattr(transformers, f"{family}Config")(**SHAPES[family] | changed)
    )
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    module.save_pretrained(folder)
    return module.eval()


def opened(folder: Path, **changed: Any) -> BERT:
    """Return our model of a folder's weights."""
    config = validate(
        BERTConfig, BERTConfig.from_huggingface(read_config(folder)) | changed, "recipe.model"
    )
    model: BERT = config.build()
    model.load_state_dict(read_pretrained(find_pretrained(str(folder)), config), strict=True)
    return model.eval()


def padded() -> tuple[Tensor, Tensor]:
    """Return rows of three lengths, and which of their tokens are no padding."""
    tokens = torch.randint(5, 61, (3, 18))
    mask = torch.arange(18) < LENGTHS[:, None]
    return torch.where(mask, tokens, 1), mask


def near(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.slow
@pytest.mark.parametrize(("family", "kind"), CASES)
@torch.no_grad()
def test_outputs_and_the_way_back(family: str, kind: str, tmp_path: Path) -> None:
    module = write(tmp_path, family, kind)
    model = opened(tmp_path)
    tokens, mask = padded()
    theirs = module(tokens, attention_mask=mask.long())
    expected = theirs.last_hidden_state if kind == "Model" else theirs.logits
    found = model(tokens, LENGTHS)
    each = kind != "ForSequenceClassification"
    near(found[mask] if each else found, expected[mask] if each else expected)
    if "pooler_output" in theirs:
        near(model.features(tokens, LENGTHS), theirs.pooler_output)
    if family == "Bert":
        types = (torch.arange(18) > 4).long().expand(3, -1)
        expected = module(tokens, attention_mask=mask.long(), token_type_ids=types)[0]
        found = model(tokens, LENGTHS, types)
        near(found[mask] if each else found, expected[mask] if each else expected)

    values, tensors = model.config.to_huggingface(model.state_dict())
    stored = load_file(tmp_path / "model.safetensors")
    assert tensors.keys() == stored.keys()
    assert all(torch.equal(tensors[name], stored[name]) for name in stored)
    again = tmp_path / "again"
    again.mkdir()
    (again / "config.json").write_text(json.dumps(values))
    save_file(tensors, again / "model.safetensors", {"format": "pt"})
    assert opened(again).config == model.config
    other = (
        getattr(transformers, family + kind)
        .from_pretrained(again, attn_implementation="eager")
        .eval()
    )
    assert other.config.num_labels == (3 if kind in KINDS[2:] else 2)
    assert torch.equal(
        other(tokens, attention_mask=mask.long())[0], module(tokens, attention_mask=mask.long())[0]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "kind"), [("Bert", "ForMaskedLM"), ("Roberta", "ForSequenceClassification")]
)
def test_gradients_of_the_loss(family: str, kind: str, tmp_path: Path) -> None:
    module = write(tmp_path, family, kind)
    model = opened(tmp_path)
    tokens, mask = padded()
    labels = (
        torch.arange(3)
        if kind != "ForMaskedLM"
        else torch.where(mask & (tokens % 3 == 0), tokens, -100)
    )
    expected = module(tokens, attention_mask=mask.long(), labels=labels).loss
    outputs = model(tokens, LENGTHS, scored=labels >= 0 if labels.dim() == 2 else None)
    loss = torch.nn.functional.cross_entropy(outputs, labels[labels >= 0])
    near(loss.detach(), expected.detach())
    loss.backward()
    expected.backward()
    theirs = {
        n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in module.named_parameters()
    }
    converted = model.config.weights_from_huggingface(theirs)
    for name, parameter in model.named_parameters():
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        assert (found - converted[name]).norm() <= 2e-5 * converted[name].norm() + 1e-8, name


@pytest.mark.slow
@torch.no_grad()
def test_packed_texts_are_the_texts_alone_and_padding_is_found(tmp_path: Path) -> None:
    write(tmp_path, "Roberta", "Model")
    model = opened(tmp_path)
    tokens = torch.randint(5, 61, (2, 10))
    boundaries = torch.tensor([0, 4, 10, 17, 20, 20], dtype=torch.int32)
    positions = torch.tensor([[*range(4), *range(6)], [*range(7), *range(3)]])
    packed = model(tokens, positions=positions, boundaries=boundaries).flatten(0, 1)
    for start, end in ((0, 4), (4, 10), (10, 17), (17, 20)):
        near(packed[start:end], model(tokens.flatten()[None, start:end])[0])
    rows, mask = padded()
    near(model(rows)[mask], model(rows, LENGTHS)[mask])
    near(model.features(rows), model.features(rows, LENGTHS))


@pytest.mark.slow
@pytest.mark.parametrize("family", SHAPES)
def test_other_heads_are_dropped_and_missing_ones_left_open(
    family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, family, "ForMaskedLM")
    settings = BERTConfig.from_huggingface(read_config(tmp_path)) | {"head": "labels", "outputs": 4}
    config = validate(BERTConfig, settings, "recipe.model")
    caplog.set_level("INFO", "groundup")
    found = read_pretrained(find_pretrained(str(tmp_path)), config)
    missing = {"head_pooler.weight", "head_pooler.bias", "head.weight", "head.bias"}
    assert set(config.build().state_dict()) - set(found) == missing
    assert "heads of the pretrained weights that are not used: " in caplog.text
    write(tmp_path, family, "ForSequenceClassification")
    kept = read_pretrained(find_pretrained(str(tmp_path)), config)  # three labels there, four here
    assert set(config.build().state_dict()) - set(kept) == {"head.weight", "head.bias"}


@pytest.mark.slow
@torch.no_grad()
def test_names_of_old_files_and_fewer_positions(tmp_path: Path) -> None:
    module = write(tmp_path, "Bert", "ForPreTraining", architectures=["BertForPreTraining"])
    stored = load_file(tmp_path / "model.safetensors")
    old = {
        n.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): t
        for n, t in stored.items()
    }
    old["bert.embeddings.position_ids"] = torch.arange(20)[None]
    old["cls.predictions.decoder.bias"] = old["cls.predictions.bias"].clone()
    save_file(old, tmp_path / "model.safetensors", {"format": "pt"})
    model = opened(tmp_path, context_length=18)
    assert model.positions.weight.shape == (18, 16)
    tokens, mask = padded()
    near(
        model(tokens, LENGTHS)[mask],
        module(tokens, attention_mask=mask.long()).prediction_logits[mask],
    )


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_what_config_json_leaves_out_is_transformers_default(kind: str) -> None:
    bare = BERTConfig.from_huggingface({"model_type": kind})
    assert bare == BERTConfig.from_huggingface(transformers.AutoConfig.for_model(kind).to_dict())


@pytest.mark.slow
def test_base_is_as_large_as_published() -> None:
    with torch.device("meta"):
        base = BERTConfig.sizes()["base"].model_copy(update={"head": "none"}).build()
        large = BERTConfig.sizes()["large"].model_copy(update={"head": "none"}).build()
    sizes = [sum(p.numel() for p in each.parameters()) for each in (base, large)]
    assert sizes == [109_482_240, 335_141_888]
