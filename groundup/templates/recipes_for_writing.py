"""Recipes for data that says what is to be written: of a text, or of what is heard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from groundup.data.schemas.pair_columns import first_answer, join_context
from groundup.media.audio import read_sound
from groundup.templates.look import Look

__all__ = ["Line", "inputs_and_outputs", "rate_and_length", "speech"]

Line = tuple[str, Any, str]  # a section, its value, and the reason for it
_LOOKED_AT = 64  # sounds that are opened: enough to see rates and lengths
_MOST_TOKENS = 256
# Columns that say which rows belong together, where a table has one.
_DOCUMENTS = ("document", "document_id", "doc_id", "page", "file", "url", "article_id")


def inputs_and_outputs(found: Look, held_out: dict[str, float], epochs: int) -> Iterator[Line]:
    """Yield the sections for texts with what is to be made of them."""
    data: dict[str, Any] = {"name": "parallel_text", "path": str(found.path)}
    source, target, *context = found.texts or found.languages
    if found.languages:
        data |= {"source_language": source, "target_language": target}
    else:
        names = {"source_column": source, "target_column": target}
        defaults = {"source_column": "source", "target_column": "target"}
        data |= {key: name for key, name in names.items() if name != defaults[key]}
        data |= {"context_column": context[0]} if context else {}
    read = " and ".join(map(repr, (source, *context)))
    why = f"given {read}, {target!r} is to be written"
    others = [name for name in found.columns if name not in (source, target, *context)]
    document = next((name for name in others if name.lower() in _DOCUMENTS), None)
    if document is not None:
        data["group_column"] = document
        why += f"; what is of one {document} is held out together"
    yield "data", {**data, **held_out}, why
    sides = [[_text(found, row, side) for row in found.rows] for side in (source, target)]
    if context:
        after = [str(row.get(context[0]) or "") for row in found.rows]
        sides[0] = [join_context(*pair) for pair in zip(sides[0], after, strict=True)]
    # Tokens of a small vocabulary are about three characters; an output has an end as well.
    reads, writes = (_tokens(max(map(len, side), default=0)) for side in sides)
    task: dict[str, Any] = {"name": "text_to_text", "max_source_tokens": reads}
    task |= {"max_target_tokens": writes, "metrics": ["chrf"], "label_smoothing": 0.1}
    if _is_chinese("".join(sides[1])):
        # Written without blanks: BLEU needs to be told where words end.
        task |= {"metrics": ["bleu", "chrf"], "bleu_tokenizer": "zh"}
    longest = [max(map(len, side), default=0) for side in sides]
    why = f"texts have up to {longest[0]:,} characters, outputs up to {longest[1]:,}"
    if longest[0] > 3 * _MOST_TOKENS:
        why += "; what is longer is cut at its end (source_cut)"
    yield "task", task, why
    vocabulary = 8000 if found.size > 1_000_000 else 2000
    yield "processor", {"name": "bpe", "vocab_size": vocabulary}, "one vocabulary for both sides"
    model = {"name": "encoder_decoder", "layers": 3, "width": 256, "heads": 4}
    model |= {"context_length": max(reads, writes), "dropout": 0.2, "copying": True}
    yield "model", model, "names and numbers that were never seen may be copied from the input"
    yield "optim", {"name": "muon", "lr": 1e-2, "warmup_steps": 100}, "learns small models soonest"
    yield "training", {"batch_size": 64, "epochs": min(20, epochs)}, "few pairs are read often"
    yield "checkpoints", {"best_metric": "chrf"}, "what is written decides, not the loss"


def speech(found: Look, held_out: dict[str, float], epochs: int) -> Iterator[Line]:
    """Yield the sections for sounds with their transcripts."""
    yield "data", {"name": "speech", "path": str(found.path), **held_out}, ""
    yield "task", {"name": "transcribe", "metrics": ["wer", "cer"]}, "to write down what is said"
    rate, longest = rate_and_length(found)
    processor = {"name": "speech", "sample_rate": rate, "tokenizer": {"name": "characters"}}
    yield "processor", processor, f"sounds of up to {longest:.1f} s at {rate:,} samples a second"
    model = {"name": "ctc", "blocks": "bilstm", "layers": 2, "width": 128, "dropout": 0.2}
    why = "from random weights; to fine-tune Whisper, replace processor and model by"
    yield "model", model, f"{why} init: {{pretrained: openai/whisper-tiny}}"
    optim = {"lr": 2e-3, "warmup_steps": 50, "clip_norm": 1.0}
    yield "optim", optim, "recurrent networks have rare large gradients"
    yield "training", {"batch_size": 16, "epochs": epochs}, "few hours of sound are heard often"
    yield "checkpoints", {"best_metric": "wer"}, "what is written decides, not the loss"


def rate_and_length(found: Look) -> tuple[int, float]:
    """Return the samples a second that sounds are brought to, and how many seconds the longest of
    those that were looked at has."""
    some = [read_sound(file) for file in found.files[:: max(1, found.count // _LOOKED_AT)]]
    # The lowest that there is: a higher rate would add numbers and no sound.
    rate = min(16_000, *(sound.rate for sound in some))
    return rate, max(sound.seconds for sound in some)


def _text(found: Look, row: dict[str, Any], side: str) -> str:
    values = row.get("translation") or {} if found.languages else row
    value = values.get(side) or ""
    if isinstance(value, list | dict):
        return first_answer(value, side, str(found.path))[0]
    return str(value)


def _is_chinese(text: str) -> bool:
    seen = sum("\u4e00" <= letter <= "\u9fff" for letter in text)
    return seen > 0.3 * len(text)


def _tokens(characters: int) -> int:
    """Return a limit in tokens for texts of so many characters: a multiple of 32."""
    return min(_MOST_TOKENS, 32 * (1 + (characters // 3 + 1) // 32))
