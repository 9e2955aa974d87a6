"""What every classifier of sequences keeps: gradients everywhere, padding and other rows that do
not matter, FLOPs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from groundup.core.registry import lookup
from groundup.core.settings import validate
from groundup.testing import check_model

SEQUENCES: dict[str, list[dict[str, Any]]] = {
    "rnn": [
        {"vocabulary_size": 30, "width": 6, "outputs": 5, "embedding_width": 7},
        {
            "frame_width": 3,
            "width": 6,
            "outputs": 5,
            "cell": "gru",
            "layers": 2,
            "bidirectional": True,
        },
        {
            **{
                "vocabulary_size": 30,
                "width": 6,
                "outputs": 5,
                "cell": "rnn",
                "activation": "relu",
                "layers": 2,
            },
            **{"pooling": "mean", "dropout": 0.1},
        },
        {
            "frame_width": 3,
            "width": 6,
            "outputs": 5,
            "cell": "rnn",
            "pooling": "attention",
            "bidirectional": True,
        },
    ],
    "bag_of_ngrams": [
        {"vocabulary_size": 30, "width": 6, "outputs": 5},
        {"vocabulary_size": 30, "width": 6, "outputs": 5, "ngrams": 1, "dropout": 0.1},
        {"vocabulary_size": 30, "width": 6, "outputs": 5, "ngrams": 8, "buckets": 7},
        {"vocabulary_size": 30, "width": 1, "outputs": 5, "ngrams": 3, "buckets": 1},
    ],
    "bert": [
        {
            **{
                "vocabulary_size": 30,
                "layers": 2,
                "width": 16,
                "heads": 2,
                "context_length": 9,
                "outputs": 5,
            },
            **{"dropout": 0.0, "token_types": 0, "pooler": "relu", "init_std": 0.1},
        },
        {
            **{
                "vocabulary_size": 30,
                "layers": 1,
                "width": 16,
                "heads": 4,
                "context_length": 9,
                "outputs": 5,
            },
            **{
                "pooling": "mean",
                "pooler": "none",
                "position_offset": 2,
                "activation": "gelu_tanh",
                "token_types": 0,
            },
        },
    ],
    "transformer_classifier": [
        {
            "vocabulary_size": 30,
            "layers": 2,
            "width": 16,
            "heads": 2,
            "context_length": 9,
            "outputs": 5,
        },
        {
            **{
                "vocabulary_size": 30,
                "layers": 2,
                "width": 16,
                "heads": 4,
                "context_length": 9,
                "outputs": 5,
            },
            **{
                "causal": True,
                "pooling": "last",
                "kv_heads": 2,
                "qk_norm": True,
                "sliding_window": 3,
            },
        },
        {
            **{
                "frame_width": 3,
                "layers": 1,
                "width": 16,
                "heads": 2,
                "context_length": 9,
                "outputs": 5,
            },
            **{
                "pooling": "class",
                "positions": "learned",
                "norm": "layernorm",
                "activation": "gelu",
                "bias": "all",
            },
        },
        {
            **{
                "frame_width": 3,
                "layers": 1,
                "width": 16,
                "heads": 2,
                "context_length": 9,
                "outputs": 5,
            },
            **{"pooling": "attention", "dropout": 0.1},
        },
        {
            **{
                "vocabulary_size": 30,
                "layers": 1,
                "width": 16,
                "heads": 2,
                "context_length": 9,
                "outputs": 5,
            },
            **{"causal": True, "ngrams": 2, "ngram_width": 3, "ngram_buckets": 20},
        },
    ],
}
CASES = [(name, index) for name in SEQUENCES for index in range(len(SEQUENCES[name]))]
LENGTHS = torch.tensor([9, 1, 4, 9, 6, 2])


def tiny(name: str, index: int) -> tuple[Any, Any]:
    torch.manual_seed(0)
    config = validate(lookup("model", name), SEQUENCES[name][index], "recipe.model")
    return config, config.build()


def sequences(config: Any, lengths: Tensor = LENGTHS) -> dict[str, Tensor]:
    """Return rows of the lengths, with something in the padding too."""
    rows, longest = len(lengths), int(lengths.max())
    if config.vocabulary_size:
        return {"tokens": torch.randint(30, (rows, longest)), "lengths": lengths}
    return {"inputs": torch.randn(rows, longest, config.frame_width), "lengths": lengths}


@pytest.mark.parametrize(("name", "index"), CASES)
class TestContractOfSequenceClassifiers:
    def test_it_keeps_the_contract_of_models(self, name: str, index: int) -> None:
        config, _ = tiny(name, index)
        check_model(config, sequences(config), untrained=("key.bias",))

    @pytest.mark.parametrize("mode", [True, False])
    def test_neither_other_rows_nor_padding_matter(self, name: str, index: int, mode: bool) -> None:
        config, model = tiny(name, index)
        model.train(mode)
        batch, other = sequences(config), sequences(config)
        (key,) = set(batch) - {"lengths"}
        row, kept = torch.arange(6)[:, None], torch.arange(9) < LENGTHS[:, None]
        inside = kept & (row != 3)
        changed = torch.where(
            inside if batch[key].dim() == 2 else inside[..., None], batch[key], other[key]
        )
        state = torch.random.get_rng_state()
        before = model(**batch)
        torch.random.set_rng_state(state)
        after = model(**batch | {key: changed})
        assert before.shape == (6, 5)
        keep = torch.arange(6) != 3
        torch.testing.assert_close(after[keep], before[keep], rtol=0, atol=1e-6)
        assert not torch.allclose(after[3], before[3])

    def test_an_example_alone_gives_what_it_gives_in_a_batch(self, name: str, index: int) -> None:
        config, model = tiny(name, index)
        model.eval()
        batch = sequences(config)
        (key,) = set(batch) - {"lengths"}
        together, states = model(**batch), model.features(**batch)
        assert states.shape == (6, model.head.in_features)
        for row, length in enumerate(LENGTHS.tolist()):
            alone = model(**{key: batch[key][row : row + 1, :length]})
            torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-6)

    def test_double_precision(self, name: str, index: int) -> None:
        config, model = tiny(name, index)
        batch = sequences(config)
        model.eval()
        single = model(**batch)
        double = model.double()(
            **{n: v.double() if v.is_floating_point() else v for n, v in batch.items()}
        )
        assert double.dtype == torch.float64
        torch.testing.assert_close(double.float(), single, rtol=0, atol=1e-5)
