"""The settings of BERT, RoBERTa and DistilBERT as config.json has them, in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from groundup.core.errors import CheckpointError
from groundup.models.names.table import (
    check_architecture,
    fill_in,
    refuse_other_values,
)

__all__ = [
    "KEYS",
    "POOLERS",
    "begin_head_again",
    "config_to_groundup",
    "config_to_huggingface",
    "family_of",
]

POOLERS = {"bert": "tanh", "roberta": "tanh", "distilbert": "relu"}
_CLASSES = {"bert": "Bert", "roberta": "Roberta", "distilbert": "DistilBert"}
_HEAD_CLASSES = {
    "masked": "ForMaskedLM",
    "labels": "ForSequenceClassification",
    "tokens": "ForTokenClassification",
    "none": "Model",
}


def family_of(config: Mapping[str, Any]) -> str:
    """Return the family that settings are of."""
    # DistilBERT has none, and RoBERTa's positions begin at 2.
    if not config["token_types"]:
        return "distilbert"
    return "roberta" if config["position_offset"] else "bert"


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
_HF_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new"}
_ATTENTION_DROPOUT = {
    "bert": "attention_probs_dropout_prob",
    "roberta": "attention_probs_dropout_prob",
    "distilbert": "attention_dropout",
}
_ACTIVATION_KEYS = {"bert": "hidden_act", "roberta": "hidden_act", "distilbert": "activation"}


# What is read of config.json, of all families.
KEYS = frozenset(key for fields in _FIELDS.values() for key in fields)
KEYS |= {*_PLAIN, *_ATTENTION_DROPOUT.values(), *_ACTIVATION_KEYS.values()}
KEYS |= {"max_position_embeddings"}


def config_to_groundup(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of BERT from the contents of config.json. Dropout of attention
    weights is not taken over.

    Raises:
        CheckpointError: If the model is of another family, or has a part that groundup's lacks.
    """
    family = str(config.get("model_type", ""))
    if family not in _CLASSES:
        raise CheckpointError(
            "config.json",
            f"model_type {family or 'missing'} is no encoder that is built here; known:"
            f" {', '.join(_CLASSES)}",
            "Use a model of one of these families",
        )
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
        raise CheckpointError(
            "config.json",
            f"activation {activation}; known: {', '.join(_ACTIVATIONS)}",
            "Use another model",
        )
    full = fill_in(_DEFAULTS[family], config)
    settings = {own: full[hf] for hf, own in _FIELDS[family].items()}
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
    values = {hf: config[own] for hf, own in _FIELDS[family].items()}
    values["max_position_embeddings"] = config["context_length"] + config["position_offset"]
    values[_ACTIVATION_KEYS[family]] = _HF_ACTIVATIONS[config["activation"]]
    values[_ATTENTION_DROPOUT[family]] = 0.0
    values["tie_word_embeddings"] = True
    if head in ("labels", "tokens"):
        values["num_labels"] = config["outputs"]
    return {
        "model_type": family,
        "architectures": [_CLASSES[family] + _HEAD_CLASSES[head]],
        **values,
    }


def begin_head_again(settings: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the head of a run that starts from weights.

    Args:
        settings: As ``config_to_groundup`` returned them.
        given: What the run's recipe says.
    """
    head = given.get("head", "auto")
    pooler = settings.get("pooler", "tanh") if head == "none" else "tanh"
    # The pooler that the family's classifiers have, so that pretrained ones are used.
    if head in ("auto", "labels"):
        pooler = POOLERS[family_of(settings)]
    return {"head": head, "outputs": 0, "pooler": pooler}
