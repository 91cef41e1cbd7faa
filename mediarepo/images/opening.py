"""From bytes to an opened picture, refused by its header if it is too much to decode."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import AvifImagePlugin, Image, ImageFile

from mediarepo.images.errors import PictureError, Reason
from mediarepo.images.formats import HEAD_BYTES, PictureFormat, sniff
from mediarepo.images.icc import profile_of_code_points
from mediarepo.images.isobmff import colour_code_points
from mediarepo.images.metadata import count_scans, is_progressive
from mediarepo.images.orientation import lies_on_its_side, orientation_of
from mediarepo.images.png import PngFile, read_png

AvifImagePlugin.DEFAULT_MAX_THREADS = 1
ImageFile.LOAD_TRUNCATED_IMAGES = True  # what there is of a file is shown, as browsers do
_MAX_SCANS = 100
_MAX_JPEG_PIXELS = 500_000_000
"""Of a JPEG that is decoded at a smaller scale; its entropy-coded data is read whole."""
_SMALLEST_SCALE = 8
_MOVING = {PictureFormat.GIF, PictureFormat.PNG, PictureFormat.WEBP, PictureFormat.AVIF}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What may be decoded, and how it is encoded; the part of the configuration that workers need."""

    max_pixels: int
    max_pixels_webp: int
    max_frames: int
    max_animated_pixels: int
    jpeg_quality: int
    webp_quality: int
    heic: bool


@dataclass(slots=True)
class Opened:
    """A picture whose header was read; `width` and `height` are those of the picture put upright.

    `profile` is the ICC profile of its colours, None for sRGB; `colour_key` what is transparent, see `png.PngFile`.
    """

    picture: Image.Image
    picture_format: PictureFormat
    orientation: int
    width: int
    height: int
    profile: bytes | None = None
    colour_key: tuple[int, ...] | None = None
    bit_depth: int = 8


def open_picture(data: bytes, limits: Limits) -> Opened:
    """Open a picture by its magic bytes, from the allow-list of formats."""
    picture_format = sniff(data[:HEAD_BYTES])
    if picture_format is None or (picture_format is PictureFormat.HEIC and not limits.heic):
        raise PictureError(Reason.UNSUPPORTED_FORMAT)
    if picture_format is PictureFormat.JPEG and count_scans(data, _MAX_SCANS) > _MAX_SCANS:
        raise PictureError(Reason.TOO_MANY_SCANS)
    png = read_png(data) if picture_format is PictureFormat.PNG else None
    Image.MAX_IMAGE_PIXELS = None  # checked here, by what is decoded
    picture: Image.Image = Image.open(io.BytesIO(data if png is None else png.data), formats=[picture_format])
    width, height = picture.size
    if width * height > _allowed_pixels(data, picture_format, limits):
        raise PictureError(Reason.TOO_MANY_PIXELS)
    orientation = _orientation(picture, picture_format, png)
    if lies_on_its_side(orientation):
        width, height = height, width
    return Opened(
        picture,
        picture_format,
        orientation,
        width,
        height,
        profile=_profile(data, picture, picture_format, png),
        colour_key=None if png is None else png.colour_key,
        bit_depth=8 if png is None else png.bit_depth,
    )


def _allowed_pixels(data: bytes, picture_format: PictureFormat, limits: Limits) -> int:
    """Say how many pixels the header may declare; of a sequential JPEG a fraction is decoded."""
    match picture_format:
        case PictureFormat.WEBP:
            return limits.max_pixels_webp
        case PictureFormat.JPEG if not is_progressive(data):
            return max(limits.max_pixels, min(_MAX_JPEG_PIXELS, limits.max_pixels * _SMALLEST_SCALE**2))
        case _:
            return limits.max_pixels


def draft(opened: Opened, sizes: Sequence[tuple[int, int]], limits: Limits) -> None:
    """Let a JPEG be decoded at the smallest scale that covers each size; PictureError when that is too much still."""
    width, height = max(size[0] for size in sizes), max(size[1] for size in sizes)
    opened.picture.draft(opened.picture.mode, (max(width, 1), max(height, 1)))
    decoded_width, decoded_height = opened.picture.size
    if opened.picture_format is PictureFormat.JPEG and decoded_width * decoded_height > limits.max_pixels:
        raise PictureError(Reason.TOO_MANY_PIXELS)


def _orientation(picture: Image.Image, picture_format: PictureFormat, png: PngFile | None) -> int:
    """Read how to turn the picture; Pillow turns TIFFs itself."""
    if picture_format is PictureFormat.TIFF:
        return 1
    return orientation_of(picture.info.get("exif") if png is None else png.exif)


def _profile(data: bytes, picture: Image.Image, picture_format: PictureFormat, png: PngFile | None) -> bytes | None:
    if png is not None:
        return png.profile
    profile = picture.info.get("icc_profile")
    if isinstance(profile, bytes) and profile:
        return profile
    if picture_format is PictureFormat.AVIF and (points := colour_code_points(data)) is not None:
        return profile_of_code_points(*points)
    return None


def frame_count(opened: Opened, limits: Limits) -> int:
    """Count the frames; 1 when there are too many, or too many pixels in all of them, to animate.

    The pages of a TIFF are no animation.
    """
    picture: Any = opened.picture
    if opened.picture_format not in _MOVING or not getattr(picture, "is_animated", False):
        return 1
    frames = int(picture.n_frames) - int(has_hidden_default(opened))
    pixels = frames * picture.size[0] * picture.size[1]
    return 1 if frames > limits.max_frames or pixels > limits.max_animated_pixels else frames


def has_hidden_default(opened: Opened) -> bool:
    """Say whether an APNG's first picture is for readers that know no animation, and no frame of it."""
    return opened.picture_format is PictureFormat.PNG and bool(getattr(opened.picture, "default_image", False))
