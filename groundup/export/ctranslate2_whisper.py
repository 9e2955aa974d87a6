"""A folder for CTranslate2's Whisper, as faster-whisper opens it.

Shape legend: P compared positions, V tokens of the vocabulary.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from groundup.contracts.processors import InputProcessor
from groundup.contracts.speech import ReadsSpeech
from groundup.core.errors import CheckpointError
from groundup.export.ctranslate2 import (
    KINDS,
    fill_block,
    fill_norm,
    numbers,
    open_folder,
    require_ctranslate2,
    token_names,
)
from groundup.export.verify import Reader, Sample
from groundup.nn.encoder_decoder_block import TwoStackBlock
from groundup.nn.speech_transformer import FrameEmbedding, SpeechTransformer

__all__ = ["CTranslate2Whisper", "whisper_token_names", "write_whisper_folder"]

_END = "<|endoftext|>"
_START = "<|startoftranscript|>"
_NO_SPEECH = "<|nospeech|>"
_NO_TIMES = "<|notimestamps|>"
_LANGUAGE = re.compile(r"<\|[a-z]{2,3}\|>")
_SECONDS = 0.02
"""From one token of a time to the next."""


def write_whisper_folder(
    folder: Path, model: SpeechTransformer, processor: ReadsSpeech, dtype: str
) -> None:
    """Write a model's folder: its weights, its tokens' names, the tokenizer, and how frames are
    made.

    Args:
        folder: Exists.
        model: In float32, on the CPU.
        processor: The run's.
        dtype: One of ``KINDS``.

    Raises:
        CheckpointError: If the library would write other transcripts with it.
    """
    library = require_ctranslate2()
    names = whisper_token_names(folder, model, processor)
    spec = _fill_spec(library, model)
    spec.register_vocabulary(names)
    spec.config.suppress_ids = list(model.tokens.suppress)
    spec.config.suppress_ids_begin = list(model.tokens.begin_suppress)
    spec.config.alignment_heads = [list(pair) for pair in model.tokens.alignment_heads]
    found = [number for number, name in enumerate(names) if _LANGUAGE.fullmatch(name)]
    spec.config.lang_ids = found
    spec.validate()
    spec.optimize(quantization=KINDS[dtype])
    spec.save(str(folder))
    # Where faster-whisper looks for them.
    inner = folder / "tokenizer" / "tokenizer.json"
    if inner.is_file():
        shutil.copyfile(inner, folder / "tokenizer.json")
    frames = processor.to_huggingface() if isinstance(processor, InputProcessor) else None
    if frames is not None:
        text = json.dumps(frames, indent=1) + "\n"
        (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")


def whisper_token_names(
    folder: Path, model: SpeechTransformer, processor: ReadsSpeech
) -> list[str]:
    """Return the names of all tokens, (V,): the tokenizer's, and of those that the library looks up
    by name what it calls them.

    Args:
        folder: With ``tokenizer/tokenizer.json``, where there is one.
        model: What they are the tokens of.
        processor: With the tokenizer.

    Raises:
        CheckpointError: If transcripts do not begin with a token that says there are no times.
    """
    no_speech = model.tokens.no_speech
    # In the library a prompt without that token asks for times, and rules of their own.
    if no_speech is None or model.tokens.prompt[-1:] != (no_speech + 1,):
        problem = "CTranslate2 writes times unless the last token of the prompt says there are none"
        remedy = "Set model.no_timestamps_id, and end model.prompt_ids with it"
        raise CheckpointError("model.prompt_ids", problem, remedy)
    names = token_names(folder / "tokenizer", model.shape.vocabulary_size)
    for number, name in enumerate(names):
        if name == f"<token_{number}>" and number > no_speech + 1:
            names[number] = f"<|{(number - no_speech - 2) * _SECONDS:.2f}|>"
    known = {no_speech: _NO_SPEECH, no_speech + 1: _NO_TIMES, model.start_id: _START}
    if names[no_speech] == "<|nocaptions|>":
        del known[no_speech]
    # Last: where texts begin with the token that ends them, the library takes the end for both.
    known[processor.tokenizer.end_id] = _END
    for number, name in enumerate(names):
        if name in known.values() and known.get(number) != name:
            names[number] = f"<token_{number}>"
    for number, name in known.items():
        names[number] = name
    return names


def _fill_spec(library: Any, model: SpeechTransformer) -> Any:
    shape = model.shape
    heads = shape.block.heads
    spec = library.specs.WhisperSpec(shape.layers, heads, shape.decoder_layers, heads)
    frames = model.embed_frames
    assert isinstance(frames, FrameEmbedding)
    for convolution, own in (
        (spec.encoder.conv1, frames.first),
        (spec.encoder.conv2, frames.second),
    ):
        assert own.bias is not None
        convolution.weight = numbers(own.weight)
        convolution.bias = numbers(own.bias)
    # The library fills a sound up to as many positions as there are.
    spec.encoder.position_encodings.encodings = numbers(frames.positions[: model.window // 2])
    assert model.positions_target is not None
    table = model.positions_target.weight
    assert isinstance(table, Tensor)
    spec.decoder.position_encodings.encodings = numbers(table)
    spec.decoder.embeddings.weight = numbers(model.embed.weight)
    spec.decoder.projection.weight = numbers(model.output_weight)
    blocks = list(model.blocks)
    ends = [blocks[shape.layers - 1].last_norm, model.norm]
    stacks = [blocks[: shape.layers], blocks[shape.layers :]]
    for stack, own_blocks, norm in zip((spec.encoder, spec.decoder), stacks, ends, strict=True):
        assert isinstance(norm, nn.Module)
        fill_norm(stack.layer_norm, norm)
        for layer, block in zip(stack.layer, own_blocks, strict=True):
            assert isinstance(block, TwoStackBlock)
            fill_block(library, layer, block, shape, None)
    return spec


class CTranslate2Whisper(Reader):
    """A folder opened by the library.

    Args:
        folder: Of ``write_whisper_folder``.
        model: What was written to it.
        end: The token that ends a transcript.
        dtype: One of ``KINDS``; what is not int8 is computed in float32.
    """

    slow = True

    def __init__(self, folder: Path, model: SpeechTransformer, end: int, dtype: str) -> None:
        library = require_ctranslate2()
        self.name, self.model = open_folder(library.models.Whisper, folder, dtype)
        self.view = library.StorageView.from_array
        self.first = model.start_id
        # After it come the times.
        self.last = (model.tokens.no_speech or 0) + 1
        self.end = end

    def _listen(self, sample: Sample) -> Any:
        """Return the encoder's states, which the library takes in place of frames."""
        frames = sample.inputs["inputs"].float().transpose(1, 2).contiguous().numpy()
        return self.model.encode(self.view(frames))

    def _write(
        self, states: Any, given: list[int], prompt: int, length: int, **options: Any
    ) -> Any:
        """Return what it writes after given tokens, of which the first are the prompt: ``length``
        tokens more at most."""
        steps = len(given) - prompt + length
        # The library takes half of this for the text, or what the prompt leaves of it.
        longest = max(2 * steps, steps + prompt)
        (found,) = self.model.generate(states, [given], beam_size=1, max_length=longest, **options)
        return found

    def outputs(self, sample: Sample, positions: Sequence[int]) -> Tensor:
        """Return (P, V) logits, of what is never written too."""
        tokens = sample.inputs["tokens"][0].tolist()
        for token in tokens[sample.prompt :]:
            if self.first <= token <= self.last:
                problem = f"token {token} of a transcript is between start_id {self.first} and"
                problem += f" no_timestamps_id {self.last}, which CTranslate2 takes for the prompt"
                remedy = "Use a tokenizer in which these come after those of texts"
                raise CheckpointError("model.start_id", problem, remedy)
        plain = {"suppress_blank": False, "suppress_tokens": [], "return_logits_vocab": True}
        states = self._listen(sample)
        # One by one: of tokens that are given there are no logits.
        found = [
            self._write(states, tokens[: place + 1], sample.prompt, 1, **plain)
            for place in positions
        ]
        return torch.from_numpy(np.stack([np.array(each.logits[0][-1]) for each in found])).float()

    def continuation(self, sample: Sample) -> list[int]:
        """Return the tokens that it writes, as many as the sample has at most."""
        tokens = sample.inputs["tokens"][0].tolist()
        length = len(tokens) - sample.prompt
        prompt = tokens[: sample.prompt]
        found = self._write(self._listen(sample), prompt, len(prompt), length)
        text: list[int] = found.sequences_ids[0]
        return text if len(text) == length else [*text, self.end]
