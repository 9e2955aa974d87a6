"""Answers that are pieces of a text: files, windows, the loss and logits that transformers gives,
runs, and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from encoder_folders import write_encoder
from pretrained_folders import transformers

import groundup
from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import validate
from groundup.core.values import Example
from groundup.data.sources.question_answers import QuestionAnswers
from groundup.metrics.answers import answer_scores, normalised_answer
from groundup.models.bert import BERTConfig
from groundup.processors.text.bytes import BytesConfig
from groundup.processors.text.tokenizer_json import TokenizerJSONConfig
from groundup.tasks.extractive_qa import ExtractiveQA

CONTEXT = "A good film, a bad film! Unwatchable!"
SMALL = {"max_tokens": 12, "stride": 2, "max_question_tokens": 4}


def squad(folder: Path, **changes: Any) -> str:
    """Write twelve paragraphs as SQuAD 2 has them."""
    paragraphs = []
    for n in range(12):
        context = CONTEXT + "!" * n
        asked = {"question": "A good?", "id": f"{n}a", "is_impossible": False}
        asked["answers"] = [{"text": "Unwatchable", "answer_start": context.index("Unwatchable")}]
        paragraphs.append(
            {
                "context": context,
                "qas": [asked | changes, {"question": "bad?", "is_impossible": True}],
            }
        )
    path = folder / "squad.json"
    path.write_text(
        json.dumps({"version": "v2.0", "data": [{"title": "x", "paragraphs": paragraphs}]})
    )
    return str(path)


def everything(source: QuestionAnswers, folder: Path) -> list[Example]:
    return [*source.examples("train", folder), *source.examples("validation", folder)]


def test_squad_and_rows_are_the_same(tmp_path: Path) -> None:
    found = everything(QuestionAnswers(path=squad(tmp_path), fraction=0.3), tmp_path)
    assert len(found) == 24
    rows = QuestionAnswers(path=squad(tmp_path)).unlabelled(squad(tmp_path))
    assert {row.inputs for row in rows} == {example.inputs for example in found}
    assert {len(example.target) for example in found} == {0, 1}
    assert "article 1 paragraph " in found[0].origin
    for own in ([{"text": "good", "answer_start": 2}], {"text": ["good"], "answer_start": [2]}):
        rows = [{"question": "?", "context": CONTEXT + "!" * n, "answers": own} for n in range(12)]
        (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
        source = QuestionAnswers(path=str(tmp_path / "a.jsonl"), fraction=0.3)
        assert all(example.target == [("good", 2)] for example in everything(source, tmp_path))
        assert source.card(tmp_path)["train"]["without_answer"] == 0


@pytest.mark.parametrize("key", ["path", "dataset"])
def test_parquet_and_data_sets(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    if key == "dataset":
        datasets = pytest.importorskip("datasets")
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    answers = {"text": ["good"], "answer_start": [2]}
    rows = {
        "question": ["?"] * 12,
        "context": [CONTEXT + "!" * n for n in range(12)],
        "answers": [answers] * 12,
    }
    (tmp_path / "rows").mkdir()
    parquet.write_table(pyarrow.table(rows), tmp_path / "rows" / "train.parquet")
    source = QuestionAnswers(**{key: str(tmp_path / "rows")}, fraction=0.3)
    assert all(example.target == [("good", 2)] for example in everything(source, tmp_path))


@pytest.mark.slow
def test_windows_logits_and_loss_are_those_of_transformers(tmp_path: Path) -> None:
    module = write_encoder(tmp_path, "ForQuestionAnswering")
    task = validate(ExtractiveQA, SMALL, "recipe.task")
    processor = task.fit_processor(
        TokenizerJSONConfig(path=str(tmp_path)).fit(lambda: iter(())), lambda: iter(())
    )
    start = CONTEXT.index("Unwatchable")
    example = Example("", ("A good film?", CONTEXT), [("Unwatchable", start)])
    batch = task.encode([example, Example("", ("bad", "film"), [])], processor)
    assert batch["window_lengths"][1].tolist() == [5, 0, 0, 0]
    rows = transformers.AutoTokenizer.from_pretrained(tmp_path)(
        "A good film?",
        CONTEXT,
        truncation="only_second",
        max_length=12,
        stride=2,
        padding=True,
        return_tensors="pt",
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_token_type_ids=True,
    )
    assert torch.equal(batch["windows"][0], rows["input_ids"])
    assert torch.equal(batch["window_types"][0], rows["token_type_ids"])
    answers = batch["answers"][0].tolist()
    assert any(first for first, _ in answers)
    for row, (first, last) in enumerate(answers):
        if first:
            spans = rows["offset_mapping"][row]
            assert CONTEXT[spans[first][0] : spans[last][1]] == "Unwatchable"
    settings = BERTConfig.from_huggingface(json.loads((tmp_path / "config.json").read_text()))
    model = validate(
        BERTConfig, settings | {"head": "tokens", "outputs": 2, "pooler": "tanh"}, "recipe.model"
    ).build()
    found = model.config.weights_from_huggingface(module.state_dict())
    model.load_state_dict(found)
    one = {name: values[:1] for name, values in batch.items()}
    outputs = model.eval()(**task.inputs(one))
    inputs = {name: rows[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    starts, ends = torch.tensor(answers).T
    theirs = module(**inputs, start_positions=starts, end_positions=ends)
    inside = rows["attention_mask"].bool()
    torch.testing.assert_close(
        outputs[..., 0][inside], theirs.start_logits[inside], rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(
        outputs[..., 1][inside], theirs.end_logits[inside], rtol=1e-5, atol=1e-6
    )
    term = task.loss(outputs, one).terms["window"]
    if bool(inside.all()):  # they do not rule out the padding
        torch.testing.assert_close(term.total / term.count, theirs.loss)
    scores = [
        x.masked_fill(~inside, -torch.inf).log_softmax(1)
        for x in (theirs.start_logits, theirs.end_logits)
    ]
    places = torch.arange(len(starts))
    expected = -(scores[0][places, starts] + scores[1][places, ends]).mean() / 2
    torch.testing.assert_close(term.total / term.count, expected)


def test_scores_of_answers() -> None:
    assert normalised_answer("The  cat, an animal!") == "cat animal"
    assert answer_scores("the cat sat", ["A dog", "cat"]) == (0.0, pytest.approx(2 / 3))
    assert answer_scores("", []) == (1.0, 1.0)
    assert answer_scores("cat", []) == (0.0, 0.0)


@pytest.mark.slow
def test_a_run_and_its_answers(tmp_path: Path) -> None:
    write_encoder(tmp_path / "bert", "ForQuestionAnswering")
    recipe = {
        **{
            "name": "qa",
            "init": {"pretrained": str(tmp_path / "bert")},
            "task": {"name": "extractive_qa", **SMALL},
        },
        **{
            "data": {
                "name": "question_answers",
                "path": squad(tmp_path),
                "fraction": 0.3,
            }
        },
        **{"training": {"batch_size": 6, "steps": 40}, "optim": {"lr": 1e-2}},
        "machine": {"device": "cpu", "precision": "fp32", "compile": False, "threads": 1},
    }
    trainer = groundup.trainer(recipe, runs=tmp_path / "runs")
    news = "".join(path.read_text() for path in trainer.run.folder.glob("*.jsonl"))
    assert "new head" not in news
    losses = [report.loss for report in trainer.steps()]
    assert losses[-1] < losses[0]
    trainer.save()
    trainer.close()
    predictor = groundup.load(trainer.run.folder)
    answer, score = predictor(("A good?", CONTEXT))
    assert answer in CONTEXT
    assert predictor(["A good?\t" + CONTEXT, ("bad?", CONTEXT)])[0] == (answer, score)
    metrics = groundup.evaluate(trainer.run.folder)["runs"][0]["evaluation"]["metrics"]
    assert {"exact_match", "f1", "f1_with_answer", "f1_without_answer"} <= set(metrics)
    with pytest.raises(
        DataError,
        match=r"inputs: 'why' is not a question and a text\. Give \(question, text\), or on",
    ):
        predictor("why")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (
            {"answers": [{"text": "bad", "answer_start": 0}]},
            r"line 1: the answer 'bad' is not at character 0, which has 'A g",
        ),
        (
            {"answers": [{"text": "worse", "answer_start": 0}]},
            r"The context does not hold it: correct answer_start, or",
        ),
        (
            {"answers": [{"text": "bad"}]},
            r"line 1: an answer is \{'text': 'bad'\}; allowed: text and answer_start",
        ),
        ({"answers": "bad"}, r"line 1: the answers are 'bad'; allowed: a list"),
        (
            {"answers": {"text": ["bad"], "answer_start": []}},
            r"line 1: there are 1 answers, but answer_start is \[\]",
        ),
        ({"question": " "}, r"line 1: the question is empty\. Write it, or remove the question"),
        ({"context": 5}, r"line 1: column 'context' is a number \(5\); allowed: text"),
    ],
)
def test_rows_that_cannot_be_read(row: dict[str, Any], problem: str, tmp_path: Path) -> None:
    whole = {"question": "?", "context": CONTEXT, "answers": [], **row}
    (tmp_path / "a.jsonl").write_text(json.dumps(whole), encoding="utf-8")
    with pytest.raises(DataError, match=problem):
        QuestionAnswers(path=str(tmp_path / "a.jsonl")).examples("train", tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            '{"data": [{"paragraphs": 1}]}',
            r"a\.json article 1: there is no list 'paragraphs' of objects",
        ),
        (
            '{"data": [{"paragraphs": [{"qas": [{"question": "?"}]}]}]}',
            r"paragraph 1 question 1: there is no 'context'",
        ),
        ('{"data": [{"paragraphs": [', r"a\.json: not JSON at column 27: "),
        (
            (
                '{"data": [{"paragraphs": [{"context": "x", "qas": [{"question": "?",'
                ' "is_impossible": false}]}]}]}'
            ),
            (
                r"question 1: there are no answers, and is_impossible is not true\. Write the"
                r" answers, or is_impossible"
            ),
        ),
    ],
)
def test_squad_files_that_are_damaged(content: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=problem):
        QuestionAnswers(path=str(tmp_path / "a.json")).examples("train", tmp_path)


def test_settings_and_tokenizers_that_do_not_fit() -> None:
    with pytest.raises(
        RecipeError,
        match="stride 200 leaves nothing new in a window: next to a question of 64 tokens",
    ):
        validate(ExtractiveQA, {"max_tokens": 256, "stride": 200}, "recipe.task")
    with pytest.raises(
        RecipeError,
        match=r"recipe\.processor: has no tokens that an encoder expects around a question",
    ):
        ExtractiveQA().fit_processor(BytesConfig().fit(lambda: iter(())), lambda: iter(()))
    with pytest.raises(RecipeError, match="seed has no effect with validation"):
        validate(QuestionAnswers, {"path": "a", "validation": "b", "seed": 1}, "recipe.data")
