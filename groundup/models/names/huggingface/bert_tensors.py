"""The tensors of BERT, RoBERTa and DistilBERT by Hugging Face's names, in both directions."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from groundup.models.names.huggingface.bert import family_of
from groundup.models.names.table import Row, drop_copy, from_own, to_own

__all__ = ["to_groundup", "to_huggingface"]

log = logging.getLogger("groundup")


def _linear(hf: str, own: str) -> tuple[Row, Row]:
    return Row(f"{hf}.weight", (f"{own}.weight",)), Row(f"{hf}.bias", (f"{own}.bias",))


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
            for hf, own in layer.items()
            for row in _linear(f"{prefix}.{blocks}.layer.{{}}.{hf}", f"blocks.{{}}.{own}")
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
    **{(family, "tokens"): (_NO_ROWS, _LABELS) for family in _ENCODERS},
}
# What some files of the masked head hold twice, with the name that is kept.
_COPIES = {
    "bert": {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    "roberta": {
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    },
    "distilbert": {"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"},
}
# Heads that no setting asks for by these names.
_NEVER_BUILT = ("cls.seq_relationship.", "qa_outputs.")
_POSITIONS = "embeddings.position_embeddings.weight"


def to_groundup(
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    own: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return groundup's tensors from the file's, with the family's prefix or without.

    Copies of tied embeddings and the constant ``position_ids`` of old files are left out, and so
    are learned positions beyond the context's length, and heads that the settings do not ask for. A
    head that they do ask for and the file lacks is missing from what is returned. ``own`` is as
    ``expected`` of ``to_own``.

    Raises:
        CheckpointError: As ``to_own``; a head that is there in part is an error too.
    """
    family = family_of(config)
    head = str(config["head"])
    kept = _rename_as_new_files(tensors, family)
    if head == "tokens" and "classifier.weight" not in kept:
        # Answers begin and end at tokens, with a label each: the same layer by another name.
        kept = {name.replace("qa_outputs.", "classifier."): tensor for name, tensor in kept.items()}
    if head == "masked":
        for name, first in _COPIES[family].items():
            kept = drop_copy(kept, name, first, "Use a model whose masked head is tied")
    position = f"{family}.{_POSITIONS}"
    # A shorter context needs fewer rows.
    if position in kept:
        kept[position] = kept[position][: config["context_length"] + config["position_offset"]]
    rows = list(_ENCODERS[family])
    # A group that is there in part is an error, which to_own raises.
    for group in _HEADS[family, head]:
        if _is_there(group, kept, own):
            rows += group
    used = {row.stored for row in rows}
    dropped = sorted(name for name in kept if _is_head(name, family) and name not in used)
    # Shapes are checked without content first: it is said once.
    if dropped and not kept[dropped[0]].is_meta:
        log.info("heads of the pretrained weights that are not used: %s", ", ".join(dropped))
    kept = {name: tensor for name, tensor in kept.items() if name not in dropped}
    expected = None
    if own is not None:
        found = {name for row in rows for name in row.own}
        expected = {
            name: value
            for name, value in own.items()
            if not name.startswith("head") or name in found
        }
    return to_own(rows, kept, config["layers"], expected)


def _rename_as_new_files(tensors: Mapping[str, Tensor], family: str) -> dict[str, Tensor]:
    """Return tensors by the names that newer files have, with the family's prefix."""
    found = {}
    for name, tensor in tensors.items():
        if name.endswith(".position_ids"):
            continue
        # As TensorFlow called them, in files converted from the authors' own.
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
        name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        bare = name.startswith(("embeddings.", "encoder.", "transformer.", "pooler."))
        found[f"{family}.{name}" if bare else name] = tensor
    return found


def _is_head(name: str, family: str) -> bool:
    known = {
        row.stored
        for (kind, _), groups in _HEADS.items()
        if kind == family
        for rows in groups
        for row in rows
    }
    return name in known or name in _COPIES[family] or name.startswith(_NEVER_BUILT)


def _is_there(
    rows: tuple[Row, ...], hf: Mapping[str, Tensor], own: Mapping[str, Tensor] | None
) -> bool:
    """Whether weights hold a part of the head that the model has: of labels, for as many labels."""
    asked = own is None or any(row.own[0] in own for row in rows)
    if not asked or not any(row.stored in hf for row in rows):
        return False
    if own is None or rows[0].own[0] != "head.weight":
        return True
    # The last is a bias, as long as there are outputs.
    last = rows[-1]
    found = hf.get(last.stored)
    return found is None or found.shape == own[last.own[0]].shape


def to_huggingface(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the file's tensors from groundup's. Those of an encoder without a head have no
    prefix."""
    family = family_of(config)
    head = str(config["head"])
    pooler, own = _HEADS[family, head]
    found = from_own((*_ENCODERS[family], *pooler, *own), tensors, config["layers"])
    if head != "none":
        return found
    return {name.removeprefix(f"{family}."): tensor for name, tensor in found.items()}
