"""DETR as Hugging Face names it: config.json, preprocessor_config.json and tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from groundup.core.errors import CheckpointError
from groundup.models.names.huggingface.picture_settings import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    picture_settings,
)
from groundup.models.names.huggingface.residual_trunk import (
    timm_rows,
    trunk_rows,
    trunk_to_groundup,
    trunk_to_huggingface,
)
from groundup.models.names.table import Row, fill_in, from_own, refuse_other_values, to_own

__all__ = [
    "COUNTED",
    "KEYS",
    "LOSSES",
    "attention_rows",
    "check_detector",
    "config_to_groundup",
    "config_to_huggingface",
    "linear_rows",
    "processor_to_groundup",
    "to_groundup",
    "to_huggingface",
    "without_counts",
]

COUNTED = ".num_batches_tracked"
"""How the names of the tensor end that counts the batches of a batch norm, and changes nothing."""

_TRUNK = "model.backbone.conv_encoder.model."
_PARTS = {
    "model.input_projection": "project",
    "model.decoder.layernorm": "norm",
    "class_labels_classifier": "head",
    **{f"bbox_predictor.layers.{number}": f"head_box.layers.{number}" for number in range(3)},
}
# The names of settings in config.json, and groundup's.
_FIELDS = {
    "d_model": "width",
    "encoder_attention_heads": "heads",
    "encoder_layers": "encoder_layers",
    "decoder_layers": "decoder_layers",
    "encoder_ffn_dim": "mlp_width",
    "num_queries": "queries",
    "auxiliary_loss": "norm_between",
}
# Of transformers, for what config.json leaves out.
_DEFAULTS: dict[str, Any] = {
    "d_model": 256,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "encoder_ffn_dim": 2048,
    "decoder_ffn_dim": 2048,
    "num_queries": 100,
    "auxiliary_loss": False,
    "activation_function": "relu",
}
LOSSES = frozenset(
    (
        "class_cost",
        "bbox_cost",
        "giou_cost",
        "mask_loss_coefficient",
        "dice_loss_coefficient",
        "bbox_loss_coefficient",
        "giou_loss_coefficient",
        "eos_coefficient",
    )
)
"""Keys of config.json about the loss, which is the task's."""

# What is read of config.json, or is of training.
KEYS = LOSSES | {
    *_DEFAULTS,
    "hidden_size",
    "num_attention_heads",
    "num_hidden_layers",
    "backbone",
    "backbone_config",
    "backbone_kwargs",
    "use_timm_backbone",
    "use_pretrained_backbone",
    "num_channels",
    "position_embedding_type",
    "init_xavier_std",
    "encoder_layerdrop",
    "decoder_layerdrop",
    "max_position_embeddings",
    "scale_embedding",
    "classifier_dropout",
}


def check_detector(config: Mapping[str, Any], family: str, architecture: str) -> None:
    """Make sure that config.json is of a detector of a family.

    Raises:
        CheckpointError: If it is not.
    """
    found = config.get("model_type")
    names = config.get("architectures") or [architecture]
    if found != family or list(names) != [architecture]:
        problem = (
            f"model_type {found}, architectures {list(names)}; supported: {family}, {architecture}"
        )
        raise CheckpointError("config.json", problem, "Use a model of that kind")


def linear_rows(stored: str, own: str) -> Iterator[Row]:
    """Yield weight and bias."""
    for kind in ("weight", "bias"):
        yield Row(f"{stored}.{kind}", (f"{own}.{kind}",))


def attention_rows(stored: str, own: str) -> Iterator[Row]:
    """Yield the four matrices of an attention layer."""
    names = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "output"}
    for hf, name in names.items():
        yield from linear_rows(f"{stored}.{hf}", f"{own}.{name}")


def _rows(config: Any, *, timm: bool) -> list[Row]:
    trunk = config.trunk().model_dump()
    rows = timm_rows(_TRUNK, trunk) if timm else trunk_rows(_TRUNK, trunk)
    rows.append(Row("model.query_position_embeddings.weight", ("queries",)))
    for hf, own in _PARTS.items():
        rows += linear_rows(hf, own)
    for stack, count in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        for number in range(count):
            hf = f"model.{stack}.layers.{number}"
            own = f"{stack}.{number}"
            rows += attention_rows(f"{hf}.self_attn", f"{own}.attention")
            if stack == "decoder":
                rows += attention_rows(f"{hf}.encoder_attn", f"{own}.cross_attention")
                rows += linear_rows(f"{hf}.encoder_attn_layer_norm", f"{own}.cross_norm")
            rows += linear_rows(f"{hf}.self_attn_layer_norm", f"{own}.attention_norm")
            rows += linear_rows(f"{hf}.fc1", f"{own}.mlp.up")
            rows += linear_rows(f"{hf}.fc2", f"{own}.mlp.down")
            rows += linear_rows(f"{hf}.final_layer_norm", f"{own}.mlp_norm")
    return rows


def without_counts(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without those that count batches."""
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(COUNTED)}


def to_groundup(
    tensors: Mapping[str, Tensor], config: Any, own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return groundup's tensors from the file's; the output layer is left out where it is of other
    classes.

    Args:
        tensors: The file's.
        config: The settings of ``detr``.
        own: As ``expected`` of ``to_own``.
    """
    kept = without_counts(tensors)
    expected = without_counts(own)
    output = kept.get("class_labels_classifier.weight")
    if output is None or output.shape != own["head.weight"].shape:
        kept = {name: each for name, each in kept.items() if not name.startswith("class_labels_")}
        expected = {name: each for name, each in expected.items() if not name.startswith("head.")}
    # Whose names they are shows in the tensors: config.json may be of another version.
    rows = _rows(config, timm=f"{_TRUNK}conv1.weight" in kept)
    found = to_own(rows, kept, 0, expected)
    # The count of batches is not in files whose norms are frozen; nothing depends on it.
    counts = {name: torch.zeros((), dtype=torch.int64) for name in own if name.endswith(COUNTED)}
    return found | counts


def to_huggingface(tensors: Mapping[str, Tensor], config: Any) -> dict[str, Tensor]:
    """Return the file's tensors from groundup's."""
    return from_own(_rows(config, timm=False), without_counts(tensors), 0)


def config_to_groundup(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of ``detr`` from the contents of config.json. Its kinds of dropout are
    not taken over.

    Raises:
        CheckpointError: If the model is of another family, or has a part that groundup's lacks.
    """
    check_detector(config, "detr", "DetrForObjectDetection")
    full = fill_in(_DEFAULTS, config)
    refuse_other_values(
        full,
        {
            "dilation": False,
            "position_embedding_type": "sine",
            "activation_function": "relu",
            "decoder_attention_heads": full["encoder_attention_heads"],
            "decoder_ffn_dim": full["encoder_ffn_dim"],
        },
    )
    trunk, channels = trunk_to_groundup(full, "resnet")
    outputs = len(full.get("id2label") or ()) or full.get("num_labels", 2)
    return {own: full[hf] for hf, own in _FIELDS.items()} | {
        "backbone": trunk,
        "frozen_norms": True,
        "head": "softmax",
        # Pictures of any size: this one is only what FLOPs are told for.
        "input_shape": [channels, 800, 1333],
        "outputs": outputs,
    }


def config_to_huggingface(config: Mapping[str, Any], trunk: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of config.json from the settings of ``detr`` and of its trunk.

    Raises:
        CheckpointError: If the model has a part that transformers' lacks.
    """
    if config["head"] != "softmax":
        raise CheckpointError(
            "model",
            f"DETR has no head {config['head']} at Hugging Face",
            "Keep it in the project's own layout",
        )
    name = config["backbone"]["name"]
    channels = config["input_shape"][0]
    backbone = trunk_to_huggingface(trunk, name, channels, 1)
    if trunk["stem"] == "deep" or trunk.get("shortcut") == "pooled":
        raise CheckpointError(
            "model",
            "DETR has neither a deep stem nor pooled shortcuts at Hugging Face",
            "Keep it in the project's own layout",
        )
    values: dict[str, Any] = {hf: config[own] for hf, own in _FIELDS.items()}
    values |= {
        "decoder_attention_heads": config["heads"],
        "decoder_ffn_dim": config["mlp_width"],
        "activation_function": "relu",
        "position_embedding_type": "sine",
        "dropout": config["dropout"],
        "num_channels": channels,
        "num_labels": config["outputs"],
        "use_timm_backbone": False,
        "backbone_config": {"model_type": "resnet", **backbone},
    }
    return {"model_type": "detr", "architectures": ["DetrForObjectDetection"], **values}


def processor_to_groundup(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of processor ``image`` from the contents of preprocessor_config.json.

    Raises:
        CheckpointError: If pictures are prepared in another way: the library's own way, a shortest
            edge and a mask, has pictures of all sizes.
    """
    # What that library does where the file is silent.
    size = config.get("size", {"shortest_edge": 800, "longest_edge": 1333})
    return picture_settings(
        {**config, "size": size}, "Detr", (800, 1333), IMAGENET_MEAN, IMAGENET_STD
    )
