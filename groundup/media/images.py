"""Picture files: reading their pixels, checking them, and drawing a sheet of them. The one file
that knows Pillow.

Shape legend: H rows, W columns, C channels.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from groundup.core.errors import DataError, MissingExtraError
from groundup.core.values import StoredFile
from groundup.media.picture_conversions import ORIENTATION, conversions_of
from groundup.media.picture_fit import CroppedPicture, PictureFit, Placement, Resample

__all__ = [
    "LARGEST",
    "SUFFIXES",
    "depth_of",
    "examine",
    "glance",
    "is_picture",
    "measure",
    "pillow",
    "read_picture",
    "read_placed",
]

# Files that are photographs or drawings; Pillow opens others as well, such as .pdf and .hdf.
_USUAL = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
_RARE = (".apng", ".jpe", ".jfif", ".mpo", ".jp2", ".j2k", ".dib", ".avif", ".tga", ".qoi")
SUFFIXES = frozenset((".ppm", ".pgm", ".pbm", ".pnm")).union(_USUAL, _RARE)
# Pixels; a small file that unpacks to more is an accident or an attack.
LARGEST = 80_000_000
# Bytes at the end of a file in which the mark of its end is; some programs write more after it.
_END = 512
_FLOATS = "its pixels are floating-point numbers; allowed: 8 or 16 bits"


def pillow() -> Any:
    """Return the package ``PIL`` with the parts that are used in this folder."""
    try:
        import PIL
        import PIL.Image
        import PIL.ImageDraw
        import PIL.ImageFile
        import PIL.ImageFont
        import PIL.ImageOps
    except ImportError:
        raise MissingExtraError("PIL", "classic") from None
    return PIL


@runtime_checkable
class _PillowImage(Protocol):
    """What tells a Pillow image from an array, without importing Pillow."""

    mode: str

    def getbands(self) -> tuple[str, ...]: ...


def is_picture(value: Any) -> bool:
    """Whether a value is a picture still to be decoded: a path, a file's bytes or where they lie,
    or a Pillow image."""
    return isinstance(value, str | bytes | Path | StoredFile | _PillowImage)


def read_picture(
    source: Any,
    where: str,
    channels: int | None = None,
    depth: int = 16,
    seen: Counter[str] | None = None,
) -> NDArray[np.uint8]:
    """Return a picture's pixels (H, W) if it is grey, else (H, W, 3), turned upright as its EXIF
    says.

    Palettes are looked up; transparent pixels are laid on white; 16 bits a channel are cut to the
    upper 8 of ``depth``; of an animation the first picture is taken.

    Args:
        source: A path, the bytes of a file or where they lie, or a Pillow image.
        where: What to call it in messages.
        channels: 1 for grey, 3 for red, green and blue, whatever the file holds; None: as the file
            holds.
        depth: How many of the 16 bits of a channel are used, as by cameras with 12.
        seen: Counts what was converted.

    Raises:
        DataError: If it cannot be read, is too large, or has values beyond the depth.
        MissingExtraError: If Pillow is not installed.
    """
    return read_placed(source, where, channels, depth, seen)[0]


def read_placed(
    source: Any,
    where: str,
    channels: int | None = None,
    depth: int = 16,
    seen: Counter[str] | None = None,
    *,
    fit: PictureFit | None = None,
    crop: CroppedPicture | None = None,
) -> tuple[NDArray[np.uint8], Placement | None]:
    """Return what ``read_picture`` does, brought to a size by Pillow's own resampling, in whole
    numbers; and what became of the picture, or None where no ``fit`` is asked for.

    Args:
        source: As of ``read_picture``, and the following.
        where: What to call it in messages.
        channels: 1 for grey, 3 for colour.
        depth: How many of 16 bits are used.
        seen: Counts what was converted.
        fit: How it gets its size; None: as the file has.
        crop: The part of it that is drawn; None: all of it.
    """
    try:
        with _opened(source) as opened:
            # Asked before anything is decoded, which reading the EXIF of a PNG does.
            wide = _is_wide(opened)
            if seen is not None:
                seen.update(conversions_of(opened, wide))
            # Asked first: Pillow copies a picture that needs no turn.
            if opened.getexif().get(ORIENTATION, 1) != 1:
                opened = pillow().ImageOps.exif_transpose(opened)
            image = _eight_bits(opened, depth, where, wide)
            if channels is not None:
                image = _convert(image, "L" if channels == 1 else "RGB")
            placed = None
            if fit is not None:
                placed = fit.place(image.height, image.width, crop)
                image = _fitted(image, placed, fit.resample)
            # Within the file, which Pillow reads when the pixels are asked for.
            return np.asarray(image), placed
    except (MissingExtraError, DataError):
        raise
    except _TooLarge as error:
        raise DataError(where, str(error), "Make it smaller, or remove it") from None
    except Exception as error:
        # Damaged files raise OSError, SyntaxError, ValueError, struct.error, EOFError and others.
        raise DataError(
            where, f"is no readable picture: {_describe(error)}", "Replace or remove it"
        ) from None


def _convert(image: Any, mode: str) -> Any:
    # Pillow copies what is of this mode already.
    return image if image.mode == mode else image.convert(mode)


def _fitted(image: Any, placed: Placement, resample: Resample) -> Any:
    """Return a picture's part of the size asked for."""
    filters = {"linear": "BILINEAR", "cubic": "BICUBIC"}
    if placed.box != (0, 0, *image.size):
        image = image.crop(placed.box)
    if (placed.columns, placed.rows) != image.size:
        named = pillow().Image.Resampling[filters[resample]]
        image = image.resize((placed.columns, placed.rows), named)
    height, width = placed.size
    if image.size == (width, height):
        return image
    # What is beyond the edges is black.
    return image.crop((placed.left, placed.top, placed.left + width, placed.top + height))


def depth_of(sources: Iterable[Any]) -> tuple[int, int]:
    """Return how many bits the grey pictures of 16 bits among these use, 8 to 16, and how many
    there are; those that cannot be read are passed over."""
    largest = 0
    wide = 0
    for source in sources:
        with contextlib.suppress(Exception), _opened(source) as image:
            if image.mode.startswith("I"):
                largest = max(largest, int(np.asarray(image).max()))
                wide += 1
    # By twos, as cameras and scanners have: 8, 10, 12, 14, 16.
    depth = 8 + 2 * max(0, math.ceil((largest.bit_length() - 8) / 2))
    return (min(depth, 16), wide) if wide else (16, 0)


def examine(path: Path | StoredFile) -> tuple[str | None, str]:
    """Return what is wrong with a picture file, decoded to its end, or None; and its size as "H x W
    format"."""
    try:
        source = path.read() if isinstance(path, StoredFile) else path
        with _opened(source) as image:
            size = f"{image.height} x {image.width} {image.mode}"
            # The checksums, which decoding may pass over; it leaves the image unusable.
            image.verify()
        with _opened(source) as image:
            # Of a JPEG all bytes are still read, but few pixels made, which is quicker.
            image.draft(image.mode, (1, 1))
            image.load()
            if image.mode == "F":
                raise ValueError(_FLOATS)
    except MissingExtraError:
        raise
    except DataError as error:
        return error.problem, ""
    except _TooLarge as error:
        return str(error), ""
    except Exception as error:  # as above
        return f"is no readable picture: {_describe(error)}", ""
    return None, size


def glance(path: Path | StoredFile) -> tuple[str | None, str]:
    """Return what ``examine`` does, by a picture's header and the last bytes of its file alone.

    So a file that ends early is found, and damage in its middle is not. Where the end is not as the
    kind of file has it, the picture is decoded.
    """
    if isinstance(path, StoredFile):
        return examine(path)
    try:
        with _opened(path) as image:
            size = f"{image.height} x {image.width} {image.mode}"
            kind = image.format
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, io.SEEK_END) - _END))
            end = file.read()
    except MissingExtraError:
        raise
    except Exception:
        # Which says what is wrong.
        return examine(path)
    # Which stand nowhere else in such files: a JPEG writes 255 within its pixels as 255 and 0.
    marks = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
    if kind in marks and marks[kind] in end:
        return None, size
    return examine(path)


def measure(source: Any) -> tuple[int, int, int]:
    """Return a picture's width and height as it is stored, and EXIF's number of how it is to be
    turned, 1 if not; of a file only its header is read.

    Args:
        source: As of ``read_picture``; it must be readable.
    """
    with _opened(source) as image:
        return image.width, image.height, int(image.getexif().get(ORIENTATION, 1))


class _TooLarge(Exception):
    def __init__(self, pixels: int) -> None:
        super().__init__(f"has {pixels:,} pixels; allowed: at most {LARGEST:,}")


@contextmanager
def _opened(source: Any) -> Iterator[Any]:
    """Give a Pillow image, its pixels not yet decoded; a file is closed afterwards."""
    library = pillow().Image
    # The protocol is asked about last: for it, Python looks at each of its methods.
    stored = isinstance(source, str | bytes | Path | StoredFile)
    if not stored and isinstance(source, _PillowImage):
        yield source
        return
    if isinstance(source, StoredFile):
        source = source.read()
    with io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as file:
        try:
            image = library.open(file)
        except (library.DecompressionBombError, library.DecompressionBombWarning) as error:
            # Pillow says how many pixels there are in the text of its error alone.
            found = re.search(r"\d{8,}", str(error))
            raise _TooLarge(int(found[0]) if found else 0) from None
        if image.width * image.height > LARGEST:
            raise _TooLarge(image.width * image.height)
        yield image


def _is_wide(image: Any) -> bool:
    """Whether a picture in colour has 16 bits a channel, of which Pillow reads 8."""
    if not isinstance(image, pillow().ImageFile.ImageFile) or image.mode.startswith("I"):
        return False
    # Where the file's parts are, until it is decoded, and how they are stored: RGB;16B.
    return any(";16" in str(tile) for tile in image.tile)


def _eight_bits(image: Any, depth: int, where: str, wide_colours: bool) -> Any:
    """Return the image as grey or as red, green and blue, 8 bits each."""
    if image.mode.startswith("I"):
        # Pillow would clip 16 bits to 255 instead of scaling them.
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(
                f"it has values from {values.min():,} to {values.max():,}; allowed: 0 to 65,535"
            )
        wide = values >> (depth - 8)
        # Laid on white, like all that is transparent.
        wide[values == image.info.get("transparency", -1)] = 255
        if wide.max() > 255:
            raise DataError(
                where,
                f"has the value {int(np.asarray(image).max()):,}; allowed: up to {2**depth - 1:,},"
                f" as the training pictures use {depth} of 16 bits",
                "Scale it as the others, or train with such pictures",
            )
        return pillow().Image.fromarray(wide.astype(np.uint8))
    if image.mode == "F":
        raise ValueError(_FLOATS)
    if wide_colours:
        brightest = max(high for _, high in image.convert("RGB").getextrema())
        # Of 12 bits in 16 Pillow's upper 8 would be nearly black, and 4 of them lost.
        if 0 < brightest < 16:
            raise ValueError(
                f"its colours of 16 bits are all below {brightest + 1} x 256, as of a camera with"
                " fewer bits; allowed: all 16 used, or 8. Scale it, or write 8 bits"
            )
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        clear = image.convert("RGBA")
        ground = pillow().Image.new("RGBA", image.size, "white")
        opaque = pillow().Image.alpha_composite(ground, clear)
        return opaque.convert("L" if image.mode in ("LA", "La", "L") else "RGB")
    return _convert(image, "L" if image.mode in ("1", "L") else "RGB")


def _describe(error: Exception) -> str:
    """Return one line that says what is wrong with a file."""
    if isinstance(error, FileNotFoundError):
        return "no such file; allowed: a picture file"
    if isinstance(error, IsADirectoryError):
        return "it is a folder; allowed: a picture file"
    if isinstance(error, pillow().UnidentifiedImageError):
        return f"it is empty, or of no known kind; allowed: {', '.join(sorted(SUFFIXES))}"
    first = str(error).strip().partition("\n")[0]
    # An address in memory, which Pillow names, differs from run to run.
    return re.sub(r" at 0x[0-9a-f]+", "", first).rstrip(".") or type(error).__name__
