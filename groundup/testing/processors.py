"""What every processor keeps: of texts, and of inputs such as pictures."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from groundup.contracts.processors import (
    InputProcessor,
    Processor,
    ProcessorConfig,
    TextProcessor,
)
from groundup.contracts.two_tokenizers import HasTwoTokenizers, tokenizers_of
from groundup.core.values import Example
from groundup.runs.processor import load_processor
from groundup.testing.failure import ContractError, require, require_close

__all__ = ["TEXTS", "check_processor"]

# What tokenizers trip over: nothing, blanks at the ends, other scripts, signs made of several code
# points, control characters, digits, and texts that spell the tokenizer's own signs.
TEXTS = (
    "A text, and another one.",
    "",
    " ",
    "\n\n  indented\tand trailing  \n",
    "床前明月光,疑是地上霜。",
    "👩‍👩‍👧 naïve 🏳️‍🌈 e\u0301 \u200b\ufeff\ufffd \U0010ffff \x00 \r\n",
    "123456789 3.14159",
    "<|end|>\n<|assistant|>hi <|endoftext|><|user|>",
    "<0x41> ▁ Ġ",
)
_ROUNDING = 1e-6


def check_processor(
    config: ProcessorConfig | type[ProcessorConfig],
    examples: Sequence[Any] = TEXTS,
    *,
    exact: bool = True,
) -> None:
    """Check that a processor keeps what runs rely on.

    It is fitted, saved, read again by its name, and must then do the same; each input is read the
    same alone and among others. Tokens of a text stand for all of its bytes, and a text that spells
    a special token stays a text.

    Args:
        config: The settings. A class: its defaults.
        examples: What it is fitted to and tried on: texts, ``Example`` objects, or raw inputs.
        exact: Whether decoding must give back the text; False for a tokenizer that folds letters
            together on purpose.

    Raises:
        ContractError: With the contract, what was found, and what to do.
    """
    settings = config() if isinstance(config, type) else config
    given = list(examples)
    inputs = [each.inputs if isinstance(each, Example) else each for each in given]
    fitted = settings.fit(lambda: iter(given))
    require(
        isinstance(fitted, TextProcessor | InputProcessor | HasTwoTokenizers),
        "fit() returns a TextProcessor or an InputProcessor",
        f"it returned {type(fitted).__name__}",
        "Derive it from one of these classes of groundup.contracts.processors",
    )
    read_again = _save_and_load(settings, fitted)
    if isinstance(fitted, TextProcessor | HasTwoTokenizers):
        pairs = zip(tokenizers_of(fitted), tokenizers_of(read_again), strict=True)
        for tokenizer, again in dict(pairs).items():
            _check_tokens(tokenizer, inputs, exact=exact)
            _check_special_tokens(tokenizer)
            _check_same_tokens(tokenizer, again, inputs)
    if isinstance(fitted, InputProcessor) and isinstance(read_again, InputProcessor):
        _check_inputs(fitted, read_again, inputs)


def _save_and_load(settings: ProcessorConfig, fitted: Processor) -> Processor:
    contract = "a processor that was saved is read again by its name"
    # By its name, as every command after training does: that finds a wrong name, too.
    with tempfile.TemporaryDirectory() as folder:
        fitted.save(Path(folder))
        found = sorted(path.name for path in Path(folder).rglob("*"))
        require(
            "processor.json" in found,
            contract,
            f"save() wrote {', '.join(found) or 'nothing'}",
            "Write processor.json with the registered name under 'name'",
        )
        loaded = load_processor(Path(folder))
    require(
        type(loaded) is type(fitted),
        contract,
        f"{type(settings).__name__}.load() returned {type(loaded).__name__}, not"
        f" {type(fitted).__name__}",
        "Write the name of the decorator under 'name', and return the same class from load",
    )
    return loaded


def _encode(processor: TextProcessor, texts: list[str]) -> list[list[int]]:
    found = processor.encode_batch(texts)
    contract = "encode_batch returns int32 (T,) for each text"
    remedy = "Return [np.array(tokens, np.int32) for each text]"
    require(len(found) == len(texts), contract, f"{len(found)} for {len(texts)} texts", remedy)
    for tokens in found:
        kept = isinstance(tokens, np.ndarray) and tokens.dtype == np.int32 and tokens.ndim == 1
        what = tokens.dtype if isinstance(tokens, np.ndarray) else type(tokens).__name__
        require(kept, contract, f"it returned {what}", remedy)
    return [tokens.tolist() for tokens in found]


def _check_tokens(processor: TextProcessor, texts: list[str], *, exact: bool) -> None:
    size = processor.vocabulary_size
    together = _encode(processor, texts)
    sizes = processor.token_bytes()
    require(
        np.shape(sizes) == (size,),
        "token_bytes has a number for each token",
        f"its shape is {np.shape(sizes)}, but vocabulary_size is {size}",
        "Return an array of vocabulary_size numbers, 0 for special tokens",
    )
    for text, tokens in zip(texts, together, strict=True):
        # An embedding would be read past its end, which CUDA reports steps later.
        outside = [token for token in tokens if not 0 <= token < size]
        require(
            not outside,
            "tokens are from 0 to vocabulary_size - 1",
            f"{text[:40]!r} has {outside[:5]}, but vocabulary_size is {size}",
            "Correct vocabulary_size or the tokens",
        )
        require(
            _encode(processor, [text])[0] == tokens,
            "a text's tokens depend on that text alone",
            f"{text[:40]!r} has other tokens alone than among others",
            "Keep no state between texts",
        )
        if not exact:  # bytes are then those of the text as it was folded
            continue
        decoded = processor.decode(tokens)
        require(
            decoded == text,
            "decode gives back the text",
            f"{text[:40]!r} came back as {decoded[:40]!r}",
            "Encode what is not in the vocabulary as bytes, or check with exact=False if it is"
            " meant to fold letters together",
        )
        stated = int(sizes[tokens].sum())
        require(
            stated == len(text.encode()),
            "token_bytes of a text add up to its bytes in UTF-8",
            f"{text[:40]!r} has {len(text.encode())} bytes, but its tokens state {stated}",
            "Count len(piece.encode()) for each token: bits per byte are computed with it",
        )


def _check_special_tokens(processor: TextProcessor) -> None:
    size = processor.vocabulary_size
    special = dict(processor.special_tokens)
    end = processor.end_id
    require(
        0 <= end < size,
        "end_id is a token",
        f"it is {end}, but vocabulary_size is {size}",
        "Keep a token for the end of a document",
    )
    sizes = processor.token_bytes()
    for name, number in special.items():
        require(
            processor.special_id(name) == number and 0 <= number < size,
            "special_id gives the tokens of special_tokens",
            f"{name!r} is {number} there, and special_id gives {processor.special_id(name)}",
            "Do not override special_id, or let it agree",
        )
        require(
            int(sizes[number]) == 0 and processor.decode([number]) == "",
            "a special token stands for no text",
            f"{name!r} has {int(sizes[number])} bytes and is decoded as"
            f" {processor.decode([number])!r}",
            "Leave it out in decode unless keep_special is true, and count 0 bytes",
        )
        # Data may hold such texts: as tokens they would end a turn, or begin another's.
        spelled = _encode(processor, [f"a {name} b"])[0]
        require(
            number not in spelled,
            "a text that spells a special token stays a text",
            f"'a {name} b' holds the special token {number}",
            "Encode its letters: else anyone can end a text or speak as the assistant",
        )


def _check_same_tokens(one: TextProcessor, other: TextProcessor, texts: list[str]) -> None:
    same = (
        (one.vocabulary_size, one.end_id) == (other.vocabulary_size, other.end_id)
        and dict(one.special_tokens) == dict(other.special_tokens)
        and _encode(one, texts) == _encode(other, texts)
        and np.array_equal(one.token_bytes(), other.token_bytes())
    )
    require(
        same,
        "a processor read again makes the same tokens",
        "it makes others, or has other sizes",
        "Let save write all that load needs",
    )


def _check_inputs(one: InputProcessor, other: InputProcessor, inputs: list[Any]) -> None:
    together = one.encode_inputs(inputs)
    contract = "encode_inputs returns tensors with a row for each input"
    shape = tuple(one.input_shape)
    for name, values in together.items():
        require(
            len(values) == len(inputs),
            contract,
            f"{name!r} has {len(values)} rows for {len(inputs)} inputs",
            "Stack one row an input",
        )
        # To the last bit: predictions of a saved run are compared with those of training.
        again = other.encode_inputs(inputs)
        remedy = "Let save write all that load needs"
        require_close(
            again[name], values, 0.0, "a processor read again reads the same", repr(name), remedy
        )
    if "inputs" not in together:
        raise ContractError(
            contract, f"it returned {', '.join(together)}", "Call what models read 'inputs'"
        )
    values = together["inputs"]
    fits = values.dim() == len(shape) + 1 and all(
        size in (0, found) for size, found in zip(shape, values.shape[1:], strict=True)
    )
    require(
        fits and values.dtype == torch.float32,
        "inputs are float32 (N, *input_shape)",
        f"they are {values.dtype} {tuple(values.shape)}, and input_shape is {shape}",
        "Correct input_shape, with 0 for a length that varies",
    )
    if 0 not in shape:  # padding to the longest of a batch is no part of an input
        for number, each in enumerate(inputs):
            alone = one.encode_inputs([each])["inputs"][0]
            require_close(
                alone,
                values[number],
                _ROUNDING,
                "an input is read the same alone and among others",
                f"numbers of input {number}",
                "Use what fit() learned, and nothing of the batch",
            )
