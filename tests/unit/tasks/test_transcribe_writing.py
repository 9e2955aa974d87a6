"""Transcripts that an encoder-decoder writes: windows, silence, what is not written, when words are
said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from groundup.contracts.speech import ListensOnce
from groundup.core.errors import RecipeError
from groundup.core.settings import validate
from groundup.core.values import Example
from groundup.models.whisper import WhisperConfig
from groundup.processors.speech import SpeechConfig, SpeechProcessor
from groundup.tasks.transcribe.task import Transcribe

RATE = 16000
TEXT = "a cab dad"
PROMPT = 200


def sound(seconds: float, loud: float = 0.3) -> tuple[NDArray[np.float32], int]:
    draws = np.random.default_rng(0)
    return (loud * draws.normal(size=round(seconds * RATE))).astype(np.float32), RATE


def parts(**settings: Any) -> tuple[SpeechProcessor, Any]:
    """Return a processor that keeps two seconds, and a small random model of them."""
    processor = SpeechConfig(features="whisper", mel_bands=8, pad_seconds=2.0).fit(
        lambda: iter([Example("one", sound(1.0), TEXT)])
    )
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"layers": 2, "width": 16, "heads": 2, "source_positions": 100}
    sizes |= {"context_length": 40, "init_std": 0.5, "no_timestamps_id": PROMPT}
    # Of all bytes, random weights would write what is no text.
    known = {*processor.tokenizer.encode_batch([TEXT])[0].tolist(), processor.tokenizer.end_id}
    others = {*range(processor.vocabulary_size)} - known
    others |= set(settings.pop("without", ()))
    sizes |= {"prompt_ids": (PROMPT,), "suppress_tokens": tuple(sorted(others))}
    config = WhisperConfig(**{**sizes, **settings})
    return processor, config.complete_from(processor).build()


def task(**settings: Any) -> Transcribe:
    chosen = {"max_target_tokens": 12, "no_speech": None, "overlap_seconds": 0.5, **settings}
    return validate(Transcribe, chosen, "recipe.task")


def test_words_are_those_of_the_text_and_follow_each_other() -> None:
    processor, model = parts()
    assert isinstance(model, ListensOnce)
    chosen = task()
    found = chosen.predict(model, sound(5.0), processor)
    assert [word["word"] for word in found["words"]] == found["text"].split()
    spans = [(word["begin_s"], word["end_s"]) for word in found["words"]]
    assert all(0 <= begin < end <= 5.02 for begin, end in spans)
    assert [begin for begin, _ in spans] == sorted(begin for begin, _ in spans)
    # Written about windows of two seconds, one after the other.
    assert max(end for _, end in spans) > 2.0
    # Together as alone, and without words where nobody asks for them.
    both = chosen.transcribe(model, [sound(1.5), sound(5.0)], processor, {})
    assert both[1].text == found["text"]
    assert both[1].words is None
    beams = chosen.predict(model, sound(1.5), processor, beams=3, n_best=2)
    assert len(beams["alternatives"]) == 2
    # Of several windows the best combinations of what is written about each.
    long = chosen.predict(model, sound(5.0), processor, beams=3, n_best=3)
    assert long["alternatives"][0]["text"] == long["text"]
    totals = [each["score"] for each in long["alternatives"]]
    assert totals == sorted(totals, reverse=True)
    assert len({each["text"] for each in long["alternatives"]}) == 3


def test_silence_stays_silent() -> None:
    processor, model = parts()
    quiet = sound(5.0, loud=0.0)
    assert task().predict(model, quiet, processor) == {"text": "", "words": []}
    assert task(silence_db=None).predict(model, quiet, processor)["text"]
    # A random model finds it possible that nothing is said, and is unsure of all that it writes.
    assert task(no_speech=0.0).predict(model, sound(1.5), processor)["text"] == ""
    assert task(no_speech=1.0).predict(model, sound(1.5), processor)["text"]
    # Of one without a token for it, what it writes counts.
    processor, model = parts(no_timestamps_id=None)
    assert task(no_speech=0.0).predict(model, sound(1.5), processor)["text"]


def test_what_is_never_written() -> None:
    processor, model = parts()
    text = task().predict(model, sound(1.5), processor)["text"]
    tokens = processor.tokenizer.encode_batch([text])[0].tolist()
    first, most = tokens[0], max(set(tokens), key=tokens.count)
    processor, model = parts(without=(most,))
    other = task().predict(model, sound(1.5), processor)["text"]
    assert most not in processor.tokenizer.encode_batch([other])[0]
    processor, model = parts(begin_suppress_tokens=(first,))
    other = task().predict(model, sound(1.5), processor)["text"]
    assert processor.tokenizer.encode_batch([other])[0][:1].tolist() != [first]


def test_the_prompt_is_given_and_not_learned() -> None:
    processor, model = parts()
    chosen = task()
    batch = chosen.encode([Example("one", sound(1.0), TEXT)], processor)
    loss = chosen.loss(chosen.forward(model.eval(), batch), batch)
    # Every character, and the end.
    assert loss.terms["target"].count == len(TEXT) + 1
    text = [*processor.tokenizer.encode_batch([TEXT])[0].tolist(), processor.tokenizer.end_id]
    frames = processor.encode_inputs([sound(1.0)])
    tokens = torch.tensor([[model.start_id, PROMPT, *text[:-1]]])
    logits = model(tokens, **frames)[0, 1:]
    wanted = torch.nn.functional.cross_entropy(logits, torch.tensor(text), reduction="sum")
    torch.testing.assert_close(loss.terms["target"].total, wanted, rtol=1e-5, atol=1e-5)


def test_windows_are_no_longer_than_what_is_kept() -> None:
    processor, model = parts()
    task().check_model(model, processor)
    with pytest.raises(RecipeError, match=r"is 3, but processor\.pad_seconds keeps 2"):
        task(window_seconds=3.0).check_model(model, processor)
    with pytest.raises(RecipeError, match=r"ngram: has no effect with SpeechTransformer"):
        task(ngram=2, beams=4).check_model(model, processor)
