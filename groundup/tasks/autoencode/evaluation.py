"""Drawn pictures next to the originals, and next to what as many bits are without a model.

Legend: N pictures, C channels, H and W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.contracts.tasks import EvaluationContext
from groundup.core.values import Evaluation, Example, Figure, Table
from groundup.media.pixels import to_bytes
from groundup.media.png import data_uri
from groundup.metrics.bootstrap import bootstrap_weights
from groundup.metrics.pictures import psnr, ssim
from groundup.tasks.autoencode.reconstruction import Reconstructions, reconstruct, scores_of

__all__ = ["as_few_bits", "evaluate_codes"]

_TRAINING_SAMPLE = 1000
_SHOWN = 12
_WORST = 10
_GAP = 2  # columns of white between two pictures


def evaluate_codes(context: EvaluationContext) -> Evaluation:
    """Measure what is drawn of the held-out pictures.

    - ``psnr`` with its 95% interval over resamples of the pictures, ``ssim``, ``codes_used`` and
      ``effective_codes``; ``bits_per_picture`` is what the codes of one take;
    - ``train_psnr`` of as many training pictures, at most a thousand: far above ``psnr``, the model
      knows its pictures by heart;
    - ``baseline_mean_psnr`` and ``_ssim``: the mean of those training pictures, drawn for every
      picture; ``baseline_reduced_psnr`` and ``_ssim``: each picture made so small that 8 bits a
      channel are no more than the bits of the codes, and enlarged again, both with bicubic
      interpolation.
    """
    examples = list(context.examples(context.held_out))
    context.progress(f"drawing {len(examples)} held-out pictures from their codes")
    found = reconstruct(context.model, [each.inputs for each in examples], context.processor)
    bits = found.codes[0].size * math.log2(found.codebook)
    each = found.psnr
    low, high = _interval(each, context.seed)
    metrics = {"held_out_pictures": float(len(examples)), **scores_of(found)}
    metrics |= {"psnr_low_95": low, "psnr_high_95": high, "bits_per_picture": bits}
    # Bits that codes take as they are: coding frequent ones in fewer would help both sides.
    reduced = as_few_bits(found.originals, bits)
    ways = {"this model": found.drawn, "reduced": reduced}
    # Of pretrained weights nobody knows what they were trained on.
    trained = list(islice(context.examples("train"), min(len(examples), _TRAINING_SAMPLE)))
    if trained:
        inputs = [example.inputs for example in trained]
        own = reconstruct(context.model, inputs, context.processor)
        metrics["train_psnr"] = float(own.psnr.mean())
        ways["mean"] = own.originals.mean(0, keepdim=True).expand_as(found.originals)
    rows: list[tuple[Any, ...]] = []
    for way, drawn in ways.items():
        values = (float(psnr(drawn, found.originals).mean()), _mean_ssim(drawn, found))
        rows.append((_NAMES[way], *values))
        if way != "this model":
            metrics |= dict(
                zip((f"baseline_{way}_psnr", f"baseline_{way}_ssim"), values, strict=True)
            )
    tables = [
        Table(
            "Pictures drawn from as many bits",
            ("from what", "PSNR (dB)", "SSIM"),
            rows,
            f"A picture is {found.codes[0].size} codes of {found.codebook}: {bits:,.0f} bits.",
        ),
        _worst(examples, each),
    ]
    return Evaluation(metrics, tables, [_gallery(examples, found, reduced)])


_NAMES = {
    "this model": "codes of this model",
    "reduced": "the picture, made smaller and enlarged",
    "mean": "the mean of training pictures",
}


def _mean_ssim(drawn: Tensor, found: Reconstructions) -> float:
    return float(ssim(drawn, found.originals).mean())


def as_few_bits(pictures: Tensor, bits: float) -> Tensor:
    """Return (N, C, H, W) pictures made so small that 8 bits a channel are at most ``bits``, though
    never smaller than one pixel, and enlarged again."""
    _, channels, height, width = pictures.shape
    pixels = bits / (8 * channels)
    # In the picture's proportions, and then as wide as the bits allow.
    rows = min(height, max(1, math.floor(math.sqrt(pixels * height / width))))
    columns = min(width, max(1, math.floor(pixels / rows)))
    small = F.interpolate(pictures, (rows, columns), mode="bicubic", antialias=True)
    kept = (small.clamp(0, 1) * 255).round() / 255
    return F.interpolate(kept, (height, width), mode="bicubic").clamp(0, 1)


def _interval(values: Tensor, seed: int) -> tuple[float, float]:
    """Return the 95% interval of a mean over resamples."""
    each = values.numpy()
    means = [weights @ each / len(each) for weights in bootstrap_weights(len(each), seed)]
    low, high = np.percentile(np.concatenate(means), (2.5, 97.5)).tolist()
    return low, high


def _worst(examples: Sequence[Example], each: Tensor) -> Table:
    order = each.argsort(stable=True)[:_WORST].tolist()
    rows: list[tuple[Any, ...]] = [(examples[n].name, round(float(each[n]), 2)) for n in order]
    return Table("Pictures drawn worst", ("picture", "PSNR (dB)"), rows, printed=False)


def _gallery(examples: Sequence[Example], found: Reconstructions, reduced: Tensor) -> Figure:
    """Show originals, and next to each what is drawn of it: those at equal distances in the order
    of their PSNR, the best and the worst among them."""
    # Not the best alone, and not by chance.
    order = found.psnr.argsort(descending=True, stable=True).tolist()
    places = np.linspace(0, len(order) - 1, min(_SHOWN, len(order))).round().astype(int)
    gap = torch.ones(*found.originals.shape[1:3], _GAP)
    items = []
    for number in [order[place] for place in places.tolist()]:
        three = (found.originals[number], found.drawn[number], reduced[number])
        row = torch.cat([three[0], gap, three[1], gap, three[2]], 2)
        items.append(
            {
                "name": examples[number].name,
                "picture": data_uri(to_bytes(row[None])[0]),
                "label": f"{float(found.psnr[number]):.1f} dB",
            }
        )
    note = "The original, what is drawn from its codes, and a reduced picture of as many bits."
    return Figure("pairs", "Held-out pictures", {"items": items}, note)
