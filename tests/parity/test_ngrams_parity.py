"""Bags of n-grams against torch's EmbeddingBag over n-grams counted one by one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from groundup.models.bag_of_ngrams import BagOfNGramsConfig
from groundup.nn.ngrams import NGramBag, ngram_buckets

LENGTHS = (7, 1, 4, 2)


def bucket(ngram: list[int], buckets: int) -> int:
    found = 0
    for token in ngram:
        found = (found * 1_000_003 + token + 1) % (2**31 - 1)
    return found % buckets


@pytest.mark.parametrize("ngrams", [1, 2, 3])
def test_same_vectors_same_sums(ngrams: int) -> None:
    torch.manual_seed(0)
    hashed = {"buckets": 50} if ngrams > 1 else {}
    model = BagOfNGramsConfig(
        vocabulary_size=20, width=5, ngrams=ngrams, outputs=3, **hashed
    ).build()
    tokens = torch.randint(20, (4, 7))
    if model.embed.embed_ngrams is not None:
        assert model.embed.embed_ngrams.weight.abs().sum() == 0
        nn.init.normal_(model.embed.embed_ngrams.weight)
    tables = [
        table.weight for table in (model.embed.embed, model.embed.embed_ngrams) if table is not None
    ]
    theirs = nn.EmbeddingBag.from_pretrained(torch.cat(tables).detach(), mode="sum")
    found = model.features(tokens, torch.tensor(LENGTHS))
    for row, length in enumerate(LENGTHS):
        text = tokens[row, :length].tolist()
        ids = list(text)
        for n in range(2, ngrams + 1):
            ids += [20 + bucket(text[start : start + n], 50) for start in range(length - n + 1)]
        expected = theirs(torch.tensor([ids]))[0] / len(ids) ** 0.5
        torch.testing.assert_close(found[row], expected, rtol=0, atol=1e-6)


def test_without_vectors_the_model_is_linear_in_the_counts() -> None:
    model = BagOfNGramsConfig(vocabulary_size=20, width=0, ngrams=1, outputs=3).build()
    assert not any(weights.any() for weights in model.parameters())  # says nothing at first
    for weights in model.parameters():
        nn.init.normal_(weights)
    tokens = torch.tensor([[4, 4, 9]])
    own = model.head_bag.embed.weight
    expected = (2 * own[4] + own[9]) / 3**0.5 + model.head_bias
    torch.testing.assert_close(model(tokens)[0], expected)


@pytest.mark.slow  # imports scikit-learn
@pytest.mark.xdist_group("sklearn")
@pytest.mark.parametrize("idf", [True, False])
def test_sublinear_weights_are_those_of_tf_idf_of_scikit_learn(idf: bool) -> None:
    text_features = pytest.importorskip("sklearn.feature_extraction.text")
    torch.manual_seed(0)
    tokens = torch.randint(6, (4, 7))
    lengths = torch.tensor(LENGTHS)
    bag = NGramBag(6, 56, 2, 50, idf=idf, sublinear_tf=True)
    assert bag.embed_ngrams is not None
    bag.embed.weight.data = torch.eye(6, 56)  # a channel for each token and bucket
    bag.embed_ngrams.weight.data = torch.eye(56)[6:]
    counts = torch.zeros(4, 56)
    for row, length in enumerate(LENGTHS):
        text = tokens[row, :length].tolist()
        for token in text:
            counts[row, token] += 1
        for start in range(length - 1):
            counts[row, 6 + bucket(text[start : start + 2], 50)] += 1
    assert counts.max() > 1
    bag(tokens, lengths)  # counts the documents
    found = bag.eval()(tokens, lengths)
    weigh = text_features.TfidfTransformer(sublinear_tf=True, use_idf=idf)
    expected = torch.tensor(weigh.fit_transform(counts.numpy()).toarray())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_ngrams_of_a_large_vocabulary_spread_evenly() -> None:
    tokens = (
        torch.stack((torch.arange(200_000) // 447, torch.arange(200_000) % 447), 1) * 447
    )  # all different pairs
    counts = ngram_buckets(tokens, 2, 4096)[:, 0].bincount(minlength=4096)
    assert len(counts) == 4096
    assert counts.min() > 10
    assert counts.max() < 100  # 49 on average
    largest = torch.full((1, 8), 2**31 - 2)
    assert 0 <= int(ngram_buckets(largest, 8, 4096)) < 4096
