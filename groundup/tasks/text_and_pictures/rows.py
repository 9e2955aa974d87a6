"""Captions and pictures as rows of tokens, in either order.

Legend: B examples, P codes of a picture, T positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from groundup.contracts.ragged import ragged_rows
from groundup.core.errors import DataError
from groundup.core.values import IGNORED, Batch
from groundup.processors.picture_tokens import PictureTokens

__all__ = [
    "caption_rows",
    "encode_captions",
    "picture_rows",
    "prompt_of_caption",
    "prompt_of_picture",
]


def encode_captions(
    captions: Sequence[str], processor: PictureTokens, longest: int
) -> list[Tensor]:
    """Return the tokens of each caption, int64, at most ``longest``; what is cut is counted.

    Raises:
        DataError: If a caption is no text, or empty.
    """
    for each in captions:
        if not isinstance(each, str) or not each.strip():
            problem = f"a caption is {each!r:.60}, and no text" if each else "a caption is empty"
            raise DataError("captions", problem, "Write one, or leave the picture out")
    # No end token: what follows a caption says that it is over.
    found = processor.encode_batch(captions)
    if processor.cut is not None:
        lengths = [len(tokens) for tokens in found]
        processor.cut.add("captions", "tokens", f"max_caption_tokens {longest}", lengths, longest)
    return [torch.from_numpy(tokens[:longest].astype("int64")) for tokens in found]


def prompt_of_caption(caption: Tensor, processor: PictureTokens) -> Tensor:
    """Return what a picture goes on from: the begin, the caption, and that a picture begins."""
    begin = caption.new_tensor([processor.begin_id])
    return torch.cat([begin, caption, caption.new_tensor([processor.picture_id])])


def prompt_of_picture(codes: Tensor, processor: PictureTokens) -> Tensor:
    """Return what a caption goes on from: the begin, that a picture begins, and its codes."""
    return torch.cat([codes.new_tensor([processor.begin_id, processor.picture_id]), codes])


def picture_rows(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return what a model reads to learn pictures from captions, (B, T), and what comes next there,
    -100 where nothing is learned."""
    prompts = ragged_rows(batch, "caption_prompt")
    return _continued(prompts, list(batch["codes"]))


def caption_rows(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return what a model reads to learn captions from pictures, and what comes next there."""
    return _continued(list(batch["picture_prompt"]), ragged_rows(batch, "caption"))


def _continued(prompts: Sequence[Tensor], ends: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    # Padding is on the right, where a causal model does not see it.
    tokens = [torch.cat((a, b[:-1])) for a, b in zip(prompts, ends, strict=True)]
    # The last token of a prompt predicts the first one of what follows it.
    learned = [
        torch.cat((torch.full_like(a[1:], IGNORED), b)) for a, b in zip(prompts, ends, strict=True)
    ]
    return (
        pad_sequence(tokens, batch_first=True, padding_value=0),
        pad_sequence(learned, batch_first=True, padding_value=IGNORED),
    )
