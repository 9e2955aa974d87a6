"""Small random encoders with a tokenizer of theirs in Hugging Face layout, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from pretrained_folders import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

__all__ = ["VOCABULARY", "write_encoder", "write_films"]

VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "good",
    "bad",
    "film",
    "un",
    "##watch",
    "##able",
    "!",
]
_TOKENS = {f"{name}_token": f"[{name.upper()}]" for name in ("cls", "sep", "pad", "mask")}


def write_tokenizer(folder: Path) -> None:
    """Write a WordPiece of thirteen pieces as BERT's is: small letters, [CLS] text [SEP]."""
    tokenizer = Tokenizer(
        models.WordPiece({piece: n for n, piece in enumerate(VOCABULARY)}, unk_token="[UNK]")
    )
    tokenizer.normalizer, tokenizer.pre_tokenizer = (
        normalizers.BertNormalizer(),
        pre_tokenizers.BertPreTokenizer(),
    )
    tokenizer.add_special_tokens(VOCABULARY[:5])
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **_TOKENS}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def write_encoder(folder: Path, kind: str = "ForMaskedLM", **changed: Any) -> Any:
    """Write a BERT of random weights and its tokenizer, and return it."""
    sizes = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    sizes |= {"intermediate_size": 24, "max_position_embeddings": 20}
    module = getattr(transformers, f"Bert{kind}")(transformers.BertConfig(**sizes | changed)).eval()
    folder.mkdir(parents=True, exist_ok=True)
    module.save_pretrained(folder)
    write_tokenizer(folder)
    return module


def write_films(folder: Path) -> dict[str, Any]:
    """Write 40 sentences that are good or bad, and return the sections of a recipe that learns
    them."""
    texts = [f"A {'good' if n % 2 else 'bad'} film" + "!" * (n // 2 % 4) for n in range(40)]
    np.savez(folder / "films.npz", x=np.array(texts), y=[n % 2 for n in range(40)])
    return {
        **{"name": "films", "task": {"name": "classify", "max_tokens": 16}},
        **{
            "data": {"name": "arrays", "path": str(folder / "films.npz")},
            "training": {"batch_size": 8, "steps": 3},
        },
        "machine": {"device": "cpu", "precision": "fp32", "compile": False, "threads": 1},
    }
