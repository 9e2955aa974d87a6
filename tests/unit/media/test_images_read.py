"""Picture files: the pixels that are read of each kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pictures import PHOTOGRAPHS, save
from PIL import Image

from groundup.media.images import read_picture

# ----------------------------------------------------------------------------------------- decoding
COLOURS = np.random.default_rng(0).integers(0, 256, (6, 5, 3)).astype(np.uint8)


def test_pixel_formats(tmp_path: Path) -> None:
    colour = Image.fromarray(COLOURS)
    np.testing.assert_array_equal(read_picture(colour, "p"), COLOURS)
    assert read_picture(colour, "p", 1).shape == (6, 5)
    grey = colour.convert("L")
    np.testing.assert_array_equal(read_picture(grey, "p"), np.asarray(grey))
    assert read_picture(grey, "p", 3).shape == (6, 5, 3)
    palette = colour.quantize(256)
    palette.save(tmp_path / "palette.gif")
    assert np.abs(read_picture(tmp_path / "palette.gif", "p").astype(int) - COLOURS).max() < 60
    assert set(np.unique(read_picture(grey.point(lambda v: 255 * (v > 99)).convert("1"), "p"))) == {
        0,
        255,
    }
    wide = np.arange(30, dtype=np.uint16).reshape(6, 5) * 2000
    Image.fromarray(wide).save(tmp_path / "wide.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "wide.png", "p"), wide >> 8)
    assert read_picture(colour.convert("CMYK"), "p").shape == (6, 5, 3)


def test_transparent_pixels_are_laid_on_white(tmp_path: Path) -> None:
    layers = np.dstack([COLOURS, np.zeros((6, 5), np.uint8)])
    layers[0, :, 3] = 255
    save(tmp_path / "alpha.png", layers)
    found = read_picture(tmp_path / "alpha.png", "p")
    np.testing.assert_array_equal(found[0], COLOURS[0])
    assert (found[1:] == 255).all()
    assert read_picture(Image.fromarray(layers).convert("LA"), "p").shape == (6, 5)


@pytest.mark.slow
def test_photographs_are_turned_as_the_camera_says_and_read_from_bytes(tmp_path: Path) -> None:
    with Image.open(PHOTOGRAPHS / "flower.jpg") as photograph:
        exif = photograph.getexif()
        exif[0x0112] = 6  # held upright
        photograph.save(tmp_path / "turned.png", exif=exif)
        upright = np.asarray(photograph)
    found = read_picture(str(tmp_path / "turned.png"), "p")
    np.testing.assert_array_equal(found, np.rot90(upright, -1))
    np.testing.assert_array_equal(read_picture((tmp_path / "turned.png").read_bytes(), "p"), found)
