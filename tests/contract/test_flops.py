"""FLOPs of a step, forward and backward, as PyTorch counts them in the operations that run.

The counts differ in what is stated here, and in nothing else:

- PyTorch counts attention to all pairs of tokens, and groundup those that a causal mask, or a
  window, leaves;
- the first layer of a model that reads numbers passes no gradient to them: here it is asked for;
- PyTorch counts the backward pass of a grouped convolution as if it were not grouped: for such a
  model it is taken as twice the forward pass;
- no gradient passes to the state of zeros that a recurrent layer begins with;
- lookups, norms, activations and poolings are counted by neither.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from encoder_decoders import ENCODER_DECODERS
from test_ctc_contract import SPEECH
from test_detector_contract import DETECTORS
from test_models_contract import INPUTS, TOKENS
from test_sequence_models_contract import SEQUENCES
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from groundup.contracts.detection import SetDetections
from groundup.core.registry import lookup
from groundup.core.settings import validate
from groundup.nn.attention import seen_on_average
from groundup.testing.flops import FlopTotal
from groundup.training.layer_freezing import freeze_all_but

ROWS, LENGTH = 2, 8
EVERY = {**TOKENS, **INPUTS, **SEQUENCES}
CASES = [(name, index) for name, versions in EVERY.items() for index in range(len(versions))]


def counted(model: nn.Module, inputs: dict[str, Tensor]) -> float:
    """Return the FLOPs of one step for one row."""
    grouped = any(isinstance(part, nn.Conv2d) and part.groups > 1 for part in model.modules())
    counter = FlopTotal()
    # What is counted on a CPU: attention as plain products, and LSTMs without oneDNN.
    with counter, sdpa_kernel(SDPBackend.MATH), torch.backends.mkldnn.flags(enabled=False):
        loss = model(**inputs).sum()
        if not grouped:
            loss.backward()
    return counter.flops / ROWS * (3 if grouped else 1)


def inputs_of(name: str, config: Any) -> dict[str, Tensor]:
    if name in INPUTS:
        return {"inputs": torch.randn(ROWS, 3, 4, 4, requires_grad=True)}
    if name in SEQUENCES and getattr(config, "frame_width", 0):
        return {"inputs": torch.randn(ROWS, LENGTH, config.frame_width, requires_grad=True)}
    tokens = torch.randint(30, (ROWS, LENGTH))
    return {"tokens": tokens, "targets": tokens} if name in TOKENS else {"tokens": tokens}


def differing(name: str, config: Any) -> float:
    """Return the FLOPs that PyTorch counts in a row and groundup does not."""
    if name == "rnn":
        gates = {"rnn": 1, "gru": 3, "lstm": 4}[config.cell]
        return -2.0 * config.layers * (1 + config.bidirectional) * gates * config.width**2
    if name == "hub":
        width = config.config["hidden_size"]
        return 12.0 * config.layers * width * LENGTH * (LENGTH - LENGTH / 2)
    if name not in TOKENS and not getattr(config, "causal", False):
        return 0.0
    if name == "gemma3":
        windows = [config.window(layer) for layer in range(config.layers)]
        channels = config.heads * config.head_dim
    else:
        windows = [config.sliding_window] * config.layers
        channels = config.heads * config.dim
    removed = sum(LENGTH - seen_on_average(LENGTH, window) for window in windows)
    return 12.0 * channels * LENGTH * removed


# What PyTorch says when oneDNN is switched off.
@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize(("name", "index"), CASES)
def test_flops_are_those_that_pytorch_counts(name: str, index: int) -> None:
    torch.manual_seed(0)
    config: Any = validate(lookup("model", name), EVERY[name][index], "recipe.model")
    inputs = inputs_of(name, config)
    found = counted(config.build().train(), inputs)
    elements = 1 if name in INPUTS else LENGTH
    expected = config.flops_per_token(LENGTH) * elements + differing(name, config)
    assert found == pytest.approx(expected, rel=1e-6)


TWO_STACKS = [
    *ENCODER_DECODERS["encoder_decoder"],
    # Of Marian's shape, with an output layer of its own.
    {**ENCODER_DECODERS["encoder_decoder"][3], "tied_embeddings": False},
    {**ENCODER_DECODERS["encoder_decoder"][4], "tied_embeddings": False},
]


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize("trained", [None, 0, 1, 2, 3, 4])
@pytest.mark.parametrize("index", range(len(TWO_STACKS)))
def test_flops_of_an_input_and_an_output(index: int, trained: int | None) -> None:
    torch.manual_seed(0)
    config: Any = validate(lookup("model", "encoder_decoder"), TWO_STACKS[index], "recipe.model")
    model = config.build().train()
    if trained is not None:
        if trained > len(model.blocks) or (trained == 0 and config.tied_embeddings):
            return  # an error: there are no more blocks, or nothing would be trained
        freeze_all_but(model, trained)
    tokens = torch.randint(30, (ROWS, LENGTH))
    given = {"source": tokens, "text": tokens, "targets": tokens}
    found = counted(model, given)
    layers = config.decoder_layers or config.layers
    # Forwards alone, or with both gradients.
    passes = 3 * layers if trained is None else layers + 2 * min(trained, layers)
    masked = 4.0 * config.heads * config.dim * LENGTH * passes * (LENGTH - LENGTH / 2)
    # Backward through log-probabilities computes the logits again, which is no work of the model.
    again = 2.0 * config.width * config.vocabulary_size * LENGTH
    again *= config.copying and (trained is None or not config.tied_embeddings)
    expected = config.trained_flops_per_token(LENGTH, trained) * LENGTH + masked + again
    assert found == pytest.approx(expected, rel=1e-6)
    if trained is None:
        assert config.flops_per_token(LENGTH) == config.trained_flops_per_token(LENGTH, None)


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize("trained", [None, 0, 1, 2])
@pytest.mark.parametrize("index", range(len(SPEECH["ctc"])))
def test_flops_of_frames(index: int, trained: int | None) -> None:
    torch.manual_seed(0)
    config: Any = validate(lookup("model", "ctc"), SPEECH["ctc"][index], "recipe.model")
    model = config.build().train()
    if trained is not None:
        freeze_all_but(model, trained)
    # Nothing is asked of the frames themselves where nothing before the blocks is trained.
    frames = torch.randn(ROWS, LENGTH, config.frame_width, requires_grad=trained is None)
    counter = FlopTotal()
    with counter, sdpa_kernel(SDPBackend.MATH), torch.backends.mkldnn.flags(enabled=False):
        model(frames).sum().backward()
    found = counter.flops / ROWS
    kept = LENGTH // config.subsampling
    blocks = config.layers if trained is None else trained
    if config.blocks == "bilstm":
        # No gradient passes to the state of zeros.
        found += 2.0 * blocks * 2 * 4 * (config.width // 2) ** 2
    if config.blocks == "conformer":
        # One gradient of a grouped convolution is counted as if it were not grouped.
        found -= 2.0 * blocks * kept * config.kernel * config.width * (config.width - 1)
    assert found == pytest.approx(config.trained_flops_per_token(LENGTH, trained) * LENGTH, 1e-6)


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize("name", DETECTORS)
def test_flops_of_a_detector(name: str) -> None:
    for settings in DETECTORS[name]:
        # Of grouped convolutions PyTorch counts another number, and those of a trunk are not ours.
        if settings["backbone"]["name"] == "convnext":
            continue
        torch.manual_seed(0)
        config: Any = validate(lookup("model", name), settings, "recipe.model")
        inputs = torch.randn(ROWS, 3, 16, 16, requires_grad=True)
        counter = FlopTotal()
        with counter, sdpa_kernel(SDPBackend.MATH), torch.backends.mkldnn.flags(enabled=False):
            found = config.build().train()(inputs)
            parts = [found, *(found.earlier if isinstance(found, SetDetections) else ())]
            boxes = (part.boxes if name != "detector" else part.distances for part in parts)
            (
                sum(part.logits.sum() for part in parts) + sum(each.sum() for each in boxes)
            ).backward()
        each = counter.flops / ROWS
        assert each == pytest.approx(config.flops_per_token(1), rel=1e-6)
