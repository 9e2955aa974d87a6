"""A micro-batch of training examples, changed as the settings say.

Shape legend: B samples.
"""

from __future__ import annotations

from collections.abc import Callable

from groundup.contracts.processors import Pictures, Processor, TextProcessor
from groundup.core.values import Batch
from groundup.media.augmentation.draws import Draws
from groundup.media.augmentation.mixing import mix_pairs
from groundup.media.augmentation.pictures import augment_pictures
from groundup.media.augmentation.sequences import draw_frame_noise, drop_tokens, mask_frames
from groundup.media.augmentation.settings import Augment

__all__ = ["augment_batch"]


def augment_batch(
    settings: Augment,
    batch: Batch,
    draws: Draws,
    partners: Callable[[], Batch],
    processor: Processor,
) -> Batch:
    """Return the micro-batch with every sample changed.

    ``mixup`` and ``cutmix`` add ``labels_2`` and ``mix`` (B,): how much of a sample is its own, the
    rest being the partner's. Partners are augmented like the samples.

    Args:
        settings: What is done; it must have passed ``check``.
        batch: ``inputs`` or ``tokens``, ``lengths`` where these vary, and ``labels``. It is left as
            it is.
        draws: The samples' random numbers.
        partners: Returns as many other training examples.
        processor: What reads the inputs.
    """
    changed = _augment_each(settings, batch, draws, processor)
    if not settings.mixup and not settings.cutmix:
        return changed
    other = _augment_each(
        settings, partners(), Draws(draws.seed, draws.samples, "partner "), processor
    )
    inputs, mix = mix_pairs(settings, changed["inputs"], other["inputs"], draws)
    # The loss of each label counts by its share.
    others = {f"{name}_2": other[name] for name in ("labels", "weights") if name in other}
    return changed | others | {"inputs": inputs, "mix": mix}


def _augment_each(settings: Augment, batch: Batch, draws: Draws, processor: Processor) -> Batch:
    if settings.token_dropout and isinstance(processor, TextProcessor):
        return batch | drop_tokens(batch, settings.token_dropout, draws, processor)
    if "inputs" not in batch:
        return batch
    inputs = batch["inputs"]
    lengths = batch.get("lengths")
    if inputs.dim() == 4 and isinstance(processor, Pictures):
        inputs = augment_pictures(settings, inputs, draws, processor)
    if lengths is not None:
        inputs = mask_frames(settings, inputs, lengths, draws)
    if settings.noise and lengths is not None:
        inputs = inputs + settings.noise * draw_frame_noise(inputs, lengths, draws)
    elif settings.noise:
        inputs = inputs + settings.noise * draws.normal("noise", inputs.shape[1:])
    return batch | {"inputs": inputs}
