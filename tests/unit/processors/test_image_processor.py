"""Pictures as tensors: resized, scaled by the training split, and back."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import PHOTOGRAPHS, digit_folders, save
from PIL import Image

from groundup.core.errors import DataError
from groundup.core.values import Example
from groundup.data.sources.images import Images
from groundup.media.images import read_picture
from groundup.processors.image import ImageConfig, ImageProcessor
from groundup.runs.processor import load_processor

# ----------------------------------------------------------------------------------------- decoding
COLOURS = np.random.default_rng(0).integers(0, 256, (6, 5, 3)).astype(np.uint8)


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_resizing_a_photograph_agrees_with_pillow(resize: Any) -> None:
    path = PHOTOGRAPHS / "china.jpg"  # 427 x 640
    example = Example("a", path, "x")
    fitted = ImageConfig(size=(48, 40), resize=resize, normalise="none").fit(
        lambda: iter([example])
    )
    assert fitted.input_shape == (3, 48, 40)
    found = fitted.encode_inputs([path])["inputs"][0].permute(1, 2, 0).numpy()
    with Image.open(path) as image:
        bilinear = Image.Resampling.BILINEAR
        if resize == "stretch":
            expected = np.asarray(image.resize((40, 48), bilinear))
        elif resize == "crop":
            expected = np.asarray(image.resize((72, 48), bilinear))[:, 16:56]
        else:
            expected = np.zeros((48, 40, 3))
            expected[10:37] = np.asarray(image.resize((40, 27), bilinear))
            assert (found[:10] == 0).all()
    assert np.abs(found - expected).mean() < 0.5


def test_every_kind_of_input_gives_the_same_tensor(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", COLOURS)
    fitted = ImageConfig(size=(4, 4), channels=1).fit(lambda: iter([Example("a", path, "x")]))
    buffer = io.BytesIO()
    Image.fromarray(COLOURS).convert("L").save(buffer, "PNG")
    given = [
        path,
        str(path),
        path.read_bytes(),
        Image.fromarray(COLOURS),
        COLOURS,
        buffer.getvalue(),
    ]
    found = fitted.encode_inputs(given)["inputs"]
    assert found.shape == (6, 1, 4, 4)
    assert 0 < found.min() < found.max() <= 1
    torch.testing.assert_close(found, found[:1].expand_as(found), atol=0.01, rtol=0)
    coloured = ImageConfig(channels=3).fit(lambda: iter([Example("a", np.ones((2, 2)), "x")]))
    assert coloured.input_shape == (3, 2, 2)


def test_the_scale_of_many_files_is_learned_from_a_sample_that_any_order_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundup.processors.picture_scale._SAMPLE", 10)
    source = Images(path=str(digit_folders(tmp_path / "root", 40)), fraction=0.2)
    examples = source.examples("train", tmp_path)
    config = ImageConfig(normalise="standard")
    one, other = config.fit(lambda: iter(examples)), config.fit(lambda: reversed(examples))
    np.testing.assert_allclose([one.mean, one.scale], [other.mean, other.scale])
    every = np.stack([np.asarray(read_picture(e.inputs, "p")) for e in examples])
    assert abs(one.mean[0] - every.mean()) < 0.2 * every.mean()


def test_pixels_and_back_and_saved(tmp_path: Path) -> None:
    examples = [Example("a", COLOURS, "x"), Example("b", 255 - COLOURS, "y")]
    fitted = ImageConfig(normalise="standard", size=(6, 5), resize="pad", channels=3).fit(
        lambda: iter(examples)
    )
    encoded = fitted.encode_inputs([COLOURS])["inputs"]
    pixels = fitted.to_pixels(encoded)
    torch.testing.assert_close(
        pixels[0].permute(1, 2, 0), torch.from_numpy(COLOURS / np.float32(COLOURS.max()))
    )
    torch.testing.assert_close(fitted.from_pixels(pixels), encoded)
    fitted.save(tmp_path)
    again: Any = load_processor(tmp_path)
    assert (again.resize, again.convert, again.largest) == ("pad", True, fitted.largest)
    assert torch.equal(
        again.encode_inputs([COLOURS[:, :, 0]])["inputs"][:, 0].isnan(), torch.zeros(1, 6, 5).bool()
    )


def test_a_picture_file_means_what_the_array_meant_that_the_processor_was_fitted_to(
    tmp_path: Path,
) -> None:
    digits = np.arange(0, 17, dtype=np.float64)[:16].reshape(1, 4, 4)
    digits[0, 0, 0] = 16
    fitted = ImageConfig().fit(lambda: iter([Example("a", digits[0], "x")]))
    pixels = np.round(digits[0] * 255 / 16).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    from_file = fitted.encode_inputs([tmp_path / "digit.png"])["inputs"]
    torch.testing.assert_close(
        from_file, fitted.encode_inputs([digits[0]])["inputs"], rtol=0, atol=2e-3
    )


def test_twelve_bits_in_sixteen_are_scaled_and_what_is_converted_is_said(tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    random = np.random.default_rng(0)
    values = random.integers(0, 4096, (3, 8, 8)).astype(np.uint16)
    values[0, 0, 0] = 4095
    for number, picture in enumerate(values):
        pillow.fromarray(picture).save(tmp_path / f"{number}.png")
    examples = [Example(str(n), tmp_path / f"{n}.png") for n in range(3)]
    fitted = ImageConfig().fit(lambda: iter(examples))
    assert fitted.depth == 12
    assert fitted.notes == ("pictures: of 3 looked at are 3 of 16 bits, of which 12 are used",)
    fitted.save(tmp_path / "saved")
    again = load_processor(tmp_path / "saved")
    assert isinstance(again, ImageProcessor)
    assert again.notes == fitted.notes
    found = again.encode_inputs([example.inputs for example in examples])["inputs"]
    expected = torch.from_numpy((values >> 4).astype(np.float32) / 255)[:, None]
    torch.testing.assert_close(found, expected)
    pillow.fromarray(values[0] * 2).save(tmp_path / "bright.png")
    with pytest.raises(DataError, match=r"bright.png: has the value 8,190; allowed: up to 4,095"):
        again.encode_inputs([tmp_path / "bright.png"])


def test_small_values_of_sixteen_bits_and_other_modes(tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    small = np.arange(64, dtype=np.uint16).reshape(8, 8) * 4
    pillow.fromarray(small).save(tmp_path / "small.png")
    fitted = ImageConfig().fit(lambda: iter([Example("0", tmp_path / "small.png")]))
    assert fitted.depth == 8
    found = fitted.encode_inputs([tmp_path / "small.png"])["inputs"]
    torch.testing.assert_close(found[0, 0], torch.from_numpy(small.astype(np.float32) / 255))
    grey = pillow.fromarray(small.astype(np.uint8))
    for mode in ("CMYK", "1", "P", "RGBA"):
        grey.convert("RGB").convert(mode).save(tmp_path / f"{mode}.tiff")
    examples = [Example(path.name, path) for path in sorted(tmp_path.glob("*.tiff"))]
    (note,) = ImageConfig(channels=3).fit(lambda: iter(examples)).notes
    for part in (
        "1 in CMYK, brought to red",
        "1 of 1 bit",
        "1 with a palette",
        "1 with transparen",
    ):
        assert part in note
