"""Sentence embeddings: the loss against plain torch, vectors against transformers', runs, and
errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoder_folders import write_encoder
from pretrained_folders import transformers

import groundup
from groundup.core.errors import DataError, GroundupError, RecipeError
from groundup.core.settings import validate
from groundup.data.sources.text_pairs import TextPairs
from groundup.metrics.retrieval import ranks, retrieval_measures
from groundup.processors.text.bytes import BytesConfig
from groundup.recipe.recipe import load_recipe
from groundup.tasks.sentence_embedding import SentenceEmbedding
from groundup.weights.model_folder import write_model_folder

MINILM = Path("/tmp/s5/minilm")
WORDS = ("good", "bad", "film", "a", "unwatchable")
ROWS = [
    (f"{a} {b}{'!' * n}", f"{b} {a} film{'!' * n}") for n in range(2) for a in WORDS for b in WORDS
]


def written(
    folder: Path, rows: list[tuple[str, ...]] | None = None, names: tuple[str, ...] = ()
) -> dict[str, Any]:
    path = folder / "pairs.jsonl"
    names = names or ("anchor", "positive", "negative")
    lines = [json.dumps(dict(zip(names, row, strict=False))) + "\n" for row in rows or ROWS]
    path.write_text("".join(lines), encoding="utf-8")
    return {"path": str(path)}


def recipe(folder: Path, **task: Any) -> dict[str, Any]:
    return {
        **{
            "name": "sentence_embedding",
            "init": {"pretrained": str(folder / "bert")},
            "task": {"name": "sentence_embedding", "max_tokens": 16, **task},
        },
        **{"data": {"name": "text_pairs", **written(folder), "fraction": 0.2}},
        **{"training": {"batch_size": 6, "steps": 2}, "optim": {"lr": 1e-3}},
        "machine": {
            "device": "cpu",
            "precision": "fp32",
            "compile": False,
            "threads": 1,
            "micro_batch_size": 6,
        },
    }


@pytest.mark.parametrize(
    "settings", [{}, {"symmetric": True}, {"pooling": "first", "temperature": 0.5}]
)
@pytest.mark.parametrize("texts", [2, 3])
def test_the_loss_and_its_gradient_are_those_written_out(
    settings: dict[str, Any], texts: int
) -> None:
    task = validate(SentenceEmbedding, settings, "recipe.task")
    torch.manual_seed(0)
    states = torch.randn(4 * texts, 5, 8, dtype=torch.float64, requires_grad=True)
    lengths = torch.randint(1, 6, (4, texts))
    batch = {"texts": torch.randint(0, 99, (4, texts, 5)), "text_lengths": lengths}
    found = task.loss(states, batch).terms["pair"].total
    (gradient,) = torch.autograd.grad(found, states)
    rows = []
    for state, length in zip(states, lengths.flatten().tolist(), strict=True):
        pooled = state[:length].mean(0) if task.pooling == "mean" else state[0]
        rows.append(pooled / pooled.norm())
    sides = [rows[n::texts] for n in range(texts)]
    total = torch.zeros((), dtype=torch.float64)
    for n in range(4):
        there = (
            torch.stack([sides[0][n] @ other for side in sides[1:] for other in side])
            / task.temperature
        )
        back = torch.stack([sides[1][n] @ other for other in sides[0]]) / task.temperature
        each = there.logsumexp(0) - there[n]
        total = total + ((each + back.logsumexp(0) - back[n]) / 2 if task.symmetric else each)
    torch.testing.assert_close(found, total)
    torch.testing.assert_close(gradient, torch.autograd.grad(total, states)[0])


def test_a_text_that_is_the_same_as_the_right_one_is_no_wrong_answer() -> None:
    torch.manual_seed(0)
    states = torch.randn(6, 2, 4)
    texts = torch.randint(0, 99, (3, 2, 2))
    batch = {"texts": texts, "text_lengths": torch.full((3, 2), 2)}
    alone = SentenceEmbedding().loss(states, batch).terms["pair"].total
    texts[1, 1] = texts[0, 1]
    same = SentenceEmbedding().loss(states, batch).terms["pair"].total
    assert float(same) < float(alone)


def test_ranks_and_measures() -> None:
    candidates = np.eye(3)
    queries = np.array([[0.9, 0.1, 0.0], [0.6, 0.8, 0.0], [0.8, 0.6, 0.0]])
    places = ranks(queries, candidates, np.array([0, 1, 1]))
    assert places.tolist() == [1, 1, 2]
    assert retrieval_measures(places, 3)["mean_reciprocal_rank"] == pytest.approx(2.5 / 3)
    assert ranks(np.ones((1, 3)), np.ones((4, 3)), np.array([2])).tolist() == [
        4
    ]  # all alike: nothing was found


@pytest.mark.slow
def test_a_run_from_a_folder_and_its_vectors(tmp_path: Path) -> None:
    module = write_encoder(tmp_path / "bert", "Model")
    trainer = groundup.trainer(recipe(tmp_path), runs=tmp_path / "runs")
    assert {name.split(".")[0] for name, _ in trainer.trained}.isdisjoint({"head", "head_pooler"})
    texts = ["A good film", "unwatchable!", "bad"]
    inputs = transformers.AutoTokenizer.from_pretrained(tmp_path / "bert")(
        texts, padding=True, return_tensors="pt"
    )
    found = trainer.task.predict(trainer.model, texts, trainer.parts.processor)
    assert found == pytest.approx(expected_vectors(module, inputs), abs=1e-5)
    trainer.fit()
    trainer.close()
    predictor = groundup.load(trainer.run.folder)
    assert json.loads(str(predictor("bad"))) == pytest.approx(predictor(texts)[2], abs=1e-6)
    assert np.linalg.norm(predictor("bad")) == pytest.approx(1)
    metrics = groundup.evaluate(trainer.run.folder)["runs"][0]["evaluation"]["metrics"]
    assert {"accuracy_at_1", "accuracy_at_1_before", "mean_reciprocal_rank"} <= set(metrics)
    write_model_folder(trainer.run)
    exported = transformers.AutoModel.from_pretrained(trainer.run.folder / "model").eval()
    assert expected_vectors(exported, inputs) == pytest.approx(np.array(predictor(texts)), abs=1e-5)


@pytest.mark.slow
def test_pooling_comes_from_the_folder_and_goes_with_the_model(tmp_path: Path) -> None:
    write_encoder(tmp_path / "bert", "Model")
    pool = tmp_path / "bert" / "1_Pooling" / "config.json"
    pool.parent.mkdir()
    pool.write_text('{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}')
    run = groundup.train(recipe(tmp_path), runs=tmp_path)
    assert run.recipe.task == SentenceEmbedding(pooling="first", max_tokens=16)
    read = json.loads((run.folder / "model" / "1_Pooling" / "config.json").read_text())
    on = {key for key, value in read.items() if value is True}
    assert on == {"pooling_mode_cls_token"}
    modules = json.loads((run.folder / "model" / "modules.json").read_text())
    assert [each["type"].rpartition(".")[2] for each in modules] == [
        "Transformer",
        "Pooling",
        "Normalize",
    ]
    # A run that starts from this one goes on alike, and so does one that starts from its model/.
    for init in ({"run": str(run.folder)}, {"pretrained": str(run.folder / "model")}):
        further = load_recipe(recipe(tmp_path) | {"name": "further", "init": init})
        assert further.task == SentenceEmbedding(pooling="first", max_tokens=16)
    other = groundup.train(recipe(tmp_path, pooling="mean") | {"name": "other"}, runs=tmp_path)
    notes = other.read_json("environment.json")["pretrained"]["notes"]
    assert [note for note in notes if "task.pooling is mean" in note]


@torch.no_grad()
def expected_vectors(module: Any, inputs: Any) -> Any:
    states, mask = module(**inputs).last_hidden_state, inputs["attention_mask"][..., None]
    pooled = (states * mask).sum(1) / mask.sum(1)
    return (pooled / pooled.norm(dim=1, keepdim=True)).numpy()


@pytest.mark.slow
@pytest.mark.skipif(not MINILM.is_dir(), reason="needs the weights of MiniLM")
def test_minilm_gives_the_vectors_that_transformers_gives(tmp_path: Path) -> None:
    settings = recipe(tmp_path, max_tokens=128) | {"init": {"pretrained": str(MINILM)}}
    trainer = groundup.trainer(settings, runs=tmp_path / "runs")
    texts = [
        "How do I sort a list?",
        "list.sort sorts in place, and sorted returns a new list.",
        "雨",
        "x " * 300,
    ]
    found = np.array(trainer.task.predict(trainer.model, texts, trainer.parts.processor))
    trainer.close()
    reader = transformers.AutoTokenizer.from_pretrained(MINILM)
    inputs = reader(texts, padding=True, truncation=True, max_length=128, return_tensors="pt")
    module = transformers.AutoModel.from_pretrained(MINILM, attn_implementation="eager").eval()
    assert np.abs(found - expected_vectors(module, inputs)).max() < 1e-5


# ------------------------------------------------------------------------------------------- errors
def test_pairs_that_share_a_text_are_on_one_side(tmp_path: Path) -> None:
    rows = [(f"question {n // 3}", f"answer {n}", "no answer") for n in range(60)]
    source = TextPairs(**written(tmp_path, rows), fraction=0.3)
    sides = [
        {e.inputs[0] for e in source.examples(split, tmp_path)} for split in ("train", "validation")
    ]
    assert not sides[0] & sides[1]
    assert source.card(tmp_path)["train"]["anchor"]["min_characters"] == 10.0
    assert (
        len(
            TextPairs(**written(tmp_path, rows), negative_column="negative")
            .examples("train", tmp_path)[0]
            .inputs
        )
        == 3
    )
    data = written(tmp_path, rows)
    copy = shutil.copy(data["path"], tmp_path / "held_out.jsonl")
    named = TextPairs(**data, validation=str(copy))
    with pytest.raises(DataError, match="nothing is left for train"):
        named.examples("train", tmp_path)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (("a", " "), r"line 1: column 'positive' is empty\. Write a text, or remove the row"),
        (
            ("a", "a "),
            (
                r"line 1: columns 'anchor' and 'positive' are the same text; nothing is learned"
                r" from that"
            ),
        ),
        (("a", 5), r"line 1: column 'positive' is a number \(5\); allowed: text"),
        (("a",), r"line 1: there is no column 'positive'; columns: anchor"),
    ],
)
def test_rows_that_are_no_pairs(row: tuple[Any, ...], problem: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=problem):
        TextPairs(**written(tmp_path, [row])).examples("train", tmp_path)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"positive_column": "anchor"}, "the column 'anchor' is named twice. Name another"),
        (
            {"validation": "b", "seed": 1},
            "seed has no effect with validation. Remove one",
        ),
        ({"dataset": "b"}, "both path and dataset are given"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError) as caught:
        validate(TextPairs, {"path": "a", **settings}, "recipe.data")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"machine.micro_batch_size": 3},
            "the loss of task 'sentence_embedding' with this model is no sum over examples",
        ),
        (
            {"model": {"name": "bert", "head": "masked"}},
            "recipe.model.head: is masked, but the task of this recipe ne",
        ),
        (
            {"task.max_tokens": 40},
            "recipe.model.context_length: is 20, but the task reads up to 40 tokens",
        ),
    ],
)
def test_runs_that_cannot_be(changes: dict[str, Any], problem: str, tmp_path: Path) -> None:
    write_encoder(tmp_path / "bert", "Model")
    with pytest.raises(GroundupError) as caught:
        groundup.trainer(
            recipe(tmp_path), {"task.max_tokens": 16, **changes}, runs=tmp_path / "runs"
        )
    assert problem in str(caught.value)


def test_other_models_and_batches_of_one() -> None:
    processor = SentenceEmbedding().fit_processor(
        BytesConfig().fit(lambda: iter(())), lambda: iter(())
    )
    with pytest.raises(
        RecipeError,
        match="the task needs the states of all tokens, but this model gives labels of a",
    ):
        SentenceEmbedding().check_model(torch.nn.Linear(2, 2), processor)
    batch = {"texts": torch.ones(1, 2, 3, dtype=torch.int64), "text_lengths": torch.full((1, 2), 3)}
    with pytest.raises(
        RecipeError, match=r"recipe\.training\.batch_size: is 1, but a pair is told apart from"
    ):
        SentenceEmbedding().loss(torch.randn(2, 3, 4), batch)
