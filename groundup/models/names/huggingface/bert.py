"""BERT, RoBERTa and DistilBERT as Hugging Face names them: config.json and tensors, in both
directions."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from groundup.core.errors import CheckpointError
from groundup.models.names.table import (
    Row,
    check_architecture,
    fill_in,
    from_ours,
    refuse_other_values,
    to_ours,
)

__all__ = [
    "POOLERS",
    "config_to_groundup",
    "config_to_huggingface",
    "family_of",
    "to_groundup",
    "to_huggingface",
]

log = logging.getLogger("groundup")
POOLERS = {"bert": "tanh", "roberta": "tanh", "distilbert": "relu"}
_CLASSES = {"bert": "Bert", "roberta": "Roberta", "distilbert": "DistilBert"}
_HEAD_CLASSES = {
    "masked": "ForMaskedLM",
    "labels": "ForSequenceClassification",
    "tokens": "ForTokenClassification",
    "none": "Model",
}


# ------------------------------------------------------------------------------------------ tensors
def _linear(theirs: str, ours: str) -> tuple[Row, Row]:
    return Row(f"{theirs}.weight", (f"{ours}.weight",)), Row(f"{theirs}.bias", (f"{ours}.bias",))


_BERT_LAYER = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "mlp.up",
    "output.dense": "mlp.down",
    "output.LayerNorm": "mlp_norm",
}
_DISTILBERT_LAYER = {
    "attention.q_lin": "attention.query",
    "attention.k_lin": "attention.key",
    "attention.v_lin": "attention.value",
    "attention.out_lin": "attention.output",
    "sa_layer_norm": "attention_norm",
    "ffn.lin1": "mlp.up",
    "ffn.lin2": "mlp.down",
    "output_layer_norm": "mlp_norm",
}


def _encoder(prefix: str, blocks: str, layer: Mapping[str, str]) -> tuple[Row, ...]:
    """Return the rows of all that is below the heads."""
    return (
        Row(f"{prefix}.embeddings.word_embeddings.weight", ("embed.weight",)),
        Row(f"{prefix}.embeddings.position_embeddings.weight", ("positions.weight",)),
        Row(f"{prefix}.embeddings.token_type_embeddings.weight", ("embed_types.weight",)),
        *_linear(f"{prefix}.embeddings.LayerNorm", "embed_norm"),
        *(
            row
            for theirs, ours in layer.items()
            for row in _linear(f"{prefix}.{blocks}.layer.{{}}.{theirs}", f"blocks.{{}}.{ours}")
        ),
    )


def _masked(transform: str, norm: str, bias: str) -> tuple[Row, ...]:
    return (
        *_linear(transform, "head.transform"),
        *_linear(norm, "head.norm"),
        Row(bias, ("head.bias",)),
    )


_ENCODERS = {
    "bert": _encoder("bert", "encoder", _BERT_LAYER),
    "roberta": _encoder("roberta", "encoder", _BERT_LAYER),
    "distilbert": _encoder("distilbert", "transformer", _DISTILBERT_LAYER),
}
_NO_ROWS: tuple[Row, ...] = ()
_LABELS = _linear("classifier", "head")
_PREDICTIONS = "cls.predictions"
# Of each family and head two groups, each of which weights hold whole or not at all: the pooler,
# and the head itself.
_HEADS: dict[tuple[str, str], tuple[tuple[Row, ...], tuple[Row, ...]]] = {
    ("bert", "masked"): (
        _NO_ROWS,
        _masked(
            f"{_PREDICTIONS}.transform.dense",
            f"{_PREDICTIONS}.transform.LayerNorm",
            f"{_PREDICTIONS}.bias",
        ),
    ),
    ("bert", "labels"): (_linear("bert.pooler.dense", "head_pooler"), _LABELS),
    ("bert", "none"): (_linear("bert.pooler.dense", "head_pooler"), _NO_ROWS),
    ("roberta", "masked"): (
        _NO_ROWS,
        _masked("lm_head.dense", "lm_head.layer_norm", "lm_head.bias"),
    ),
    ("roberta", "labels"): (
        _linear("classifier.dense", "head_pooler"),
        _linear("classifier.out_proj", "head"),
    ),
    ("roberta", "none"): (_linear("roberta.pooler.dense", "head_pooler"), _NO_ROWS),
    ("distilbert", "masked"): (
        _NO_ROWS,
        _masked("vocab_transform", "vocab_layer_norm", "vocab_projector.bias"),
    ),
    ("distilbert", "labels"): (_linear("pre_classifier", "head_pooler"), _LABELS),
    ("distilbert", "none"): (_NO_ROWS, _NO_ROWS),
    **{(family, "tokens"): (_NO_ROWS, _LABELS) for family in _CLASSES},
}
# Copies of the embedding, which some files hold.
_TIED = ("cls.predictions.decoder.", "lm_head.decoder.", "vocab_projector.weight")
# Heads that no setting asks for by these names.
_NEVER_BUILT = ("cls.seq_relationship.", "qa_outputs.")
_POSITIONS = "embeddings.position_embeddings.weight"


def family_of(config: Mapping[str, Any]) -> str:
    """Return the family that settings are of."""
    # DistilBERT has none, and RoBERTa's positions begin at 2.
    if not config["token_types"]:
        return "distilbert"
    return "roberta" if config["position_offset"] else "bert"


def to_groundup(
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    own: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return groundup's tensors from the file's, with the family's prefix or without.

    Copies of tied embeddings and the constant ``position_ids`` of old files are left out, and so
    are learned positions beyond the context's length, and heads that the settings do not ask for. A
    head that they do ask for and the file lacks is missing from what is returned. ``own`` is as in
    ``to_ours``.

    Raises:
        CheckpointError: As ``to_ours``; a head that is there in part is an error too.
    """
    family = family_of(config)
    head = str(config["head"])
    kept = _rename_as_new_files(tensors, family)
    if head == "tokens" and "classifier.weight" not in kept:
        # Answers begin and end at tokens, with a label each: the same layer by another name.
        kept = {name.replace("qa_outputs.", "classifier."): tensor for name, tensor in kept.items()}
    position = f"{family}.{_POSITIONS}"
    # A shorter context needs fewer rows.
    if position in kept:
        kept[position] = kept[position][: config["context_length"] + config["position_offset"]]
    rows = list(_ENCODERS[family])
    # A group that is there in part is an error, which to_ours raises.
    for group in _HEADS[family, head]:
        if _is_there(group, kept, own):
            rows += group
    used = {row.theirs for row in rows}
    dropped = sorted(name for name in kept if _is_head(name, family) and name not in used)
    # Shapes are checked without content first: it is said once.
    if dropped and not kept[dropped[0]].is_meta:
        log.info("heads of the pretrained weights that are not used: %s", ", ".join(dropped))
    kept = {name: tensor for name, tensor in kept.items() if name not in dropped}
    expected = None
    if own is not None:
        found = {name for row in rows for name in row.ours}
        expected = {
            name: value
            for name, value in own.items()
            if not name.startswith("head") or name in found
        }
    return to_ours(rows, kept, config["layers"], expected)


def _rename_as_new_files(tensors: Mapping[str, Tensor], family: str) -> dict[str, Tensor]:
    """Return tensors by the names that newer files have, with the family's prefix."""
    found = {}
    for name, tensor in tensors.items():
        if name.endswith(".position_ids") or name.startswith(_TIED):
            continue
        # As TensorFlow called them, in files converted from the authors' own.
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
        name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        bare = name.startswith(("embeddings.", "encoder.", "transformer.", "pooler."))
        found[f"{family}.{name}" if bare else name] = tensor
    return found


def _is_head(name: str, family: str) -> bool:
    known = {
        row.theirs
        for (kind, _), groups in _HEADS.items()
        if kind == family
        for rows in groups
        for row in rows
    }
    return name in known or name.startswith(_NEVER_BUILT)


def _is_there(
    rows: tuple[Row, ...], theirs: Mapping[str, Tensor], own: Mapping[str, Tensor] | None
) -> bool:
    """Whether weights hold a part of the head that the model has: of labels, for as many labels."""
    asked = own is None or any(row.ours[0] in own for row in rows)
    if not asked or not any(row.theirs in theirs for row in rows):
        return False
    if own is None or rows[0].ours[0] != "head.weight":
        return True
    # The last is a bias, as long as there are outputs.
    last = rows[-1]
    found = theirs.get(last.theirs)
    return found is None or found.shape == own[last.ours[0]].shape


def to_huggingface(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the file's tensors from groundup's. Those of an encoder without a head have no
    prefix."""
    family = family_of(config)
    head = str(config["head"])
    pooler, own = _HEADS[family, head]
    found = from_ours((*_ENCODERS[family], *pooler, *own), tensors, config["layers"])
    if head != "none":
        return found
    return {name.removeprefix(f"{family}."): tensor for name, tensor in found.items()}


# ------------------------------------------------------------------------------------------- config
# The names of settings in config.json, and groundup's.
_FIELDS = {
    "bert": {
        "vocab_size": "vocabulary_size",
        "num_hidden_layers": "layers",
        "hidden_size": "width",
        "num_attention_heads": "heads",
        "intermediate_size": "mlp_width",
        "type_vocab_size": "token_types",
        "pad_token_id": "padding_id",
        "layer_norm_eps": "norm_eps",
        "hidden_dropout_prob": "dropout",
        "initializer_range": "init_std",
    },
    "distilbert": {
        "vocab_size": "vocabulary_size",
        "n_layers": "layers",
        "dim": "width",
        "n_heads": "heads",
        "hidden_dim": "mlp_width",
        "pad_token_id": "padding_id",
        "dropout": "dropout",
        "initializer_range": "init_std",
    },
}
_FIELDS["roberta"] = _FIELDS["bert"]
# Of transformers, for what config.json leaves out.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "bert": {
        "vocab_size": 30522,
        "num_hidden_layers": 12,
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "type_vocab_size": 2,
        "pad_token_id": 0,
        "layer_norm_eps": 1e-12,
        "hidden_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "max_position_embeddings": 512,
    },
    "distilbert": {
        "vocab_size": 30522,
        "n_layers": 6,
        "dim": 768,
        "n_heads": 12,
        "hidden_dim": 3072,
        "pad_token_id": 0,
        "dropout": 0.1,
        "initializer_range": 0.02,
        "max_position_embeddings": 512,
    },
}
_DEFAULTS["roberta"] = _DEFAULTS["bert"] | {"vocab_size": 50265, "pad_token_id": 1}
_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
# What would change the model's numbers if it were otherwise.
_PLAIN = {
    "is_decoder": False,
    "add_cross_attention": False,
    "position_embedding_type": "absolute",
    "tie_word_embeddings": True,
}
_THEIR_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new"}
_ATTENTION_DROPOUT = {
    "bert": "attention_probs_dropout_prob",
    "roberta": "attention_probs_dropout_prob",
    "distilbert": "attention_dropout",
}
_ACTIVATION_KEYS = {"bert": "hidden_act", "roberta": "hidden_act", "distilbert": "activation"}


def config_to_groundup(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of BERT from the contents of config.json. Dropout of attention
    weights is not taken over.

    Raises:
        CheckpointError: If the model is of another family, or has a part that groundup's lacks.
    """
    family = str(config.get("model_type", ""))
    if family not in _CLASSES:
        problem = (
            f"model_type {family or 'missing'} is no encoder that is built here; known:"
            f" {', '.join(_CLASSES)}"
        )
        raise CheckpointError("config.json", problem, "Use a model of one of these families")
    kinds = {f"{_CLASSES[family]}{kind}": head for head, kind in _HEAD_CLASSES.items()}
    kinds |= {
        f"{_CLASSES[family]}ForPreTraining": "masked",
        f"{_CLASSES[family]}ForQuestionAnswering": "tokens",
    }
    check_architecture(config, tuple(kinds))
    head = next((kinds[name] for name in config.get("architectures") or ()), "none")
    refuse_other_values(config, _PLAIN)
    # Each family calls it by another name.
    activation = config.get(_ACTIVATION_KEYS[family], "gelu")
    if activation not in _ACTIVATIONS:
        problem = f"activation {activation}; known: {', '.join(_ACTIVATIONS)}"
        raise CheckpointError("config.json", problem, "Use another model")
    full = fill_in(_DEFAULTS[family], config)
    settings = {ours: full[theirs] for theirs, ours in _FIELDS[family].items()}
    offset = 0
    if family == "roberta":
        # Its positions are counted from the padding's number on, as fairseq did.
        offset = settings["padding_id"] + 1
    settings |= {
        "position_offset": offset,
        "context_length": full["max_position_embeddings"] - offset,
        "head": head,
    }
    settings |= {"activation": _ACTIVATIONS[activation]}
    # What config.json of this family does not say.
    if family == "distilbert":
        settings |= {"token_types": 0, "norm_eps": 1e-12}
    if head in ("labels", "none"):
        settings["pooler"] = _pooler(family, head)
    # Without names there are two: transformers' default.
    if head in ("labels", "tokens"):
        settings["outputs"] = full.get("num_labels") or len(full.get("id2label") or "01")
    return settings


def _pooler(family: str, head: str) -> str:
    """Return the pooler of a family's model with a head; DistilBERT without one has none."""
    if (family, head) == ("distilbert", "none"):
        return "none"
    return POOLERS[family]


def config_to_huggingface(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of config.json from all settings of BERT, those that follow from
    others filled in.

    Raises:
        CheckpointError: If no family of Hugging Face's has this combination of parts.
    """
    family = family_of(config)
    head = str(config["head"])
    odd = ""
    if family == "distilbert" and (config["norm_eps"] != 1e-12 or config["position_offset"]):
        odd = (
            f"no token types with norm_eps {config['norm_eps']} and position_offset"
            f" {config['position_offset']}"
        )
    elif family == "roberta" and config["padding_id"] != config["position_offset"] - 1:
        odd = f"position_offset {config['position_offset']} with padding_id {config['padding_id']}"
    elif head == "labels" and (config["pooling"], config["pooler"]) != ("first", POOLERS[family]):
        odd = f"labels read with pooling {config['pooling']} and pooler {config['pooler']}"
    elif head == "none" and config["pooler"] not in ("none", _pooler(family, head)):
        odd = f"pooler {config['pooler']} without labels"
    if odd:
        raise CheckpointError(
            "model", f"no Hugging Face family has {odd}", "Keep it in the project's own layout"
        )
    values = {theirs: config[ours] for theirs, ours in _FIELDS[family].items()}
    values["max_position_embeddings"] = config["context_length"] + config["position_offset"]
    values[_ACTIVATION_KEYS[family]] = _THEIR_ACTIVATIONS[config["activation"]]
    values[_ATTENTION_DROPOUT[family]] = 0.0
    values["tie_word_embeddings"] = True
    if head in ("labels", "tokens"):
        values["num_labels"] = config["outputs"]
    return {
        "model_type": family,
        "architectures": [_CLASSES[family] + _HEAD_CLASSES[head]],
        **values,
    }
