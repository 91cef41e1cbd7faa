"""A picture like a photograph: smooth regions, edges, and noise as a sensor makes it."""

import io

from PIL import Image, ImageChops, ImageFilter

_DETAIL = 8


def photograph(width: int, height: int) -> bytes:
    """Make a JPEG of about the size that a telephone makes of so many pixels."""
    size, coarse = (width, height), (width // (_DETAIL * 16), height // (_DETAIL * 16))
    bands = []
    for sigma in (70, 60, 80):
        shapes = Image.effect_noise(coarse, sigma).resize(size, Image.Resampling.BICUBIC)
        detail = Image.effect_noise((width // _DETAIL, height // _DETAIL), 40).resize(size, Image.Resampling.BILINEAR)
        grain = Image.effect_noise(size, 12).filter(ImageFilter.GaussianBlur(0.6))
        bands.append(ImageChops.add(ImageChops.add(shapes, detail, 2), grain, 1, -128))
    out = io.BytesIO()
    Image.merge("RGB", bands).save(out, "JPEG", quality=88)
    return out.getvalue()
