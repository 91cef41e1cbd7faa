"""Converts decoded images to 8-bit sRGB or grey, with or without alpha."""

from io import BytesIO

from PIL import Image, ImageChops, ImageCms

from mediarepo.images.color_profiles import Colours, HighRange, tone_map
from mediarepo.images.png import PngFile, opacity, without_gaps

_SRGB = ImageCms.createProfile("sRGB")
_SIXTEEN_BITS = {"I;16", "I;16L", "I;16B", "I;16N"}
_PLAIN = {"L", "RGB", "RGBA"}
_PROFILED = {"L", "RGB", "RGBA", "CMYK"}


def to_rgb_or_grey(picture: Image.Image, png: PngFile | None = None) -> Image.Image:
    """Convert an image to a mode that resizes well; `png` has what decoders do not report."""
    picture.load()
    if png is None:
        return _plain(picture)
    visible = opacity(picture, png)
    shown = without_gaps(_plain(picture), picture, png)
    if visible is None:
        return shown
    grey_or_colours = shown.convert("RGBA")
    grey_or_colours.putalpha(ImageChops.darker(visible, grey_or_colours.getchannel("A")))
    return grey_or_colours


def _plain(picture: Image.Image) -> Image.Image:
    if picture.mode in _SIXTEEN_BITS:
        return picture.convert("I").point(_high_byte).convert("L")
    if picture.mode == "I":
        lowest, highest = _extrema(picture)
        return (picture.point(_high_byte) if highest > 255 or lowest < 0 else picture).convert("L")
    if picture.mode in {"1", "F"}:
        return picture.convert("L")
    keyed_modes = {"P", "L", "RGB"} if "transparency" in picture.info else set[str]()
    if picture.mode in {"LA", "La", "PA", "RGBa"} | keyed_modes:
        return picture.convert("RGBA")
    return picture if picture.mode in _PLAIN | {"CMYK"} else picture.convert("RGB")


def _extrema(picture: Image.Image) -> tuple[float, float]:
    lowest, highest = picture.getextrema()
    if isinstance(lowest, tuple) or isinstance(highest, tuple):
        raise TypeError("one band expected")
    return lowest, highest


def _high_byte(value: float) -> float:
    return value * (1 / 256)


def to_srgb(picture: Image.Image, colours: Colours | None) -> Image.Image:
    """Convert to sRGB by the file's colour space; a broken or unsuitable ICC profile is ignored."""
    if isinstance(colours, HighRange):
        return tone_map(picture if picture.mode == "RGBA" else picture.convert("RGB"), colours)
    if colours and picture.mode in _PROFILED:
        try:
            return _converted(picture, colours)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass
    return picture if picture.mode in _PLAIN else picture.convert("RGB")


def _converted(picture: Image.Image, profile: bytes) -> Image.Image:
    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    if picture.mode == "L" and source.profile.xcolor_space.strip() == "RGB":
        picture = picture.convert("RGB")
    if picture.mode != "RGBA":
        return _apply(picture, source)
    colours = _apply(picture.convert("RGB"), source)
    colours.putalpha(picture.getchannel("A"))
    return colours


def _apply(picture: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    converted = ImageCms.profileToProfile(picture, source, _SRGB, outputMode="RGB")
    if converted is None:
        raise ValueError("no conversion")
    return converted


def has_alpha(picture: Image.Image) -> bool:
    """Return whether any pixel is transparent."""
    return picture.mode == "RGBA" and picture.getchannel("A").getextrema() != (255, 255)
