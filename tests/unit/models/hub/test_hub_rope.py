"""Longer contexts by stretched positions, of architectures of transformers: its own logits, and
each text its own length."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrained_folders import recipe_for, transformers, write_tokenizer
from safetensors.torch import save_file
from tiny_families import tiny_model

from groundup.core.errors import RecipeError
from groundup.core.settings import validate
from groundup.formats.huggingface_folder import find_pretrained, read_config
from groundup.generation.decoding import generate_batch
from groundup.generation.options import DecodingOptions
from groundup.models.hub.config import HubConfig
from groundup.recipe.recipe import load_recipe
from groundup.weights.load import read_pretrained

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("transformers")]
GREEDY = DecodingOptions(max_new_tokens=6, temperature=0)


def settings(folder: Path, kind: str, **changed: Any) -> HubConfig:
    scaling: dict[str, Any] = {"kind": kind, "factor": 4.0}
    if kind != "linear":
        scaling["original_context"] = 16
    found = HubConfig.from_huggingface(read_config(folder))
    found |= {"rope_scaling": scaling, "context_length": 64}
    return validate(HubConfig, found | changed, "recipe.model")


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        *(("olmo2", kind) for kind in ("linear", "dynamic", "yarn", "llama3")),
        ("modernbert-decoder", "dynamic"),  # layers of two kinds, of which one is stretched
        ("gpt_neox", "yarn"),  # rotary in part
    ],
)
@torch.no_grad()
def test_logits_and_files_are_those_of_transformers(family: str, kind: str, tmp_path: Path) -> None:
    base, own = tmp_path / "base", tmp_path / "own"
    plain = tiny_model(family, "ForCausalLM", max_position_embeddings=16)
    plain.save_pretrained(base)
    config = settings(base, kind)
    model = config.build().eval()
    model.load_state_dict(read_pretrained(find_pretrained(str(base)), config))
    values, tensors = config.to_huggingface(model.state_dict())
    own.mkdir()
    (own / "config.json").write_text(json.dumps(values))
    save_file(tensors, own / "model.safetensors", metadata={"format": "pt"})
    tokens = torch.randint(4, 96, (2, 40), generator=torch.Generator().manual_seed(0))

    def expected(ids: Any) -> Any:
        # Opened for each text: it keeps the wavelengths of the longest one before.
        opened = transformers.AutoModelForCausalLM.from_pretrained(own, dtype=torch.float32)
        return opened.eval()(input_ids=ids, use_cache=False).logits

    found = model(tokens)
    torch.testing.assert_close(found, expected(tokens), rtol=0, atol=2e-5)
    assert (found - plain(input_ids=tokens).logits).abs().max() > 1e-2
    edges = [0, 7, 27, 52, 80]
    packed = model(tokens, boundaries=torch.tensor(edges, dtype=torch.int32)).flatten(0, 1)
    for start, end in pairwise(edges):
        alone = expected(tokens.flatten()[None, start:end])[0]
        torch.testing.assert_close(packed[start:end], alone, rtol=0, atol=2e-5)
    together = generate_batch(model, [[5, 6, 7] * 6, [9]], GREEDY)
    assert together[1] == generate_batch(model, [[9]], GREEDY)[0]


@pytest.mark.parametrize(
    ("family", "changed", "problem"),
    [
        ("bloom", {}, "has no effect: this bloom has no rotary positions that transformers"),
        ("falcon", {"alibi": True}, "has no effect: this falcon has no rotary positions"),
        ("recurrent_gemma", {}, "describes no recurrent_gemma: .* use another kind"),
        ("apertus", {}, r"is linear, but the weights are stretched already \(llama3\)"),
    ],
)
def test_families_that_cannot_be_stretched(
    family: str, changed: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    tiny_model(family, "ForCausalLM", **changed).save_pretrained(tmp_path)
    config = settings(tmp_path, "linear")
    with pytest.raises(RecipeError, match=problem) as caught, torch.device("meta"):
        config.build()
    assert str(caught.value).startswith("recipe.model.rope_scaling: ")


def test_a_recipe_asks_for_a_longer_context(tmp_path: Path) -> None:
    tiny_model("olmo2", "ForCausalLM").save_pretrained(tmp_path / "base")
    write_tokenizer(tmp_path / "base")
    scaling = {"kind": "yarn", "factor": 2.0}
    longer = {"context_length": 128, "rope_scaling": scaling}
    recipe = load_recipe(recipe_for(tmp_path, "long", model=longer))
    assert recipe.model.rope_scaling.original_context == 64  # type: ignore[attr-defined]
    with pytest.raises(RecipeError, match=r"is 129, but .* was trained for 64, which rope_scaling"):
        load_recipe(recipe_for(tmp_path, "long", model=longer | {"context_length": 129}))


@torch.no_grad()
def test_more_tokens_than_the_weights(tmp_path: Path) -> None:
    """Of a translator's decoder, whose table has a number of its own, and of a part of a model."""
    for family in ("marian", "opt"):
        folder = tmp_path / family
        plain = tiny_model(family, "ForCausalLM")
        plain.save_pretrained(folder)
        found = HubConfig.from_huggingface(read_config(folder)) | {"vocabulary_size": 100}
        config = validate(HubConfig, found, "recipe.model")
        model = config.build().eval()
        model.load_state_dict(read_pretrained(find_pretrained(str(folder)), config))
        tokens = torch.randint(4, 96, (1, 12))
        logits = model(tokens)
        assert logits.shape[-1] == 100
        torch.testing.assert_close(
            logits[..., :97], plain(input_ids=tokens).logits, rtol=0, atol=2e-5
        )
        assert 100 in config.to_huggingface(model.state_dict())[0].values()
