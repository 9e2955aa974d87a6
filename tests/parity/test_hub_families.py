"""Every family of transformers that the model ``hub`` reads, as tiny random weights: the same
logits as transformers', or a clear error, and the table of it in docs/families.md."""

from __future__ import annotations

import inspect
import os
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrained_folders import transformers
from safetensors.torch import load_file
from tiny_families import tiny_model
from torch import Tensor

from groundup.core.errors import CheckpointError
from groundup.core.settings import validate
from groundup.formats.huggingface_folder import find_pretrained, read_config
from groundup.generation.decoding import generate_batch
from groundup.generation.options import DecodingOptions
from groundup.models.hub.config import HubConfig
from groundup.weights.load import read_pretrained

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("transformers")]

PAGE = Path(__file__).parents[2] / "docs" / "families.md"
RULE = "|---|---|---|---|---|---|\n"
NEAR = 2e-5
# A family is tried when it has a row: one more begins with its name alone.
FAMILIES = re.findall(r"^\| `([^`]+)`", PAGE.read_text(), re.MULTILINE)
# Families of both kinds are tried as classifiers from these weights: kind, and labels asked for.
_FROM = {
    "base": ("", 3),
    "language model": ("LM", 2),
    "2 labels": ("ForSequenceClassification", 2),
    "2 labels, 3 asked": ("ForSequenceClassification", 3),
}


def auto_names(kind: str) -> dict[str, str]:
    return dict(vars(transformers.models.auto.modeling_auto)[f"MODEL_FOR_{kind}_MAPPING_NAMES"])


def opened(folder: Path, **changed: Any) -> tuple[Any, list[str]]:
    """Return our model of a folder's weights, and what of it begins again."""
    settings = HubConfig.from_huggingface(read_config(folder)) | changed
    config = validate(HubConfig, settings, "recipe.model")
    weights = read_pretrained(find_pretrained(str(folder)), config)
    model = config.build()
    model.load_state_dict(weights, strict=False)
    return model.eval(), [name for name in model.state_dict() if name not in weights]


def arguments(model: Any, **values: Any) -> dict[str, Any]:
    known = inspect.signature(model.forward).parameters
    return {name: value for name, value in values.items() if name in known}


def far(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() > NEAR * max(1.0, float(expected.abs().max())))


@torch.no_grad()
def language_model(family: str, folder: Path) -> str:
    """Compare a language model: logits, packed documents, text that it writes, and its files."""
    tiny_model(family, "ForCausalLM").save_pretrained(folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ours, new = opened(folder)
    assert not new
    tokens = torch.randint(4, 96, (2, 24), generator=torch.Generator().manual_seed(0))
    plain = arguments(theirs, use_cache=False)
    expected = theirs(input_ids=tokens, **plain).logits
    assert not far(ours(tokens), expected), "logits differ"
    edges = [0, 5, 17, 24, 48]
    packed = ours(tokens, boundaries=torch.tensor(edges, dtype=torch.int32)).flatten(0, 1)
    for start, end in pairwise(edges):
        alone = theirs(input_ids=tokens.flatten()[None, start:end], **plain).logits[0]
        assert not far(packed[start:end], alone), "packed documents see each other"
    prompts = [[5, 6, 7], [9], [3, 4, 5, 6, 7, 8, 9]]
    written = generate_batch(ours, prompts, DecodingOptions(max_new_tokens=4, temperature=0))
    for prompt, text in zip(prompts, written, strict=True):
        read = torch.tensor([prompt + text])
        logits = theirs(input_ids=read, **plain).logits[0, len(prompt) - 1 : -1]
        chosen = logits.gather(1, torch.tensor(text)[:, None])[:, 0]
        # Ties to rounding apart.
        assert not far(chosen, logits.max(-1).values), "another text is written"
    same_files(ours, folder)
    return "equal"


@torch.no_grad()
def classifier(family: str, folder: Path, kind: str, labels: int) -> str:
    """Compare a classifier: what begins again, logits, a padded row, and its files."""
    changed = {"num_labels": 2} if kind == "ForSequenceClassification" else {}
    tiny_model(family, kind, **changed).save_pretrained(folder)
    auto = transformers.AutoModelForSequenceClassification
    theirs, said = auto.from_pretrained(
        folder,
        **{"num_labels": labels, "ignore_mismatched_sizes": True, "output_loading_info": True},
        dtype=torch.float32,
    )
    theirs.eval()
    ours, new = opened(folder, outputs=labels)
    missing = set(said["missing_keys"]) | {name for name, *_ in said["mismatched_keys"]}
    assert {ours.hf[name] for name in new} == missing, "other tensors begin again"
    places = dict(theirs.named_parameters(remove_duplicate=False))
    own = ours.state_dict()
    for name in new:
        places[ours.hf[name]].copy_(own[name].T if name in ours.transposed else own[name])
    tokens = torch.randint(4, 96, (2, 24), generator=torch.Generator().manual_seed(0))
    # Some read the state of the token that ends a text.
    tokens[:, -1] = 2
    if family not in auto_names("MASKED_LM"):
        theirs.config.pad_token_id = 96
    seen = arguments(theirs, attention_mask=torch.ones_like(tokens))
    assert not far(ours(tokens), theirs(input_ids=tokens, **seen).logits), "logits differ"
    tokens[0, 14:] = torch.tensor([2] + [0] * 9)
    beside = ours(tokens, lengths=torch.tensor([15, 24]))[:1]
    short = arguments(theirs, attention_mask=torch.ones(1, 15, dtype=torch.int64))
    alone = theirs(input_ids=tokens[:1, :15], **short).logits
    if not new and changed:
        same_files(ours, folder)
    count = f", {len(new)} new" if new else ""
    return f"equal{count}{' *' if far(beside, alone) else ''}"


def same_files(model: Any, folder: Path) -> None:
    """Assert that the tensors of a file are written again as they are."""
    _, tensors = model.config.to_huggingface(model.state_dict())
    for name, stored in load_file(folder / "model.safetensors").items():
        assert torch.equal(tensors[name], stored), f"{name} is written otherwise"


def said_of(check: Any, *details: Any) -> str:
    try:
        return str(check(*details))
    except CheckpointError as error:
        # Paths are of this machine.
        return f"error: {error.problem}"


def row_of(family: str, folder: Path) -> str:
    """Return a family's row of the table."""
    causal, masked = auto_names("CAUSAL_LM"), auto_names("MASKED_LM")
    cells = ["–"] * (1 + len(_FROM))
    if family in causal and family not in masked:
        cells[0] = said_of(language_model, family, folder / "lm")
    kinds = list(_FROM.items()) if family in auto_names("SEQUENCE_CLASSIFICATION") else []
    for place, (name, (kind, labels)) in enumerate(kinds, start=1):
        # Of decoders the head is one matrix: the other weights show nothing more.
        if (
            family in causal
            and family not in masked
            and name not in ("language model", "2 labels, 3 asked")
        ):
            continue
        found = kind
        if kind == "LM":
            if family not in {*causal, *masked}:
                continue
            found = "ForMaskedLM" if family in masked else "ForCausalLM"
        cells[place] = said_of(classifier, family, folder / f"{place}", found, labels)
    return f"| `{family}` | {' | '.join(cells)} |"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_row_of_the_table(family: str, tmp_path: Path) -> None:
    row = row_of(family, tmp_path)
    if os.environ.get("GROUNDUP_REWRITE_GOLDEN"):
        before, _, rest = PAGE.read_text().partition(RULE)
        table, _, after = rest.partition("\n\n")
        rows = {each.split("`")[1]: each for each in table.splitlines() if each} | {family: row}
        lines = "".join(f"{rows[name]}\n" for name in sorted(rows))
        PAGE.write_text(f"{before}{RULE}{lines}\n{after}")
    assert row in PAGE.read_text().splitlines()


def test_the_page_says_which_families_were_not_tried() -> None:
    claimed = {*auto_names("CAUSAL_LM"), *auto_names("SEQUENCE_CLASSIFICATION")}
    missing = sorted(claimed - {*FAMILIES})
    assert ", ".join(f"`{name}`" for name in missing) in PAGE.read_text().replace("\n", " ")
