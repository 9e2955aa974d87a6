"""The loss of GRPO and its variants against TRL's on the same tokens, log-probabilities and
advantages."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from groundup.core.settings import validate
from groundup.core.values import TokenSequence
from groundup.tasks.grpo.losses import group_advantages, overlong_penalty
from groundup.tasks.grpo.task import Grpo
from groundup.tasks.shared.sequence_rows import encode_rows

pytestmark = pytest.mark.slow
PROMPT = 3
LENGTHS = [5, 2, 7, 7, 1, 4]  # two groups of three
LONGEST = 7


def drawn(number: int, spread: float = 0.3) -> list[torch.Tensor]:
    """Return log-probabilities of each answer's tokens."""
    draws = torch.Generator().manual_seed(number)
    base = torch.Generator().manual_seed(0)
    return [
        -torch.rand(length, generator=base, dtype=torch.float64) * 3
        + spread * torch.randn(length, generator=draws, dtype=torch.float64)
        for length in LENGTHS
    ]


NOW, BEFORE, REFERENCE = drawn(1), drawn(2), drawn(3)
REWARDS = torch.tensor([[1.0, 0.0, 0.5], [0.0, 0.0, 1.0]], dtype=torch.float64)


def ours(**settings: Any) -> float:
    task = validate(
        Grpo,
        {
            "rewards": [{"name": "length"}],
            "group_size": 3,
            "max_new_tokens": LONGEST,
            "updates": 2,
            **settings,
        },
        "task",
    )
    sequences = []
    for length in LENGTHS:
        tokens = torch.arange(PROMPT + length).int().numpy()
        sequences.append(TokenSequence(tokens, torch.arange(PROMPT + length).numpy() >= PROMPT))
    batch = encode_rows(sequences, 3)
    fed = torch.arange(batch["tokens"].shape[1]) < batch["lengths"][:, None]
    scored = batch["next_tokens"] >= 0
    for name, values in (("before", BEFORE), ("reference", REFERENCE), ("now", NOW)):
        rows = torch.zeros(scored.shape, dtype=torch.float64)
        rows[scored] = torch.cat(values)
        batch[name] = rows
    batch |= {
        "advantages": group_advantages(REWARDS, scaled=task.scale_by_spread),
        "rewards": REWARDS[..., None],
        "ended": torch.ones(2, 3, dtype=torch.bool),
        "silent": torch.zeros(2),
    }
    outputs = batch.pop("now")[fed]
    if not task.kl_weight:
        del batch["reference"]
    loss = task.loss(outputs, batch)
    term = loss.terms["policy"]
    return float(term.total / term.count)


def trls(kind: str, *, scaled: bool, beta: float, clip: tuple[float, float]) -> float:
    trl = pytest.importorskip("trl")
    width = max(LENGTHS)

    def padded(values: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack([torch.nn.functional.pad(v, (0, width - len(v))) for v in values])

    mask = torch.stack([torch.arange(width) < length for length in LENGTHS]).long()
    trainer = trl.GRPOTrainer.__new__(trl.GRPOTrainer)
    trainer.__dict__.update(
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(
            num_processes=1, gather=lambda value: value, reduce=lambda value, reduction: value
        ),
        args=SimpleNamespace(
            use_bias_correction_kl=False, delta=None, steps_per_generation=1, report_to=[]
        ),
        loss_type=kind,
        beta=beta,
        epsilon_low=clip[0],
        epsilon_high=clip[1],
        importance_sampling_level="token",
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        vllm_importance_sampling_correction=False,
        aux_loss_enabled=False,
        _entropy_bonus_enabled=False,
        max_completion_length=LONGEST,
        current_gradient_accumulation_steps=1,
        _metrics={"train": defaultdict(list), "eval": defaultdict(list)},
    )
    trainer._get_per_token_logps_and_entropies = lambda *given, **more: (
        padded(NOW),
        torch.zeros(mask.shape, dtype=torch.float64),
        None,
    )
    inputs = {
        "prompt_ids": torch.zeros(6, PROMPT, dtype=torch.int64),
        "prompt_mask": torch.ones(6, PROMPT, dtype=torch.int64),
        "completion_ids": torch.zeros(6, width, dtype=torch.int64),
        "completion_mask": mask,
        "advantages": trl_advantages(scaled=scaled),
        "old_per_token_logps": padded(BEFORE),
        "ref_per_token_logps": padded(REFERENCE),
        "num_items_in_batch": mask.sum(),
    }
    return float(trainer._compute_loss(None, inputs))


def trl_advantages(*, scaled: bool) -> torch.Tensor:
    """As ``_generate_and_score_completions`` has it."""
    mean = REWARDS.mean(1).repeat_interleave(3)
    found = REWARDS.flatten() - mean
    return found / (REWARDS.std(1).repeat_interleave(3) + 1e-4) if scaled else found


@pytest.mark.parametrize(
    ("kind", "average"), [("grpo", "answers"), ("dapo", "tokens"), ("dr_grpo", "constant")]
)
@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("clip", [(0.2, 0.2), (0.1, 0.28)])
@pytest.mark.parametrize("scaled", [True, False])
def test_losses(
    kind: str, average: str, beta: float, clip: tuple[float, float], scaled: bool
) -> None:
    found = ours(
        average=average,
        kl_weight=beta,
        clip=clip[0],
        clip_high=clip[1],
        scale_by_spread=scaled,
    )
    wanted = trls(kind, scaled=scaled, beta=beta, clip=clip)
    assert abs(wanted) > 1e-4
    assert found == pytest.approx(wanted, abs=1e-6)


def test_overlong_answers() -> None:
    rewards = pytest.importorskip("trl.rewards")
    score = rewards.get_soft_overlong_punishment(max_completion_len=20, soft_punish_cache=5)
    lengths = [3, 15, 16, 19, 20]
    wanted = score(completion_ids=[[0] * length for length in lengths])
    found = overlong_penalty(torch.tensor(lengths, dtype=torch.float64), 20, 5)
    assert found.tolist() == pytest.approx(wanted)
