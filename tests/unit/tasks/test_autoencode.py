"""Pictures as codes: the loss, what is predicted, and what is measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from picture_runs import autoencoder_run, trained_autoencoder
from pictures import save

import groundup
from groundup.contracts.pictures import PictureCodes
from groundup.contracts.tasks import Picture
from groundup.data.sources.arrays import Arrays
from groundup.tasks.autoencode.evaluation import as_few_bits
from groundup.tasks.autoencode.reconstruction import Reconstructions, reconstruct, scores_of
from groundup.tasks.autoencode.task import Autoencode


@pytest.mark.parametrize(("objective", "expected"), [("mse", 0.09), ("mae", 0.3)])
def test_the_loss_is_a_mean_over_pixels_summed_over_pictures(
    objective: str, expected: float
) -> None:
    task = Autoencode(objective=objective)  # type: ignore[arg-type]
    inputs = torch.rand(3, 1, 4, 4)
    loss = task.loss(inputs + 0.3, {"inputs": inputs})
    assert float(loss.terms["picture"].total) == pytest.approx(3 * expected, rel=1e-5)
    assert float(loss.terms["picture"].count) == 3


def test_how_much_of_a_codebook_is_used() -> None:
    pictures = torch.zeros(2, 1, 8, 8)
    codes = np.array([[[0, 0], [1, 1]], [[2, 2], [3, 3]]])
    found = scores_of(Reconstructions(pictures, pictures, codes, 8))
    assert found["codes_used"] == 0.5
    assert found["effective_codes"] == pytest.approx(4)
    assert found["psnr"] == 100.0


def test_reduced_pictures_have_at_most_as_many_bits() -> None:
    pictures = torch.rand(2, 3, 64, 32)
    reduced = as_few_bits(pictures, 8 * 3 * 50)
    assert reduced.shape == pictures.shape
    # 10 rows of 5 columns: what is as large already is not enlarged.
    small = torch.rand(1, 3, 10, 5)
    rounded = (small * 255).round() / 255
    torch.testing.assert_close(as_few_bits(small, 8 * 3 * 50), rounded)
    flat = as_few_bits(pictures, 1)
    torch.testing.assert_close(flat, flat[:, :, :1, :1].expand_as(flat))


def test_what_is_drawn_comes_from_the_codes_alone() -> None:
    trained = trained_autoencoder()
    digits = [each.inputs for each in Arrays().examples("train", autoencoder_run())[:5]]
    found = reconstruct(trained.model, digits, trained.processor)  # type: ignore[arg-type]
    assert isinstance(trained.model, PictureCodes)
    assert found.codes.shape == (5, *trained.model.grid)
    with torch.no_grad():
        through = trained.model(trained.processor.encode_inputs(digits)["inputs"])  # type: ignore[attr-defined]
    torch.testing.assert_close(found.drawn, through.clamp(0, 1), atol=0.003, rtol=0)


def test_a_picture_is_predicted_with_its_codes(tmp_path: object) -> None:
    predict = groundup.load(autoencoder_run())
    path = save(autoencoder_run() / "digit.png", np.full((8, 8), 200))
    picture = predict(str(path))
    assert isinstance(picture, Picture)
    assert picture.pixels.shape == (8, 8)
    assert picture.pixels.dtype == np.uint8
    assert np.shape(picture.facts["codes"]) == (2, 2)
    several = predict([path, np.zeros((8, 8))])
    assert several[0].facts["codes"] == picture.facts["codes"]
    assert predict.tabulate([path]) == [picture.facts]


@pytest.mark.slow
def test_it_is_evaluated_next_to_as_many_bits() -> None:
    found = groundup.load(autoencoder_run()).evaluate(limit=20)
    named = {"psnr", "psnr_low_95", "ssim", "codes_used", "effective_codes", "bits_per_picture"}
    named |= {"baseline_mean_psnr", "baseline_reduced_ssim", "train_psnr"}
    assert named <= found.metrics.keys()
    assert found.metrics["psnr_low_95"] <= found.metrics["psnr"]
    (gallery,) = found.figures
    assert len(gallery.content["items"]) == 12
