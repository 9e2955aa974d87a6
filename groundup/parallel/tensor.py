"""``parallel.tensor``: the matrices of a layer are divided between processes.

Queries, keys and values are divided by heads, the inner layer of an MLP by its numbers, and a
vocabulary by its rows; what is between two such layers is whole on every process. Parameters stay
plain tensors, so optimizers, averages and clipping see nothing new.

Source:
    Shoeybi et al., Megatron-LM, 2019 (arXiv:1909.08053), section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from groundup.core.errors import RecipeError
from groundup.machine.meta_device import without_content
from groundup.parallel.divided_chain import divide_chain
from groundup.parallel.divided_layers import (
    DividedInputs,
    DividedOutputs,
    DividedVocabulary,
    NormOfHeads,
    SharedInput,
)
from groundup.parallel.layout import Layout
from groundup.parallel.parts import Part, divide, share
from groundup.parallel.peers import Peers
from groundup.recipe.recipe import Recipe

__all__ = ["check_matrices", "divide_matrices"]

_WHERE = "recipe.parallel.tensor"


def check_matrices(recipe: Recipe, layout: Layout) -> None:
    """Make sure that a run's model can be divided, before anything of it is built.

    Args:
        recipe: Its model completed from the data.
        layout: Connected.

    Raises:
        RecipeError: If it cannot.
    """
    if recipe.optim.name == "muon":
        raise RecipeError(
            "recipe.optim.name",
            f"is muon, which needs whole matrices, but parallel.tensor {layout.tensor} divides"
            " them",
            "Use adamw, or share the batch with parallel.replicate",
        )
    if recipe.adapter is not None:
        raise RecipeError(
            _WHERE,
            f"is {layout.tensor}, but layers with an adapter or with quantized weights"
            " (recipe.adapter) are not divided",
            "Remove it, or share the batch with parallel.replicate",
        )
    # Of names and shapes alone: a refusal costs no memory, and comes before the first weight.
    with without_content():
        divide_matrices(recipe.model.build(), layout)


def divide_matrices(model: nn.Module, layout: Layout) -> nn.Module:
    """Return the model with this process's part of its matrices.

    Args:
        model: The whole one, changed in place: all processes have the same weights.
        layout: Connected.

    Raises:
        RecipeError: If it cannot be divided so.
    """
    divide_model = _MODELS.get(_kind(model))
    if divide_model is None:
        known = ", ".join(sorted(name.rpartition(".")[2] for name in _MODELS))
        raise RecipeError(
            _WHERE,
            f"is {layout.tensor}, but how to divide the matrices of {type(model).__name__} is not"
            f" known; it is of {known}",
            "Use parallel.shard or parallel.replicate, which divide any model's work",
        )
    assert layout.mesh is not None
    group = layout.mesh.get_group("tensor")
    divide_model(model, Peers(group, layout.places["tensor"], layout.tensor))
    return model


# ------------------------------------------------------------------------------- kinds of layers
def _divide_blocks(model: Any, peers: Peers) -> None:
    """Divide what the blocks of a transformer consist of."""
    for module in list(model.modules()):
        divide_layer = _LAYERS.get(_kind(module))
        if divide_layer is not None:
            divide_layer(module, peers)


def _divide_attention(attention: Any, peers: Peers) -> None:
    """Give each process some of the heads, with their queries, keys and values."""
    shape = attention.shape
    for setting, heads in (("heads", shape.heads), ("kv_heads", shape.kv_heads)):
        if heads % peers.size:
            raise RecipeError(
                _WHERE,
                f"is {peers.size}, which does not divide the {heads} of model.{setting}",
                f"Use a divisor of {heads}, or change model.{setting}",
            )
    queries = Part(0, share(shape.heads * shape.head_dim, peers, shape.head_dim), peers)
    keys = Part(0, share(shape.kv_heads * shape.head_dim, peers, shape.head_dim), peers)
    reads_one = _kind(attention) == _ATTENTION
    shared = SharedInput(peers, 3 if reads_one else 2)
    # Attention to another sequence asks from one and reads keys and values from the other.
    asked = shared if reads_one else SharedInput(peers, 1)
    attention.query = DividedOutputs(attention.query, queries, asked)
    attention.key = DividedOutputs(attention.key, keys, shared)
    attention.value = DividedOutputs(attention.value, keys, shared)
    attention.output = DividedInputs(attention.output, replace(queries, dim=1))
    # Queries and keys are normalised head by head, by one weight for all.
    for name in ("query_norm", "key_norm"):
        norm = getattr(attention, name, None)
        if norm is not None:
            setattr(attention, name, NormOfHeads(norm, peers))
    heads = shape.heads // peers.size
    attention.shape = replace(shape, heads=heads, kv_heads=shape.kv_heads // peers.size)


def _divide_mlp(mlp: Any, peers: Peers) -> None:
    """Give each process some of the inner numbers."""
    inner = Part(0, _share_out("model.mlp_width", mlp.up.out_features, peers), peers)
    shared = SharedInput(peers, 1 if mlp.gate is None else 2)
    if mlp.gate is not None:
        mlp.gate = DividedOutputs(mlp.gate, inner, shared)
    mlp.up = DividedOutputs(mlp.up, inner, shared)
    mlp.down = DividedInputs(mlp.down, replace(inner, dim=1))


def _divide_vocabulary(model: Any, name: str, peers: Peers) -> None:
    """Give each process some of the rows of an embedding or output layer, if there is one."""
    layer = getattr(model, name)
    if layer is not None:
        rows = _share_out("model.vocabulary_size", len(layer.weight), peers)
        setattr(model, name, DividedVocabulary(layer, Part(0, rows, peers)))


def _share_out(setting: str, length: int, peers: Peers) -> tuple[int, ...]:
    if length < peers.size:
        raise RecipeError(
            _WHERE,
            f"is {peers.size}, but {setting} is {length}, which so many processes cannot share",
            f"Use at most {length}",
        )
    return share(length, peers)


# ------------------------------------------------------------------------------- kinds of models
def _divide_decoder(model: Any, peers: Peers) -> None:
    _divide_blocks(model, peers)
    _divide_vocabulary(model, "embed", peers)
    _divide_vocabulary(model, "head", peers)
    heads, dim = model.parts.cache_shape
    # What decodes one row quickly multiplies with whole matrices.
    shape = (heads // peers.size, dim)
    model.parts = replace(model.parts, cache_shape=shape, decoder=None)


def _divide_two_stacks(model: Any, peers: Peers) -> None:
    _divide_blocks(model, peers)
    for name in ("embed", "embed_source", "head"):
        _divide_vocabulary(model, name, peers)
    block = model.shape.block
    heads, groups = block.heads // peers.size, block.kv_heads // peers.size
    # What its caches are made by.
    model.shape = replace(model.shape, block=replace(block, heads=heads, kv_heads=groups))
    model._decoder = None


def _divide_bert(model: Any, peers: Peers) -> None:
    _divide_blocks(model, peers)
    _divide_vocabulary(model, "embed", peers)


def _divide_relative_bias(bias: Any, peers: Peers) -> None:
    """Keep the numbers of this process's heads: (N, H)."""
    heads = bias.weight.shape[1]
    if not heads % peers.size:  # else attention says so
        divide(bias, "weight", Part(1, share(heads, peers), peers))


def _divide_recommender(model: Any, peers: Peers) -> None:
    _divide_blocks(model, peers)
    if model.log_slopes is not None:
        divide(model, "log_slopes", Part(0, share(len(model.log_slopes), peers), peers))


def _kind(module: nn.Module) -> str:
    """Return where a class is defined, and what it is called."""
    return f"{type(module).__module__}.{type(module).__name__}"


# By name, because the layers know of processes, and not the other way round.
_ATTENTION = "groundup.nn.attention.Attention"
_LAYERS: dict[str, Callable[[Any, Peers], None]] = {
    _ATTENTION: _divide_attention,
    "groundup.nn.cross_attention.CrossAttention": _divide_attention,
    "groundup.nn.mlp.MLP": _divide_mlp,
    "groundup.nn.positions.RelativeBias": _divide_relative_bias,
}
_MODELS: dict[str, Callable[[Any, Peers], None]] = {
    "groundup.nn.transformer.DecoderLM": _divide_decoder,
    "groundup.nn.encoder_decoder.EncoderDecoderTransformer": _divide_two_stacks,
    "groundup.nn.speech_transformer.SpeechTransformer": _divide_two_stacks,
    "groundup.models.bert.BERT": _divide_bert,
    "groundup.models.vit.ViT": _divide_blocks,
    "groundup.models.transformer_classifier.TransformerClassifier": _divide_blocks,
    "groundup.models.sequence_recommender.SequenceRecommender": _divide_recommender,
    "groundup.models.cnn.CNN": divide_chain,
    "groundup.models.mlp.MLPClassifier": divide_chain,
}
