"""Measures of generated texts are sacrebleu's and rouge-score's, and have intervals that hold them."""

from __future__ import annotations

import sys

import pytest

from groundup.core.errors import MissingExtraError
from groundup.metrics.directions import direction
from groundup.metrics.generated_text import (
    BLEU_TOKENIZERS,
    METRICS,
    doubt_bleu,
    example_scores,
    quick_scores,
    require_metrics,
    score_texts,
)

REFERENCES = ["the cat sat on the mat.", "a dog barks", "Return the length.", "打开文件。"]
OUTPUTS = ["the cat sat on a mat.", "dogs bark", "Return the length.", "打开文件夹。"]


def test_values_are_those_of_sacrebleu() -> None:
    metrics = pytest.importorskip("sacrebleu.metrics")
    for tokenizer in BLEU_TOKENIZERS:
        found = score_texts(["bleu"], OUTPUTS, REFERENCES, bleu_tokenizer=tokenizer, resamples=0)
        bleu = metrics.BLEU(tokenize=tokenizer)
        assert found["bleu"].value == bleu.corpus_score(OUTPUTS, [REFERENCES]).score
        assert found["bleu"].signature == f"bleu|{bleu.get_signature()}"
    chrf = metrics.CHRF()
    expected = chrf.corpus_score(OUTPUTS, [REFERENCES]).score
    found = score_texts(["chrf"], OUTPUTS, REFERENCES, resamples=0)
    assert found["chrf"].value == expected
    assert "nrefs:1|" in found["chrf"].signature
    assert example_scores("chrf", OUTPUTS, REFERENCES)[2] == 100
    # Whole-sentence BLEU of two words would be 0 for want of groups of four.
    assert example_scores("bleu", ["a dog"], ["a dog"]) == [pytest.approx(100)]


@pytest.mark.slow  # rouge-score takes a second to import
def test_values_of_words() -> None:
    found = quick_scores(["rouge_1", "rouge_2", "rouge_l"], ["a b c d"], ["a c b d e"])
    assert found == pytest.approx({"rouge_1": 8 / 9, "rouge_2": 0.0, "rouge_l": 6 / 9})
    # Chinese characters are words, and so are Chinese words pairs of them.
    assert quick_scores(["rouge_2"], ["打开文件"], ["打开目录"]) == pytest.approx(
        {"rouge_2": 1 / 3}
    )
    assert quick_scores(["exact_match", "f1"], ["The cat.", "x"], ["a cat", "y"]) == {
        "exact_match": 0.5,
        "f1": 0.5,
    }
    assert example_scores("f1", OUTPUTS[1:3], REFERENCES[1:3]) == [0.0, 1.0]


@pytest.mark.slow
def test_intervals_hold_the_value_and_are_drawn_by_the_seed() -> None:
    outputs, references = OUTPUTS * 10, REFERENCES * 10
    found = score_texts(METRICS, outputs, references, resamples=120, seed=3)
    assert list(found) == list(METRICS)
    for name, score in found.items():
        assert score.low < score.value < score.high, name
        assert score.signature.startswith(f"{name}|")
        assert direction(name) == direction(f"baseline_copy_{name}_low_95") == "higher"
    assert found == score_texts(METRICS, outputs, references, resamples=120, seed=3)
    other = score_texts(["rouge_l"], outputs, references, resamples=120, seed=4)
    assert other["rouge_l"].low != found["rouge_l"].low
    # As wide as the normal approximation says of a mean.
    each = example_scores("rouge_l", outputs, references)
    mean = sum(each) / len(each)
    half = 1.96 * (sum((x - mean) ** 2 for x in each) / len(each) ** 2) ** 0.5
    wide = score_texts(["rouge_l"], outputs, references, seed=3)["rouge_l"]
    assert wide.high - wide.low == pytest.approx(2 * half, rel=0.15)


@pytest.mark.slow
def test_nothing_to_score_and_nothing_said() -> None:
    for name, score in score_texts(METRICS, [], []).items():
        assert (score.value, score.low, score.high) == (0, 0, 0), name
        assert example_scores(name, [], []) == []
    assert set(quick_scores(METRICS, ["", ""], ["one two", "three"]).values()) == {0.0}


def test_without_sacrebleu_the_error_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    require_metrics(["rouge_l", "f1"])
    with pytest.raises(
        MissingExtraError, match=r"sacrebleu.*pip install 'groundup\[translation\]'"
    ):
        require_metrics(["rouge_l", "bleu"])


def test_a_tokenizer_that_sees_no_words_is_doubted() -> None:
    chinese = [
        "\u6587\u4ef6\u5df2\u6253\u5f00\u3002",
        "LibreOffice \u5e2e\u52a9\u6587\u4ef6\u5df2\u6253\u5f00",
    ]
    found = doubt_bleu(["chrf", "bleu"], chinese, "13a")
    assert "Chinese or Japanese" in found
    assert "set task.bleu_tokenizer: zh, or char" in found
    assert not doubt_bleu(["bleu"], chinese, "zh")
    assert not doubt_bleu(["chrf"], chinese, "13a")
    assert not doubt_bleu(["bleu"], ["Die Datei ist offen.", ""], "13a")
    assert not doubt_bleu(["bleu"], [], "13a")
