"""Whisper as Hugging Face names it: config.json, preprocessor_config.json and tensors, in both
directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from groundup.core.errors import CheckpointError
from groundup.models.names.huggingface.two_stacks import (
    check_equal,
    check_two_stacks,
    rows_of_blocks,
    rows_with_bias,
)
from groundup.models.names.table import (
    Row,
    drop_copy,
    fill_in,
    from_own,
    refuse_other_values,
    to_own,
)

__all__ = [
    "KEYS",
    "config_to_groundup",
    "config_to_huggingface",
    "generation_to_groundup",
    "generation_to_huggingface",
    "processor_to_groundup",
    "to_groundup",
    "to_huggingface",
]

_CLASS = "WhisperForConditionalGeneration"
# The names of settings in config.json, and groundup's.
_FIELDS = {
    "vocab_size": "vocabulary_size",
    "num_mel_bins": "mel_bands",
    "max_source_positions": "source_positions",
    "max_target_positions": "context_length",
    "encoder_layers": "layers",
    "decoder_layers": "decoder_layers",
    "d_model": "width",
    "encoder_attention_heads": "heads",
    "encoder_ffn_dim": "mlp_width",
    "pad_token_id": "padding_id",
    "decoder_start_token_id": "start_id",
    "dropout": "dropout",
    "init_std": "init_std",
}
# Of transformers, for what config.json leaves out.
_DEFAULTS: dict[str, Any] = {
    "vocab_size": 51865,
    "num_mel_bins": 80,
    "max_source_positions": 1500,
    "max_target_positions": 448,
    "encoder_layers": 4,
    "decoder_layers": 4,
    "d_model": 384,
    "encoder_attention_heads": 6,
    "decoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "decoder_ffn_dim": 1536,
    "pad_token_id": 50256,
    "decoder_start_token_id": 50257,
    "dropout": 0.0,
    "init_std": 0.02,
}
# Parts that change what is computed, and that are not built otherwise.
_PLAIN = {
    "activation_function": "gelu",
    "tie_word_embeddings": True,
    # transformers reads it and multiplies nothing with it: what it would mean is not known.
    "scale_embedding": False,
}

KEYS = frozenset((*_FIELDS, *_DEFAULTS, *_PLAIN, "num_hidden_layers"))
# Of dropping whole layers and of masks over frames in training, which the recipe decides.
KEYS |= {"encoder_layerdrop", "decoder_layerdrop", "apply_spec_augment"}
KEYS |= {f"mask_{axis}_{part}" for axis in ("time", "feature") for part in ("prob", "length")}
KEYS |= {"mask_time_min_masks", "mask_feature_min_masks"}
# Of a classifier over the encoder, which is another class; and of writing, which the task reads.
KEYS |= {"use_weighted_layer_sum", "classifier_proj_size"}
KEYS |= {"forced_decoder_ids", "median_filter_width", "num_key_value_heads"}

_EMBEDDING = "model.decoder.embed_tokens.weight"
# How frames are made, as the processor ``speech`` makes them for Whisper.
_FRAMES = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "sampling_rate": 16000,
    "hop_length": 160,
    "n_fft": 400,
    "padding_value": 0.0,
    "dither": 0.0,
}


def _rows(config: Mapping[str, Any]) -> tuple[Row, ...]:
    encoder = int(config["layers"])
    rows = [
        Row(_EMBEDDING, ("embed.weight",)),
        Row("model.encoder.embed_positions.weight", ("embed_frames.positions",)),
        Row("model.decoder.embed_positions.weight", ("positions_target.weight",)),
        *rows_with_bias("model.encoder.conv1", "embed_frames.first"),
        *rows_with_bias("model.encoder.conv2", "embed_frames.second"),
        *rows_with_bias("model.encoder.layer_norm", f"blocks.{encoder - 1}.last_norm"),
        *rows_with_bias("model.decoder.layer_norm", "norm"),
    ]
    # A key has no bias.
    blocks = rows_of_blocks(encoder, config["decoder_layers"], ("attention.key",))
    return (*rows, *blocks)


def to_groundup(
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    own: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return groundup's tensors from the file's, with the prefix ``model.`` or without.

    A copy of the embedding as the output layer is left out, and so are learned positions beyond the
    context's length. ``own`` is as ``expected`` of ``to_own``.
    """
    kept = {
        f"model.{name}" if name.startswith(("encoder.", "decoder.")) else name: tensor
        for name, tensor in tensors.items()
    }
    remedy = "Use a model whose output layer is the embedding"
    kept = drop_copy(kept, "proj_out.weight", _EMBEDDING, remedy)
    places = "model.decoder.embed_positions.weight"
    if places in kept:
        kept[places] = kept[places][: config["context_length"]]
    return to_own(_rows(config), kept, 0, own)


def to_huggingface(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the file's tensors from groundup's."""
    return from_own(_rows(config), tensors, 0)


def config_to_groundup(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of ``whisper`` from the contents of config.json.

    Raises:
        CheckpointError: If the model has a part that groundup's lacks.
    """
    check_two_stacks(config, (_CLASS, "WhisperModel"))
    refuse_other_values(config, _PLAIN)
    full = fill_in(_DEFAULTS, config)
    check_equal(
        full,
        (
            ("encoder_attention_heads", "decoder_attention_heads"),
            ("encoder_ffn_dim", "decoder_ffn_dim"),
        ),
    )
    return {own: full[hf] for hf, own in _FIELDS.items()}


def config_to_huggingface(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of config.json from all settings."""
    values = {hf: config[own] for hf, own in _FIELDS.items()} | {
        "decoder_attention_heads": config["heads"],
        "decoder_ffn_dim": config["mlp_width"],
        "activation_function": "gelu",
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "scale_embedding": False,
        "is_encoder_decoder": True,
    }
    if values["pad_token_id"] is None:
        values["pad_token_id"] = config["start_id"]
    return {"model_type": "whisper", "architectures": [_CLASS], **values}


def processor_to_groundup(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of processor ``speech`` from the contents of preprocessor_config.json.

    Raises:
        CheckpointError: If frames are made in another way.
    """
    for key, value in _FRAMES.items():
        if config.get(key) not in (None, value):
            problem = f"{key} is {config[key]!r}; supported: {value!r}"
            raise CheckpointError("preprocessor_config.json", problem, "Use another model")
    seconds = float(config.get("chunk_length") or 30)
    return {
        "features": "whisper",
        # Their transcripts begin with a blank, as every other word does.
        "transcript_prefix": " ",
        "mel_bands": int(config.get("feature_size") or 80),
        "pad_seconds": seconds,
    }


def generation_to_groundup(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of ``whisper`` from the contents of generation_config.json.

    Of weights for several languages, transcripts begin with the token of English unless the file
    names another.
    """
    found: dict[str, Any] = {"prompt_ids": _prompt(values)}
    for key in ("suppress_tokens", "begin_suppress_tokens"):
        # Older files end the list with -1 or leave it out.
        found[key] = [token for token in values.get(key) or () if token >= 0]
    without_times = values.get("no_timestamps_token_id")
    if without_times is not None:
        found["no_timestamps_id"] = int(without_times)
    if values.get("alignment_heads"):
        found["alignment_heads"] = [list(pair) for pair in values["alignment_heads"]]
    return found


def _prompt(values: Mapping[str, Any]) -> list[int]:
    """Return the tokens between the start token and a transcript."""
    forced = values.get("forced_decoder_ids") or []
    # Null is a language that the model is to find out by itself.
    if forced and all(token is not None for _, token in forced):
        return [int(token) for _, token in sorted(forced)]
    languages = values.get("lang_to_id") or {}
    if not languages and not values.get("is_multilingual"):
        without_times = values.get("no_timestamps_token_id")
        return [] if without_times is None else [int(without_times)]
    language = f"<|{values.get('language') or 'en'}|>"
    tasks = values.get("task_to_id") or {}
    task = values.get("task") or "transcribe"
    try:
        chosen = [languages[language], tasks[task], values["no_timestamps_token_id"]]
    except KeyError as error:
        problem = f"has no number for {error}, with which its transcripts begin"
        remedy = "Use a folder of the same model that a newer version of transformers wrote"
        raise CheckpointError("generation_config.json", problem, remedy) from None
    return [int(token) for token in chosen]


def generation_to_huggingface(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of generation_config.json from all settings: the inverse."""
    values: dict[str, Any] = {
        "decoder_start_token_id": config["start_id"],
        "begin_suppress_tokens": list(config["begin_suppress_tokens"]),
        "suppress_tokens": list(config["suppress_tokens"]),
        "max_length": config["context_length"],
        "return_timestamps": False,
        # What transformers needs to begin transcripts with these tokens, whatever they are.
        "forced_decoder_ids": [
            [place, token] for place, token in enumerate(config["prompt_ids"], 1)
        ],
        # Of several languages, the one that the prompt names is left.
        "is_multilingual": False,
    }
    if config["padding_id"] is not None:
        values["pad_token_id"] = config["padding_id"]
    if config["no_timestamps_id"] is not None:
        values["no_timestamps_token_id"] = config["no_timestamps_id"]
    if config["alignment_heads"]:
        values["alignment_heads"] = [list(pair) for pair in config["alignment_heads"]]
    return values
