"""Adapters: a frozen linear layer with a small trained change of low rank next to it.

Shape legend: I inputs of the layer, O its outputs, R the adapter's rank.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.core.errors import RecipeError
from groundup.nn.lora.fused import Change, changed_row_norms, low_rank_linear
from groundup.nn.lowbit.nf4 import QuantizedLinear, QuantizedWeight, add_bias
from groundup.recipe.sections import Adapter

__all__ = [
    "LOW_RANK",
    "AdaptedLinear",
    "adapted",
    "adapted_names",
    "attach",
    "dequantise_layers",
    "detach",
    "merge",
    "merge_tensors",
    "merge_weight",
    "row_norms",
    "unmerge",
]

LOW_RANK = ("lora_A", "lora_B", "magnitude")


class AdaptedLinear(nn.Module):
    """A linear layer with weight W whose change is learned as a product of two thin matrices, scale
    * B A.

    LoRA computes ``x W^T + scale * dropout(x) A^T B^T + bias``. A starts random and B at zero, so
    the layer starts as it was. ``scale`` is alpha / R, or alpha / sqrt(R) if rank-stabilised. DoRA
    then gives each output's row of ``V = W + scale * B A`` a length that is learned apart from its
    direction, ``magnitude * V / |V|``; as in section 4.3 of its paper no gradient goes through
    ``|V|``.

    The tensors of the linear layer keep their names, and ``weight`` is the weight as changed: code
    that reads a layer's weight rather than calling it sees the adapter as well (without its
    dropout).

    Next to a layer whose weight is quantised, W is what the few bits mean. Merging turns it into
    float32 and adds the change there: the sum is not quantised again, which would lose much of it.

    Args:
        linear: The layer; its parameters are shared, not copied. Freezing them is up to the caller.
        rank: R, from 1 to the smaller of I and O.
        settings: ``alpha``, ``dropout``, ``rank_stabilized``, and by ``name`` whether it is LoRA or
            DoRA.

    Source:
        Hu et al., LoRA, 2021 (arXiv:2106.09685), section 4.1; A is drawn as the authors' code draws
        it. Kalajdzievski, rsLoRA, 2023 (arXiv:2312.03732), section 3. Liu et al., DoRA, 2024
        (arXiv:2402.09353), equations 5 and 11; the norm is that of each output's row, as in the
        authors' code. Departs from that code in that dropout is applied to what goes into A only,
        not to what goes into W.
    """

    bias: nn.Parameter | None
    magnitude: nn.Parameter | None
    stored: QuantizedWeight | None

    def __init__(self, linear: nn.Linear | QuantizedLinear, rank: int, settings: Adapter) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        weight = linear.weight
        # Both go past ``weight`` below, which is the weight as changed.
        if isinstance(linear, QuantizedLinear):
            self.stored = linear.stored
            self._parameters["weight"] = None
        else:
            self.stored = None
            # A linear layer without quantised weights has a parameter.
            self._parameters["weight"] = cast(nn.Parameter, weight)
        self.register_parameter("bias", linear.bias)
        self.scale = settings.scale(rank)
        self.dropout = settings.dropout
        self.lora_A = nn.Parameter(weight.new_empty(rank, linear.in_features))
        self.lora_B = nn.Parameter(weight.new_zeros(linear.out_features, rank))
        # As torch draws a linear layer, which is how the authors' code draws A.
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.register_parameter("magnitude", None)
        if settings.name == "dora":
            lengths = row_norms(weight).detach()
            self.register_parameter("magnitude", nn.Parameter(lengths))
        self._unmerged: Tensor | None = None

    @property
    def linear_weight(self) -> Tensor:
        """The weight of the linear layer, (O, I): as it was, or with the adapter in it while
        merged."""
        parameter = self._parameters["weight"]
        if parameter is not None:
            return parameter
        assert self.stored is not None
        return self.stored.dequantised()

    @property
    def merged(self) -> bool:
        """Whether the adapter is in the linear layer's weight now."""
        in_floats = self.stored is not None and self._parameters["weight"] is not None
        return in_floats or self._unmerged is not None

    @property
    def weight(self) -> Tensor:
        """The weight as changed by the adapter, (O, I)."""
        if self.merged:
            return self.linear_weight
        return merge_weight(
            self.linear_weight, self.lora_A, self.lora_B, self.scale, self.magnitude
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., O) from x (..., I)."""
        if self.merged:
            return F.linear(x, self.linear_weight, self.bias)
        # The usual case has an operation of its own, which keeps less for the backward pass.
        if self._frozen(x):
            return self._low_rank(x, None)
        dropped = F.dropout(x, self.dropout, self.training)
        low = F.linear(F.linear(dropped, self.lora_A), self.lora_B) * self.scale
        if self.magnitude is None:
            return self._linear(x, self.bias) + low
        # Lengths in bf16 would be too coarse to divide by.
        with torch.autocast(x.device.type, enabled=False), torch.no_grad():
            lengths = changed_row_norms(self.linear_weight, self.lora_A, self.lora_B, self.scale)
        gain = (self.magnitude / lengths).to(low.dtype)
        return add_bias((self._linear(x, None) + low) * gain, self.bias)

    def gated(self, gate: Tensor, up: Tensor) -> Tensor:
        """Return (..., O) from silu(gate) * up, each (..., I), without keeping that product for the
        backward pass."""
        # A hook wants to see the layer's input, which ``gated`` never makes.
        hooked = self._forward_hooks or self._forward_pre_hooks
        if hooked or self.merged or not self._frozen(gate):
            out: Tensor = self(F.silu(gate) * up)
            return out
        return self._low_rank(gate, up)

    def _frozen(self, x: Tensor) -> bool:
        """Whether all but the adapter is frozen, in the dtype of x, and trained eagerly."""
        eager = torch.is_grad_enabled() and not torch.compiler.is_compiling()
        if not eager or torch.is_autocast_enabled(x.device.type):
            return False
        own = [each for each in (self._parameters["weight"], self.bias) if each is not None]
        frozen = not any(each.requires_grad for each in own)
        return frozen and all(each.dtype == x.dtype for each in (*own, self.lora_A))

    def _low_rank(self, x: Tensor, up: Tensor | None) -> Tensor:
        dropped = self.dropout if self.training else 0.0
        own = self._parameters["weight"]
        if own is not None:
            weight: tuple[Tensor, ...] = (own,)
            change = Change(self.scale, dropped)
        else:
            assert self.stored is not None
            weight = self.stored.stored
            change = Change(self.scale, dropped, self.stored.shape)
        adapter = (self.lora_A, self.lora_B, self.magnitude)
        return low_rank_linear(x, up, weight, self.bias, adapter, change)

    def _linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return what the layer computes without the adapter, with the given bias."""
        if self.stored is None:
            return F.linear(x, self.linear_weight, bias)
        return add_bias(self.stored(x), bias)

    @torch.no_grad()
    def merge(self) -> None:
        """Put the adapter into the weight, so that the layer costs what it did without one. A copy
        of W is kept."""
        if self.merged:
            return
        # Computed before the weight is replaced.
        changed = self.weight
        if self.stored is not None:
            self._parameters["weight"] = nn.Parameter(changed, requires_grad=False)
        else:
            # A copy, because subtracting the change again would not give the same bits.
            self._unmerged = self.linear_weight.detach().clone()
            self.linear_weight.copy_(changed)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put back the weight as it was, to the last bit."""
        if self.stored is not None:
            self._parameters["weight"] = None
        elif self._unmerged is not None:
            self.linear_weight.copy_(self._unmerged)
            self._unmerged = None

    def restored(self) -> nn.Linear | QuantizedLinear:
        """Return the linear layer as it was without the adapter, sharing the weight."""
        self.unmerge()
        if self.stored is not None:
            return QuantizedLinear(self.stored, self.bias).train(self.training)
        return _linear(self.linear_weight, self.bias).train(self.training)


def _linear(weight: Tensor, bias: nn.Parameter | None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    if not isinstance(weight, nn.Parameter):
        weight = nn.Parameter(weight, requires_grad=False)
    linear.weight = weight
    linear.register_parameter("bias", bias)
    return linear


def row_norms(weight: Tensor) -> Tensor:
    """Return the Euclidean length of each output's row, (O,)."""
    lengths: Tensor = torch.linalg.vector_norm(weight, dim=1)
    return lengths


def merge_weight(
    weight: Tensor, a: Tensor, b: Tensor, scale: float, magnitude: Tensor | None
) -> Tensor:
    """Return the weight (O, I) that computes what a linear layer and its adapter compute
    together."""
    with torch.autocast(weight.device.type, enabled=False):
        changed = weight + scale * (b @ a)
        if magnitude is None:
            return changed
        # No gradient goes through the norm: section 4.3 of DoRA's paper.
        return changed * (magnitude / row_norms(changed.detach()))[:, None]


# ------------------------------------------------------------------------------------ a whole model
def adapted(model: nn.Module) -> dict[str, AdaptedLinear]:
    """Return a model's adapted layers by name."""
    return {
        name: module for name, module in model.named_modules() if isinstance(module, AdaptedLinear)
    }


def attach(
    model: nn.Module, settings: Adapter, spared: Callable[[str], bool] = lambda name: False
) -> None:
    """Put an adapter next to each linear layer that ``settings.targets`` names, drawn from torch's
    default generator.

    Args:
        model: Changed in place.
        settings: The recipe's section.
        spared: Whether a layer must have none, from its name.

    Raises:
        RecipeError: If a pattern names no layer, or a rank is larger than its layer.
    """
    # Collected before any is replaced: the layer inside an adapter is a linear layer too.
    found = ((n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear | QuantizedLinear))
    linears = {name: module for name, module in found if not spared(name)}
    for name, rank in _ranks(linears, settings).items():
        linear = linears[name]
        most = min(linear.in_features, linear.out_features)
        if rank > most:
            problem = (
                f"is {rank}, but layer {name} turns {linear.in_features} numbers into"
                f" {linear.out_features}"
            )
            remedy = "Lower it, or name other layers in adapter.targets"
            raise RecipeError(
                "recipe.adapter.rank", f"{problem}; allowed there: 1 to {most}", remedy
            )
        _replace(model, name, AdaptedLinear(linear, rank, settings).train(linear.training))


def _ranks(linears: Mapping[str, nn.Module], settings: Adapter) -> dict[str, int]:
    """Return each target's rank; where several patterns fit a layer, the first decides."""
    ranks: dict[str, int] = {}
    for pattern, rank in settings.patterns():
        found = [name for name in linears if name not in ranks and _fits(name, pattern)]
        if not found:
            known = ", ".join(_kinds(linears)) or "none"
            problem = f"no linear layer is called {pattern!r}"
            if ranks:
                problem += " that no pattern before it names"
            remedy = "Name some of them in adapter.targets, such as [attention.query, mlp.*]"
            raise RecipeError("recipe.adapter.targets", f"{problem}; this model's: {known}", remedy)
        ranks |= dict.fromkeys(found, rank)
    return ranks


def _fits(name: str, pattern: str) -> bool:
    # A pattern names the end of a layer's name: attention.query is that of every block.
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def _kinds(names: Mapping[str, nn.Module]) -> list[str]:
    """Return names with ``*`` for numbers, each once."""
    return sorted(
        {".".join("*" if part.isdigit() else part for part in name.split(".")) for name in names}
    )


def detach(model: nn.Module) -> None:
    """Take all adapters away. The model is as it was before ``attach``, to the last bit."""
    for name, module in adapted(model).items():
        _replace(model, name, module.restored())


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def merge(model: nn.Module) -> None:
    """Put every adapter into its layer's weight: the same outputs, at the cost of the model without
    adapters."""
    for module in adapted(model).values():
        module.merge()


def unmerge(model: nn.Module) -> None:
    """Put the weights back as they were before ``merge``, to the last bit."""
    for module in adapted(model).values():
        module.unmerge()


@torch.no_grad()
def dequantise_layers(model: nn.Module) -> None:
    """Make every layer whose weight is quantised a plain one in float32, with its adapter merged
    for good."""
    for name, module in list(model.named_modules()):
        adapted_bits = isinstance(module, AdaptedLinear) and module.stored is not None
        if adapted_bits or isinstance(module, QuantizedLinear):
            _replace(model, name, _linear(module.weight, module.bias).train(module.training))


def adapted_names(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield the names of the layers that tensors hold an adapter of."""
    return (name.removesuffix(".lora_A") for name in tensors if name.endswith(".lora_A"))


def merge_tensors(tensors: Mapping[str, Tensor], settings: Adapter) -> dict[str, Tensor]:
    """Return a model's tensors by name with the adapters among them merged, as the model without
    adapters has them."""
    plain = {
        name: value for name, value in tensors.items() if name.rpartition(".")[2] not in LOW_RANK
    }
    for name in adapted_names(tensors):
        a = tensors[f"{name}.lora_A"]
        b = tensors[f"{name}.lora_B"]
        # A base may be stored in half precision; the adapter is finer, and the sum as fine as it.
        weight = plain[f"{name}.weight"].to(a.dtype)
        magnitude = tensors.get(f"{name}.magnitude")
        plain[f"{name}.weight"] = merge_weight(weight, a, b, settings.scale(len(a)), magnitude)
    return plain
