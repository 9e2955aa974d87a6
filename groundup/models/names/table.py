"""Tables of tensor names, read in both directions."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from groundup.core.errors import CheckpointError

__all__ = [
    "LLAMA_FIELDS",
    "USE_HUB",
    "Row",
    "check_architecture",
    "check_copy",
    "check_dtype",
    "drop_copy",
    "fill_in",
    "from_own",
    "list_some",
    "no_output_layer",
    "refuse_other_values",
    "to_own",
    "unknown_keys",
]


USE_HUB = "Set model: {name: hub, tied_embeddings: false}, which keeps both"
"""What to do about two tensors where the model that reads them has room for one."""

LLAMA_FIELDS = {
    "max_position_embeddings": "context_length",
    "num_hidden_layers": "layers",
    "hidden_size": "width",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "intermediate_size": "mlp_width",
    "rms_norm_eps": "norm_eps",
    "vocab_size": "vocabulary_size",
}
"""The names of settings in config.json that other families took over from Llama, and groundup's."""


@dataclass(frozen=True)
class Row:
    """One tensor of a file and the one or several of groundup's that it holds, one below the other.

    ``{}`` in the names is the number of a layer. ``transposed`` says that the file's is (in,
    out), not (out, in); ``leading`` how many dimensions of size 1 the file's has before groundup's.
    """

    stored: str
    own: tuple[str, ...]
    transposed: bool = False
    leading: int = 0


def check_architecture(config: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Make sure that config.json is of a model as it is built here.

    Raises:
        CheckpointError: If it names another class, as of a classifier where a language model is
            built.
    """
    refuse_other_values(config, {"is_encoder_decoder": False})
    for name in config.get("architectures") or ():
        if name not in known:
            problem = (
                f"architecture {name}; supported for model_type {config.get('model_type')}:"
                f" {', '.join(known)}"
            )
            raise CheckpointError("config.json", problem, "Use a model of that kind")


def refuse_other_values(config: Mapping[str, Any], built: Mapping[str, Any]) -> None:
    """Make sure that parts of config.json which change what a model computes are as built here.

    Raises:
        CheckpointError: If one has another value than ``built`` says; what is absent or null fits.
    """
    for key, value in built.items():
        if config.get(key) not in (None, value):
            problem = f"{key} is {config[key]}; supported: {value}"
            raise CheckpointError("config.json", problem, "Use another model")


def check_copy(name: str, tensor: Tensor, kept: str, first: Tensor, remedy: str = "") -> None:
    """Make sure that a file's second tensor for two places that config.json ties is a copy.

    Raises:
        CheckpointError: If it is not; tensors without content are compared by their shapes.
    """
    if tensor.shape == first.shape and (
        tensor.is_meta or first.is_meta or torch.equal(tensor.to(first.dtype), first)
    ):
        return
    problem = (
        f"tensor {name} differs from {kept}, but config.json says that they are one"
        " (tie_word_embeddings)"
    )
    remedy = remedy or "Set model.tied_embeddings: false, which keeps both"
    raise CheckpointError("weights", problem, remedy)


_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def check_dtype(name: str, tensor: Tensor, *, integer: bool = False) -> None:
    """Make sure that a file's tensor holds numbers of the kind that the model's own does.

    Raises:
        CheckpointError: If it does not.
    """
    if (tensor.dtype in _DTYPES) != integer:
        return
    kind = str(tensor.dtype).removeprefix("torch.")
    allowed = "integers" if integer else "float64, float32, float16, bfloat16"
    problem = f"tensor {name} is {kind}; allowed: {allowed}"
    raise CheckpointError("weights", problem, "Use another model")


def drop_copy(
    tensors: Mapping[str, Tensor], name: str, kept: str, remedy: str = ""
) -> dict[str, Tensor]:
    """Return a file's tensors without one that is a copy of another; see ``check_copy``.

    Where only the copy is there, it takes the other's place.
    """
    if name not in tensors:
        return dict(tensors)
    rest = {key: tensor for key, tensor in tensors.items() if key != name}
    check_copy(name, tensors[name], kept, rest.setdefault(kept, tensors[name]), remedy)
    return rest


# What config.json says of training, of writing and of files, not of what a model computes.
_WITHOUT_EFFECT = re.compile(
    r"_.*|.*(dropout|pdrop|drop_rate)(_prob|_rate)?|.*_token_ids?|summary_.*|output_.*|return_dict.*"
    r"|(architectures|model_type|auto_map|trust_remote_code|attn_implementation|dtype|torch_dtype)"
    r"|(is_encoder_decoder|transformers_version|id2label|label2id|num_labels|problem_type|finetuning_task|torchscript)"
    r"|(task_specific_params|tokenizer_class|prefix|initializer_(range|factor|std)|init_std|pretraining_tp)"
    r"|(chunk_size_feed_forward|reorder_and_upcast_attn|sinusoidal_pos_embds|gradient_checkpointing)"
    r"|(use_(cache|bfloat16|flash_attn.*|return_dict|memory_efficient.*)|tf_legacy_loss|legacy|license|language|tags)"
    r"|(unsloth|neftune|transformers\.js|transformers_js|onnx|openvino|peft|deepspeed|wandb|sentence_transformers)_?.*"
    r"|(name_or_path|model_max_length|max_length|min_length|max_new_tokens|do_sample|early_stopping|temperature|top_[kp]|typical_p)"
    r"|(num_(beams?|beam_groups|return_sequences)|length_penalty|repetition_penalty|diversity_penalty|bad_words_ids)"
    r"|((encoder_)?no_repeat_ngram_size|exponential_decay_length_penalty|suppress_tokens|begin_suppress_tokens|remove_invalid_values)"
    # Heads that old files of BERT describe, and OpenAI's files of GPT.
    r"|pooler_(fc_size|type|size_per_head|num_.*)|directionality|n_special|predict_special_tokens"
    r"|(rescale|router|aux|z)_.*loss.*|.*_aux_loss_coef|max_batch_size"
)
# What older files say of parts that are built in this one way, or of a part that is not there.
_NEUTRAL: dict[str, Any] = {
    "position_embedding_type": "absolute",
    "partial_rotary_factor": 1.0,
    "rotary_pct": 1.0,
    "add_cross_attention": False,
    "use_cache": True,
    "scale_attn_weights": True,
}


def unknown_keys(config: Mapping[str, Any], known: Collection[str]) -> list[str]:
    """Return the keys of config.json that nothing reads, and that may change what a model computes.

    Args:
        config: Its contents.
        known: The keys that are read, or of which only one value is built.
    """
    # Null, false and what is empty ask for nothing, whatever they are about.
    return [
        key
        for key, value in config.items()
        if value not in (None, False, "", [], {}, _NEUTRAL.get(key))
        and key not in known
        and not _WITHOUT_EFFECT.fullmatch(key)
    ]


def fill_in(defaults: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of config.json with transformers' defaults for what is absent or null."""
    return {**defaults, **{key: value for key, value in config.items() if value is not None}}


def to_own(
    rows: Sequence[Row],
    stored: Mapping[str, Tensor],
    layers: int,
    expected: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return groundup's tensors from a file's, each used once.

    Args:
        rows: The table.
        stored: All the file's tensors.
        layers: How many layers there are.
        expected: Tensors of all names and shapes of the model, on any device; None passes over
            what is absent, so that whoever loads the result must check it.

    Raises:
        CheckpointError: If a tensor of the file has no row, or with ``expected`` one is missing or
            of another shape.
    """
    # Before any tensor is read, where those of a file are read only when asked for.
    if expected is not None:
        _check(stored, from_own(rows, expected, layers))
    own: dict[str, Tensor] = {}
    used: set[str] = set()
    for row in _numbered(rows, layers):
        if row.stored not in stored:
            continue
        used.add(row.stored)
        tensor = _transpose(stored[row.stored], row)
        tensor = tensor.reshape(tensor.shape[row.leading :])
        if expected is None:
            parts = tensor.chunk(len(row.own))
        else:
            # Queries may be more than keys and values: each is as long as the model's own.
            parts = torch.split(tensor, [len(expected[name]) for name in row.own])
        for name, part in zip(row.own, parts, strict=True):
            # A copy: a view would keep the whole file's tensor in memory.
            own[name] = part.contiguous().clone()
    _all_used(stored, used)
    return own


def _check(stored: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    remedy = "Check that config.json belongs to these weights"
    _all_used(stored, set(expected))
    for name, tensor in expected.items():
        if name == "lm_head.weight" and name not in stored:
            raise no_output_layer(name, tensor.shape)
        if name not in stored:
            problem = f"tensor {name} {list(tensor.shape)} is missing"
            missing = len(set(expected) - set(stored)) - 1
            if missing:
                problem += f" and {missing} more"
            raise CheckpointError("weights", problem, remedy)
        if stored[name].shape != tensor.shape:
            problem = (
                f"tensor {name} has shape {list(stored[name].shape)}; config.json says"
                f" {list(tensor.shape)}"
            )
            raise CheckpointError("weights", problem, remedy)
        check_dtype(name, stored[name])


def from_own(rows: Sequence[Row], own: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Return the file's tensors from groundup's, the inverse of ``to_own``.

    Raises:
        CheckpointError: If a tensor of groundup's has no row.
    """
    stored: dict[str, Tensor] = {}
    used: set[str] = set()
    for row in _numbered(rows, layers):
        # A row of a part that this model does not have.
        if not set(row.own) <= set(own):
            continue
        used.update(row.own)
        # Queries, keys and values below each other, where the file has one matrix.
        tensor = torch.cat([own[name] for name in row.own])
        tensor = tensor.reshape((1,) * row.leading + tensor.shape)
        stored[row.stored] = _transpose(tensor, row).contiguous()
    _all_used(own, used)
    return stored


def no_output_layer(name: str, shape: Sequence[int]) -> CheckpointError:
    """Return the error about weights without an output layer, of which config.json does not say
    that it is the embedding."""
    return CheckpointError(
        "weights",
        f"tensor {name} {list(shape)} is missing, but config.json does not say that the output"
        " layer is the embedding (tie_word_embeddings)",
        "If it is, set model.tied_embeddings: true; otherwise fetch the model again",
    )


def _transpose(tensor: Tensor, row: Row) -> Tensor:
    if row.transposed:
        return tensor.T
    return tensor


def _numbered(rows: Sequence[Row], layers: int) -> Iterator[Row]:
    for row in rows:
        # A name without a number is there once.
        times = layers if "{}" in row.stored else 1
        for layer in range(times):
            own = tuple(name.format(layer) for name in row.own)
            yield replace(row, stored=row.stored.format(layer), own=own)


def _all_used(tensors: Mapping[str, Tensor], used: set[str]) -> None:
    left = sorted(set(tensors) - used)
    if left:
        remedy = "Check that the model is of the family it says"
        raise CheckpointError("weights", f"no place for {list_some(left)}", remedy)


def list_some(names: Sequence[str]) -> str:
    """Return the first three names, and how many more there are."""
    found = ", ".join(names[:3])
    if len(names) > 3:
        found += f" and {len(names) - 3} more"
    return found
