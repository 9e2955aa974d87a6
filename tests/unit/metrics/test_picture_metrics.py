"""PSNR and SSIM next to their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from groundup.metrics.pictures import psnr, ssim

pytestmark = pytest.mark.xdist_group("sklearn")  # SciPy is imported by one worker


def test_psnr_of_a_known_difference() -> None:
    originals = torch.full((2, 3, 4, 5), 0.5)
    pictures = originals.clone()
    pictures[0] += 0.1
    assert psnr(pictures, originals).tolist() == pytest.approx([20.0, 100.0])


def reference_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """The formula with SciPy's filter, which reaches five pixels with these settings."""
    gaussian_filter = pytest.importorskip("scipy.ndimage").gaussian_filter

    def blur(z: np.ndarray) -> np.ndarray:
        return gaussian_filter(z, 1.5, truncate=5 / 1.5)[5:-5, 5:-5]

    a, b = 0.01**2, 0.03**2
    mx, my = blur(x), blur(y)
    vx, vy, c = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    return float(np.mean((2 * mx * my + a) * (2 * c + b) / ((mx**2 + my**2 + a) * (vx + vy + b))))


def test_ssim_is_the_papers() -> None:
    draws = np.random.default_rng(0)
    one, other = draws.random((2, 2, 24, 20))
    found = ssim(torch.from_numpy(one)[None], torch.from_numpy(other)[None])
    expected = np.mean([reference_ssim(a, b) for a, b in zip(one, other, strict=True)])
    assert found.tolist() == pytest.approx([expected], abs=1e-9)
    assert ssim(torch.from_numpy(one)[None], torch.from_numpy(one)[None]).item() == 1.0


def test_small_pictures_have_a_smaller_window() -> None:
    pictures = torch.rand(3, 1, 8, 6)
    assert ssim(pictures, pictures).tolist() == [1.0] * 3
    assert math.isfinite(float(ssim(pictures, pictures.flip(3))[0]))
