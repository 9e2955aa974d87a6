"""Codes of pictures hold more than as many bits of methods that are fitted in the same test."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import groundup
from groundup.data.sources.arrays import Arrays
from groundup.metrics.pictures import psnr

pytestmark = pytest.mark.slow
sklearn = pytest.importorskip("sklearn")

LEVELS = [5, 5, 4]
CODES = 16  # of a digit, each for 2 x 2 pixels
BITS = CODES * math.log2(math.prod(LEVELS))


def quality(drawn: NDArray[np.float64], digits: NDArray[np.float64]) -> float:
    pictures, originals = (torch.from_numpy(x.reshape(-1, 1, 8, 8)) for x in (drawn, digits))
    return float(psnr(pictures.clamp(0, 1), originals).mean())


def best_components(train: NDArray[np.float64], held_out: NDArray[np.float64]) -> float:
    """Return the best PSNR of principal components, each rounded to the same number of bits."""
    from sklearn.decomposition import PCA

    found = []
    for bits in range(2, 9):
        fitted = PCA(int(BITS // bits), random_state=0).fit(train)
        low, high = (end(fitted.transform(train), 0) for end in (np.min, np.max))
        steps = (high - low) / (2**bits - 1)
        rounded = ((fitted.transform(held_out) - low) / steps).round().clip(0, 2**bits - 1)
        found.append(quality(fitted.inverse_transform(rounded * steps + low), held_out))
    return max(found)


def best_patches(train: NDArray[np.float64], held_out: NDArray[np.float64]) -> float:
    """Return the PSNR of the nearest of as many patches as there are codes."""
    from sklearn.cluster import KMeans

    def patches(digits: NDArray[np.float64]) -> NDArray[np.float64]:
        return digits.reshape(-1, 4, 2, 4, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 4)

    fitted = KMeans(math.prod(LEVELS), n_init=1, random_state=0).fit(patches(train))
    nearest = fitted.cluster_centers_[fitted.predict(patches(held_out))]
    drawn = nearest.reshape(-1, 4, 4, 2, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 64)
    return quality(drawn, held_out)


def test_codes_hold_more_of_digits_than_components_and_patches(tmp_path: Path) -> None:
    sides = [
        np.stack([each.inputs.ravel() / 16 for each in Arrays().examples(split, tmp_path)])
        for split in ("train", "test")
    ]
    expected = max(best_components(*sides), best_patches(*sides))
    recipe = {
        "name": "digits",
        "model": {"name": "fsq_autoencoder", "patch": 2, "widths": [48], "levels": LEVELS},
        "task": "autoencode",
        "processor": "image",
        "data": "arrays",
        "optim": {"lr": 4e-3, "warmup_steps": 20},
        "training": {"batch_size": 64, "steps": 500},
        "evaluation": {"every": 250},
        "checkpoints": {"every": 500},
        "machine": {"precision": "fp32", "compile": False},
    }
    run = groundup.train(recipe, runs=tmp_path)
    found = groundup.evaluate(run.folder)["runs"][0]["evaluation"]["metrics"]
    assert found["bits_per_picture"] == pytest.approx(BITS)
    assert found["psnr"] > expected + 0.5, (found["psnr"], expected)
    assert found["codes_used"] >= 0.8
