"""Texts cut otherwise each time: the same text all the same, by a function of the sample alone."""

from __future__ import annotations

import numpy as np
import pytest

from groundup.core.errors import RecipeError
from groundup.processors.text.bpe import BPEConfig
from groundup.processors.text.bpe_dropout import BPEDropout, bpe_dropout
from groundup.processors.text.bytes import BytesConfig
from groundup.processors.text.tokenizer import TokenizerProcessor

TEXTS = [
    f"The unrelated houses of number {n % 7} are lower than the newest ones, 打开。"
    for n in range(40)
]
TEXT = "The newest house, unrelated to 打开 42  others\n"


@pytest.fixture(scope="module")
def tokenizer() -> TokenizerProcessor:
    return BPEConfig(vocab_size=400).fit(lambda: iter(TEXTS))


def test_without_dropout_texts_are_cut_as_ever(tokenizer: TokenizerProcessor) -> None:
    cut = BPEDropout(tokenizer, 0.0, 0)
    for text in (*TEXTS, TEXT, "", " "):
        (expected,) = tokenizer.encode_batch([text])
        assert cut.encode(text, 3, "source").tolist() == expected.tolist()


def test_other_pieces_of_the_same_text(tokenizer: TokenizerProcessor) -> None:
    cut = bpe_dropout(tokenizer, 0.3, 0)
    found = [cut.encode(TEXT, sample, "source").tolist() for sample in range(50)]
    assert {tokenizer.decode(tokens) for tokens in found} == {TEXT}
    assert len(set(map(tuple, found))) > 40
    (usual,) = tokenizer.encode_batch([TEXT])
    assert len(usual) < np.mean(list(map(len, found))) < len(TEXT.encode())
    # Nearly every merge is left out at once: bytes are what is left.
    bare = [len(BPEDropout(tokenizer, 0.999, 0).encode(TEXT, n, "source")) for n in range(9)]
    assert min(bare) > 0.8 * len(TEXT.encode())
    # Another process, in which other samples came before, finds the same.
    other = BPEDropout(tokenizer, 0.3, 0)
    for sample in (41, 7):
        assert other.encode(TEXT, sample, "source").tolist() == found[sample]
        assert other.encode(TEXT, sample, "target").tolist() != found[sample]
    assert BPEDropout(tokenizer, 0.3, 1).encode(TEXT, 7, "source").tolist() != found[7]


@pytest.mark.slow
def test_merges_are_left_out_as_often_as_asked(tokenizer: TokenizerProcessor) -> None:
    # A pair of bytes has one merge, so it stays apart at the rate itself.
    merges = map("".join, tokenizer.described()["model"]["merges"])
    pair = next(each for each in merges if len(each) == 2 and each.isascii())
    assert len(tokenizer.encode_batch([pair])[0]) == 1
    apart = [len(BPEDropout(tokenizer, 0.25, n).encode(pair, 0, "source")) == 2 for n in range(200)]
    assert np.mean(apart) == pytest.approx(0.25, abs=0.1)


@pytest.mark.parametrize(
    "other", [BytesConfig(), BPEConfig(vocab_size=400, words=True)], ids=["bytes", "words"]
)
def test_tokenizers_without_such_merges(other: BPEConfig | BytesConfig) -> None:
    with pytest.raises(RecipeError, match="bpe_dropout: needs a byte-level BPE tokenizer that"):
        BPEDropout(other.fit(lambda: iter(TEXTS)), 0.1, 0)
