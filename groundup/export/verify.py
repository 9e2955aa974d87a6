"""The parity gate: what another reader computes from an export, checked against what the trained
model computes.

A reader is anything that turns a sample into outputs: the model as its run holds it, the model with
its adapter merged, groundup's own reload of the exported files, another library. Where outputs
differ by more than is allowed, the first layer that differs is named.

Shape legend: P compared positions, V outputs of each (the vocabulary, or classes).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from groundup.core.errors import CheckpointError

__all__ = [
    "NEAR",
    "Comparison",
    "Limit",
    "Model",
    "Reader",
    "Sample",
    "check_tensors",
    "compare",
    "compare_continuations",
    "first_difference",
    "layer_of",
    "parts_of",
]

# Two best outputs that are closer than this are no choice, where both compute in float32.
NEAR = 1e-3
_NOTHING = "Nothing was exported, and the run is as it was"


@dataclass(frozen=True)
class Sample:
    """What every reader is asked.

    Attributes:
        inputs: What the model's forward takes, by name. Of texts one row: ``tokens`` (1, T); of one
            that is written about another one also ``source`` (1, S).
        prompt: How many tokens of a text are its prompt; the trained model's likeliest continuation
            follows. 0 for anything else.
        kept: (B,) how many outputs of each row mean something, where these are others than
            ``lengths``.
    """

    inputs: dict[str, Tensor]
    prompt: int = 0
    kept: Tensor | None = None

    def positions(self, *, few: bool = False) -> list[int]:
        """Return which positions of a text are compared: all, or about four from the prompt's end
        on."""
        length = self.inputs["tokens"].shape[1]
        if not few:
            return list(range(length))
        first = self.prompt - 1
        return list(range(first, length, max((length - first) // 4, 1)))


class Reader(ABC):
    """Something that computes outputs from an export, or from the run.

    Attributes:
        name: For messages and for export.json.
        slow: Whether each position of a text costs a call, so that only some are compared.
        log_probabilities: Whether outputs of texts are log-probabilities, not logits.
    """

    name: str
    slow: bool = False
    log_probabilities: bool = False

    @abstractmethod
    def outputs(self, sample: Sample, positions: Sequence[int]) -> Tensor:
        """Return (P, V) at these positions of a text; of anything else one row an example."""

    def continuation(self, sample: Sample) -> list[int] | None:
        """Return the tokens that it writes after a text's prompt, as many as the sample has; None
        where it only reads."""
        return None

    def layers(self, sample: Sample) -> dict[str, Tensor]:
        """Return what each layer computes, by groundup's names and in order, if it can be seen."""
        return {}


class Model(Reader):
    """A model of groundup's."""

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name = name
        self.module = module.eval()

    @torch.no_grad()
    def outputs(self, sample: Sample, positions: Sequence[int]) -> Tensor:
        """Return (P, V)."""
        found: Tensor = self.module(**sample.inputs).float()
        if sample.prompt:
            return found[0, list(positions)]
        # All numbers of a picture are one row.
        return found.flatten(1) if found.dim() == 4 else found

    @torch.no_grad()
    def layers(self, sample: Sample) -> dict[str, Tensor]:
        """Return the first output of each part of the model and of each block, in the order they
        are computed."""
        found: dict[str, Tensor] = {}

        def keep(name: str, _: nn.Module, __: Any, output: Any) -> None:
            # recurrent layers return their states of all rows together
            if isinstance(output, tuple) and isinstance(output[0], PackedSequence):
                output = output[0].data
            if isinstance(output, Tensor):
                found.setdefault(name, output.float())

        parts = parts_of(self.module).items()
        hooks = [part.register_forward_hook(partial(keep, name)) for name, part in parts]
        try:
            self.module(**sample.inputs)
        finally:
            for hook in hooks:
                hook.remove()
        return found


def parts_of(module: nn.Module) -> dict[str, nn.Module]:
    """Return the parts that a model is made of; those in a list or a sequence one by one."""
    found: dict[str, nn.Module] = {}
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList | nn.Sequential):
            found |= {f"{name}.{number}": part for number, part in enumerate(child)}
        # dropout computes nothing here, and graphs leave it out
        elif not isinstance(child, nn.Dropout):
            found[name] = child
    return found


# ---------------------------------------------------------------------------------------- comparing
@dataclass(frozen=True)
class Limit:
    """What two readers may differ by.

    Attributes:
        difference: The largest difference of two outputs, over the largest output; None: any.
        nats: The mean KL divergence; None: any.
        choices: Whether the likeliest output must be the same wherever the two best are not nearly
            the same.
        near: Two best outputs that are closer than this are nearly the same.
    """

    difference: float | None = None
    nats: float | None = None
    choices: bool = True
    near: float = NEAR


@dataclass
class Comparison:
    """How two readers differ over all samples. ``kl_nats`` is the mean of KL(reference || other)
    over the positions."""

    reference: str
    other: str
    limit: Limit
    samples: int = 0
    positions: int = 0
    max_difference: float = 0.0
    scale: float = 0.0
    kl_nats: float = 0.0
    same_choices: int = 0
    near_ties: int = 0
    same_continuations: int | None = None

    @property
    def relative(self) -> float:
        """The largest difference over the largest output."""
        return self.max_difference / max(self.scale, 1e-30)

    @property
    def agreement(self) -> float:
        """The share of positions where the likeliest output is the same; where the two best are
        near, any is."""
        return self.same_choices / max(self.positions, 1)

    def add(self, reference: Tensor, other: Tensor, *, normalised: bool) -> None:
        """Count outputs (P, V) of one sample."""
        if other.shape != reference.shape:
            raise CheckpointError(
                self.other,
                f"gives outputs of shape {list(other.shape)}, but {self.reference}"
                f" gives {list(reference.shape)}",
                _NOTHING,
            )
        # in 64 bits, so that the comparison's own rounding does not count
        one = reference.double()
        two = other.double()
        logs = F.log_softmax(one, -1)
        other_logs = F.log_softmax(two, -1)
        difference = (logs - other_logs if normalised else one - two).abs()
        # a NaN compares as neither larger nor smaller, and would pass any limit
        largest = float(difference.nan_to_num(nan=float("inf"), posinf=float("inf")).max())
        self.max_difference = max(self.max_difference, largest)
        self.scale = max(self.scale, float(reference.abs().max()))
        total = float((logs.exp() * (logs - other_logs)).sum())
        self.kl_nats = (self.kl_nats * self.positions + total) / (self.positions + len(one))
        # of a single output there is nothing to choose: it is as near as can be
        best = reference.topk(min(2, reference.shape[-1]), -1).values
        near = best[:, 0] - best[:, -1] < self.limit.near
        same = (reference.argmax(-1) == other.argmax(-1)) | near
        self.samples += 1
        self.positions += len(one)
        self.same_choices += int(same.sum())
        self.near_ties += int(near.sum())

    def problem(self) -> str | None:
        """Return what exceeds the limit, in words, or None."""
        limit = self.limit
        if limit.difference is not None and not self.relative <= limit.difference:
            found = (
                f"by {self.max_difference:.3g}, {self.relative:.2g} of the largest output"
                f" {self.scale:.3g}"
            )
            return f"differs from {self.reference} {found} (allowed: {limit.difference:g})"
        if limit.nats is not None and not self.kl_nats <= limit.nats:
            return (
                f"differs from {self.reference} by {self.kl_nats:.3g} nats of KL divergence"
                f" (allowed: {limit.nats:g})"
            )
        if limit.choices and self.same_choices < self.positions:
            wrong = self.positions - self.same_choices
            return (
                f"differs from {self.reference} in the likeliest output at {wrong} of"
                f" {self.positions} positions"
            )
        if limit.choices and self.same_continuations not in (None, self.samples):
            wrong = self.samples - int(self.same_continuations or 0)
            return (
                f"writes another text than {self.reference} after {wrong} of {self.samples} prompts"
            )
        return None

    def to_json(self) -> dict[str, Any]:
        """Return what export.json says of it."""
        values = {
            **asdict(self),
            "relative_difference": self.relative,
            "greedy_agreement": self.agreement,
        }
        return {key: values[key] for key in values if key != "same_choices"}


def compare(
    reference: Reader, other: Reader, samples: Sequence[Sample], limit: Limit
) -> Comparison:
    """Return how two readers differ; ``Comparison.problem`` says whether it is too much."""
    found = Comparison(reference.name, other.name, limit)
    for sample in samples:
        positions = sample.positions(few=other.slow) if sample.prompt else []
        one = _drop_padding(reference.outputs(sample, positions), sample)
        two = _drop_padding(other.outputs(sample, positions), sample)
        two = _drop_padded_outputs(one, two, other)
        found.add(one, two, normalised=other.log_probabilities)
    return found


def _drop_padding(outputs: Tensor, sample: Sample) -> Tensor:
    """Return outputs of every token or frame (B, T, V) as (P, V), without those of the padding,
    which mean nothing."""
    lengths = sample.inputs.get("lengths") if sample.kept is None else sample.kept
    if outputs.ndim < 3 or lengths is None:
        return outputs
    tokens = sample.inputs.get("tokens")
    if tokens is not None and outputs.shape[:2] != tokens.shape:
        return outputs
    return outputs[torch.arange(outputs.shape[1]) < lengths[:, None]]


def _drop_padded_outputs(reference: Tensor, other: Tensor, reader: Reader) -> Tensor:
    """Return outputs without those of the embedding's padding, which no reader may choose."""
    size = reference.shape[-1]
    found = other[..., :size]
    beyond = other[..., size:]
    if beyond.shape[-1] and bool((beyond.amax(-1) > found.amax(-1)).any()):
        raise CheckpointError(
            reader.name,
            f"would write tokens from {size} on, which the tokenizer does not have",
            "Train with model.vocabulary_multiple: 1",
        )
    return found


def compare_continuations(
    reference: Reader,
    texts: Sequence[Sequence[int]],
    samples: Sequence[Sample],
    found: Comparison,
) -> None:
    """Count in ``found`` how many texts are continued by the same tokens.

    Each sample holds the reference's likeliest continuation. Where a text goes another way at a
    near tie, it counts.

    Args:
        reference: The reader that the samples' continuations are of.
        texts: What the other reader wrote after each prompt, as tokens.
        samples: The samples.
        found: Changed in place.
    """
    found.same_continuations = 0
    for sample, text in zip(samples, texts, strict=True):
        own = sample.inputs["tokens"][0, sample.prompt :].tolist()
        pairs = enumerate(zip(own, text, strict=False))
        different = [place for place, (one, two) in pairs if one != two]
        if not different:
            found.same_continuations += len(own) == len(text)
            continue
        best = reference.outputs(sample, [sample.prompt + different[0] - 1])[0].topk(2).values
        found.same_continuations += bool(best[0] - best[1] < found.limit.near)


# ------------------------------------------------------------------------------------------- naming
def first_difference(
    reference: Reader, other: Reader, samples: Sequence[Sample], tolerance: float
) -> str:
    """Return in words which layer is the first whose output differs by more than ``tolerance`` of
    its largest."""
    agreeing = False
    for sample in samples:
        seen = other.layers(sample)
        unseen: list[str] = []
        for name, one in reference.layers(sample).items():
            if name not in seen:
                unseen.append(name)
                continue
            two = seen[name].reshape(one.shape)
            # not ">": a NaN differs too
            if not float((one - two).abs().max()) <= tolerance * float(one.abs().max()):
                hidden = ""
                if unseen:
                    hidden = f", or {' or '.join(unseen)} before it, which cannot be seen there"
                return f"the first layer that differs is {name}{hidden}"
            agreeing = True
            unseen = []
    # the output layer is no part of what ``layers`` shows
    if agreeing:
        return "all layers agree, so the output layer differs"
    return (
        f"no layer's output can be seen in {other.name}, and each tensor in the file is the trained"
        " model's"
    )


def layer_of(tensor: str) -> str:
    """Return the layer that a tensor belongs to: ``blocks.1`` for ``blocks.1.mlp.up.weight``."""
    first, _, rest = tensor.partition(".")
    number = rest.partition(".")[0]
    return f"{first}.{number}" if number.isdigit() else first


def check_tensors(where: str, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Make sure that a reload holds exactly the tensors that were written.

    Raises:
        CheckpointError: Naming the first that differs.
    """
    for name in wanted:
        there = list(found[name].shape) if name in found else None
        if there != list(wanted[name].shape):
            problem = (
                f"tensor {name} (layer {layer_of(name)}) of shape {list(wanted[name].shape)} is not"
                " read back"
            )
            raise CheckpointError(
                where, f"{problem}, but {there or 'no tensor of that name'}", _NOTHING
            )
        one = wanted[name].float()
        two = found[name].float()
        if not torch.equal(one, two):
            problem = (
                "read back, it is not what was trained: the first layer that differs is"
                f" {layer_of(name)}"
            )
            by = f"tensor {name}, by up to {float((one - two).abs().max()):.3g}"
            raise CheckpointError(where, f"{problem} ({by})", _NOTHING)
