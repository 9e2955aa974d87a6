"""Embeddings with adapters and with trained rows."""

from __future__ import annotations

import pytest
import torch

from groundup.core.errors import RecipeError
from groundup.models.gpt import GPTConfig
from groundup.nn.lora.adapters import adapted, attach, detach, merge, unmerge
from groundup.recipe.adapter import Adapter


def gpt() -> torch.nn.Module:
    return GPTConfig(vocabulary_size=11, layers=2, width=8, heads=2).build()


@pytest.mark.parametrize(
    "settings",
    [Adapter(targets={"embed": 2}), Adapter(rank=2, trainable_token_indices=(3, 7))],
    ids=["low-rank", "rows"],
)
def test_changed_merged_and_taken_away(settings: Adapter) -> None:
    torch.manual_seed(0)
    model = gpt()
    tokens = torch.arange(11)[None]
    before = model(tokens)
    attach(model, settings)
    assert torch.equal(model(tokens), before)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("embed.") and name != "embed.weight":
                parameter.add_(torch.randn_like(parameter))
    changed = model(tokens)
    table = model.get_submodule("embed").weight
    rows = (table - dict(model.named_parameters())["embed.weight"]).abs().sum(1) > 0
    # The output layer, which is the embedding, is changed with it.
    assert (changed - before).abs().max() > 1e-2
    if settings.trainable_token_indices:
        assert rows.nonzero().flatten().tolist() == [3, 7]
    merge(model)
    torch.testing.assert_close(model(tokens), changed)
    unmerge(model)
    assert torch.equal(model(tokens), changed)
    detach(model)
    assert torch.equal(model(tokens), before)
    assert not adapted(model)


def test_embeddings_that_cannot_be_adapted() -> None:
    with pytest.raises(
        RecipeError,
        match=r"targets: names embed, an embedding, .*Remove it, .*modules_to_save: \[embed\]",
    ):
        attach(gpt(), Adapter(name="dora", targets={"embed": 2}))
    with pytest.raises(
        RecipeError, match=r"trainable_token_indices: names token 11; allowed: 0 to 10\. Name"
    ):
        attach(gpt(), Adapter(rank=2, trainable_token_indices=(3, 11)))
    with pytest.raises(RecipeError, match="trainable_token_indices: has no effect: the model has"):
        attach(torch.nn.Linear(2, 2), Adapter(rank=2, trainable_token_indices=(3,)))
