"""Sounds and transcripts as rows of numbers, and the loss of frames with blanks.

Legend: B sounds, N frames of all of them, T frames of the longest, F features, M tokens of all
    transcripts, O frames of the output, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from groundup.contracts.processors import TextProcessor
from groundup.contracts.ragged import offsets_of, pack_ragged, ragged_rows
from groundup.core.values import IGNORED, Batch
from groundup.nn.logits import widen

__all__ = [
    "FrameOutputs",
    "FrameTargets",
    "frame_losses",
    "frame_targets",
    "kept_frames",
    "pack_frames",
    "pack_transcripts",
    "pad_frames",
    "pad_transcripts",
]


class FrameOutputs(NamedTuple):
    """What a model that emits frames returned.

    Attributes:
        logits: (B, O, V + 1), the blank's last.
        lengths: (B,) int64, what of each row is no padding.
    """

    logits: Tensor
    lengths: Tensor


class FrameTargets(NamedTuple):
    """Transcripts as CTC counts them.

    Attributes:
        tokens: (B,) of each transcript, without the end.
        needed: (B,) frames without which it cannot be emitted.
    """

    tokens: Tensor
    needed: Tensor


def pack_frames(batch: Batch) -> Batch:
    """Return ``frames`` (N, F) of padded ``inputs`` (B, T, F), each row up to its last frame that
    is not zero, and its ``lengths`` (B,).

    What is zero behind a sound is padding. Silence behind it, which Whisper reads as part of the
    sound, is no zero in its features.
    """
    rows = [r[:length] for r, length in zip(batch["inputs"], kept_frames(batch), strict=True)]
    return pack_ragged("frames", rows) | {"lengths": batch["lengths"]}


def kept_frames(batch: Batch) -> list[int]:
    """Return how many frames of each row of ``inputs`` (B, T, F) are no padding."""
    inputs = batch["inputs"]
    places = torch.arange(1, inputs.shape[1] + 1)
    last = ((inputs != 0).any(-1) * places).amax(1)
    return torch.maximum(last, batch["lengths"]).tolist()


def pad_frames(batch: Batch) -> dict[str, Tensor]:
    """Return what a model reads: ``inputs`` (B, T, F) and ``lengths`` (B,)."""
    rows = ragged_rows(batch, "frames")
    return {"inputs": pad_sequence(rows, batch_first=True), "lengths": batch["lengths"]}


def pack_transcripts(
    rows: Sequence[NDArray[np.int32]], tokenizer: TextProcessor, longest: int | None
) -> Batch:
    """Return the tokens of transcripts one after the other, each with the end token.

    Args:
        rows: Of each.
        tokenizer: What made them; it counts those that are cut.
        longest: The most tokens, the end included; None: any number.
    """
    if longest is not None and tokenizer.cut is not None:
        lengths = [len(row) for row in rows]
        limit = f"max_target_tokens {longest}"
        tokenizer.cut.add("transcripts", "tokens", limit, lengths, longest - 1)
    kept = None if longest is None else longest - 1
    ended = [np.append(row[:kept], tokenizer.end_id).astype(np.int64) for row in rows]
    return pack_ragged("text", [torch.from_numpy(row) for row in ended])


def pad_transcripts(batch: Batch, prompt: Sequence[int]) -> dict[str, Tensor]:
    """Return what a decoder writes and learns: ``text`` (B, U), with the prompt before each, and
    ``targets`` (B, U), -100 where nothing is trained."""
    rows = ragged_rows(batch, "text")
    before = torch.tensor(prompt, dtype=torch.int64, device=batch["text"].device)
    # The decoder sees the prompt, and is not asked to predict it.
    given = torch.full_like(before, IGNORED)
    text = pad_sequence([torch.cat((before, row)) for row in rows], batch_first=True)
    learned = [torch.cat((given, row)) for row in rows]
    targets = pad_sequence(learned, batch_first=True, padding_value=IGNORED)
    return {"text": text, "targets": targets}


def frame_targets(batch: Batch) -> FrameTargets:
    """Return how many tokens each transcript has, and how many frames it needs.

    Source:
        Graves et al., 2006, "Connectionist temporal classification", section 3.1: between two equal
        tokens there is a blank.
    """
    # All transcripts at once, as they are one after the other: a loop over rows in each step
    # would take as long as the loss.
    offsets = batch[offsets_of("text")]
    tokens = offsets.diff() - 1
    text = batch["text"]
    # The end token is none of a transcript's, so no pair of equal neighbours spans two of them.
    repeats = F.pad((text[1:] == text[:-1]).long(), (1, 0)).cumsum(0)
    within = repeats[offsets[1:] - 1] - repeats[offsets[:-1]]
    return FrameTargets(tokens, tokens + within)


def frame_losses(outputs: FrameOutputs, batch: Batch, chosen: Tensor) -> Tensor:
    """Return -log p of the chosen transcripts (B,) booleans, in nats, one each.

    Args:
        outputs: Of the model.
        batch: What the task's ``encode`` gave.
        chosen: Those that can be emitted in the frames there are. Of another the loss is infinite,
            and its gradient not a number.
    """
    text = batch["text"]
    offsets = batch[offsets_of("text")]
    lengths = offsets.diff()
    # Of each row that is chosen all but its last token, the end: silence needs none in CTC.
    kept = chosen.repeat_interleave(lengths)
    kept[offsets[1:] - 1] = False
    rows = chosen.nonzero().squeeze(1)
    # torch refuses a batch without rows.
    if not len(rows):
        return widen(outputs.logits).new_zeros(0)
    # In float32 whatever the model computes in: sums over all ways to emit a text lose digits.
    log_probs = widen(outputs.logits[rows]).log_softmax(-1)
    given = [log_probs.transpose(0, 1), text[kept], outputs.lengths[rows], (lengths - 1)[rows]]
    if torch.are_deterministic_algorithms_enabled():
        # On a GPU PyTorch adds its gradients up in any order; there is little to compute.
        given = [tensor.cpu() for tensor in given]
    values, targets, frames, tokens = given
    blank = log_probs.shape[-1] - 1
    losses = F.ctc_loss(values, targets, frames, tokens, blank=blank, reduction="none")
    return losses.to(log_probs.device)
