"""A decoder that copies tokens of its input: one mixture, however it is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from resuming import stopped_and_resumed
from tiny_runs import tiny_run

from groundup import api
from groundup.core.errors import CheckpointError, RecipeError
from groundup.core.settings import validate
from groundup.generation.beam_search import beam_search
from groundup.generation.decoding import generate_batch
from groundup.generation.options import DecodingOptions
from groundup.models.encoder_decoder import EncoderDecoderConfig

VOCABULARY = 40


def model_of(**settings: Any) -> Any:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"width": 16, "heads": 2, "layers": 1, "dropout": 0.0, "start_id": 1}
    shape |= {"vocabulary_size": VOCABULARY, "init_std": 0.3, "copying": True}
    return EncoderDecoderConfig(**(shape | settings)).build().double()


def some_inputs() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    torch.manual_seed(1)
    source = torch.randint(0, VOCABULARY, (3, 7))
    # A token that is there twice is copied from both of its places.
    source[0, 3] = source[0, 1]
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[1, 5:] = False
    mask[2, :2] = False
    text = torch.randint(0, VOCABULARY, (3, 5))
    text[0, 1] = source[0, 1]
    return {"source": source, "source_mask": mask}, text


def test_losses_are_those_of_the_mixture() -> None:
    model = model_of()
    inputs, text = some_inputs()
    log_p = model(**inputs, text=text)
    torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(3, 5).double())
    targets = text.clone()
    targets[2, 3:] = -100
    total, uniform = model(**inputs, text=text, targets=targets)
    wanted = F.cross_entropy(log_p.flatten(0, 1), targets.flatten(), reduction="sum")
    torch.testing.assert_close(total, wanted)
    torch.testing.assert_close(uniform, -(log_p.mean(-1) * (targets >= 0)).sum())
    slopes = torch.autograd.grad(total + uniform, list(model.parameters()), retain_graph=True)
    by_logits = torch.autograd.grad(
        wanted - (log_p.mean(-1) * (targets >= 0)).sum(), list(model.parameters())
    )
    for own, other in zip(slopes, by_logits, strict=True):
        torch.testing.assert_close(own, other)


def test_what_is_copied() -> None:
    model = model_of()
    inputs, text = some_inputs()
    with torch.no_grad():
        model.copying.gate.weight.zero_()
        # All is copied: only tokens of the input, and none of its padding, have a share.
        model.copying.gate.bias.fill_(-60.0)
    shares = model(**inputs, text=text).exp()
    for row in range(3):
        there = set(inputs["source"][row][inputs["source_mask"][row]].tolist())
        likely = (shares[row] > 1e-9).any(0).nonzero()[:, 0].tolist()
        assert set(likely) == there
    with torch.no_grad():
        model.copying.gate.bias.fill_(60.0)
    plain = model_of(copying=False)
    plain.load_state_dict(
        {name: tensor for name, tensor in model.state_dict().items() if "copying" not in name}
    )
    torch.testing.assert_close(
        model(**inputs, text=text), plain(**inputs, text=text).log_softmax(-1)
    )


def test_written_with_and_without_a_cache() -> None:
    model = model_of().float().eval()
    inputs, _ = some_inputs()
    options = DecodingOptions(temperature=0.0, max_new_tokens=6)
    found = generate_batch(model, [[1]] * 3, options, {0}, None, inputs)
    for row, tokens in enumerate(found):
        text = torch.tensor([[*tokens, 0]])
        own = {name: each[row : row + 1] for name, each in inputs.items()}
        best = model(**own, text=text)[0].argmax(-1).tolist()
        assert best[: len(tokens)] == tokens
    beams = DecodingOptions(temperature=0.0, max_new_tokens=6, beams=3, n_best=3)
    for row, texts in enumerate(beam_search(model, [[1]] * 3, beams, {0}, inputs)):
        own = {name: each[row : row + 1] for name, each in inputs.items()}
        for each in texts:
            ended = [*each.tokens, 0][:6]
            log_p = model(**own, text=torch.tensor([ended]))[0].log_softmax(-1)
            score = log_p.gather(1, torch.tensor(ended)[:, None]).sum() / len(ended)
            assert each.score == pytest.approx(score.item(), abs=1e-4)


@pytest.mark.slow
def test_a_resumed_run(tmp_path: Path) -> None:
    recipe = tiny_run("encoder_decoder", tmp_path, {"copying": True})
    recipe["training"] |= {"steps": 8}
    stopped_and_resumed(recipe, tmp_path / "runs", (3, 8))


@pytest.mark.slow
def test_a_run_is_kept_in_the_own_layout(tmp_path: Path) -> None:
    recipe = tiny_run("encoder_decoder", tmp_path, {"copying": True})
    run = api.train(recipe, {"training.steps": 2}, runs=tmp_path / "runs")
    assert isinstance(api.load(run.folder)("_@@_"), str)
    with pytest.raises(CheckpointError, match="none of T5, BART and Marian copies tokens"):
        model_of().config.to_huggingface({})


@pytest.mark.parametrize("name", ["output_scale", "output_bias"])
def test_parts_that_do_not_go_together(name: str) -> None:
    with pytest.raises(RecipeError, match=f"copying is not built with {name}. Remove one of them"):
        validate(EncoderDecoderConfig, {"copying": True, name: True}, "recipe.model")
