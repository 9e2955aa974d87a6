"""Rates of wrong words and characters are jiwer's, normalisers are Whisper's, intervals hold
them."""

from __future__ import annotations

import sys

import pytest

from groundup.core.errors import MissingExtraError
from groundup.metrics.directions import direction
from groundup.metrics.error_rates import (
    ERROR_RATES,
    count_errors,
    error_rates,
    normalise_text,
    require_error_rates,
    score_transcripts,
)

REFERENCES = ["the cat sat on the mat", "a dog", "", "打开 文件", "Dr. Smith has 2 cats."]
OUTPUTS = ["the cat sat on mat", "a dog barks", "hm", "打开文件", "dr smith has two cats"]
TEXTS = [
    "Hello, World!",
    "don't [laughs] <noise> stop (please)",
    "  It's   1,000 km – «Café»\tnaïve ½ ",
    "打开“文件”。",
    "",
]


def test_values_are_those_of_jiwer() -> None:
    jiwer = pytest.importorskip("jiwer")
    found = error_rates(ERROR_RATES, OUTPUTS, REFERENCES)
    assert found["wer"] == pytest.approx(jiwer.wer(REFERENCES, OUTPUTS))
    assert found["cer"] == pytest.approx(jiwer.cer(REFERENCES, OUTPUTS))


def test_what_is_wrong_is_counted() -> None:
    errors = count_errors("wer", ["a x c", "a b d", ""], ["a b c", "a b", "q"])
    assert errors.counts.tolist() == [[1, 0, 0, 3], [0, 1, 0, 2], [0, 0, 1, 1]]
    assert dict(errors.pairs) == {("b", "x"): 1, ("", "d"): 1, ("q", ""): 1}
    characters = count_errors("cer", ["31415"], ["3145"])
    assert characters.counts.tolist() == [[0, 1, 0, 4]]
    assert count_errors("wer", [], []).counts.shape == (0, 4)


def test_silence_may_be_right_or_wrong() -> None:
    assert error_rates(["wer"], ["", ""], ["", ""])["wer"] == 0
    # Where nothing was said, each word that is written is one too many.
    assert error_rates(["wer"], ["two words"], [""])["wer"] == 2


def test_intervals_hold_the_values() -> None:
    scores = score_transcripts(ERROR_RATES, OUTPUTS, REFERENCES, normaliser="basic")
    for name, score in scores.items():
        assert score.low <= score.value <= score.high
        assert score.low < score.high
        assert score.signature.startswith(f"{name}|jiwer:")
        assert score.signature.endswith("normaliser:whisper basic")
    again = score_transcripts(ERROR_RATES, OUTPUTS, REFERENCES, normaliser="basic")
    assert again == scores
    alone = score_transcripts(["wer"], OUTPUTS, REFERENCES, resamples=0)["wer"]
    assert alone.low == alone.value == alone.high


@pytest.mark.parametrize("text", TEXTS + REFERENCES)
def test_basic_is_whispers_normaliser(text: str) -> None:
    module = pytest.importorskip("transformers.models.whisper.english_normalizer")
    assert normalise_text(text, "basic") == module.BasicTextNormalizer()(text).strip()
    wanted = module.EnglishTextNormalizer({})(text)
    assert normalise_text(text, "english") == " ".join(wanted.split())


def test_none_takes_out_blanks_alone() -> None:
    assert normalise_text("  Two  words,\tsaid. ", "none") == "Two words, said."


def test_normalisers_make_texts_equal() -> None:
    assert error_rates(["wer"], OUTPUTS[4:], REFERENCES[4:], "basic")["wer"] == pytest.approx(1 / 5)
    assert error_rates(["wer"], ["they will"], ["they'll"], "english")["wer"] == 0


def test_lower_rates_are_better() -> None:
    for name in ("wer", "cer_low_95", "validation/cer", "baseline_empty_wer"):
        assert direction(name) == "lower"


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(MissingExtraError, match=r"jiwer.*pip install 'groundup\[speech\]'"):
        require_error_rates(["wer"], "none")
    require_error_rates([], "none")
