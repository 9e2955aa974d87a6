"""RT-DETR as Hugging Face names it: config.json, preprocessor_config.json and tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from groundup.core.errors import CheckpointError
from groundup.models.names.huggingface.detr import (
    COUNTED,
    attention_rows,
    check_detector,
    linear_rows,
    without_counts,
)
from groundup.models.names.huggingface.picture_settings import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    picture_settings,
)
from groundup.models.names.huggingface.residual_trunk import (
    norm_rows,
    trunk_rows,
    trunk_to_groundup,
    trunk_to_huggingface,
)
from groundup.models.names.table import Row, fill_in, from_own, refuse_other_values, to_own

__all__ = [
    "KEYS",
    "OUTPUTS",
    "config_to_groundup",
    "config_to_huggingface",
    "note",
    "processor_to_groundup",
    "to_groundup",
    "to_huggingface",
]

OUTPUTS = ("head.", "head_score.")
"""How the names of tensors begin that have a row for each class."""

_TRUNK = "model.backbone.model."
_NOISE = "model.denoising_class_embed.weight"
# Tensors of classes, by the file's names.
_STORED_OUTPUTS = ("model.decoder.class_embed.", "model.enc_score_head.")
# The names of settings in config.json, and groundup's.
_FIELDS = {
    "encoder_hidden_dim": "encoder_width",
    "encoder_attention_heads": "encoder_heads",
    "encoder_layers": "encoder_layers",
    "encoder_ffn_dim": "encoder_mlp_width",
    "hidden_expansion": "expansion",
    "d_model": "width",
    "decoder_attention_heads": "heads",
    "decoder_layers": "decoder_layers",
    "decoder_ffn_dim": "mlp_width",
    "decoder_n_points": "points",
    "num_queries": "queries",
    "num_feature_levels": "maps",
    "freeze_backbone_batch_norms": "frozen_norms",
}
# Of transformers, for what config.json leaves out.
_DEFAULTS: dict[str, Any] = {
    "encoder_hidden_dim": 256,
    "encoder_attention_heads": 8,
    "encoder_layers": 1,
    "encoder_ffn_dim": 1024,
    "hidden_expansion": 1.0,
    "d_model": 256,
    "decoder_attention_heads": 8,
    "decoder_layers": 6,
    "decoder_ffn_dim": 1024,
    "decoder_n_points": 4,
    "num_queries": 300,
    "num_feature_levels": 3,
    "freeze_backbone_batch_norms": True,
    "num_denoising": 100,
}
# Of which only one value is built.
_BUILT: dict[str, Any] = {
    "layer_norm_eps": 1e-5,
    "batch_norm_eps": 1e-5,
    "positional_encoding_temperature": 10000,
    "encoder_activation_function": "gelu",
    "activation_function": "silu",
    "decoder_activation_function": "relu",
    "normalize_before": False,
    "learn_initial_query": False,
    "with_box_refine": True,
}
# What is read of config.json, or is of training.
KEYS = frozenset(
    (
        *_DEFAULTS,
        *_BUILT,
        "hidden_size",
        "num_attention_heads",
        "backbone",
        "backbone_config",
        "backbone_kwargs",
        "use_timm_backbone",
        "use_pretrained_backbone",
        "encoder_in_channels",
        "decoder_in_channels",
        "encode_proj_layers",
        "feat_strides",
        # Anchors and positions for one size: the same numbers are computed for any.
        "anchor_image_size",
        "eval_size",
        "disable_custom_kernels",
        "label_noise_ratio",
        "box_noise_scale",
        "initializer_bias_prior_prob",
        "matcher_alpha",
        "matcher_gamma",
        "matcher_class_cost",
        "matcher_bbox_cost",
        "matcher_giou_cost",
        "use_focal_loss",
        "auxiliary_loss",
        "focal_loss_alpha",
        "focal_loss_gamma",
        "weight_loss_vfl",
        "weight_loss_bbox",
        "weight_loss_giou",
        "eos_coefficient",
    )
)


def note(config: Mapping[str, Any]) -> str:
    """Return what becomes of the vectors of noisy boxes, in words; empty: there are none."""
    if not fill_in(_DEFAULTS, config)["num_denoising"]:
        return ""
    return (
        "the vectors of classes for training with noisy boxes are left out: training here has none,"
        " and predictions do not read them"
    )


def _convolution(stored: tuple[str, str], own: str) -> Iterator[Row]:
    yield Row(f"{stored[0]}.weight", (f"{own}.0.weight",))
    yield from norm_rows(stored[1], f"{own}.1")


def _mix_rows(stored: str, own: str, *, last: bool) -> Iterator[Row]:
    parts = {"conv1": "through", "conv2": "past"}
    for block in range(3):
        parts[f"bottlenecks.{block}.conv1"] = f"blocks.{block}.wide"
        parts[f"bottlenecks.{block}.conv2"] = f"blocks.{block}.narrow"
    if last:
        parts["conv3"] = "output"
    for hf, name in parts.items():
        each = f"{stored}.{hf}"
        yield from _convolution((f"{each}.conv", f"{each}.norm"), f"{own}.{name}")


def _encoder_rows(config: Any) -> Iterator[Row]:
    hf = "model.encoder"
    for number in range(config.encoder_layers):
        yield from _block_rows(f"{hf}.encoder.0.layers.{number}", f"encoder.attention.{number}")
    last = int(config.encoder_width * config.expansion) != config.encoder_width
    for number in range(config.maps - 1):
        for stored, own in (("lateral_convs", "sideways"), ("downsample_convs", "halve")):
            each = f"{hf}.{stored}.{number}"
            yield from _convolution((f"{each}.conv", f"{each}.norm"), f"encoder.{own}.{number}")
        for stored, own in (("fpn_blocks", "finer"), ("pan_blocks", "coarser")):
            yield from _mix_rows(f"{hf}.{stored}.{number}", f"encoder.{own}.{number}", last=last)


def _block_rows(stored: str, own: str) -> Iterator[Row]:
    yield from attention_rows(f"{stored}.self_attn", f"{own}.attention")
    yield from linear_rows(f"{stored}.self_attn_layer_norm", f"{own}.attention_norm")
    yield from linear_rows(f"{stored}.fc1", f"{own}.mlp.up")
    yield from linear_rows(f"{stored}.fc2", f"{own}.mlp.down")
    yield from linear_rows(f"{stored}.final_layer_norm", f"{own}.mlp_norm")


def _mlp_rows(stored: str, own: str, layers: int) -> Iterator[Row]:
    for number in range(layers):
        yield from linear_rows(f"{stored}.layers.{number}", f"{own}.layers.{number}")


def _rows(config: Any) -> list[Row]:
    rows = trunk_rows(_TRUNK, config.trunk().model_dump())
    rows += _encoder_rows(config)
    for stored, own in (("encoder_input_proj", "project"), ("decoder_input_proj", "inward")):
        for number in range(config.maps):
            each = f"model.{stored}.{number}"
            rows += _convolution((f"{each}.0", f"{each}.1"), f"{own}.{number}")
    rows += linear_rows("model.enc_output.0", "select.output.0")
    rows += linear_rows("model.enc_output.1", "select.output.1")
    rows += linear_rows("model.enc_score_head", "head_score")
    rows += _mlp_rows("model.enc_bbox_head", "select.box", 3)
    rows += _mlp_rows("model.decoder.query_pos_head", "position", 2)
    crossed = {
        "sampling_offsets": "offsets",
        "attention_weights": "weights",
        "value_proj": "value",
        "output_proj": "output",
    }
    for number in range(config.decoder_layers):
        stored = f"model.decoder.layers.{number}"
        own = f"decoder.{number}"
        rows += _block_rows(stored, own)
        for hf, name in crossed.items():
            rows += linear_rows(f"{stored}.encoder_attn.{hf}", f"{own}.cross_attention.{name}")
        rows += linear_rows(f"{stored}.encoder_attn_layer_norm", f"{own}.cross_norm")
        rows += linear_rows(f"model.decoder.class_embed.{number}", f"head.{number}")
        rows += _mlp_rows(f"model.decoder.bbox_embed.{number}", f"head_box.{number}", 3)
    return rows


def _counts(rows: list[Row]) -> dict[str, str]:
    """Return groundup's name of the count of each batch norm, by the file's."""
    found = {}
    for row in rows:
        stored, kind = row.stored.rsplit(".", 1)
        if kind == "running_var":
            found[stored + COUNTED] = row.own[0].removesuffix(".running_var") + COUNTED
    return found


def to_groundup(
    tensors: Mapping[str, Tensor], config: Any, own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return groundup's tensors from the file's; the output layers are left out where they are of
    other classes.

    Args:
        tensors: The file's.
        config: The settings of ``rt_detr``.
        own: As ``expected`` of ``to_own``.
    """
    kept = without_counts(tensors)
    kept.pop(_NOISE, None)
    # Files of before transformers 5 may have the decoder's heads a second time.
    kept = {
        name: tensor
        for name, tensor in kept.items()
        if not (
            name.startswith(("class_embed.", "bbox_embed.")) and f"model.decoder.{name}" in kept
        )
    }
    expected = without_counts(own)
    output = kept.get("model.enc_score_head.weight")
    if output is None or output.shape != own["head_score.weight"].shape:
        kept = {name: each for name, each in kept.items() if not name.startswith(_STORED_OUTPUTS)}
        expected = {name: each for name, each in expected.items() if not name.startswith(OUTPUTS)}
    rows = _rows(config)
    found = to_own(rows, kept, 0, expected)
    for stored, name in _counts(rows).items():
        # Norms that are frozen there have no count; nothing depends on it.
        if name in own:
            found[name] = tensors.get(stored, torch.zeros((), dtype=torch.int64)).clone()
    return found


def to_huggingface(tensors: Mapping[str, Tensor], config: Any) -> dict[str, Tensor]:
    """Return the file's tensors from groundup's."""
    rows = _rows(config)
    # Without the vectors of noisy boxes: num_denoising 0 says that there are none.
    found = from_own(rows, without_counts(tensors), 0)
    for stored, name in _counts(rows).items():
        # Those that are frozen count nothing, here and there.
        if name in tensors:
            found[stored] = tensors[name].clone()
    return found


def config_to_groundup(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of ``rt_detr`` from the contents of config.json.

    Raises:
        CheckpointError: If the model is of another family, or has a part that groundup's lacks.
    """
    check_detector(config, "rt_detr", "RTDetrForObjectDetection")
    full = fill_in(_DEFAULTS, config)
    refuse_other_values(full, _BUILT)
    trunk, channels = trunk_to_groundup(full, "rt_detr_resnet")
    maps = full["num_feature_levels"]
    stages = len(trunk["layers"])
    read = list(range(stages - maps + 1, stages + 1))
    given = full.get("backbone_config") or {}
    inner = [full["encoder_hidden_dim"]] * maps
    found = {
        "backbone_config.out_indices": (given.get("out_indices") or read, read),
        "decoder_in_channels": (full.get("decoder_in_channels"), inner),
        "encode_proj_layers": (full.get("encode_proj_layers"), [maps - 1]),
    }
    for key, (value, built) in found.items():
        if value is not None and list(value) != built:
            problem = f"{key} is {list(value)}; supported: {built}"
            raise CheckpointError("config.json", problem, "Use another model")
    size = full.get("anchor_image_size") or 640
    height, width = (size, size) if isinstance(size, int) else size
    outputs = len(full.get("id2label") or ()) or full.get("num_labels", 2)
    return {own: full[hf] for hf, own in _FIELDS.items()} | {
        "backbone": {**trunk, "stem": "deep", "shortcut": "pooled"},
        "input_shape": [channels, height, width],
        "outputs": outputs,
    }


def config_to_huggingface(config: Mapping[str, Any], trunk: Any) -> dict[str, Any]:
    """Return the contents of config.json from the settings of ``rt_detr`` and those of its trunk.

    Raises:
        CheckpointError: If the model has a part that transformers' lacks.
    """
    settings = trunk.model_dump()
    name = config["backbone"]["name"]
    maps = config["maps"]
    channels = config["input_shape"][0]
    backbone = trunk_to_huggingface(settings, name, channels, maps)
    if settings["stem"] != "deep" or settings["shortcut"] != "pooled":
        raise CheckpointError(
            "model",
            "RT-DETR has a trunk with stem deep and shortcut pooled at Hugging Face",
            "Keep it in the project's own layout",
        )
    sizes = trunk.map_sizes()[-maps:]
    values: dict[str, Any] = {hf: config[own] for hf, own in _FIELDS.items()}
    values |= _BUILT | {
        "num_denoising": 0,
        "dropout": config["dropout"],
        "encoder_in_channels": [size.width for size in sizes],
        "feat_strides": [size.stride for size in sizes],
        "decoder_in_channels": [config["encoder_width"]] * maps,
        "encode_proj_layers": [maps - 1],
        "num_labels": config["outputs"],
        "backbone_config": {"model_type": "rt_detr_resnet", **backbone},
    }
    return {"model_type": "rt_detr", "architectures": ["RTDetrForObjectDetection"], **values}


def processor_to_groundup(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of processor ``image`` from the contents of preprocessor_config.json.

    Raises:
        CheckpointError: If pictures are prepared in another way.
    """
    return picture_settings(
        config, "RTDetr", (640, 640), IMAGENET_MEAN, IMAGENET_STD, normalises=False
    )
