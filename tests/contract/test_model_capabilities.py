"""What models declare that they offer: it is found by asking, also of a user's own model, and it is
true."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from groundup.contracts.models import (
    EncoderDecoder,
    FromGGUF,
    FromHuggingFace,
    Generates,
    HiddenStates,
    SingleRowDecoding,
    TokenLosses,
    blocks_of,
    context_length_of,
)
from groundup.core import registry
from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import setting, validate
from groundup.formats.model_types import gguf_models, huggingface_models
from groundup.generation.decoding import generate_batch
from groundup.generation.options import DecodingOptions
from groundup.nn.kv_cache import KeyValueCache
from groundup.recipe.fill_from_init import inherit

LANGUAGE_MODELS = ("gpt", "gemma3", "phi3")
SHAPE: dict[str, Any] = {
    "vocabulary_size": 30,
    "layers": 2,
    "width": 32,
    "heads": 4,
    "context_length": 16,
}


def build(name: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    return validate(registry.lookup("model", name), SHAPE | changes, "recipe.model").build()


# ------------------------------------------------------------------------------- language models
@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_a_language_model_offers_what_generation_and_losses_ask(name: str) -> None:
    model = build(name).eval()
    for capability in (HiddenStates, TokenLosses, Generates, SingleRowDecoding):
        assert isinstance(model, capability)
    assert not isinstance(model, EncoderDecoder)
    assert len(blocks_of(model)) == 2
    assert context_length_of(model.config) == 16
    assert model.has_decoder == (name == "gpt")


@pytest.mark.parametrize(
    ("name", "changes"),
    [("gpt", {"vocabulary_multiple": 64}), ("gemma3", {"logit_cap": 0.3}), ("phi3", {})],
)
def test_a_model_turns_hidden_states_into_logits_itself(name: str, changes: dict[str, Any]) -> None:
    model = build(name, **changes).eval()
    tokens, targets = torch.randint(30, (2, 9)), torch.randint(30, (2, 9))
    with torch.no_grad():
        hidden = model.hidden(tokens)
        assert torch.equal(model.logits_from(hidden), model(tokens))
        losses = model.token_losses(tokens, targets).flatten()
    found = model.log_probs_from(hidden.flatten(0, 1), targets.flatten())
    torch.testing.assert_close(-found, losses, rtol=1e-5, atol=1e-5)


def test_only_what_is_a_stack_of_blocks_has_blocks() -> None:
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Linear(1, 1)

    assert blocks_of(Other()) == []
    assert blocks_of(nn.Linear(1, 1)) == []
    assert context_length_of(object()) == 0


# ------------------------------------------------------------------- which model reads which weights
def test_the_model_of_weights_is_what_models_declare() -> None:
    found = huggingface_models()
    assert {kind: found[kind] for kind in ("gpt2", "qwen3", "roberta", "phi3", "vit", "*")} == {
        "gpt2": "gpt",
        "qwen3": "gpt",
        "roberta": "bert",
        "phi3": "phi3",
        "vit": "vit",
        "*": "hub",
    }
    assert gguf_models() == {
        "llama": "gpt",
        "qwen2": "gpt",
        "qwen3": "gpt",
        "gemma3": "gemma3",
        "phi3": "phi3",
    }
    for name in registry.BUILTINS["model"]:
        cls = registry.lookup("model", name)
        reads = set(found.values()) | set(gguf_models().values())
        assert (name in reads) == issubclass(cls, FromHuggingFace | FromGGUF)


class OwnConfig(FromHuggingFace):
    """A user's model, which reads weights of a type of its own."""

    huggingface_model_types = ("own",)
    free_settings = ("dropout",)

    layers: int = setting(1, "Layers", ge=1)
    outputs: int = setting(2, "Outputs", ge=1)
    dropout: float = setting(0.0, "Dropout", ge=0, lt=1)

    def build(self) -> nn.Module:
        return nn.Linear(self.layers, self.outputs)

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"layers": int(config["depth"]), "outputs": 3}

    def weights_from_huggingface(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(tensors)

    @classmethod
    def settings_begun_again(
        cls, settings: Mapping[str, Any], given: Mapping[str, Any]
    ) -> dict[str, Any]:
        return {"outputs": 5}


@pytest.fixture
def own_model() -> Iterator[None]:
    registered = registry._registered["model"]
    registry.model("own")(OwnConfig)
    yield
    del registered["own"]


def _filled(folder: Path, section: dict[str, Any] | None, **config: Any) -> dict[str, Any]:
    (folder / "config.json").write_text(json.dumps(config))
    raw: dict[str, Any] = {"init": {"pretrained": str(folder)}}
    if section is not None:
        raw["model"] = section
    inherit(raw, {}, complete=False)
    return dict(raw["model"])


@pytest.mark.usefixtures("own_model")
def test_a_users_model_starts_from_weights_like_a_built_in_one(tmp_path: Path) -> None:
    assert huggingface_models()["own"] == "own"
    found = _filled(tmp_path, {"dropout": 0.5}, model_type="own", depth=4)
    assert found == {"name": "own", "layers": 4, "outputs": 5, "dropout": 0.5}
    with pytest.raises(
        RecipeError, match=r"model\.layers: is 2, but the weights of .* have 4; free"
    ):
        _filled(tmp_path, {"layers": 2}, model_type="own", depth=4)
    with pytest.raises(RecipeError, match=r"is own, but the weights of .* are of model gpt\."):
        _filled(tmp_path, {"name": "own"}, model_type="gpt2", depth=4)


@pytest.mark.usefixtures("own_model")
def test_what_a_users_model_declares_counts_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OwnConfig, "huggingface_model_types", ("gpt2",))
    assert _filled(tmp_path, None, model_type="gpt2", depth=1)["name"] == "own"


# ----------------------------------------------------------------------------- encoder and decoder
class Summariser(nn.Module):
    """The smallest model that writes about an input: the next token is a function of the last one,
    its position, and the sum of the input."""

    start_id = 0

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = OwnConfig().model_copy(update={"context_length": 12})
        self.tokens, self.places = nn.Embedding(20, 8), nn.Embedding(12, 8)
        self.read, self.head = nn.Linear(3, 8), nn.Linear(8, 20)
        self.encoded_times = 0

    def new_cache(self, batch: int, length: int) -> KeyValueCache:
        return KeyValueCache(1, (batch, 1, length, 1), torch.float32, torch.device("cpu"))

    def encode(self, cache: KeyValueCache, *, inputs: Tensor) -> None:
        assert not self.training
        self.encoded_times += 1
        cache.encoded["sum"] = self.read(inputs).sum(1)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        inputs: Tensor | None = None,
        cache: KeyValueCache | None = None,
        last_only: bool = False,
    ) -> Tensor:
        if positions is None:
            positions = torch.arange(tokens.shape[1])[None]
        if cache is None:
            assert inputs is not None
            about = self.read(inputs).sum(1)
        else:
            about = cache.encoded["sum"]
        x = self.tokens(tokens) + self.places(positions.clamp(min=0)) + about[:, None]
        return self.head(torch.tanh(3 * x))[:, -1:] if last_only else self.head(torch.tanh(3 * x))


def _greedy(model: Summariser, inputs: Tensor, steps: int, stop: int) -> list[int]:
    """Write one text by whole forward passes, without a cache."""
    tokens = [1]
    with torch.no_grad():
        for _ in range(steps):
            logits = model(torch.tensor([tokens]), inputs=inputs[None])
            tokens.append(int(logits[0, -1].argmax()))
            if tokens[-1] == stop:
                return tokens[1:-1]
    return tokens[1:]


def test_a_model_writes_about_inputs_that_it_reads_once() -> None:
    model = Summariser()
    inputs = torch.randn(6, 4, 3)
    options = DecodingOptions(temperature=0.0, max_new_tokens=8)
    assert isinstance(model, EncoderDecoder)
    assert isinstance(model, Generates)
    free = [_greedy(model, row, 8, stop=-1) for row in inputs]
    assert len(set(map(tuple, free))) > 1, "texts must depend on the inputs"
    stop = free[0][3]  # rows end at different times, and the others keep their own inputs
    wanted = [_greedy(model, row, 8, stop) for row in inputs]
    found = generate_batch(model, [[1]] * 6, options, {stop}, inputs={"inputs": inputs})
    assert found == wanted
    assert len(set(map(len, wanted))) > 1
    assert model.encoded_times == 1
    assert model.training


def test_a_cache_reorders_and_repeats_what_was_encoded() -> None:
    """As a beam search does when one text is continued in two ways."""
    cache = Summariser().new_cache(3, 4)
    cache.encoded["state"] = torch.arange(3.0)[:, None]
    cache.reserve(torch.zeros(3, 1, dtype=torch.long))
    cache.layers[0].keys[:] = torch.arange(3.0)[:, None, None, None]
    cache.keep([2, 2, 0])
    assert cache.encoded["state"][:, 0].tolist() == [2, 2, 0]
    assert cache.layers[0].keys[:, 0, 0, 0].tolist() == [2, 2, 0]
    assert cache.rows == 3


def test_inputs_for_a_model_without_an_encoder() -> None:
    options = DecodingOptions(temperature=0.0, max_new_tokens=2)
    with pytest.raises(DataError, match="inputs: DecoderLM has no encoder, but there are frames"):
        generate_batch(build("gpt"), [[1]], options, inputs={"frames": torch.zeros(1, 2)})


# ------------------------------------------------------------------ sharded, wrapped, cut in stages
@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_a_part_of_a_model_keeps_its_names_and_is_called_with_keywords(name: str) -> None:
    """What is assumed of a module that was wrapped or cut: names, blocks, and keywords."""
    whole = build(name)
    stage = build(name)
    del stage.blocks[1:]
    assert set(stage.state_dict()) < set(whole.state_dict())
    assert len(blocks_of(stage)) == 1

    class Wrapped(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, **inputs: Tensor) -> Any:
            return self.module(**inputs)

    tokens = torch.randint(30, (2, 9))
    assert torch.equal(
        Wrapped(whole)(tokens=tokens, targets=tokens), whole(tokens=tokens, targets=tokens)
    )
