"""What a sound can be transcribed as without a model.

Legend: N sounds, M training sounds, T frames, F features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.speech import ReadsSpeech

__all__ = ["BASELINES", "SpeechBaseline", "most_frequent", "nearest_sounds"]

SpeechBaseline = Literal["empty", "most_frequent", "nearest"]
BASELINES: tuple[SpeechBaseline, ...] = get_args(SpeechBaseline)
_AT_ONCE = 32


def most_frequent(transcripts: Iterable[str]) -> str:
    """Return the transcript that is most frequent, of equally frequent ones the first."""
    counts = Counter(transcripts)
    return counts.most_common(1)[0][0] if counts else ""


def nearest_sounds(
    sounds: Sequence[Any], among: Sequence[Any], processor: ReadsSpeech
) -> list[int]:
    """Return of each sound (N,) the place of the training sound (M,) that is nearest to it, by the
    mean and the spread of each feature and by its length, each in units of its spread over the
    training sounds."""
    known = _summaries(among, processor)
    scale = known.std(0)
    # What is the same in all of them tells nothing, and cannot be divided by.
    scale[scale == 0] = 1.0
    asked = _summaries(sounds, processor) / scale
    known = known / scale
    # One sound at a time: all distances at once would be a table of N x M x F.
    nearest = []
    for row in asked:
        nearest.append(int(((known - row) ** 2).sum(1).argmin()))
    return nearest


def _summaries(sounds: Sequence[Any], processor: ReadsSpeech) -> NDArray[np.float64]:
    """Return (N, 2 F + 1)."""
    rows = []
    # A few at a time: padded to the longest of all, they would take many times their size.
    for first in range(0, len(sounds), _AT_ONCE):
        batch = processor.encode_inputs(sounds[first : first + _AT_ONCE])
        for frames, length in zip(batch["inputs"], batch["lengths"].tolist(), strict=True):
            own = frames[:length].double().numpy()
            rows.append(np.concatenate((own.mean(0), own.std(0), [np.log(length)])))
    return np.array(rows)
