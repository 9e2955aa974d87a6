"""Which of many captions is a picture's: by how likely each is after the picture.

Legend: N pictures, M captions, P codes of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.core.values import TokenSequence
from groundup.generation.scoring import sequence_nll
from groundup.processors.picture_tokens import PictureTokens
from groundup.tasks.text_and_pictures.rows import encode_captions, prompt_of_picture

__all__ = ["caption_scores"]

_ROWS = 64


def caption_scores(
    model: nn.Module,
    codes: Tensor,
    captions: Sequence[str],
    processor: PictureTokens,
    longest: int,
) -> NDArray[np.float64]:
    """Return (N, M) log p in nats of each caption, its end included, after each picture (N, P)."""
    end = torch.tensor([processor.end_id])
    ends = [torch.cat([each, end]) for each in encode_captions(captions, processor, longest)]
    # Each after each: the prompt is read again for every caption, which is simple and exact.
    sequences = []
    for own in codes:
        prompt = prompt_of_picture(own, processor)
        for caption in ends:
            tokens = torch.cat([prompt, caption]).numpy().astype(np.int32)
            trained = np.arange(len(tokens)) >= len(prompt)
            sequences.append(TokenSequence(tokens, trained))
    # As long as the longest: no window is needed.
    context = max((len(each.tokens) for each in sequences), default=1)
    nats = np.array(sequence_nll(model, sequences, context, _ROWS))
    return -nats.reshape(len(codes), len(captions))
