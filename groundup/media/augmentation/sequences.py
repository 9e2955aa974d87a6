"""Frames blanked in stretches, noise on them, and tokens left out.

Shape legend: B samples, T frames or tokens, F numbers a frame.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundup.contracts.processors import TextProcessor
from groundup.core import seeding
from groundup.core.values import Batch
from groundup.media.augmentation.draws import Draws
from groundup.media.augmentation.settings import Augment

__all__ = ["draw_frame_noise", "draw_stretch", "drop_tokens", "mask_frames"]


def mask_frames(settings: Augment, inputs: Tensor, lengths: Tensor, draws: Draws) -> Tensor:
    """Return frames (B, T, F) with a stretch of time and a band of neighbouring numbers zero.

    Source:
        Park et al., 2019, "SpecAugment" (arXiv:1904.08779), section 2, without time warping, with
        one mask of a kind.
    """
    if settings.time_mask:
        inside = draw_stretch("time", settings.time_mask, lengths.numpy(), inputs.shape[1], draws)
        inputs = inputs.masked_fill(inside[:, :, None], 0.0)
    if settings.frequency_mask:
        # Unlike times, a frame's numbers are all there.
        numbers = np.full(len(inputs), inputs.shape[2])
        inside = draw_stretch("frequency", settings.frequency_mask, numbers, inputs.shape[2], draws)
        inputs = inputs.masked_fill(inside[:, None], 0.0)
    return inputs


def draw_stretch(
    name: str, share: float, sizes: NDArray[np.int64], padded: int, draws: Draws
) -> Tensor:
    """Return (B, padded), True in a stretch of up to a share of each row's own size."""
    width, place = draws(f"{name} mask", 2)
    wide = np.floor(width * (share * sizes + 1)).astype(np.int64)
    first = np.floor(place * (sizes - wide + 1)).astype(np.int64)
    at = np.arange(padded)
    return torch.from_numpy((at >= first[:, None]) & (at < (first + wide)[:, None]))


def draw_frame_noise(inputs: Tensor, lengths: Tensor, draws: Draws) -> Tensor:
    """Return noise (B, T, F) that does not depend on how far the rows are padded, and is zero
    there."""
    noise = torch.zeros_like(inputs)
    for row, (length, number) in enumerate(zip(lengths.tolist(), draws.samples, strict=True)):
        alone = Draws(draws.seed, np.array([number]), draws.role)
        noise[row, :length] = alone.normal("noise", (length, inputs.shape[2]))[0]
    return noise


def drop_tokens(batch: Batch, share: float, draws: Draws, tokenizer: TextProcessor) -> Batch:
    """Return tokens (B, T) with their kinds, and lengths (B,), after each was removed with a
    chance; one stays."""
    tokens = batch["tokens"]
    numbers = np.arange(tokens.shape[1])
    places = torch.arange(tokens.shape[1])
    inside = places < batch["lengths"][:, None]
    # A number for each token from the sample's own and the token's place, so that it does not
    # depend on how far the row is padded.
    own = (draws("token dropout")[0][:, None] * 2**62).astype(np.uint64)
    drawn = (seeding.scramble(numbers[None] + own, 0) >> np.uint64(11)) * 2.0**-53
    keep = torch.from_numpy(drawn >= share) & inside
    if tokenizer.frame is not None:
        # An encoder reads its answer off its first token, and never saw a text without the two.
        keep |= torch.isin(tokens, torch.tensor(tokenizer.frame)) & inside
    keep[:, 0] |= ~keep.any(1)
    order = (~keep).to(torch.int8).argsort(dim=1, stable=True)
    left = keep.sum(1)
    moved = tokens.gather(1, order).masked_fill(places >= left[:, None], tokenizer.end_id)
    found = {"tokens": moved, "lengths": left}
    if "token_types" in batch:
        found["token_types"] = batch["token_types"].gather(1, order)
    return found
