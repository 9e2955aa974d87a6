"""Losses of preference tuning against TRL's on the same log-probabilities, and these against
transformers' logits."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_runs import preference_run, without_chance

from groundup import api
from groundup.tasks.preference.losses import orpo_loss
from groundup.tasks.preference.task import PreferenceTuning

pytestmark = pytest.mark.slow
LOG_PROBS = torch.tensor([[-31.0, -42.5], [-12.25, -9.0], [-80.5, -77.0], [-0.5, -1.5]])
REFERENCE = torch.tensor([[-33.0, -40.5], [-12.5, -9.75], [-78.0, -77.5], [-0.75, -1.25]])
TOKENS = torch.tensor([[20, 25], [7, 7], [60, 31], [1, 2]])
GOOD = torch.tensor([True, False, False, True])


class _Accelerator(SimpleNamespace):
    device = torch.device("cpu")

    def gather(self, value: Any) -> Any:
        return value

    gather_for_metrics = gather


def bare(cls: type, **attributes: Any) -> Any:
    """Return a trainer of TRL's without model or data, to be asked for its loss alone."""
    trainer = cls.__new__(cls)
    trainer.__dict__.update(
        accelerator=_Accelerator(), aux_loss_enabled=False, precompute_ref_logps=True
    )
    trainer.__dict__.update(
        _metrics={"train": defaultdict(list), "eval": defaultdict(list)}, _total_train_tokens=0
    )
    trainer.__dict__.update(model=SimpleNamespace(training=True), _tp_size=1, **attributes)
    return trainer


class _Spread:
    """A model whose tokens' log-probabilities, (2 B, T), add up to given sums over given numbers of
    tokens."""

    def __init__(self, sums: torch.Tensor, tokens: torch.Tensor) -> None:
        self.width = int(tokens.max())
        self.mask = (torch.arange(self.width + 1) > 0) & (
            torch.arange(self.width + 1) <= tokens[:, None]
        )
        self.values = torch.where(self.mask[:, 1:], sums[:, None].double() / tokens[:, None], 0.0)

    def __call__(self, **inputs: Any) -> Any:
        zeros = torch.zeros_like(self.values)
        return SimpleNamespace(
            log_probs=self.values, entropy=zeros, mean_logits=zeros, is_top1=zeros > 0
        )


def ours(rows: slice = slice(None), **settings: Any) -> float:
    given = (LOG_PROBS.double()[rows], TOKENS[rows], REFERENCE.double()[rows], GOOD[rows])
    term = PreferenceTuning(**settings).compare(*given).terms["preference"]
    return float(term.total / term.count)


@pytest.mark.parametrize(
    ("settings", "kind", "rows"),
    [
        ({"objective": "dpo", "beta": 0.3}, "sigmoid", slice(None)),
        (
            {"objective": "dpo", "beta": 0.2, "label_smoothing": 0.2},
            "aot",
            slice(1),
        ),  # the same for a single pair
        ({"objective": "ipo", "beta": 0.4}, "ipo", slice(None)),
    ],
)
def test_dpo_and_ipo(settings: dict[str, Any], kind: str, rows: slice) -> None:
    trl = pytest.importorskip("trl")
    given = {
        "ld_alpha": None,
        "f_divergence_type": "reverse_kl",
        "loss_weights": [1.0],
        "use_weighting": False,
    }
    given |= {
        "loss_types": [kind],
        "beta": settings["beta"],
        "label_smoothing": settings.get("label_smoothing", 0.0),
    }
    model = _Spread(LOG_PROBS[rows].T.flatten(), TOKENS[rows].T.flatten())
    inputs = {
        "input_ids": torch.zeros_like(model.mask, dtype=torch.int64),
        "completion_mask": model.mask.long(),
    }
    inputs |= {"attention_mask": torch.ones_like(model.mask, dtype=torch.int64)}
    inputs |= {
        "ref_chosen_logps": REFERENCE[rows, 0].double(),
        "ref_rejected_logps": REFERENCE[rows, 1].double(),
    }
    loss = bare(trl.DPOTrainer, **given)._compute_loss(model, inputs, return_outputs=False)
    assert ours(rows, **settings) == pytest.approx(float(loss), abs=1e-6)


def test_simpo_and_orpo() -> None:
    cpo = pytest.importorskip("trl.experimental.cpo")
    orpo = pytest.importorskip("trl.experimental.orpo")
    average = LOG_PROBS.double() / TOKENS
    settings = {
        "alpha": 0.0,
        "loss_type": "simpo",
        "simpo_gamma": 0.7,
        "beta": 1.5,
        "label_smoothing": 0.0,
    }
    losses = bare(cpo.CPOTrainer, **settings).cpo_loss(average[:, 0], average[:, 1])[0]
    assert ours(objective="simpo", beta=1.5, gamma=0.7) == pytest.approx(
        float(losses.mean()), abs=1e-6
    )
    ratios = bare(orpo.ORPOTrainer, beta=0.3).odds_ratio_loss(average[:, 0], average[:, 1])[0]
    expected = (
        -average[:, 0] - ratios
    )  # what TRL adds is the mean over tokens, of the prompt as well
    torch.testing.assert_close(orpo_loss(average, 0.3), expected.double(), rtol=1e-6, atol=1e-6)


def test_kto() -> None:
    trl = pytest.importorskip("trl")
    settings = {
        "loss_type": "kto",
        "calculate_KL": True,
        "beta": 0.2,
        "desirable_weight": 1.5,
        "undesirable_weight": 0.8,
    }
    trainer = bare(trl.KTOTrainer, **settings, args=SimpleNamespace())
    model = _Spread(LOG_PROBS[:, 0], TOKENS[:, 0])
    trainer._compute_kl_logps = lambda *_: LOG_PROBS[:, 1].double() + 3.0
    inputs = {
        "input_ids": torch.zeros_like(model.mask, dtype=torch.int64),
        "completion_mask": model.mask.long(),
    }
    inputs |= {"attention_mask": torch.ones_like(model.mask, dtype=torch.int64), "label": GOOD}
    inputs |= {"ref_logps": REFERENCE[:, 0].double(), "ref_KL_logps": REFERENCE[:, 1].double()}
    loss = trainer._compute_loss(model, inputs, return_outputs=False)
    task = PreferenceTuning(objective="kto", beta=0.2, desirable_weight=1.5, undesirable_weight=0.8)
    log_probs = LOG_PROBS.double() + torch.tensor([0.0, 3.0])
    term = task.compare(log_probs, TOKENS, REFERENCE.double(), GOOD).terms["preference"]
    assert float(term.total / term.count) == pytest.approx(float(loss), abs=1e-6)


def test_log_probs_against_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    recipe = without_chance(preference_run(tmp_path))
    run = api.train(recipe, {"training.steps": 1}, runs=tmp_path / "runs")
    predictor = api.load(run.folder)
    task: Any = predictor.task
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        run.folder / "model", dtype=torch.float32
    )
    examples = list(recipe_source(recipe).examples("train", tmp_path))[:4]
    batch = task.encode(examples, predictor.processor)
    with torch.no_grad():
        found = task.forward(predictor.model, batch).split(
            batch["sequence_lengths"].flatten().tolist()
        )
        for sequence, ours_of in zip(
            task.sequences(examples, predictor.processor), found, strict=True
        ):
            tokens = torch.from_numpy(sequence.tokens).long()
            logits = theirs(tokens[None]).logits[0, :-1].log_softmax(1)
            expected = logits.gather(1, tokens[1:, None])[:, 0] * torch.from_numpy(
                sequence.trained[1:]
            )
            torch.testing.assert_close(ours_of, expected, rtol=1e-5, atol=1e-5)


def recipe_source(recipe: dict[str, Any]) -> Any:
    from groundup.core.registry import lookup

    section = {key: value for key, value in recipe["data"].items() if key != "name"}
    return lookup("data", "preferences")(**section)
