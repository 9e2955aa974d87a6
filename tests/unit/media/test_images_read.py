"""Picture files: the pixels that are read of each kind."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import PHOTOGRAPHS, save
from PIL import Image

from groundup.core.errors import DataError
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


# -------------------------------------------------------------------------- as it is meant to be read
def write_png(
    values: Any, kind: int, depth: int = 8, before: bytes = b"", kept: bytes = b""
) -> bytes:
    """Return a PNG written from its specification, without Pillow; ``kind`` is its colour type."""

    def chunk(name: bytes, content: bytes) -> bytes:
        end = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + end

    height, width = values.shape[:2]
    kinds = {8: ">u1", 16: ">u2"}
    rows = b"".join(b"\0" + row.astype(kinds[depth]).tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    chunks = [chunk(b"IHDR", head)]
    for name, content in ((b"PLTE", before), (b"tRNS", kept)):
        if content:
            chunks.append(chunk(name, content))
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", *chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    )


def test_colours_of_16_bits(tmp_path: Path) -> None:
    wide = COLOURS.astype(np.int64) * 257
    seen: Counter[str] = Counter()
    found = read_picture(write_png(wide, 2, 16), "wide", seen=seen)
    np.testing.assert_array_equal(found, COLOURS)
    assert seen == {"in colours of 16 bits, of which the upper 8 are read": 1}
    layers = np.dstack([wide, np.full((6, 5), 65535)])
    np.testing.assert_array_equal(read_picture(write_png(layers, 6, 16), "alpha"), COLOURS)
    np.testing.assert_array_equal(read_picture(write_png(wide * 0, 2, 16), "black"), COLOURS * 0)
    with pytest.raises(DataError, match=r"its colours of 16 bits are all below 1\d x 256, as of a"):
        read_picture(write_png(wide >> 4, 2, 16), "camera")


def test_grey_beyond_16_bits_and_transparent_grey(tmp_path: Path) -> None:
    values = np.arange(30, dtype=np.int32).reshape(6, 5) * 2000
    Image.fromarray(values).save(tmp_path / "whole.tif")
    np.testing.assert_array_equal(read_picture(tmp_path / "whole.tif", "a"), values >> 8)
    for odd in (values * 2, values - 1):
        Image.fromarray(odd.astype(np.int32)).save(tmp_path / "odd.tif")
        with pytest.raises(DataError, match=r"it has values from .* to .*; allowed: 0 to 65,535"):
            read_picture(tmp_path / "odd.tif", "odd")
    keyed = read_picture(write_png(values, 0, 16, kept=struct.pack(">H", 4000)), "keyed")
    assert keyed.ravel()[:4].tolist() == [0, 2000 >> 8, 255, 6000 >> 8]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("turned", range(1, 9))
def test_every_way_that_a_camera_is_held(kind: str, turned: int, tmp_path: Path) -> None:
    # Blocks of one colour, which survive a JPEG: the top left one is red.
    stored = np.full((32, 48, 3), 40, np.uint8)
    stored[:16, :16] = (220, 30, 30)
    exif = Image.Exif()
    exif[0x0112] = turned
    Image.fromarray(stored).save(tmp_path / "turned", kind, exif=exif, quality=95)
    ways = [
        lambda a: a,
        lambda a: a[:, ::-1],
        lambda a: a[::-1, ::-1],
        lambda a: a[::-1],
        lambda a: a.transpose(1, 0, 2),
        lambda a: a.transpose(1, 0, 2)[:, ::-1],
        lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        lambda a: a.transpose(1, 0, 2)[::-1],
    ]
    found = read_picture(tmp_path / "turned", "turned")
    wanted = ways[turned - 1](stored)
    assert found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted).mean() < 4


def test_cmyk_palettes_and_animations_are_what_pillow_shows(tmp_path: Path) -> None:
    smooth = np.stack([*np.mgrid[0:240:6, 0:240:4], np.full((40, 60), 90)], -1).astype(np.uint8)
    colour = Image.fromarray(smooth)
    # Adobe writes the inks of a JPEG upside down.
    colour.convert("CMYK").save(tmp_path / "inks.jpg", quality=95)
    assert np.abs(read_picture(tmp_path / "inks.jpg", "inks").astype(int) - smooth).max() < 8
    table = bytes([255, 0, 0, 0, 255, 0])
    places = np.array([[0, 1], [1, 0]])
    red, green, white = (255, 0, 0), (0, 255, 0), (255, 255, 255)
    found = read_picture(write_png(places, 3, before=table), "palette")
    assert found.tolist() == [[list(red), list(green)], [list(green), list(red)]]
    found = read_picture(write_png(places, 3, before=table, kept=b"\xff\0"), "transparent")
    assert found.tolist() == [[list(red), list(white)], [list(white), list(red)]]
    other = Image.fromarray(255 - smooth)
    for name in ("moves.gif", "moves.webp", "moves.png"):
        options = {"lossless": True} if name.endswith("webp") else {}
        colour.save(
            tmp_path / name,
            save_all=True,
            append_images=[other],
            duration=90,
            disposal=2,
            **options,
        )
        seen: Counter[str] = Counter()
        found = read_picture(tmp_path / name, name, seen=seen)
        assert np.abs(found.astype(int) - smooth).max() < 24  # of a GIF's 256 colours
        assert seen["of several frames or pages, of which the first is read"] == 1
    assert np.abs(read_picture(colour.convert("1"), "ink").astype(int) - 127).min() == 127
    colour.convert("1").save(tmp_path / "fax.tif", compression="group4")
    assert set(np.unique(read_picture(tmp_path / "fax.tif", "fax"))) == {0, 255}


def test_a_colour_profile_is_named_and_not_applied(tmp_path: Path) -> None:
    colour = Image.fromarray(COLOURS)
    for profile, said in ((b"x" * 128 + b"Display P3", 1), (b"x" * 128 + b"sRGB IEC61966-2.1", 0)):
        colour.save(tmp_path / "profile.png", icc_profile=profile)
        seen: Counter[str] = Counter()
        np.testing.assert_array_equal(
            read_picture(tmp_path / "profile.png", "p", seen=seen), COLOURS
        )
        assert seen["with a colour profile other than sRGB, which is not applied"] == said


def test_floating_point_pictures_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((3, 3), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(DataError, match="its pixels are floating-point numbers; allowed: 8 or 16"):
        read_picture(tmp_path / "float.tif", "float")
