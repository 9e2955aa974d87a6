"""What has to be converted in a picture file, in the words of notes."""

from __future__ import annotations

from typing import Any

__all__ = ["ORIENTATION", "conversions_of"]

# The tag of EXIF that says how a camera was held.
ORIENTATION = 0x0112


def conversions_of(image: Any, wide: bool) -> list[str]:
    """Return what has to be converted in an image.

    Args:
        image: Of Pillow, not yet decoded.
        wide: Whether it is in colours of 16 bits.
    """
    found = []
    mode = image.mode
    if mode.startswith("I"):
        found.append("of 16 bits")
    elif wide:
        found.append("in colours of 16 bits, of which the upper 8 are read")
    elif mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        found.append(f"in {mode}, brought to red, green and blue")
    elif mode == "1":
        found.append("of 1 bit")
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        found.append("with transparency, laid on white")
    elif mode == "P":
        found.append("with a palette")
    if getattr(image, "n_frames", 1) > 1:
        found.append("of several frames or pages, of which the first is read")
    if image.getexif().get(ORIENTATION, 1) != 1:
        found.append("turned upright as EXIF says")
    profile = image.info.get("icc_profile")
    # Of what all software takes a picture for that has none, nothing needs to be said.
    if profile and b"sRGB" not in profile and b"s\0R\0G\0B" not in profile:
        found.append("with a colour profile other than sRGB, which is not applied")
    return found
