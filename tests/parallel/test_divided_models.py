"""Models whose matrices are divided: losses, gradients and tensors are those of the whole model."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from groundup.core.values import IGNORED
from groundup.models.bert import BERTConfig
from groundup.models.cnn import CNNConfig
from groundup.models.encoder_decoder import EncoderDecoderConfig
from groundup.models.gemma import Gemma3Config
from groundup.models.gpt import GPTConfig
from groundup.models.mlp import MLPConfig
from groundup.models.sequence_recommender import SequenceRecommenderConfig
from groundup.models.vit import ViTConfig
from groundup.parallel.holdings import Holdings
from groundup.parallel.layout import Layout
from groundup.parallel.tensor import divide_matrices

pytestmark = pytest.mark.slow
PROCESSES = 2
TOKENS = torch.randint(53, (4, 12), generator=torch.Generator().manual_seed(1))
TARGETS = TOKENS.roll(1, 1).masked_fill(torch.arange(12) < 3, IGNORED)
LENGTHS = torch.tensor([3, 12, 7, 9])
PICTURES = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(2))
SHAPE: dict[str, Any] = {
    "vocabulary_size": 53,
    "width": 32,
    "heads": 4,
    "layers": 2,
    "context_length": 32,
}


class Case(NamedTuple):
    config: Any
    inputs: dict[str, Tensor]


def cases() -> Iterator[Case]:
    """Yield models with inputs: all that is divided in some way of its own, and odd sizes."""
    packed = {"tokens": TOKENS, "boundaries": torch.tensor([0, 5, 12, 24, 30, 48]).int()}
    packed["positions"] = torch.cat([torch.arange(n) for n in (5, 7, 12, 6, 18)]).view(4, 12)
    gpt = GPTConfig(**SHAPE, kv_heads=2, qk_norm=True, bias="all", dropout=0.1)
    yield Case(gpt, packed | {"targets": TARGETS})
    yield Case(gpt, packed)  # gathers logits
    old = {"positions": "learned", "norm": "layernorm", "activation": "gelu_tanh"}
    yield Case(
        GPTConfig(**SHAPE, **old, tied_embeddings=False), {"tokens": TOKENS, "targets": TARGETS}
    )
    gemma = {"kv_heads": 2, "head_dim": 8, "mlp_width": 37, "logit_cap": 5.0, "sliding_window": 4}
    yield Case(
        Gemma3Config(**SHAPE, **gemma, global_every=2), {"tokens": TOKENS, "targets": TARGETS}
    )
    masked = BERTConfig(**SHAPE, head="masked", padding_id=3, dropout=0.1)
    yield Case(masked, {"tokens": TOKENS, "scored": TOKENS > 20})
    labels = BERTConfig(**SHAPE, head="labels", outputs=5)
    yield Case(labels, {"tokens": TOKENS, "lengths": LENGTHS})
    pairs = {"source": TOKENS, "source_mask": torch.arange(12) < LENGTHS[:, None]}
    pairs |= {"text": TOKENS, "targets": TARGETS}
    yield Case(EncoderDecoderConfig(**SHAPE, positions="relative", dropout=0.1), pairs)
    yield Case(EncoderDecoderConfig(**SHAPE, output_bias=True, tied_embeddings=False), pairs)
    yield Case(EncoderDecoderConfig(**SHAPE, copying=True), pairs)
    pictures: dict[str, Any] = {"input_shape": (1, 8, 8), "outputs": 10}
    vit = ViTConfig(patch=2, layers=2, width=12, heads=2, dropout=0.1, **pictures)
    yield Case(vit, {"inputs": PICTURES})
    normed = CNNConfig(channels=(4, 6), hidden=(16,), padding=True, batch_norm=True, **pictures)
    yield Case(normed, {"inputs": PICTURES})
    yield Case(CNNConfig(channels=(5,), hidden=(7,), dropout=0.1, **pictures), {"inputs": PICTURES})
    sizes = {"inputs": 64, "outputs": 10}
    yield Case(MLPConfig(hidden=(25, 11), norm="layer", dropout=0.1, **sizes), {"inputs": PICTURES})
    yield Case(MLPConfig(hidden=(25, 16, 8), norm="batch", **sizes), {"inputs": PICTURES})
    history = {"users": torch.zeros(4).long(), "tokens": TOKENS % 40, "lengths": LENGTHS}
    items: dict[str, Any] = {"items": 40, "context_length": 12, "width": 16, "heads": 2}
    yield Case(SequenceRecommenderConfig(**items, positions="distance"), history)


class _Mesh:
    def get_group(self, axis: str) -> Any:
        return dist.group.WORLD


def _compare(rank: int, meeting: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=PROCESSES)
    for number, case in enumerate(cases()):
        torch.manual_seed(0)
        whole = case.config.build()
        with torch.no_grad():
            for parameter in whole.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
        layout = Layout(tensor=PROCESSES, rank=rank, mesh=cast(Any, _Mesh()))
        divided = divide_matrices(copy.deepcopy(whole), layout)
        name = f"{number} {type(case.config).__name__}"
        holdings = Holdings.of(divided, PROCESSES)
        # Gathered first: a forward pass changes the statistics of batch norm.
        found = holdings.whole(divided.state_dict())
        assert list(found) == list(whole.state_dict()), name
        for tensor, expected in zip(found.values(), whole.state_dict().values(), strict=True):
            assert torch.equal(tensor, expected), name
        assert _size(divided) < 0.7 * _size(whole), name
        torch.testing.assert_close(
            _loss(divided, case.inputs), _loss(whole, case.inputs), rtol=1e-6, atol=1e-5, msg=name
        )
        expected_gradients = {name: p.grad for name, p in whole.named_parameters()}
        own = {name: p.grad for name, p in divided.named_parameters() if p.grad is not None}
        gradients = holdings.whole(own)
        largest = max(each.abs().max() for each in expected_gradients.values() if each is not None)
        for key, gradient in gradients.items():
            expected = expected_gradients[key]
            assert expected is not None
            # Some are 0 but for rounding: a bias of keys, or one before a norm over the batch.
            scale = max(expected.abs().max(), 0.01 * largest)
            torch.testing.assert_close(
                gradient / scale, expected / scale, rtol=0, atol=1e-4, msg=f"{name} {key}"
            )
        # What validations and samples do.
        divided.eval()
        whole.eval()
        with torch.no_grad():
            torch.testing.assert_close(
                copy.deepcopy(divided)(**case.inputs), whole(**case.inputs), rtol=1e-5, atol=1e-5
            )
    dist.destroy_process_group()


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _loss(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    torch.manual_seed(5)  # of dropout
    out: Tensor = model(**inputs)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
    loss = (out * weights).sum()
    loss.backward()
    return loss.detach()


def test_losses_gradients_and_tensors_are_those_of_the_whole_model(tmp_path: Path) -> None:
    """In training, with the same dropout, and in evaluation."""
    mp.spawn(_compare, (str(tmp_path / "meeting"),), PROCESSES)  # type: ignore[no-untyped-call]
