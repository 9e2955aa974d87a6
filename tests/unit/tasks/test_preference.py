"""Preferences in the shapes people keep them in; what is scored, what is compared, and with
what."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tiny_runs import preference_run, without_chance
from torch import nn

from groundup import api
from groundup.core.values import Message
from groundup.data.schemas.preference_formats import recognise_preference, to_judgement
from groundup.data.sources.preferences import PreferenceSource
from groundup.generation.log_probs import token_log_probs
from groundup.models.gemma import Gemma3Config
from groundup.nn import logits as output_layer
from groundup.nn import loss
from groundup.processors.text.bytes import BytesConfig
from groundup.reports.inspect_texts import TextInspector
from groundup.runs.processor import load_processor
from groundup.tasks.preference.losses import log_odds
from groundup.tasks.preference.task import PreferenceTuning

USER = {"role": "user", "content": "Why?"}
GOOD, WORSE = {"role": "assistant", "content": "So."}, {"role": "assistant", "content": "No."}
ANSWERS = {"chosen": "So.", "rejected": "No."}
HUMAN, GPT, OTHER = (
    {"from": who, "value": text}
    for who, text in (("human", "Why?"), ("gpt", "So."), ("gpt", "No."))
)
PAIRS: list[tuple[str, dict[str, Any]]] = [
    ("pairs", {"prompt": "Why?", **ANSWERS}),
    ("pairs", {"question": "Why?", **ANSWERS}),
    ("pairs", {"prompt": [USER], "chosen": [GOOD], "rejected": [WORSE]}),
    ("pairs", {"prompt": "Why?", "chosen": [USER, GOOD], "rejected": [USER, WORSE]}),
    ("pairs", {"prompt": [USER], **ANSWERS}),
    ("sharegpt_pairs", {"conversations": [HUMAN], "chosen": GPT, "rejected": OTHER}),
    ("sharegpt_pairs", {"messages": [USER], "chosen": GOOD, "rejected": WORSE}),
    ("alpaca_pairs", {"instruction": "Why?", "input": "", **ANSWERS}),
    ("dialogue_pairs", {"chosen": [USER, GOOD], "rejected": [USER, WORSE]}),
    (
        "dialogue_pairs",
        {name: f"\n\nHuman: Why?\n\nAssistant: {text}" for name, text in ANSWERS.items()},
    ),
]
LABELS: list[dict[str, Any]] = [
    {"messages": [USER, GOOD], "label": True},
    {"conversations": [HUMAN, GPT], "kto_tag": True},
    {"prompt": "Why?", "completion": "So.", "label": "True"},
    {"instruction": "Why?", "output": "So.", "kto_tag": True},
]


@pytest.mark.parametrize(("form", "row"), PAIRS)
def test_the_same_pair_in_every_format(form: str, row: dict[str, Any]) -> None:
    found = to_judgement(row, "here")
    assert recognise_preference(row) == form
    assert found.prompt == (Message("user", "Why?"),)
    assert found.answers == ((Message("assistant", "So."),), (Message("assistant", "No."),))
    assert found.good is None
    if form != "dialogue_pairs" and "role" not in str(row["chosen"]):
        assert to_judgement(row | {"system": "Be."}, "here").prompt[0] == Message("system", "Be.")


@pytest.mark.parametrize("row", LABELS)
def test_the_same_label_in_every_format(row: dict[str, Any]) -> None:
    found = to_judgement(row, "here")
    assert found[:3] == ((Message("user", "Why?"),), ((Message("assistant", "So."),),), True)


def test_answers_of_several_turns_part_where_they_differ() -> None:
    longer = [USER, GOOD, {"role": "user", "content": "And?"}, WORSE]
    found = to_judgement({"chosen": longer, "rejected": [*longer[:3], GOOD]}, "here")
    assert [turn.content for turn in found.prompt] == ["Why?", "So.", "And?"]
    assert (
        to_judgement({"chosen": longer, "rejected": [USER, WORSE]}, "here").answers[0][-1].content
        == "No."
    )


def source(folder: Path, **settings: Any) -> PreferenceSource:
    rows = [
        {"prompt": f"Prompt {n % 20}", "chosen": f"yes {n}", "rejected": "no" * (n + 1)}
        for n in range(30)
    ]
    (folder / "rows.json").write_text(json.dumps(rows))
    return PreferenceSource(path=str(folder / "rows.json"), **settings)


def test_sides_labels_and_what_is_left_out(tmp_path: Path) -> None:
    plain = source(tmp_path, fraction=0.4)
    sides = [
        {row.group for row in plain.examples(split, tmp_path)} for split in ("train", "validation")
    ]
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]
    judged = source(tmp_path, fraction=0.0, unpaired=True).examples("train", tmp_path)
    assert [row.good for row in judged[:4]] == [True, False, True, False]
    by_answer: dict[str, set[str]] = {}
    for row in judged:
        by_answer.setdefault(row.answers[0][0].content, set()).add(row.group)
    assert all(by_answer[row.answers[1][0].content] != {row.group} for row in judged), (
        "of another prompt"
    )
    card = source(tmp_path, fraction=0.4, longest_characters=30).card(tmp_path)
    assert card["formats"] == {"pairs": 10}
    assert card["left_out"]["longest_characters"] == 20
    assert card["train"]["pairs"] + card["validation"]["pairs"] == 10
    named = source(tmp_path, validation=str(tmp_path / "held_out.json"))
    (tmp_path / "held_out.json").write_text(json.dumps([{"prompt": "PROMPT  3", **ANSWERS}]))
    assert len(named.examples("train", tmp_path)) == 28
    assert named.card(tmp_path)["left_out"]["question_in_validation"] == 2


def test_what_is_shown_of_pairs(tmp_path: Path) -> None:
    processor = BytesConfig().fit(lambda: iter(()))
    inspector = TextInspector(
        source(tmp_path, fraction=0.4),
        PreferenceTuning(),
        processor,
        tmp_path,
        examples=2,
    )
    for view in inspector.inspect_split("train").views:
        prompt, _, answer = view.mark().rpartition("‹")
        assert answer.startswith(("yes", "no"))
        assert "P" not in answer, "of a prompt"
        assert "P" in prompt


@pytest.mark.slow
def test_rows_longer_than_the_context_are_dropped(tmp_path: Path) -> None:
    recipe = preference_run(tmp_path)
    recipe["data"]["too_long"] = "drop"
    trainer = api.trainer(recipe, {"model.context_length": 52}, runs=tmp_path / "runs")
    batch = next(trainer.stream)
    assert 4 < trainer.samples_per_epoch < 25
    assert int(batch["sequence_lengths"].max()) <= 52
    assert bool((batch["reference"] < -1).all())
    trainer.close()


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["dpo", "simpo"])
def test_the_oldest_turns_of_prompts_are_left_out(
    objective: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = {"role": "system", "content": "Be."}
    talks = [
        [told, *[USER, GOOD] * turns, {**USER, "content": f"And {turns}?"}]
        for turns in (0, 1, 4, 9)
    ]
    rows = [{"prompt": talk, **ANSWERS} for talk in talks]
    rows.append({"prompt": [told, USER, GOOD, {**USER, "content": "Why? " * 40}], **ANSWERS})
    recipe = preference_run(tmp_path, objective=objective)
    (tmp_path / "talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe["data"] |= {
        "path": str(tmp_path / "talks.jsonl"),
        "fraction": 0.0,
        "too_long": "truncate",
    }
    recipe |= {"training": {"batch_size": 4, "steps": 1}, "logging": {"every": 1}}
    trainer = api.trainer(
        recipe, {"model.context_length": 72, "machine.micro_batch_size": 4}, runs=tmp_path / "runs"
    )
    batch = next(trainer.stream)
    assert trainer.samples_per_epoch == 4  # the last row is too long with its last question alone
    assert int(batch["sequence_lengths"].max()) <= 72
    assert bool((batch["reference"] < -1).all()) == (objective == "dpo")  # asked of what is left
    assert (
        "train: the oldest turns of 2 of 5 prompts were left out, to fit into the context of 72"
        in caplog.text
    )
    assert (
        "train: 1 rows were dropped, being longer than the context of 72; 4 are left" in caplog.text
    )
    processor = load_processor(trainer.run.folder / "processor")
    for row, lengths in zip(batch["tokens"], batch["sequence_lengths"].tolist(), strict=True):
        both = row[: lengths[0]], row[lengths[0] : sum(lengths)]
        texts = [processor.decode(tokens.tolist()) for tokens in both]
        assert texts[0].endswith("So.") and texts[1].endswith("No.")  # noqa: PT018
        assert texts[0][:-3] == texts[1][:-3]
        assert "Be." in texts[0] and "And" in texts[0]  # noqa: PT018
    ends = {
        batch["next_tokens"][row][batch["next_tokens"][row] >= 0][-1].item() for row in range(4)
    }
    assert ends == {processor.special_id("<|end|>")}
    trainer.close()
    held_out = {"validation": str(tmp_path / "preferences.jsonl"), "fraction": 0.1}
    source = cast(PreferenceSource, trainer.recipe.data).model_copy(update=held_out)
    task = cast(PreferenceTuning, trainer.recipe.task)
    inspected = TextInspector(source, task, processor, tmp_path, sequence_length=72).inspect()
    warnings = "\n".join(inspected.warnings)
    assert "longer than the context of 72 tokens; the oldest turns of prompts are cut" in warnings


# ---------------------------------------------------------------------------------- where it begins
@pytest.mark.slow
@pytest.mark.parametrize("adapter", [None, "lora", "dora"])
@pytest.mark.parametrize("start", ["run", "pretrained"])
def test_a_run_begins_at_its_reference(start: str, adapter: str | None, tmp_path: Path) -> None:
    recipe = without_chance(preference_run(tmp_path))
    base = api.train(
        recipe,
        {"name": "base", "training.steps": 2, "task.objective": "simpo"},
        runs=tmp_path / "runs",
    )
    own = {"name": "own", "init": {start: str(base.folder / ("" if start == "run" else "model"))}}
    if adapter:
        own["adapter"] = {"name": adapter, "rank": 2}
    kept = {key: value for key, value in recipe.items() if key not in ("processor", "model")}
    changes = {"model": recipe["model"]} if start == "run" else {"model": {"context_length": 96}}
    run = (
        kept
        | own
        | changes
        | {
            "training": {"batch_size": 8, "steps": 6},
            "optim": {"lr": 1e-2},
            "logging": {"every": 1},
        }
    )
    trained = api.train(run, runs=tmp_path / "runs")
    rows = [
        json.loads(line) for line in (trained.folder / "metrics.jsonl").read_text().splitlines()
    ]
    first = next(row for row in rows if row["kind"] == "train")
    assert first["loss"] == pytest.approx(0.6931472, abs=1e-5)
    found = api.evaluate(trained.folder, limit=40)["runs"][0]["evaluation"]["metrics"]
    assert (found["base_reward_margin"], found["base_reward_accuracy"]) == (0.0, 0.5)
    assert found["reward_margin"] > 0
    assert found["reward_accuracy"] > 0.5
    assert len(list((tmp_path / "cache" / "references").glob("*.npy"))) == 2  # of both splits


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_dropout_next_to_a_reference_is_said(
    dropout: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = preference_run(tmp_path)
    own = {"name": "base", "training.steps": 1, "task.objective": "simpo"}
    base = api.train(recipe, own, runs=tmp_path / "runs")
    assert "drops out in training" not in caplog.text
    kept = {key: value for key, value in recipe.items() if key not in ("processor", "model")}
    kept |= {"init": {"run": str(base.folder)}, "model": {"dropout": dropout}}
    kept["adapter"] = {"rank": 2, "dropout": 0.2}
    with caplog.at_level(logging.WARNING, logger="groundup"):
        trainer = api.trainer(kept | {"name": "own"}, runs=tmp_path / "runs")
    first = next(iter(trainer.steps()))
    trainer.close()
    said = "dropout drops out in training, but the reference is computed without" in caplog.text
    assert said == bool(dropout)
    assert (abs(first.loss - 0.6931472) < 1e-6) == (not dropout)


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [None, "lora", "dora"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("objective", "expected"), [("dpo", 0.6931471806), ("ipo", 25.0)])
def test_the_first_loss_is_exact_in_any_precision_and_batch(
    precision: str, adapter: str | None, objective: str, expected: float, tmp_path: Path
) -> None:
    recipe = preference_run(tmp_path)
    base = api.train(
        recipe,
        {"name": "base", "training.steps": 1, "task.objective": "simpo"},
        runs=tmp_path / "runs",
    )
    recipe = {key: value for key, value in recipe.items() if key not in ("processor", "model")}
    recipe |= {"init": {"run": str(base.folder)}, "model": {"dropout": 0.0}}
    if adapter:
        recipe["adapter"] = {"name": adapter, "rank": 2}
    for micro in (8, 2):
        machine = recipe["machine"] | {"precision": precision, "micro_batch_size": micro}
        own = {"name": f"own{micro}", "machine": machine, "task.objective": objective}
        trainer = api.trainer(recipe, own, runs=tmp_path / "runs")
        first = next(iter(trainer.steps()))
        trainer.close()
        assert first.loss == pytest.approx(expected, abs=1e-6)


# ------------------------------------------------------------------------------------------- losses
@pytest.mark.parametrize(
    ("settings", "changed"),
    [
        ({"objective": "dpo"}, {"beta": 0.5}),
        ({"objective": "dpo"}, {"label_smoothing": 0.2}),
        ({"objective": "ipo"}, {"beta": 0.5}),
        ({"objective": "simpo"}, {"beta": 0.5}),
        ({"objective": "simpo"}, {"gamma": 0.5}),
        ({"objective": "orpo"}, {"odds_weight": 0.5}),
        ({"objective": "kto"}, {"beta": 0.5}),
        ({"objective": "kto"}, {"desirable_weight": 0.5}),
        ({"objective": "kto"}, {"undesirable_weight": 0.5}),
    ],
)
def test_every_setting_has_an_effect(settings: dict[str, Any], changed: dict[str, Any]) -> None:
    log_probs = torch.tensor([[-9.0, -11.0], [-8.0, -7.0]])
    given = (
        log_probs,
        torch.tensor([[4, 6], [5, 5]]),
        log_probs * 1.2,
        torch.tensor([True, False]),
    )
    one, other = (
        PreferenceTuning(**each).compare(*given).terms["preference"].total
        for each in (settings, settings | changed)
    )
    assert float(one) != float(other)


def test_log_odds_near_both_ends_have_gradients() -> None:
    log_probs = torch.tensor(
        [-1e-9, -1e-3, -0.6931, -0.7, -50.0], dtype=torch.float64, requires_grad=True
    )
    odds = log_odds(log_probs)
    p = log_probs.exp()
    torch.testing.assert_close(odds[1:4], (p / (1 - p)).log()[1:4])
    (gradient,) = torch.autograd.grad(odds.sum(), log_probs)
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize(
    ("trained", "cap"), [(True, None), (False, None), (True, 0.7), (False, 0.7)]
)
def test_log_probs_by_chunks_have_the_gradients_of_plain_ones(
    trained: bool, cap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_layer, "_CHUNK_BYTES", 64)
    hidden = torch.randn(150, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(11, 5, dtype=torch.float64, requires_grad=trained)
    targets, factors = torch.randint(0, 11, (150,)), torch.randn(150, dtype=torch.float64)
    inputs = (hidden, weight) if trained else (hidden,)
    plain = (
        output_layer.cap_logits(hidden @ weight.T, cap)
        .log_softmax(1)
        .gather(1, targets[:, None])[:, 0]
    )
    found = loss.linear_log_probs(hidden, weight, targets, cap)
    torch.testing.assert_close(found, plain)
    expected = torch.autograd.grad((plain * factors).sum(), inputs)
    torch.testing.assert_close(torch.autograd.grad((found * factors).sum(), inputs), expected)


def test_a_model_that_caps_its_logits_is_asked_for_what_it_says() -> None:
    sizes = {
        "vocabulary_size": 7,
        "context_length": 8,
        "layers": 1,
        "width": 8,
        "heads": 2,
        "kv_heads": 1,
        "head_dim": 4,
    }
    plain = Gemma3Config(**sizes, mlp_width=8, logit_cap=0.5).build()
    with torch.no_grad():
        plain.embed.weight.mul_(30)  # logits well beyond the cap
    tokens, scored = torch.tensor([[1, 2, 3]]), torch.tensor([-100, 4, 5])
    expected = plain(tokens)[0].log_softmax(1)[[1, 2], [4, 5]]
    found = token_log_probs(plain, scored, tokens=tokens)
    torch.testing.assert_close(found, torch.cat((torch.zeros(1), expected)))


def test_a_model_with_logits_alone_is_asked_too() -> None:
    model = nn.Embedding(7, 7)
    tokens, scored = torch.tensor([[1, 2, 3]]), torch.tensor([-100, 4, 5])
    logits = model(tokens)
    expected = logits[0].log_softmax(1)[[1, 2], [4, 5]]
    found = token_log_probs(model, scored, input=tokens)
    torch.testing.assert_close(found, torch.cat((torch.zeros(1), expected)))
