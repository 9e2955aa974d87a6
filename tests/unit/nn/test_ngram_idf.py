"""Bags of n-grams that weigh by counts and document frequency."""

from __future__ import annotations

import pytest
import torch

from groundup.nn.ngrams import NGramBag, ngram_buckets

TOKENS = torch.tensor([[3, 3, 4, 0], [3, 5, 6, 7]])
LENGTHS = torch.tensor([3, 4])


def test_documents_are_counted_in_training_alone_and_padding_never() -> None:
    bag = NGramBag(8, 2, 2, 16, idf=True)
    bag.eval()(TOKENS, LENGTHS)
    with torch.no_grad():
        bag.train()(TOKENS, LENGTHS)
    assert bag.documents.item() == 0
    bag(TOKENS, LENGTHS)
    assert bag.documents.item() == 2
    assert bag.with_token.tolist() == [0, 0, 0, 2, 1, 1, 1, 1]  # 3 twice in a text counts once
    assert bag.with_ngram.sum() == 5  # (3 3), (3 4) and (3 5), (5 6), (6 7)


def test_a_bag_is_the_weighted_sum_over_the_length_of_its_weights() -> None:
    torch.manual_seed(0)
    bag = NGramBag(8, 3, 2, 16, idf=True)
    assert bag.embed_ngrams is not None
    torch.nn.init.normal_(bag.embed_ngrams.weight)
    bag(TOKENS, LENGTHS)
    found = bag.eval()(TOKENS[:1], LENGTHS[:1])[0]
    rare = torch.tensor(3 / 2).log() + 1  # in one of two texts
    buckets = ngram_buckets(TOKENS[:1, :3], 2, 16)[0]
    total = 2 * bag.embed.weight[3] + rare * bag.embed.weight[4]
    total = total + rare * bag.embed_ngrams.weight[buckets].sum(0)
    assert torch.allclose(found, total / (2 + 3 * rare**2).sqrt(), atol=1e-6)


def test_sublinear_counts_give_a_bag_of_unit_length() -> None:
    bag = NGramBag(8, 8, 1, 16, sublinear_tf=True)
    bag.embed.weight.data = torch.eye(8)
    found = bag(TOKENS[:1], LENGTHS[:1])[0]
    twice = 1 + torch.tensor(2.0).log()  # 3 is there twice, 4 once
    assert torch.allclose(found[3:5], torch.tensor([twice, 1.0]) / (twice**2 + 1).sqrt())
    assert found.square().sum().item() == pytest.approx(1)  # no padding is in it
