"""Two texts that are read as a pair: their tokens, the runs that learn labels of them, and what is
said of bad ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from encoder_folders import VOCABULARY, write_encoder
from pretrained_folders import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import groundup
from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import validate
from groundup.data.sources.labelled_text import LabelledText
from groundup.models.bert import BERTConfig
from groundup.processors.class_targets import SingleLabel
from groundup.processors.labelled import Labelled
from groundup.processors.text.bytes import BytesConfig
from groundup.processors.text.tokenizer_json import TokenizerJSONConfig
from groundup.runs.processor import load_processor

PAIRS = [
    ("A good film", "bad"),
    ("bad", "a good film! a good, unwatchable film!"),
    ("a film", "a bad film"),
    ("good good good good good", "bad bad bad bad bad bad"),
]
CLASSES = SingleLabel.fit(["no", "yes"])


def write_roberta(folder: Path) -> None:
    """Write a tokenizer that frames as RoBERTa's does: <s> a </s></s> b </s>."""
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *VOCABULARY[5:]]
    tokenizer = Tokenizer(
        models.WordLevel({piece: n for n, piece in enumerate(names)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(names[:5])
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=False
    )
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "mask_token": "<mask>"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **tokens}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_pairs_are_read_as_transformers_reads_them(family: str, tmp_path: Path) -> None:
    folder = tmp_path / "there"
    (write_encoder if family == "bert" else write_roberta)(folder)
    reader = TokenizerJSONConfig(path=str(folder)).fit(lambda: iter(()))
    there = transformers.AutoTokenizer.from_pretrained(folder)
    Labelled(reader, CLASSES, 9, pairs=True).save(tmp_path / "saved")

    saved: Any = load_processor(tmp_path / "saved")
    for longest in (8, 9, 11, 40):
        saved.max_length = longest
        found = saved.encode_inputs(PAIRS)
        firsts, seconds = ([pair[n] for pair in PAIRS] for n in (0, 1))
        expected = there(
            firsts,
            seconds,
            padding=True,
            truncation=True,
            max_length=longest,
            return_tensors="pt",
            return_token_type_ids=True,
        )
        assert torch.equal(found["tokens"], expected["input_ids"])
        assert found["lengths"].tolist() == expected["attention_mask"].sum(1).tolist()
        assert ("token_types" in found) == (family == "bert")
        if family == "bert":
            assert torch.equal(found["token_types"], expected["token_type_ids"])
    if family == "bert":
        module = write_encoder(folder, "ForSequenceClassification", num_labels=3)
        settings = BERTConfig.from_huggingface(json.loads((folder / "config.json").read_text()))
        model = validate(BERTConfig, settings, "recipe.model").build().eval()
        model.load_state_dict(model.config.weights_from_huggingface(module.state_dict()))
        with torch.no_grad():
            rows = {
                name: values[:, :20] if values.dim() == 2 else values.clamp(max=20)
                for name, values in found.items()
            }
            logits = module(**{name: values[:, :20] for name, values in expected.items()}).logits
            torch.testing.assert_close(model(**rows), logits, rtol=1e-5, atol=1e-6)


def written(folder: Path, rows: list[tuple[str, str, str]], kind: str = "csv") -> dict[str, Any]:
    path = folder / f"pairs.{kind}"
    names = ("first", "second", "same")
    lines = [",".join(names), *(",".join(row) for row in rows)]
    if kind == "jsonl":
        lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    columns = {"text_column": "first", "pair_column": "second", "label_column": "same"}
    return {"name": "labelled_text", "path": str(path), **columns, "fraction": 0.3}


def rows() -> list[tuple[str, str, str]]:
    words = ["good", "bad", "film", "a", "unwatchable"]
    return [
        (f"{a}{'!' * n}", b, "yes" if a == b else "no")
        for n in range(3)
        for a in words
        for b in words
    ]


@pytest.mark.parametrize("key", ["path", "dataset"])
def test_parquet_and_data_sets(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    if key == "dataset":
        datasets = pytest.importorskip("datasets")
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "rows").mkdir()
    columns = dict(
        zip(("text", "second", "label"), map(list, zip(*rows(), strict=True)), strict=True)
    )
    parquet.write_table(pyarrow.table(columns), tmp_path / "rows" / "train.parquet")
    source = LabelledText(**{key: str(tmp_path / "rows")}, pair_column="second", fraction=0.3)
    assert {e.inputs for e in source.examples("train", tmp_path)} < {
        (first, second) for first, second, _ in rows()
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_run_on_pairs(kind: str, tmp_path: Path) -> None:
    write_encoder(tmp_path / "bert", "Model")
    recipe = {
        **{
            "name": "pairs",
            "init": {"pretrained": str(tmp_path / "bert")},
            "data": written(tmp_path, rows(), kind),
        },
        **{
            "task": {"name": "classify", "max_tokens": 16},
            "training": {"batch_size": 8, "steps": 2},
        },
        "machine": {"device": "cpu", "precision": "fp32", "compile": False, "threads": 1},
    }
    source = validate(
        LabelledText, {k: v for k, v in recipe["data"].items() if k != "name"}, "recipe.data"
    )
    sides = [
        {e.inputs[0] for e in source.examples(split, tmp_path)} for split in ("train", "validation")
    ]
    assert not sides[0] & sides[1]
    assert source.card(tmp_path)["train"]["min_characters"] >= 2
    run = groundup.train(recipe, runs=tmp_path / "runs")
    predictor = groundup.load(run.folder)
    one = predictor(("good", "bad"))
    assert one in ("no", "yes")
    assert predictor([("good", "bad"), ["a", "film"], "good\tbad"])[::2] == [one, one]
    assert (
        groundup.evaluate(run.folder)["runs"][0]["evaluation"]["metrics"]["held_out_examples"] > 5
    )
    with pytest.raises(
        DataError,
        match=r"inputs: 'good' is not two texts, but the model was trained on pairs\. Give",
    ):
        predictor("good")
    with pytest.raises(DataError, match=r"inputs: the second text of a pair is empty\. Give both"):
        predictor(("good", " "))


def test_pairs_without_an_encoders_tokens() -> None:
    reader = BytesConfig().fit(lambda: iter(()))
    found = Labelled(reader, CLASSES, 8).encode_inputs([("ab", "cd"), ("abcdefgh", "i")])
    a = reader.encode_batch(["ab", "cd", "abcdef", "i"])
    expected = [[*a[0], reader.end_id, *a[1]], [*a[2], reader.end_id, *a[3]]]
    assert [found["tokens"][n, : found["lengths"][n]].tolist() for n in (0, 1)] == expected
    assert "token_types" not in found
    with pytest.raises(
        RecipeError,
        match=r"max_tokens: is 2, but two texts with the tokens around them take at least 3",
    ):
        Labelled(reader, CLASSES, 2).encode_inputs([("ab", "cd")])


def test_what_cannot_be_pairs(tmp_path: Path) -> None:
    data = written(tmp_path, rows())
    del data["name"]
    for changes, problem in (
        (
            {"pair_column": "first"},
            "text_column and pair_column are both 'first'. Name two columns",
        ),
        ({"pair_column": 2}, "pair_column is 2, but header is true; allowed: a name"),
    ):
        with pytest.raises(RecipeError) as caught:
            validate(LabelledText, data | changes, "recipe.data")
        assert problem in str(caught.value)
    with pytest.raises(DataError, match=r"row 1 .*: there is no column 'third'"):
        LabelledText(**data | {"pair_column": "third"}).examples("train", tmp_path)
    (tmp_path / "pairs.csv").write_text("first,second,same\na,,yes\nb,c,no\n", encoding="utf-8")
    shutil.copy(tmp_path / "pairs.csv", tmp_path / "held_out.csv")
    held_out = {"validation": str(tmp_path / "held_out.csv"), "fraction": 0.1}
    assert LabelledText(**data | held_out).card(tmp_path)["set_aside"] == 2
    recipe = {
        **{"name": "marks", "model": {"name": "bag_of_ngrams", "width": 4}, "task": "classify"},
        **{
            "processor": {"name": "bpe", "vocab_size": 300, "encoder": True},
            "data": written(tmp_path, rows()),
        },
        **{"training": {"batch_size": 8, "steps": 1}},
    }
    with pytest.raises(
        RecipeError,
        match=r"recipe\.model\.name: an encoder's tokenizer marks the tokens of the sec",
    ):
        groundup.trainer(recipe, runs=tmp_path / "runs")
