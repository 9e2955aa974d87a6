"""What the files of all models with an encoder and a decoder have in common."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from groundup.core.errors import CheckpointError
from groundup.models.names.table import Row, drop_copy

__all__ = [
    "check_equal",
    "check_two_stacks",
    "differing_settings",
    "drop_embedding_copies",
    "rows_of_blocks",
    "rows_with_bias",
]

# Of BART, and of those that were made after it: Marian and Whisper.
_BLOCK = {
    "self_attn.q_proj": "attention.query",
    "self_attn.k_proj": "attention.key",
    "self_attn.v_proj": "attention.value",
    "self_attn.out_proj": "attention.output",
    "self_attn_layer_norm": "attention_norm",
    "fc1": "mlp.up",
    "fc2": "mlp.down",
    "final_layer_norm": "mlp_norm",
}
_CROSS = {
    "encoder_attn.q_proj": "cross_attention.query",
    "encoder_attn.k_proj": "cross_attention.key",
    "encoder_attn.v_proj": "cross_attention.value",
    "encoder_attn.out_proj": "cross_attention.output",
    "encoder_attn_layer_norm": "cross_norm",
}


def check_two_stacks(config: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Make sure that config.json is of a model with an encoder and a decoder that writes text.

    Raises:
        CheckpointError: If it names another class, as of a classifier or of an encoder alone.
    """
    for name in config.get("architectures") or ():
        if name not in known:
            problem = (
                f"architecture {name}; supported for model_type {config.get('model_type')}:"
                f" {', '.join(known)}"
            )
            raise CheckpointError("config.json", problem, "Set model: hub, which reads others too")


def differing_settings(
    config: Mapping[str, Any], parts: Mapping[str, Any], activations: Iterable[str]
) -> list[str]:
    """Return the settings of a family in which a model is another one, as ``norm_eps: 1e-05``.

    Args:
        config: All settings of the model.
        parts: Those that all models of the family have.
        activations: Those that it may have.
    """
    others = {name: value for name, value in parts.items() if config[name] != value}
    # As a recipe has them: null, true.
    found = [
        f"{name}: {value if isinstance(value, str) else json.dumps(value)}"
        for name, value in others.items()
    ]
    if config["activation"] not in activations:
        found.append(f"activation: {' or '.join(activations)}")
    return found


def drop_embedding_copies(
    tensors: Mapping[str, Tensor], shared: str, prefix: str
) -> dict[str, Tensor]:
    """Return a file's tensors without the copies of its one embedding that some files hold.

    Args:
        tensors: The file's.
        shared: The embedding's name.
        prefix: What the stacks' names begin with.

    Raises:
        CheckpointError: If one is no copy, as where the two languages have embeddings of their own.
    """
    remedy = "Use a model in which input and output share one embedding"
    kept = dict(tensors)
    for stack in ("encoder", "decoder"):
        kept = drop_copy(kept, f"{prefix}{stack}.embed_tokens.weight", shared, remedy)
    return kept


def check_equal(values: Mapping[str, Any], pairs: Iterable[tuple[str, str]]) -> None:
    """Make sure that what config.json says of the encoder, or the input, holds for the other, too.

    Raises:
        CheckpointError: If it does not: here one setting is for both.
    """
    for encoder, decoder in pairs:
        if values.get(decoder, values[encoder]) != values[encoder]:
            problem = f"{encoder} is {values[encoder]}, but {decoder} {values[decoder]}"
            raise CheckpointError("config.json", problem, "Use a model in which they are equal")


def rows_of_blocks(
    layers: int, decoder_layers: int, without_bias: tuple[str, ...] = ()
) -> list[Row]:
    """Return the rows of all blocks of a model that is made like BART.

    Args:
        layers: Of the encoder.
        decoder_layers: Of the decoder.
        without_bias: Parts of a block that have no bias.
    """
    rows = []
    for layer in range(layers):
        for hf, own in _BLOCK.items():
            place = f"model.encoder.layers.{layer}.{hf}"
            rows += rows_with_bias(place, f"blocks.{layer}.{own}", without_bias)
    for layer in range(decoder_layers):
        for hf, own in (_BLOCK | _CROSS).items():
            place = f"model.decoder.layers.{layer}.{hf}"
            rows += rows_with_bias(place, f"blocks.{layers + layer}.{own}", without_bias)
    return rows


def rows_with_bias(hf: str, own: str, without_bias: tuple[str, ...] = ()) -> list[Row]:
    """Return the rows of a layer: its weight, and its bias if it has one."""
    parts = ("weight",) if own.endswith(without_bias) and without_bias else ("weight", "bias")
    return [Row(f"{hf}.{part}", (f"{own}.{part}",)) for part in parts]
