"""A prompt that is read once for all its answers gives what reading it for each of them gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from groundup.core.settings import validate
from groundup.core.values import Batch, TokenSequence
from groundup.generation.log_probs import token_log_probs
from groundup.models.gpt import GPTConfig
from groundup.nn.transformer import DecoderLM
from groundup.tasks.grpo.shared_prompts import branch_log_probs, shares_prompts, teaching_rows
from groundup.tasks.grpo.task import Grpo
from groundup.tasks.shared.sequence_rows import encode_rows, join_rows

VOCABULARY = 30
# Tokens of a prompt, and of its answers: one of a single token, which is never fed itself.
GROUPS = [(7, (3, 1, 5)), (4, (2, 2, 6))]


def tiny(**settings: Any) -> DecoderLM:
    torch.manual_seed(0)
    sizes = {"layers": 2, "width": 16, "heads": 4, "kv_heads": 2, "context_length": 32}
    config = GPTConfig(vocabulary_size=VOCABULARY, init_std=0.3, **{**sizes, **settings})
    return config.build().double().eval()


def answered() -> Batch:
    draws = np.random.default_rng(0)
    sequences = []
    for prompt, answers in GROUPS:
        begin = draws.integers(VOCABULARY, size=prompt)
        for length in answers:
            tokens = np.concatenate([begin, draws.integers(VOCABULARY, size=length)])
            known = np.arange(len(tokens)) >= prompt
            sequences.append(TokenSequence(tokens.astype(np.int32), known))
    return encode_rows(sequences, 3)


SHAPES: list[dict[str, Any]] = [
    {},
    {"sliding_window": 4},
    {"positions": "learned"},
]


@pytest.mark.parametrize("settings", SHAPES)
def test_a_prompt_read_once_is_a_prompt_read_for_each(settings: dict[str, Any]) -> None:
    model = tiny(**settings)
    batch = answered()
    assert shares_prompts(model, 12)
    found = branch_log_probs(model, batch)
    wanted = token_log_probs(model, **join_rows(batch))
    assert (found < 0).sum() == 19
    torch.testing.assert_close(found, wanted)
    slopes = [torch.autograd.grad(each.sum(), model.parameters()) for each in (found, wanted)]
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other)


def test_models_that_cannot_share_a_prompt() -> None:
    stretched = {"kind": "dynamic", "factor": 2.0, "original_context": 8}
    model = tiny(rope_scaling=stretched)
    # Its angles change once a text is longer than those that it was trained on.
    assert shares_prompts(model, 8)
    assert not shares_prompts(model, 12)
    assert not shares_prompts(torch.nn.Linear(2, 2), 8)


def test_groups_without_a_signal_are_not_fed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    batch = answered() | {"advantages": torch.tensor([[0.0, 0.0, 0.0], [1.0, -0.5, -0.5]])}
    fed = []
    hidden = model.hidden

    def watch(tokens: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        fed.append(len(tokens))
        return hidden(tokens, *args, **options)

    monkeypatch.setattr(model, "hidden", watch)
    settings = {"rewards": [{"name": "length"}], "group_size": 3}
    task = validate(Grpo, {**settings, "kl_weight": 0.0}, "task")
    found = task.forward(model, batch)
    places = torch.arange(batch["tokens"].shape[1])
    row = (places < batch["lengths"][:, None]).nonzero()[:, 0]
    wanted = branch_log_probs(model, batch)
    torch.testing.assert_close(found, torch.where(row == 1, wanted, 0.0))
    # Towards a reference all are pulled.
    pulled = validate(Grpo, {**settings, "kl_weight": 0.1}, "task")
    torch.testing.assert_close(pulled.forward(model, batch), wanted)
    assert fed == [1, 2, 2]
    # Where nothing is learned, a step has a loss of 0 all the same, and something to watch.
    batch["advantages"].zero_()
    assert teaching_rows(batch).tolist() == [True, False]
