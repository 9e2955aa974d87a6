"""What every model keeps, whoever wrote it.

Shape legend: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from groundup.contracts.detection import DenseDetections, SetDetections
from groundup.contracts.models import HasVocabulary, ModelConfig, context_length_of
from groundup.testing.failure import require, require_close
from groundup.testing.flops import FlopTotal
from groundup.training.optimizers import depths

__all__ = ["check_model"]

_ROUNDING = 1e-5  # of the largest number: what other sizes of matrix products may change in fp32
_TOKENS = 16  # the most of a row
_FLOPS_APART = 2.0  # a factor: padding and the pairs that a mask leaves out are computed by some


@dataclass(frozen=True)
class _Model:
    """A model under test: its settings, and what its forward is called with."""

    config: ModelConfig
    inputs: dict[str, Tensor]
    language: bool
    untrained: Callable[[str], bool]

    def build(self) -> Any:
        """Return the model with the weights of seed 0."""
        torch.manual_seed(0)
        return self.config.build()

    @property
    def rows(self) -> int:
        """B."""
        return len(next(iter(self.inputs.values())))


def check_model(
    config: ModelConfig | type[ModelConfig],
    inputs: Mapping[str, Tensor] | None = None,
    *,
    language: bool | None = None,
    untrained: Collection[str] = (),
) -> None:
    """Check that a model keeps what training, resuming and fine-tuning rely on.

    Gradients everywhere, rows that do not mix, weights that come back from a file, equal seeds that
    give equal weights, FLOPs near what PyTorch counts; of a language model also no look ahead, and
    a loss that is a sum.

    Args:
        config: The settings, with all sizes given: no data completes them here. A class: its
            defaults.
        inputs: What forward is called with, by name, with three rows or more. Silent: tokens are
            drawn, for a language model.
        language: Whether it is a language model, which reads ``tokens`` and predicts the next ones;
            None: where tokens are drawn.
        untrained: Ends of names of parameters that get no gradient by design.

    Raises:
        ContractError: With the contract, what was found, and what to do.

    Example:
        >>> check_model(MLPConfig(inputs=64, outputs=3), {"inputs": torch.randn(8, 64)})
        ... # doctest: +SKIP
    """
    settings = config() if isinstance(config, type) else config
    language = inputs is None if language is None else language
    tested = _Model(
        settings,
        _draw_tokens(settings) if inputs is None else dict(inputs),
        language,
        lambda name: name.endswith(tuple(untrained)),
    )
    require(
        tested.rows >= 3,
        "check_model",
        f"inputs have {tested.rows} rows, but rows are compared",
        "Give three or more",
    )
    # What a test draws after a check is what it would have drawn without it.
    with torch.random.fork_rng(devices=[]):
        for check in (_check_build, _check_gradients, _check_rows, _check_files, _check_flops):
            check(tested)
        if language:
            _check_order_of_time(tested)
            _check_loss(tested)
        _check_order_of_parts(tested)


def _draw_tokens(config: ModelConfig) -> dict[str, Tensor]:
    # The contract of a language model's settings names the context; how many tokens there are is
    # the model's own affair, which every language model here calls by the same name.
    size = config.vocabulary_size if isinstance(config, HasVocabulary) else 0
    longest = context_length_of(config)
    require(
        size > 1 and longest > 1,
        "check_model",
        f"{type(config).__name__} has vocabulary_size {size} and context_length {longest}, so no"
        " tokens can be drawn",
        "Give both settings, or for a model that reads no tokens the argument inputs, such as"
        " {'inputs': torch.randn(8, 64)}",
    )
    draws = torch.Generator().manual_seed(0)
    shape = (3, min(_TOKENS, longest))
    return {"tokens": torch.randint(size, shape, generator=draws)}


def _check_build(tested: _Model) -> None:
    contract = "build() returns the same new weights for the same seed"
    model = tested.build()
    require(
        isinstance(model, nn.Module),
        "build() returns a torch.nn.Module",
        f"it returned {type(model).__name__}",
        "Return the module",
    )
    for (name, one), other in zip(
        model.named_parameters(), tested.build().parameters(), strict=True
    ):
        remedy = "Draw from torch's default generator, not from one of your own or from numpy's"
        require_close(one, other, 0.0, contract, f"two builds of {name}", remedy)


def _forward(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    found = model(**inputs)
    # What a detector says of a picture, as one row.
    if isinstance(found, DenseDetections):
        return torch.cat((found.logits.flatten(1), found.distances.flatten(1)), 1)
    if isinstance(found, SetDetections):
        layers = (*found.earlier, found)
        said = [part.flatten(1) for layer in layers for part in (layer.logits, layer.boxes)]
        return torch.cat(said, 1)
    require(
        isinstance(found, Tensor),
        "forward returns a tensor",
        f"it returned {type(found).__name__}",
        "Return the logits, with targets their loss, or detections",
    )
    return found  # type: ignore[no-any-return]


def _check_gradients(tested: _Model) -> None:
    model = tested.build()
    if tested.language:
        tokens = tested.inputs["tokens"]
        _forward(model, {"tokens": tokens, "targets": tokens.roll(-1, 1)}).backward()  # type: ignore[no-untyped-call]
    else:
        # A random direction: summed outputs have no gradient behind a softmax or a layer norm.
        outputs = _forward(model, tested.inputs).float()
        (outputs * torch.randn_like(outputs)).sum().backward()  # type: ignore[no-untyped-call]
    without = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
        and not tested.untrained(name)
        and (parameter.grad is None or not parameter.grad.abs().sum() > 0)
    ]
    require(
        not without,
        "every parameter receives a gradient",
        f"these receive none: {', '.join(without)}",
        "Use them in forward, remove them, or make them buffers",
    )


def _check_rows(tested: _Model) -> None:
    """Change one row, and look at the others: in training mode where each example counts alone."""
    contract = "a row's outputs depend on that row alone"
    remedy = "Use no statistics of the batch; with batch norm, let loss_is_sum return False"
    model = tested.build()
    # Batch norm ties rows together in training only, and its config says so.
    model.train(tested.config.loss_is_sum)
    changed = {name: values.clone() for name, values in tested.inputs.items()}
    for values in changed.values():
        # Lengths stay: dropout over rows without their padding draws as many numbers as before.
        if values.dim() > 1 or values.is_floating_point():
            values[1] = values[0]
    with torch.no_grad():
        # Dropout draws the same for both: what differs is then the row.
        state = torch.random.get_rng_state()
        before = _forward(model, tested.inputs)
        torch.random.set_rng_state(state)
        after = _forward(model, changed)
    require(
        len(before) == tested.rows,
        "forward returns one row an input",
        f"it returned {tuple(before.shape)} for {tested.rows} rows",
        "Keep the first dimension",
    )
    others = torch.arange(tested.rows) != 1
    require_close(after[others], before[others], _ROUNDING, contract, "outputs of others", remedy)
    require(
        not torch.allclose(after[1], before[1]),
        "a row's outputs depend on that row",
        "another input gave the same outputs",
        "Read the inputs in forward",
    )


def _check_files(tested: _Model) -> None:
    contract = "weights and settings come back from files"
    model = tested.build()
    if not tested.config.loss_is_sum:
        _forward(model, tested.inputs)  # moves the statistics of batch norm off their beginning
    again = type(tested.config).model_validate_json(tested.config.model_dump_json())
    require(
        again == tested.config,
        contract,
        f"settings read again are {again!r}, but were {tested.config!r}",
        "Use types that JSON has: numbers, texts, tuples, dicts",
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        tensors = {name: values.contiguous() for name, values in model.state_dict().items()}
        shared = _shared(tensors)
        require(
            not shared,
            contract,
            f"{' and '.join(shared)} are one tensor, which a file holds once",
            "Give it one name: use it in forward from where it is",
        )
        save_file(tensors, path)
        # Other random weights: what the file does not bring back shows.
        torch.manual_seed(1)
        other: Any = again.build()
        other.load_state_dict(load_file(path), strict=True)
    with torch.no_grad():
        found_again = _forward(other.eval(), tested.inputs)
        wanted = _forward(model.eval(), tested.inputs)
    remedy = "Register what forward reads as parameters or buffers"
    require_close(found_again, wanted, 0.0, contract, "outputs of the model read again", remedy)


def _shared(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of a tensor that has several."""
    names: dict[int, list[str]] = {}
    for name, values in tensors.items():
        if values.numel():  # empty tensors all begin at address 0
            names.setdefault(values.data_ptr(), []).append(name)
    return next((found for found in names.values() if len(found) > 1), [])


def _check_flops(tested: _Model) -> None:
    sequences = tested.language or tested.config.rows_vary or "lengths" in tested.inputs
    length = next(iter(tested.inputs.values())).shape[1] if sequences else 1
    stated = tested.config.flops_per_token(length)
    if not stated:  # not known: the use of the machine is then not shown
        return
    counter = FlopTotal()
    # What is counted on a CPU: attention as plain products, and LSTMs without oneDNN.
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        warnings.simplefilter("ignore")  # PyTorch speaks of Intel's GPUs when oneDNN is turned off
        with counter, torch.backends.mkldnn.flags(enabled=False):
            _forward(tested.build().eval(), tested.inputs)
    counted = 3 * counter.flops / (tested.rows * length)  # backward takes two forwards
    apart = math.inf if not counted else max(stated / counted, counted / stated)
    require(
        apart <= _FLOPS_APART,
        "flops_per_token is what forward and backward take",
        f"it states {stated:.4g}, but PyTorch counts {counted:.4g}",
        "Count 6 for each weight that an input is multiplied with, or do not define it",
    )


def _check_order_of_time(tested: _Model) -> None:
    contract = "a language model predicts from what came before"
    model = tested.build().eval()
    tokens = tested.inputs["tokens"]
    changed = tokens.clone()
    place = tokens.shape[1] // 2
    # The largest token that was drawn: the size of the vocabulary may be anyone's setting.
    size = int(tokens.max()) + 1
    changed[:, place] = (changed[:, place] + 1) % size
    with torch.no_grad():
        before = _forward(model, {"tokens": tokens})
        after = _forward(model, {"tokens": changed})
    require(
        before.dim() == 3 and before.shape[:2] == tokens.shape,
        "a language model returns logits (B, T, V)",
        f"it returned {tuple(before.shape)} for tokens {tuple(tokens.shape)}",
        "Return the logits of the next token at every position",
    )
    remedy = "Mask what comes later"
    what = f"outputs before position {place}, whose token was changed,"
    require_close(after[:, :place], before[:, :place], _ROUNDING, contract, what, remedy)


def _check_loss(tested: _Model) -> None:
    contract = "with targets, a language model returns the sum of -log p, without targets of -100"
    remedy = "Use F.cross_entropy(..., ignore_index=-100, reduction='sum') on logits in fp32"
    model = tested.build().eval()
    tokens = tested.inputs["tokens"]
    targets = tokens.roll(-1, 1)
    # Two halves of the targets: their sums add up only where sums are returned, and -100 left out.
    even = targets.clone()
    even[:, 1::2] = -100
    odd = targets.clone()
    odd[:, ::2] = -100
    with torch.no_grad():
        total, *parts = (
            _forward(model, {"tokens": tokens, "targets": each}) for each in (targets, even, odd)
        )
        nothing = _forward(model, {"tokens": tokens, "targets": torch.full_like(tokens, -100)})
    require(
        total.shape == () and total.dtype == torch.float32,
        contract,
        f"it returned {str(total.dtype).removeprefix('torch.')} {tuple(total.shape)}",
        remedy,
    )
    require_close(parts[0] + parts[1], total, _ROUNDING, contract, "two halves' sums", remedy)
    require(float(nothing) == 0.0, contract, f"without any target it is {float(nothing)}", remedy)


def _check_order_of_parts(tested: _Model) -> None:
    """Compare the order in which blocks were made with that in which they are used."""
    model = tested.build().eval()
    if not any(name.startswith("blocks.") for name in model.state_dict()):
        return  # layers of other names are not told apart: fine-tuning takes them all
    used: list[str] = []

    def note(name: str) -> Callable[..., None]:
        return lambda *passed: used.append(name)

    for label, part in model.named_modules():
        for own, _ in list(part.named_parameters(label, recurse=False))[:1] if label else []:
            part.register_forward_hook(note(own))
    with torch.no_grad():
        _forward(model, tested.inputs)
    depth = depths(list(model.state_dict()))
    found = [depth[name] for name in dict.fromkeys(used)]
    require(
        found == sorted(found, reverse=True),
        "parts are made in the order in which they are used, as fine-tuning of the last ones needs",
        f"they are used in the order {', '.join(dict.fromkeys(used))}",
        "Make embeddings, blocks and head in that order, and call them embed, blocks and head",
    )
