"""Every family of encoder-decoders of transformers that the model ``hub`` reads, as tiny random
weights: logits, losses, gradients, files and texts are that library's, or there is a clear error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrained_folders import transformers
from safetensors.torch import load_file, save_file
from test_beam_parity import WAYS, until_end, write
from test_hub_families import opened
from tiny_families import VOCABULARY, tiny_config
from torch import Tensor

from groundup.core.errors import CheckpointError
from groundup.models.hub.config import HubConfig
from groundup.models.hub.families import auto_classes, is_encoder_decoder

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("transformers")]

# What a family needs besides; T5's decoder has one layer more than its encoder.
FAMILIES: dict[str, dict[str, Any]] = {
    "bart": {},
    "bigbird_pegasus": {"attention_type": "original_full"},
    "blenderbot": {},
    "blenderbot-small": {},
    "led": {
        "attention_window": [4, 4],
        "max_encoder_position_embeddings": 64,
        "max_decoder_position_embeddings": 64,
    },
    "longt5": {"decoder_start_token_id": 0, "local_radius": 3, "num_decoder_layers": 2},
    "m2m_100": {},
    "marian": {"decoder_start_token_id": 0},
    "mbart": {"decoder_start_token_id": 2},
    "mt5": {"num_decoder_layers": 2},
    "mvp": {},
    "pegasus": {},
    "pegasus_x": {"block_size": 4, "num_global_tokens": 2},
    "plbart": {"decoder_start_token_id": 2},
    "t5": {"decoder_start_token_id": 0, "num_decoder_layers": 3},
    "umt5": {"decoder_start_token_id": 0, "num_decoder_layers": 2},
}
# Refused, with a word of the reason.
REFUSED = {
    "encoder-decoder": "two models",
    "fsmt": "vocabulary",
    "nllb-moe": "experts",
    "prophetnet": "several tokens ahead",
    "seamless_m4t": "sounds",
    "seamless_m4t_v2": "sounds",
    "switch_transformers": "experts",
    "t5gemma": "apart",
    "t5gemma2": "pictures",
}


def hf_model(family: str, folder: Path) -> Any:
    """Write a random small model of a family; return it as the library reads it again."""
    config = tiny_config(family, dropout=0.0, **{"forced_eos_token_id": None, **FAMILIES[family]})
    torch.manual_seed(3)
    model = transformers.AutoModelForSeq2SeqLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
        if "final_logits_bias" in dict(model.named_buffers()):
            model.final_logits_bias.normal_()
    model.generation_config.forced_eos_token_id = None
    model.generation_config.bad_words_ids = None
    model.save_pretrained(folder)
    return transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()


def inputs(padding: int) -> dict[str, Tensor]:
    """Return inputs of three lengths, and texts about them."""
    draws = torch.Generator().manual_seed(1)
    mask = torch.arange(9) < torch.tensor([[9], [1], [5]])
    source = torch.randint(3, VOCABULARY, (3, 9), generator=draws).where(mask, padding)
    text = torch.randint(3, VOCABULARY, (3, 7), generator=draws)
    targets = text.where(torch.arange(7) < torch.tensor([[7], [3], [6]]), -100)
    return {"source": source, "source_mask": mask, "targets": targets}


def hf_arguments(given: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        "input_ids": given["source"],
        "attention_mask": given["source_mask"].long(),
        "labels": given["targets"],
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_losses_and_gradients(family: str, tmp_path: Path) -> None:
    theirs = hf_model(family, tmp_path)
    ours, new = opened(tmp_path)
    assert not new
    given = inputs(theirs.config.pad_token_id)
    if family in ("mbart", "plbart"):
        # There the last token of a text, which is its language's, begins it.
        given["targets"][:, -1] = 2
        given["targets"] = given["targets"].where(given["targets"] >= 0, 5)
    targets = given["targets"]
    kept = targets >= 0
    found = theirs(**hf_arguments(given))
    found.loss.backward()
    text = targets.clamp(min=0)
    read = {"source": given["source"], "source_mask": given["source_mask"], "text": text}
    logits = ours(**read)
    assert (logits - found.logits)[kept].abs().max() <= 1e-4
    sums = ours(**read, targets=targets)
    torch.testing.assert_close(sums[0] / kept.sum(), found.loss, rtol=1e-5, atol=1e-5)
    uniform = -found.logits[kept].log_softmax(-1).mean(-1).sum()
    torch.testing.assert_close(sums[1], uniform, rtol=1e-4, atol=1e-4)
    (sums[0] / kept.sum()).backward()
    places = dict(theirs.named_parameters(remove_duplicate=False))
    trained = 0
    for name, parameter in ours.named_parameters():
        wanted = places[ours.hf[name]]
        if wanted.grad is not None:
            trained += 1
            assert (parameter.grad - wanted.grad).abs().max() <= 1e-4, name
    assert trained > 20
    # Padded on the left, and alone, it is the same input.
    with torch.no_grad():
        for row, length in enumerate((9, 1, 5)):
            source = given["source"][row : row + 1, :length]
            alone = ours(source=source, text=text[row : row + 1])
            left = torch.nn.functional.pad(source, (3, 0), value=7)
            mask = torch.nn.functional.pad(torch.ones_like(source), (3, 0)).bool()
            padded = ours(source=left, source_mask=mask, text=text[row : row + 1])
            assert (padded - alone).abs().max() <= 1e-5
            assert (alone - logits[row : row + 1])[kept[row : row + 1]].abs().max() <= 1e-4


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_texts_are_those_of_generate(family: str, tmp_path: Path) -> None:
    theirs = hf_model(family, tmp_path)
    ours, _ = opened(tmp_path)
    draws = torch.Generator().manual_seed(5)
    count = 8
    lengths = torch.randint(1, 10, (count, 1), generator=draws)
    mask = torch.arange(9) < lengths
    padding = theirs.config.pad_token_id
    source = torch.randint(3, VOCABULARY, (count, 9), generator=draws).where(mask, padding)
    end = 2
    read = {"source": source, "source_mask": mask}
    # The library keeps as many layers as the encoder has, and fails with more of the decoder.
    many = {"use_cache": False} if family == "t5" else {}
    # The other ways are compared with the models that are built here.
    for hf, own in (WAYS["greedy"], WAYS["n-best"]):
        rows = theirs.generate(
            input_ids=source,
            attention_mask=mask.long(),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=end,
            **hf,
            **many,
        )
        prompts = [[ours.start_id]] * count
        assert write(ours, prompts, own, end, read) == until_end(rows, 1, end)


@pytest.mark.parametrize("family", ["m2m_100", "mbart"])
@torch.no_grad()
def test_texts_with_a_forced_first_token_are_those_of_generate(family: str, tmp_path: Path) -> None:
    theirs = hf_model(family, tmp_path)
    ours, _ = opened(tmp_path)
    draws = torch.Generator().manual_seed(5)
    count = 40
    mask = torch.arange(9) < torch.randint(1, 10, (count, 1), generator=draws)
    source = torch.randint(3, VOCABULARY, (count, 9), generator=draws)
    source = source.where(mask, theirs.config.pad_token_id)
    read = {"source": source, "source_mask": mask}
    prompts = [[ours.start_id]] * count
    free = write(ours, prompts, {}, 2, read)
    for hf, own in WAYS.values():
        rows = theirs.generate(
            input_ids=source,
            attention_mask=mask.long(),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=2,
            forced_bos_token_id=77,
            **hf,
        )
        found = write(ours, prompts, {**own, "first_token": 77}, 2, read)
        assert found == until_end(rows, 1, 2)
        assert {text[0] for text in found} == {77}
        assert found != free


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_cached_is_the_same_and_a_folder_comes_out_as_it_came_in(
    family: str, tmp_path: Path
) -> None:
    theirs = hf_model(family, tmp_path / "in")
    ours, _ = opened(tmp_path / "in")
    given = inputs(theirs.config.pad_token_id)
    text = given["targets"].clamp(min=0)
    read = {"source": given["source"], "source_mask": given["source_mask"]}
    whole = ours(**read, text=text)
    cache = ours.new_cache(3, 7)
    ours.encode(cache, **read)
    tokens = torch.nn.functional.pad(text[:, :-1], (1, 0), value=ours.start_id)
    for place in range(7):
        step = ours(tokens[:, place : place + 1], cache=cache, last_only=True)
        assert (step[:, 0] - whole[:, place]).abs().max() <= 1e-4
    # A row that begins again is read by itself, and so are the others.
    positions = torch.tensor([[7, -1], [0, 1], [7, -1]]).flip(1)
    again = ours(torch.tensor([[0, 9], [8, 9], [0, 9]]), positions.sort(1).values, cache=cache)
    for row, prefix in enumerate((tokens[:1], tokens[:0], tokens[2:])):
        begun = torch.cat((prefix.flatten(), torch.tensor([8, 9] if row == 1 else [9])))[None]
        alone = ours(
            begun,
            source=read["source"][row : row + 1],
            source_mask=read["source_mask"][row : row + 1],
        )
        assert (again[row, -1] - alone[0, -1]).abs().max() <= 1e-4

    values, tensors = ours.config.to_huggingface(ours.state_dict())
    for name, stored in load_file(tmp_path / "in" / "model.safetensors").items():
        assert torch.equal(tensors[name], stored), name
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text(json.dumps(values))
    save_file(tensors, tmp_path / "out" / "model.safetensors", metadata={"format": "pt"})
    back = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out").eval()
    labels = hf_arguments(given)
    assert torch.equal(back(**labels).logits, theirs(**labels).logits)


@pytest.mark.parametrize("family", REFUSED)
def test_what_is_refused_says_why(family: str) -> None:
    with pytest.raises(CheckpointError, match=REFUSED[family]):
        HubConfig(config={"model_type": family}, start_id=0).build()


def test_every_family_is_tried_or_refused() -> None:
    known = set(auto_classes("SEQ_TO_SEQ_CAUSAL_LM"))
    reads = {name for name in known if is_encoder_decoder({"model_type": name})}
    assert reads == {*FAMILIES, *REFUSED}
