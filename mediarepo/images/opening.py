"""From bytes to an opened picture, refused by its header if it is too much to decode."""

import io
from dataclasses import dataclass
from typing import Any

from PIL import AvifImagePlugin, Image

from mediarepo.images.errors import PictureError, Reason
from mediarepo.images.formats import HEAD_BYTES, PictureFormat, sniff
from mediarepo.images.metadata import count_scans
from mediarepo.images.orientation import lies_on_its_side, orientation_of

AvifImagePlugin.DEFAULT_MAX_THREADS = 1
_MAX_SCANS = 100
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
    """A picture whose header was read; `width` and `height` are those of the picture put upright."""

    picture: Image.Image
    picture_format: PictureFormat
    orientation: int
    width: int
    height: int


def open_picture(data: bytes, limits: Limits) -> Opened:
    """Open a picture by its magic bytes, from the allow-list of formats."""
    picture_format = sniff(data[:HEAD_BYTES])
    if picture_format is None or (picture_format is PictureFormat.HEIC and not limits.heic):
        raise PictureError(Reason.UNSUPPORTED_FORMAT)
    if picture_format is PictureFormat.JPEG and count_scans(data, _MAX_SCANS) > _MAX_SCANS:
        raise PictureError(Reason.TOO_MANY_SCANS)
    Image.MAX_IMAGE_PIXELS = limits.max_pixels
    try:
        picture: Image.Image = Image.open(io.BytesIO(data), formats=[picture_format])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PictureError(Reason.TOO_MANY_PIXELS) from None
    width, height = picture.size
    allowed = limits.max_pixels_webp if picture_format is PictureFormat.WEBP else limits.max_pixels
    if width * height > allowed:
        raise PictureError(Reason.TOO_MANY_PIXELS)
    orientation = orientation_of(picture)
    if lies_on_its_side(orientation):
        width, height = height, width
    return Opened(picture, picture_format, orientation, width, height)


def frame_count(opened: Opened, limits: Limits) -> int:
    """Count the frames; 1 when there are too many, or too many pixels in all of them, to animate.

    The pages of a TIFF are no animation.
    """
    picture: Any = opened.picture
    if opened.picture_format not in _MOVING or not getattr(picture, "is_animated", False):
        return 1
    frames = int(picture.n_frames)
    pixels = frames * picture.size[0] * picture.size[1]
    return 1 if frames > limits.max_frames or pixels > limits.max_animated_pixels else frames
