"""Encoders in runs: tokens around a text, hidden tokens, heads that are new, adapters, what
predicting gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoder_folders import VOCABULARY, write_encoder, write_films
from pretrained_folders import transformers
from tiny_runs import tiny_run

import groundup
from groundup.core.registry import lookup
from groundup.models.bert import BERTConfig
from groundup.processors.class_targets import SingleLabel
from groundup.processors.labelled import Labelled
from groundup.processors.text.bpe import BPEConfig
from groundup.processors.text.tokenizer import TokenizerProcessor
from groundup.processors.text.tokenizer_json import TokenizerJSONConfig
from groundup.tasks.masked_lm.masking import Masking, hide_tokens

WORDS = ["a", "un", "##watch", "##able", "film", "!"]


def wordpiece(folder: Path) -> TokenizerProcessor:
    write_encoder(folder)
    return TokenizerJSONConfig(path=str(folder)).fit(lambda: iter(()))


# --------------------------------------------------------------------------------------- tokenizers
def test_texts_are_read_as_transformers_reads_them(tmp_path: Path) -> None:
    found = wordpiece(tmp_path / "there")
    found.save(tmp_path / "saved")
    texts = ["A GOOD film", "unwatchable! a bad film", "[MASK] is text here"]
    expected = transformers.AutoTokenizer.from_pretrained(tmp_path / "there")(
        texts[:2], padding=True, truncation=True, max_length=6, return_tensors="pt"
    )
    for processor in (found, TokenizerProcessor.load(tmp_path / "saved")):
        batch = Labelled(processor, SingleLabel.fit(["x", "y"]), 6).encode_inputs(texts[:2])
        assert torch.equal(batch["tokens"], expected["input_ids"])
        assert batch["lengths"].tolist() == expected["attention_mask"].sum(1).tolist()
        assert processor.mask_id not in processor.encode_batch(texts)[2]
        assert (processor.frame, processor.padding_id, processor.mask_id) == ((2, 3), 0, 4)
        assert [VOCABULARY[n] for n in np.flatnonzero(processor.continuations())] == [
            "##watch",
            "##able",
        ]
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert (
        again(texts)["input_ids"]
        == transformers.AutoTokenizer.from_pretrained(tmp_path / "there")(texts)["input_ids"]
    )
    assert again.mask_token == "[MASK]"


def test_a_tokenizer_learned_here_reserves_an_encoders_tokens(tmp_path: Path) -> None:
    texts = ["def unwatchable(film): return film"] * 20
    found = BPEConfig(vocab_size=290, encoder=True).fit(lambda: iter(texts))
    tokens = [found.decode([n], keep_special=True) for n in np.flatnonzero(found.continuations())]
    assert "film" in tokens
    assert not {" film", "(film", "):", "[CLS]"} & set(tokens)
    found.save(tmp_path)
    there = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert there("film")["input_ids"] == [
        found.frame[0],
        *found.encode_batch(["film"])[0],
        found.frame[1],
    ]
    plain = BPEConfig(vocab_size=290).fit(lambda: iter(texts))
    assert (plain.frame, plain.padding_id, plain.mask_id) == (None, None, None)


# ------------------------------------------------------------------------------------------ masking
def hidden(
    settings: Masking, folder: Path, rows: int = 400
) -> tuple[Any, torch.Tensor, torch.Tensor]:
    processor = wordpiece(folder)
    row = [2, *(VOCABULARY.index(piece) for piece in WORDS * 3), 3, 0]
    tokens = torch.tensor([row] * rows)
    found, targets = hide_tokens(tokens, tokens != 0, np.arange(rows), processor, settings, 7)
    chosen = targets >= 0
    assert torch.equal(targets[chosen], tokens[chosen])
    assert torch.equal(found[~chosen], tokens[~chosen])
    assert not chosen[:, [0, -2, -1]].any()
    alone, _ = hide_tokens(tokens[:1], tokens[:1] != 0, np.array([9]), processor, settings, 7)
    assert torch.equal(alone[0], found[9])
    assert not torch.equal(found[0], found[1])
    return processor, found, chosen


def test_eighty_ten_ten_of_fifteen_in_a_hundred(tmp_path: Path) -> None:
    processor, found, chosen = hidden(Masking(0.15, 0.8, 0.1, whole_words=False), tmp_path)
    assert (chosen.sum(1) == 3).all()  # of 18 tokens
    share = float((found[chosen] == processor.mask_id).double().mean())
    assert abs(share - 0.8) < 0.04
    assert not np.isin(
        found[chosen][found[chosen] != processor.mask_id].numpy(), [0, 1, 2, 3]
    ).any()


def test_whole_words(tmp_path: Path) -> None:
    _, _, chosen = hidden(Masking(0.2, 1.0, 0.0, whole_words=True), tmp_path)
    pieces = chosen[:, 1:-2].view(-1, 3, len(WORDS))[..., 1:4]
    assert (pieces.all(-1) == pieces.any(-1)).all()
    assert pieces.any(-1).double().mean() > 0.1
    assert (chosen.sum(1) <= 4).all()


def masked_run(folder: Path, **task: Any) -> dict[str, Any]:
    recipe = tiny_run("bert", folder, {"context_length": 24}, reads="documents")
    processor = {"name": "bpe", "vocab_size": 300, "encoder": True}
    return recipe | {"task": {"name": "masked_language_modeling", **task}, "processor": processor}


@pytest.mark.slow
def test_what_is_hidden_depends_on_the_sample_alone_and_in_validation_on_no_seed(
    tmp_path: Path,
) -> None:
    recipe = masked_run(tmp_path, whole_words=True)

    def first(name: str, **changed: Any) -> tuple[torch.Tensor, dict[str, float]]:
        trainer = groundup.trainer(recipe, {"name": name, **changed}, runs=tmp_path / "runs")
        rows = torch.cat(
            [
                next(trainer.stream)["tokens"]
                for _ in range(16 // trainer.recipe.machine.micro_batch_size)
            ]
        )
        metrics = trainer.evaluate()
        trainer.close()
        return rows, metrics

    whole, metrics = first("whole")
    parts, same = first("parts", **{"machine.micro_batch_size": 4})
    assert torch.equal(whole, parts)
    assert metrics["loss"] == pytest.approx(same["loss"], rel=1e-6)
    trainer = groundup.trainer(recipe, {"name": "seeded", "seed": 5}, runs=tmp_path / "runs")
    held_out = trainer._held_out.batches("validation", 0)
    plain = groundup.trainer(recipe, {"name": "plain"}, runs=tmp_path / "runs")
    other = plain._held_out.batches("validation", 0)
    assert torch.equal(next(held_out)["tokens"], next(other)["tokens"])


@pytest.mark.slow
def test_pretraining_judging_filling_in_and_fine_tuning(tmp_path: Path) -> None:
    run = groundup.train(masked_run(tmp_path), {"training.steps": 3}, runs=tmp_path / "runs")
    judged = groundup.evaluate(run.folder)["runs"][0]["evaluation"]
    assert judged["metrics"]["hidden_tokens"] > 10
    assert {"masked_accuracy", "unigram_accuracy", "unigram_loss"} <= set(judged["metrics"])
    predictor = groundup.load(run.folder)
    assert "[MASK]" not in predictor("oO [MASK] .. [MASK]")
    top = predictor("oO [MASK] .. [MASK]", top=3)
    assert [len(each) for each in top] == [3, 3]
    assert top[0][0][1] >= top[0][1][1]
    recipe = write_films(tmp_path) | {"init": {"run": str(run.folder)}}
    tuned = groundup.train(recipe, runs=tmp_path / "runs")
    assert tuned.recipe.model.outputs == 2
    assert groundup.load(tuned.folder)("A good film") in ("0", "1")


# ------------------------------------------------------------------------------------ from a folder
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Model", "ForMaskedLM", "ForSequenceClassification"])
def test_a_classifier_from_a_folder(kind: str, tmp_path: Path) -> None:
    module = write_encoder(
        tmp_path / "bert", kind, id2label={0: "0", 1: "1"}
    )  # the classes of the films
    recipe = write_films(tmp_path) | {"init": {"pretrained": str(tmp_path / "bert")}}
    trainer = groundup.trainer(recipe, runs=tmp_path / "runs")
    assert torch.equal(trainer.model.embed.weight, module.get_input_embeddings().weight)
    news = "".join(path.read_text() for path in trainer.run.folder.glob("*.jsonl"))
    assert ("new head, from random numbers: " in news) == (kind != "ForSequenceClassification")
    assert ("head_pooler" in news) == (kind == "ForMaskedLM")
    trainer.fit()
    trainer.close()
    assert groundup.load(trainer.run.folder)(["A good film", "bad"])[0] in ("0", "1")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "least"), [({"init.train_layers": 1}, 3), ({"adapter": {"name": "lora"}}, 3)]
)
def test_frozen_layers_and_adapters(changes: dict[str, Any], least: int, tmp_path: Path) -> None:
    write_encoder(tmp_path / "bert", "Model")
    recipe = write_films(tmp_path) | {"init": {"pretrained": str(tmp_path / "bert")}}
    run = groundup.train(recipe, {**changes, "training.steps": least}, runs=tmp_path / "runs")
    trainer = groundup.trainer(recipe, {**changes, "name": "start"}, runs=tmp_path / "runs")
    names = {name.split(".")[0] for name, _ in trainer.trained}
    assert "head" in names
    assert "embed" not in names
    trainer.close()
    assert groundup.load(run.folder)("bad film") in ("0", "1")


@pytest.mark.slow
def test_a_run_from_a_masked_folder_goes_on_with_its_head(tmp_path: Path) -> None:
    module = write_encoder(tmp_path / "bert")
    (tmp_path / "films.txt").write_text(
        "a good film\nunwatchable film!\na bad film\n" * 9, encoding="utf-8"
    )
    data = {
        "name": "text",
        "path": str(tmp_path / "films.txt"),
        "split_on": "line",
        "fraction": 0.4,
    }
    recipe = {
        key: value for key, value in write_films(tmp_path).items() if key not in ("task", "data")
    }
    recipe |= {
        "task": "masked_language_modeling",
        "data": data,
        "init": {"pretrained": str(tmp_path / "bert")},
    }
    trainer = groundup.trainer(recipe, runs=tmp_path / "runs")
    assert torch.equal(
        trainer.model.head.transform.weight, module.cls.predictions.transform.dense.weight
    )
    trainer.close()


def test_sizes_and_the_registered_model() -> None:
    assert lookup("model", "bert") is BERTConfig
    assert set(BERTConfig.sizes()) == {"tiny", "mini", "small", "medium", "base", "large"}
