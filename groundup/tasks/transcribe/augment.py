"""Training sounds of a micro-batch, changed at random.

Legend: B sounds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.ragged import pack_ragged, ragged_rows
from groundup.contracts.speech import ReadsSpeech
from groundup.core.values import Batch
from groundup.media.augmentation.draws import Draws
from groundup.media.augmentation.sounds import SoundAugment, change_sounds, mask_features
from groundup.tasks.transcribe.rows import kept_frames, pad_frames

__all__ = ["augment_sounds"]


def augment_sounds(
    settings: SoundAugment,
    batch: Batch,
    samples: NDArray[np.int64],
    processor: ReadsSpeech,
    seed: int,
) -> Batch:
    """Return a micro-batch of the task with its frames changed, each sound's by its number alone.

    Args:
        settings: What is done.
        batch: ``frames``, and ``samples`` where sounds are changed before frames are made of them.
        samples: (B,) the samples' numbers.
        processor: What makes frames.
        seed: The run's.
    """
    frames = pad_frames(batch)
    if settings.changes_samples:
        sounds = [row.numpy() for row in ragged_rows(batch, "samples")]
        # As many frames as the sound has now: at another speed it is longer or shorter.
        frames = processor.encode_samples(change_sounds(settings, sounds, samples, seed))
    masked = mask_features(settings, frames["inputs"], frames["lengths"], Draws(seed, samples))
    # How many there are was counted before some became zero.
    rows = [row[:length] for row, length in zip(masked, kept_frames(frames), strict=True)]
    return batch | pack_ragged("frames", rows) | {"lengths": frames["lengths"]}
