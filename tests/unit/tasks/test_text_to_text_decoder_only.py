"""Text to text on a language model: the input is a prompt that is not trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pretrained_folders import CHATML, write_tokenizer
from resuming import stopped_and_resumed
from tiny_runs import tiny_run, without_chance

import groundup
from groundup import api
from groundup.contracts.ragged import ragged_rows
from groundup.core.errors import RecipeError
from groundup.core.settings import validate
from groundup.core.values import Example, Message
from groundup.models.encoder_decoder import EncoderDecoderConfig
from groundup.models.gpt import GPTConfig
from groundup.processors.chat.template import ChatTemplate
from groundup.processors.text.bpe import BPEConfig
from groundup.processors.text.bytes import BytesConfig
from groundup.processors.text.tokenizer_json import TokenizerJSONConfig
from groundup.tasks.text_to_text.rows import continued
from groundup.tasks.text_to_text.task import TextToText

EXAMPLES = [
    Example("a", "One two three", "Three", predicts_text=True),
    Example("b", "Four", "4, a number", predicts_text=True),
    Example("c", "Five six", "56", predicts_text=True),
]


def task(**settings: Any) -> TextToText:
    own = {"metrics": ["rouge_l"], "decoder_only": True}
    return validate(TextToText, own | settings, "recipe.task")


def parts() -> tuple[Any, Any]:
    """Return a tokenizer, and a small random language model for it."""
    processor: Any = BytesConfig().fit(lambda: iter(()))
    torch.manual_seed(0)
    config = GPTConfig(width=16, heads=2, layers=1, context_length=64, init_std=0.3)
    return processor, config.complete_from(processor).build()


def run_of(folder: Path, **settings: Any) -> dict[str, Any]:
    recipe = tiny_run("gpt", folder, {"context_length": 120}, reads="pairs")
    recipe["task"] |= {"decoder_only": True, "max_source_tokens": 50, "max_target_tokens": 50}
    recipe["task"] |= settings
    return recipe


def test_what_is_read_and_learned() -> None:
    processor, _ = parts()
    chosen = task(prefix="> ", suffix=" =", max_source_tokens=9, max_target_tokens=6)
    batch = chosen.encode(EXAMPLES, processor)
    rows = [row.tolist() for row in ragged_rows(batch, "source")]
    assert {row[0] for row in rows} == {processor.begin_id}
    # What says that the input is over is there also where it was cut.
    assert [processor.decode(row) for row in rows] == ["> One  =", "> Four =", "> Five ="]
    tokens, targets = continued(batch)
    for number, row in enumerate(rows):
        own = ragged_rows(batch, "target")[number].tolist()
        assert tokens[number].tolist()[: len(row) + len(own) - 1] == row + own[:-1]
        assert targets[number][targets[number] >= 0].tolist() == own
        assert targets[number][: len(row) - 1].eq(-100).all()
    plain = task().encode(EXAMPLES, processor)
    assert {int(row[-1]) for row in ragged_rows(plain, "source")} == {processor.end_id}


def test_inputs_in_the_tokenizers_own_chat(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    processor: Any = TokenizerJSONConfig(path=str(tmp_path)).fit(lambda: iter(()))
    chosen = task(chat_template=True, prefix="Say: ", suffix="!", max_source_tokens=40)
    batch = chosen.encode([Example("a", "One two", "Three", predicts_text=True)], processor)
    (row,) = ragged_rows(batch, "source")
    template = ChatTemplate(CHATML, processor)
    wanted = template.prompt([Message("user", "Say: One two!")])
    assert row.tolist() == wanted.tolist()
    (target,) = ragged_rows(batch, "target")
    # As the template ends an answer, which is not the tokenizer's end token.
    assert target[-1] == processor.special_id("<|im_end|>") != processor.end_id
    assert processor.decode(target.tolist()) == "Three"
    # What is too long loses its own end, and nothing of the chat.
    cut = task(chat_template=True, suffix="!", max_source_tokens=len(row) - 4)
    (shorter,) = ragged_rows(cut.encode([Example("a", "One two " * 9, "x")], processor), "source")
    assert shorter.tolist()[-8:] == row.tolist()[-8:]
    torch.manual_seed(0)
    config = GPTConfig(width=16, heads=2, layers=1, context_length=400, init_std=0.3)
    model = config.complete_from(processor).build()
    chosen.check_model(model, processor)
    assert isinstance(chosen.predict(model, "One", processor, max_new_tokens=4), str)


def test_a_tokenizer_without_a_chat() -> None:
    processor, model = parts()
    with pytest.raises(RecipeError) as caught:
        task(chat_template=True, max_source_tokens=9, max_target_tokens=9).check_model(
            model, processor
        )
    assert str(caught.value) == (
        "recipe.task.chat_template: is true, but the tokenizer brings no template. Remove it, and"
        " say what goes around an input by prefix and suffix."
    )
    with pytest.raises(RecipeError, match="chat_template has no effect with decoder_only: false"):
        task(chat_template=True, decoder_only=False)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_losses_are_those_of_each_text_alone(smoothing: float) -> None:
    processor, model = parts()
    chosen = task(label_smoothing=smoothing)
    batch = chosen.encode(EXAMPLES, processor)
    loss = chosen.loss(chosen.forward(model, batch), batch).terms["target"]
    wanted = []
    for source, target in zip(
        ragged_rows(batch, "source"), ragged_rows(batch, "target"), strict=True
    ):
        logits = model(torch.cat((source, target))[None])[0, len(source) - 1 : -1]
        wanted.append(F.cross_entropy(logits, target, reduction="sum", label_smoothing=smoothing))
    torch.testing.assert_close(loss.total, torch.stack(wanted).sum(), rtol=1e-4, atol=1e-3)
    assert loss.count.item() == chosen.counts(batch)["target"]
    logits = model(**chosen.prediction_inputs(batch))
    each = chosen.example_losses(logits, batch)
    torch.testing.assert_close(each, torch.stack(wanted), rtol=1e-4, atol=1e-3)
    assert chosen.predicted(batch).sum() == loss.count


@pytest.mark.slow
def test_predictions_are_of_the_input_alone() -> None:
    processor, model = parts()
    chosen = task(max_target_tokens=9, max_source_tokens=30, suffix=":")
    sources = [example.inputs for example in EXAMPLES]
    together = chosen.predict(model, sources, processor)
    assert [chosen.predict(model, each, processor) for each in sources] == together
    row = ragged_rows(chosen.encode(EXAMPLES[1:2], processor), "source")[0]
    tokens = row.tolist()
    while len(tokens) < len(row) + 9 and tokens[-1] not in processor.end_ids:
        with torch.no_grad():
            tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    written = [token for token in tokens[len(row) :] if token not in processor.end_ids]
    assert together[1] == processor.decode(written)
    best = chosen.predict(model, sources[0], processor, beams=3, n_best=2)
    assert best[0]["score"] >= best[1]["score"]


@pytest.mark.slow
def test_bpe_dropout_leaves_the_end_of_a_prompt() -> None:
    texts = [f"the newest house number {n} is not lower than others" for n in range(12)]
    processor = BPEConfig(vocab_size=330).fit(lambda: iter(texts))
    examples = [Example(text, text, text[4:], predicts_text=True) for text in texts]
    chosen = task(bpe_dropout=0.5, suffix=" answer:", max_source_tokens=20)
    plain = chosen.encode(examples, processor)
    found = chosen.augment(plain, np.arange(12), dict, processor, 1)
    ends = [row.tolist()[-4:] for row in ragged_rows(plain, "source")]
    assert [row.tolist()[-4:] for row in ragged_rows(found, "source")] == ends
    assert max(map(len, ragged_rows(found, "source"))) == 20
    assert {int(row[0]) for row in ragged_rows(found, "source")} == {processor.begin_id}


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.1, "r_drop": 1.0}])
def test_a_resumed_run(tmp_path: Path, settings: dict[str, Any]) -> None:
    recipe = run_of(tmp_path, **settings)
    recipe["training"] |= {"steps": 8}
    stopped_and_resumed(recipe, tmp_path / "runs", (3, 8))


@pytest.mark.slow
def test_micro_batches_change_nothing(tmp_path: Path) -> None:
    recipe = without_chance(run_of(tmp_path))
    losses = []
    for size in (16, 4):
        machine = {**recipe["machine"], "micro_batch_size": size}
        own = {**recipe, "name": f"of_{size}", "machine": machine}
        trainer = groundup.trainer(own, runs=tmp_path / "runs")
        steps = trainer.steps()
        losses.append([next(steps).loss for _ in range(3)])
        trainer.close()
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
def test_a_run_is_evaluated_and_fine_tuned(tmp_path: Path) -> None:
    recipe = run_of(tmp_path, metrics=["rouge_l"], measured=4, evaluated=6, suffix=":")
    base = api.train(recipe, {"name": "base", "training.steps": 2}, runs=tmp_path)
    kept = {key: value for key, value in recipe.items() if key not in ("model", "processor")}
    kept |= {"init": {"run": str(base.folder)}, "adapter": {"name": "lora", "rank": 2}}
    run = api.train(kept, {"name": "tuned", "training.steps": 2}, runs=tmp_path)
    metrics = api.evaluate(run.folder)["runs"][0]["evaluation"]["metrics"]
    assert {"rouge_l", "baseline_lead_rouge_l"} <= set(metrics)
    assert isinstance(api.load(run.folder)("_@@_"), str)


def test_models_that_are_not_language_models() -> None:
    processor, model = parts()
    with pytest.raises(RecipeError, match=r"max_source_tokens: 40 and max_target_tokens 26 are"):
        task(max_source_tokens=40, max_target_tokens=26).check_model(model, processor)
    task(max_source_tokens=40, max_target_tokens=25).check_model(model, processor)
    both = EncoderDecoderConfig(width=16, heads=2, layers=1).complete_from(processor).build()
    with pytest.raises(RecipeError, match="decoder_only: is true, but EncoderDecoderTransformer"):
        task().check_model(both, processor)
    with pytest.raises(RecipeError, match="Linear predicts no tokens, which task text_to_text"):
        task().check_model(torch.nn.Linear(1, 1), processor)
    with pytest.raises(RecipeError, match=r"DecoderLM has no encoder.*decoder_only: true"):
        task(decoder_only=False).check_model(model, processor)
