"""Words that a recipe adds to the vocabulary of weights: numbered as transformers numbers them,
with rows that are the mean of the others, saved, exported and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pretrained_folders import random_model, recipe_for, transformers, write_tokenizer
from resuming import stopped_and_resumed
from tiny_families import tiny_model

import groundup
from groundup.core.errors import RecipeError
from groundup.processors.text.tokenizer import TokenizerProcessor
from groundup.runs.processor import load_processor
from groundup.weights.gguf import save_gguf
from groundup.weights.initial_weights import weights_of

WORDS = ["lamp and", "the", "river"]
SPECIAL = ["<|tool|>"]
ADDED = {"add_tokens": WORDS, "add_special_tokens": SPECIAL}
TEXT = "the lamp and the river, a lamp and rivers"


def write_base(folder: Path, family: str, rows: int = 320) -> Any:
    """Write weights with a tokenizer of 320 tokens; return them as transformers reads them."""
    write_tokenizer(folder)
    if family in ("llama2", "gpt2", "smollm2"):
        random_model(family, vocab_size=rows).save_pretrained(folder)
    else:
        tied = {"tie_word_embeddings": family == "granite"}
        tiny_model(family, "ForCausalLM", vocab_size=rows, **tied).save_pretrained(folder)
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def said(run: Any) -> str:
    return (run.folder / "metrics.jsonl").read_text()


@torch.no_grad()
def resized(folder: Path, module: Any) -> tuple[Any, Any]:
    """Return the tokenizer and the model with the words, as transformers adds them."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(WORDS)
    tokenizer.add_tokens(SPECIAL, special_tokens=True)
    tables = {id(m.weight): m for m in (module.get_input_embeddings(), module.lm_head)}
    before = len(module.get_input_embeddings().weight)
    means = [table.weight.mean(0) for table in tables.values()]
    module.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for table, mean in zip((module.get_input_embeddings(), module.lm_head), means, strict=False):
        table.weight[before:] = mean
    return tokenizer, module


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama2", "gpt2", "olmo2", "granite"])
def test_as_transformers_adds_them(tmp_path: Path, family: str) -> None:
    tokenizer, module = resized(tmp_path / "base", write_base(tmp_path / "base", family))
    recipe = recipe_for(tmp_path, "added", init={"pretrained": str(tmp_path / "base"), **ADDED})
    trainer = groundup.trainer(recipe, runs=tmp_path)
    trainer.close()
    reader = trainer.parts.processor.reader
    assert isinstance(reader, TokenizerProcessor)
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    assert reader.encode_batch([TEXT])[0].tolist() == ids
    assert reader.special_tokens["<|tool|>"] == tokenizer.convert_tokens_to_ids("<|tool|>") == 323
    tokens = torch.tensor([[*ids, 323]])
    with torch.no_grad():
        expected = module(tokens).logits
        own = trainer.model.eval()(tokens)
    torch.testing.assert_close(own, expected, rtol=0, atol=2e-5)
    assert "tokenizer has 324 tokens and the weights 320: rows for 320 to 323" in said(trainer.run)
    run = groundup.train(recipe, runs=tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(run.folder / "model").eval()
    with torch.no_grad():
        exported = theirs(tokens).logits
    torch.testing.assert_close(exported, expected, rtol=0, atol=2e-5)
    written = transformers.AutoTokenizer.from_pretrained(run.folder / "model")
    assert written.encode(TEXT, add_special_tokens=False) == ids
    assert written.convert_tokens_to_ids("<|tool|>") == 323
    assert theirs.config.vocab_size == 324


@pytest.mark.slow
def test_a_run_is_given_words_and_resumed(tmp_path: Path) -> None:
    """A base whose embedding is padded: its padding takes the mean of the tokens' rows."""
    base = recipe_for(tmp_path, "base")
    model = {"name": "gpt", "layers": 1, "width": 16, "heads": 2, "context_length": 32}
    model["vocabulary_multiple"] = 64
    processor = {"name": "bpe", "vocab_size": 290}
    del base["init"]
    before = groundup.train({**base, "model": model, "processor": processor}, runs=tmp_path)
    recipe = recipe_for(
        tmp_path,
        "further",
        init={"run": str(before.folder), **ADDED},
        model={},
        optim={"lr": 1e-2},
        training={"batch_size": 2, "steps": 3},
    )
    trainer = groundup.trainer(recipe, runs=tmp_path)
    trainer.close()
    known = before.recipe.model.vocabulary_size
    table = before.checkpoints.load(1).model["embed.weight"]
    own = trainer.model.state_dict()["embed.weight"]
    assert known < trainer.run.recipe.model.vocabulary_size <= len(table)
    assert torch.equal(own[:known], table[:known])
    torch.testing.assert_close(own[known], table[:known].mean(0))
    stopped_and_resumed(recipe, tmp_path / "resumed", (1, 3))
    # What goes on from there has the words already.
    third = recipe_for(tmp_path, "third", init={"run": str(trainer.run.folder)}, model={})
    groundup.train(recipe, runs=tmp_path)
    reader = groundup.trainer(third, runs=tmp_path).parts.processor
    assert "<|tool|>" in reader.special_tokens


@pytest.mark.slow
def test_a_gguf_file_is_given_words(tmp_path: Path) -> None:
    write_base(tmp_path / "base", "llama2")
    plain = groundup.train(recipe_for(tmp_path, "plain"), runs=tmp_path)
    weights = weights_of(plain, 1)
    reader = load_processor(plain.folder / "processor")
    save_gguf(tmp_path / "m.gguf", plain.recipe.model, weights, reader, "F32")
    init = {"pretrained": str(tmp_path / "m.gguf"), **ADDED}
    # A number of rows that divides by 64, as one may ask for.
    recipe = recipe_for(tmp_path, "words", init=init, model={"vocabulary_size": 384})
    trainer = groundup.trainer(recipe, runs=tmp_path)
    trainer.close()
    own = trainer.model.state_dict()["embed.weight"]
    assert torch.equal(own[:320], weights["embed.weight"])
    torch.testing.assert_close(own[383], own[:320].mean(0))
    ids = trainer.parts.processor.encode_batch([TEXT])[0].tolist()
    words = trainer.parts.processor
    save_gguf(tmp_path / "n.gguf", trainer.run.recipe.model, trainer.model.state_dict(), words)
    again = groundup.load(tmp_path / "n.gguf").processor
    assert again.encode_batch([TEXT])[0].tolist() == ids
    assert again.special_tokens == words.special_tokens


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["llama2", "olmo2", "granite"])
def test_an_adapter_has_to_train_their_rows(tmp_path: Path, family: str) -> None:
    tied = family == "granite"
    write_base(tmp_path / "base", family)
    init = {"pretrained": str(tmp_path / "base"), **ADDED}
    recipe = recipe_for(tmp_path, "rows", init=init, adapter={"rank": 2}, optim={"lr": 1e-2})
    with pytest.raises(RecipeError, match="leaves the rows of the tokens that the weights") as seen:
        groundup.train(recipe, runs=tmp_path)
    tables = seen.value.remedy.partition("modules_to_save: [")[2].partition("]")[0].split(", ")
    assert len(tables) == 1 if tied else 2
    numbers = [320, 321, 322, 323]
    assert f"trainable_token_indices: {numbers}" in seen.value.remedy or tied
    ways: dict[str, Any] = {"whole": {"modules_to_save": tables}}
    if not tied:
        ways["rows"] = {"trainable_token_indices": numbers}
    peft = pytest.importorskip("peft")
    for name, adapter in ways.items():
        run = groundup.train(
            {**recipe, "name": name, "adapter": {"rank": 2, **adapter}}, runs=tmp_path
        )
        assert ("hardly predicted" in said(run)) == (name == "rows")
        tokens = torch.tensor([[5, 6, 320, 323, 7]])
        with torch.no_grad():
            own = groundup.load(run.folder).model(tokens)
            _, module = resized(tmp_path / "base", write_base(tmp_path / "base", family))
            adapted = peft.PeftModel.from_pretrained(module, run.folder / "adapter").eval()
            torch.testing.assert_close(adapted(tokens).logits, own, rtol=0, atol=2e-5)
        again = recipe_for(
            tmp_path, f"{name}-on", init=init, adapter={"path": str(run.folder / "adapter")}
        )
        trainer = groundup.trainer(again, runs=tmp_path)
        trainer.close()
        with torch.no_grad():
            torch.testing.assert_close(trainer.model.eval()(tokens), own, rtol=0, atol=2e-5)


def test_words_that_there_are(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    from groundup.processors.text.added_tokens import add_words

    tokenizer = write_tokenizer(tmp_path)
    tokenizer.add_tokens(["plain"])
    notes = add_words(tokenizer, ["e", "plain", "<|im_end|>"], ["</s>", "new"])
    number = tokenizer.token_to_id("e")
    assert notes == [
        f"'e' is token {number} already: it is matched as a whole now",
        "'plain' is token 320 already: nothing is added",
        "'<|im_end|>' is token 3 already, a special one, and stays it",
        "'</s>' is token 1 already: nothing is added",
    ]
    assert tokenizer.token_to_id("new") == 321
    assert tokenizer.get_added_tokens_decoder()[3].special
    assert add_words(tokenizer, [], ["plain"]) == [
        "'plain' is token 320 already: it is a special token now"
    ]


@pytest.mark.parametrize(
    ("init", "problem"),
    [
        ({"add_tokens": ["a"]}, r"recipe.init: add_tokens and add_special_tokens add to the"),
        ({"run": "a", "add_tokens": ["a"], "add_special_tokens": ["a"]}, "'a' is added twice"),
        ({"run": "a", "ignore_config_keys": ["b"]}, "ignore_config_keys has no effect without"),
        ({"run": "a", "add_tokens": [""]}, r"recipe.init.add_tokens.0: got \"\""),
    ],
)
def test_words_that_cannot_be_added(init: dict[str, Any], problem: str) -> None:
    from groundup.core.settings import validate
    from groundup.recipe.sections import Init

    with pytest.raises(RecipeError, match=problem):
        validate(Init, init, "recipe.init")


@pytest.mark.slow
def test_a_processor_without_a_vocabulary(tmp_path: Path) -> None:
    base = recipe_for(tmp_path, "base")
    del base["init"]
    model = {"name": "gpt", "layers": 1, "width": 16, "heads": 2, "context_length": 32}
    before = groundup.train({**base, "model": model, "processor": "bytes"}, runs=tmp_path)
    recipe = recipe_for(tmp_path, "no", init={"run": str(before.folder), **ADDED}, model={})
    with pytest.raises(
        RecipeError, match=r"recipe.init.add_tokens: has no effect: CharacterProcessor"
    ):
        groundup.train(recipe, runs=tmp_path)
