"""The adapters of a whole model: put next to its layers, taken away, and merged into them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from groundup.core.errors import RecipeError
from groundup.nn.lora.embedding import AdaptedEmbedding, TrainedRows
from groundup.nn.lora.linear import AdaptedLinear, merge_weight, plain_linear
from groundup.nn.lowbit.nf4 import QuantizedLinear
from groundup.recipe.adapter import Adapter

__all__ = [
    "LOW_RANK",
    "Adapted",
    "adaptable",
    "adapted",
    "adapted_names",
    "attach",
    "dequantize_layers",
    "detach",
    "fits",
    "merge",
    "merge_tensors",
    "ranks_of",
    "unmerge",
]

LOW_RANK = ("lora_A", "lora_B", "magnitude", "rows")
"""How the names of an adapter's tensors end: two matrices, DoRA's lengths, and trained rows."""

Layer = nn.Linear | QuantizedLinear | nn.Embedding
"""What may have an adapter."""

Adapted = AdaptedLinear | AdaptedEmbedding | TrainedRows
"""What takes the place of a layer that has an adapter."""


def adapted(model: nn.Module) -> dict[str, Adapted]:
    """Return a model's adapted layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Adapted)}


def attach(
    model: nn.Module, settings: Adapter, spared: Callable[[str], bool] = lambda name: False
) -> None:
    """Put an adapter next to each layer that ``settings.targets`` names, drawn from torch's default
    generator; and make the rows of ``settings.trainable_token_indices`` ones that are trained
    apart.

    Args:
        model: Changed in place.
        settings: The recipe's section.
        spared: Whether a layer must have none, from its name.

    Raises:
        RecipeError: If a pattern names no layer, a rank is larger than its layer, or an embedding
            cannot be adapted so.
    """
    layers = adaptable(model, spared)
    if settings.trainable_token_indices:
        _train_rows(model, layers, settings)
    for name, rank in ranks_of(layers, settings).items():
        layer = layers[name]
        inputs, outputs = _size(layer)
        most = min(inputs, outputs)
        if rank > most:
            problem = f"is {rank}, but layer {name} turns {inputs} numbers into {outputs}"
            raise RecipeError(
                "recipe.adapter.rank",
                f"{problem}; allowed there: 1 to {most}",
                "Lower it, or name other layers in adapter.targets",
            )
        if isinstance(layer, nn.Embedding):
            _check_embedding(name, settings)
            change: Adapted = AdaptedEmbedding(layer, rank, settings.scale(rank))
        else:
            change = AdaptedLinear(layer, rank, settings)
        _replace(model, name, change.train(layer.training))


def adaptable(
    model: nn.Module, spared: Callable[[str], bool] = lambda name: False
) -> dict[str, Layer]:
    """Return the layers that may have an adapter by name: linear ones, and embeddings."""
    # Collected before any is replaced: the layer inside an adapter is a linear layer too.
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Layer) and not spared(name)
    }


def _size(layer: Layer) -> tuple[int, int]:
    if isinstance(layer, nn.Embedding):
        return layer.embedding_dim, layer.num_embeddings
    return layer.in_features, layer.out_features


def _check_embedding(name: str, settings: Adapter) -> None:
    """Raise an error about what no embedding can have."""
    if settings.name == "dora":
        raise RecipeError(
            "recipe.adapter.targets",
            f"names {name}, an embedding, whose rows DoRA gives no length of their own",
            f"Remove it, set adapter.name: lora, or adapter.modules_to_save: [{name}]",
        )


def _train_rows(model: nn.Module, layers: dict[str, Layer], settings: Adapter) -> None:
    """Let the first embedding train the rows of the settings' tokens, and no adapter."""
    where = "recipe.adapter.trainable_token_indices"
    name = next((name for name, each in layers.items() if isinstance(each, nn.Embedding)), None)
    if name is None:
        raise RecipeError(where, "has no effect: the model has no embedding", "Remove it")
    embedding = layers.pop(name)
    assert isinstance(embedding, nn.Embedding)
    tokens = settings.trainable_token_indices
    beyond = [token for token in tokens if token >= embedding.num_embeddings]
    if beyond:
        raise RecipeError(
            where,
            f"names token {beyond[0]}; allowed: 0 to {embedding.num_embeddings - 1}",
            "Name tokens that the model has",
        )
    _replace(model, name, TrainedRows(embedding, tokens).train(embedding.training))


def ranks_of(layers: Mapping[str, Layer], settings: Adapter) -> dict[str, int]:
    """Return each target's rank; where several patterns fit a layer, the first decides.

    An embedding is a target where its name is given: ``*`` stands for linear layers.

    Raises:
        RecipeError: If a pattern names no layer.
    """
    ranks: dict[str, int] = {}
    for pattern, rank in settings.patterns():
        found = [
            name
            for name, layer in layers.items()
            if name not in ranks and fits(name, pattern, exactly=isinstance(layer, nn.Embedding))
        ]
        if not found:
            known = ", ".join(_kinds(layers)) or "none"
            problem = f"no linear layer is called {pattern!r}"
            if ranks:
                problem += " that no pattern before it names"
            raise RecipeError(
                "recipe.adapter.targets",
                f"{problem}; this model's: {known}",
                "Name some of them in adapter.targets, such as [attention.query, mlp.*]",
            )
        ranks |= dict.fromkeys(found, rank)
    return ranks


def fits(name: str, pattern: str, *, exactly: bool = False) -> bool:
    """Return whether a pattern names a layer, or with ``exactly`` the end of its name is it."""
    if exactly:
        return f".{name}".endswith(f".{pattern}")
    # A pattern names the end of a layer's name: attention.query is that of every block.
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def _kinds(names: Mapping[str, Layer]) -> list[str]:
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
def dequantize_layers(model: nn.Module) -> None:
    """Make every layer whose weight is quantized a plain one in float32, with its adapter merged
    for good."""
    for name, module in list(model.named_modules()):
        adapted_bits = isinstance(module, AdaptedLinear) and module.stored is not None
        if adapted_bits or isinstance(module, QuantizedLinear):
            _replace(model, name, plain_linear(module.weight, module.bias).train(module.training))


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
    for name in (name.removesuffix(".rows") for name in tensors if name.endswith(".rows")):
        rows = tensors[f"{name}.rows"]
        chosen = torch.tensor(settings.trainable_token_indices)
        whole = plain[f"{name}.weight"].to(rows.dtype)
        plain[f"{name}.weight"] = whole.index_copy(0, chosen, rows)
    return plain
