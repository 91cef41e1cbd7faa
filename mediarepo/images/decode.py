"""Opens images, checks their headers against the limits, and applies the EXIF orientation."""

import importlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from PIL import AvifImagePlugin, Image, ImageDraw, ImageFile

from mediarepo.images import formats, isobmff, jpeg2000
from mediarepo.images.animations import ApngFile, GifFile, read_apng, read_gif
from mediarepo.images.color_profiles import Colours, colours_of_code_points
from mediarepo.images.errors import PictureError, Reason
from mediarepo.images.formats import HEAD_BYTES, RECORDINGS, SWITCHES, VIDEOS, PictureFormat, sniff
from mediarepo.images.metadata import JpegFile, read_jpeg, with_end
from mediarepo.images.png import PngFile, read_png

_TAG, _SHORT, _ENTRY_BYTES = 0x0112, 3, 12
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FIRST_ON_ITS_SIDE = 5


def orientation_of(exif: object) -> int:
    """Return the orientation of an EXIF block, 1 to 8; 1 when it is broken or there is none.

    Only one SHORT in the first directory counts, as in browsers.
    """
    if not isinstance(exif, bytes):
        return 1
    block = exif.removeprefix(b"Exif\x00\x00")
    orders = {b"II*\x00": "little", b"MM\x00*": "big"}
    order = orders.get(block[:4])
    if order is None:
        return 1

    def number(at: int, size: int) -> int:
        return int.from_bytes(block[at : at + size], "little" if order == "little" else "big")

    start = number(4, 4)
    for at in range(start + 2, start + 2 + number(start, 2) * _ENTRY_BYTES, _ENTRY_BYTES):
        if at + _ENTRY_BYTES > len(block):
            return 1
        if number(at, 2) == _TAG:
            value = number(at + 8, 2)
            one_short = (number(at + 2, 2), number(at + 4, 4)) == (_SHORT, 1)
            return value if one_short and value in _TRANSPOSITIONS else 1
    return 1


def is_sideways(orientation: int) -> bool:
    """Return whether the orientation swaps width and height."""
    return orientation >= _FIRST_ON_ITS_SIDE


def upright(picture: Image.Image, orientation: int) -> Image.Image:
    """Rotate and mirror an image by its orientation."""
    transposition = _TRANSPOSITIONS.get(orientation)
    return picture if transposition is None else picture.transpose(transposition)


AvifImagePlugin.DEFAULT_MAX_THREADS = 1
ImageFile.LOAD_TRUNCATED_IMAGES = True  # what there is of a file is shown, as browsers do
_MAX_SCANS = 100
_MAX_JPEG_PIXELS = 500_000_000
"""Of a JPEG that is decoded at a smaller scale; its entropy-coded data is read whole."""
_SMALLEST_SCALE = 8
_MAX_JPEG_2000_PIXELS = 25_000_000
"""Its decoder needs more than 12 bytes a pixel."""
_ALWAYS = frozenset({""})
_MOVING = {PictureFormat.WEBP, PictureFormat.AVIF}


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """Decoding limits and encoder settings; the part of the configuration that workers need.

    `switched_on` has the settings in `formats.SWITCHES` that are on.
    """

    max_pixels: int
    max_pixels_webp: int
    max_frames: int
    max_animated_pixels: int
    jpeg_quality: int
    webp_quality: int
    max_pixels_video: int
    switched_on: frozenset[str]


@dataclass(slots=True)
class OpenedImage:
    """An image whose header was read; `width` and `height` are after orientation.

    `colours` is its colour space, None for sRGB; `png` and `moving` have what the decoder does not report;
    `is_drawn` says that the picture is a drawing, and not a photograph.
    """

    picture: Image.Image
    picture_format: PictureFormat
    orientation: int
    width: int
    height: int
    colours: Colours | None = None
    png: PngFile | None = None
    moving: ApngFile | GifFile | None = None
    is_drawn: bool = False


def open_picture(data: bytes, limits: DecodeLimits) -> OpenedImage:
    """Open a picture by its magic bytes, from the allow-list of formats.

    Raises PictureError when the format is not supported, or a JPEG has no scan or too many.
    """
    picture_format = sniff(data[:HEAD_BYTES])
    if picture_format is None or not SWITCHES.get(picture_format, _ALWAYS) & (limits.switched_on | _ALWAYS):
        raise PictureError(Reason.UNSUPPORTED_FORMAT)
    return _open_otherwise(data, picture_format, limits) or _open_with_pillow(data, picture_format, limits)


def _open_otherwise(data: bytes, picture_format: PictureFormat, limits: DecodeLimits) -> OpenedImage | None:
    """Open what other decoders than Pillow's read, each loaded only where it is switched on; None for the rest."""
    if picture_format in RECORDINGS:
        return _open_recording(data, picture_format, limits)
    if picture_format is PictureFormat.SVG:
        drawing = importlib.import_module("mediarepo.images.svg").draw(data, limits.max_pixels)
        return OpenedImage(drawing, picture_format, 1, drawing.width, drawing.height, is_drawn=True)
    if picture_format is PictureFormat.JPEG_XL:
        whole = importlib.import_module("mediarepo.images.jpeg_xl").decode_jpeg_xl(data, limits.max_pixels)
        return OpenedImage(whole, picture_format, 1, whole.width, whole.height)
    return None


def _open_with_pillow(data: bytes, picture_format: PictureFormat, limits: DecodeLimits) -> OpenedImage:
    png = read_png(data) if picture_format is PictureFormat.PNG else None
    jpeg = read_jpeg(data, _MAX_SCANS) if picture_format is PictureFormat.JPEG else None
    if jpeg is not None and not 1 <= jpeg.scans <= _MAX_SCANS:
        raise PictureError(Reason.TOO_MANY_SCANS if jpeg.scans else Reason.CORRUPT)
    decoded = png.data if png is not None else data if jpeg is None else with_end(data, jpeg)
    allowed = _allowed_pixels(picture_format, limits, jpeg)
    _check_size(_declared_size(data, picture_format), allowed)
    Image.MAX_IMAGE_PIXELS = None  # checked here, by what is decoded
    picture: Image.Image = Image.open(io.BytesIO(decoded), formats=[picture_format])
    _check_size(picture.size, allowed)
    width, height = picture.size
    orientation = _orientation(picture, picture_format, png)
    if is_sideways(orientation):
        width, height = height, width
    return OpenedImage(
        picture,
        picture_format,
        orientation,
        width,
        height,
        colours=_colours(data, picture, picture_format, png),
        png=png,
        moving=_moving(data, picture_format, png, limits),
    )


def _open_recording(data: bytes, picture_format: PictureFormat, limits: DecodeLimits) -> OpenedImage:
    """Show a video by a frame, and sound by its waveform, as far as they are switched on."""
    if "video" in limits.switched_on and picture_format in VIDEOS:
        try:
            return _open_film(data, picture_format, limits)
        except PictureError as exc:
            if exc.reason is not Reason.UNSUPPORTED_FORMAT or "waveform" not in limits.switched_on:
                raise
    if "waveform" not in limits.switched_on:
        raise PictureError(Reason.UNSUPPORTED_FORMAT)
    drawing = importlib.import_module("mediarepo.images.waveform").draw_waveform(data, picture_format)
    return OpenedImage(drawing, picture_format, 1, drawing.width, drawing.height, is_drawn=True)


def _open_film(data: bytes, picture_format: PictureFormat, limits: DecodeLimits) -> OpenedImage:
    """Take a frame of a video, by the decoder of the extra `video`, which is loaded only where it is switched on."""
    film = importlib.import_module("mediarepo.images.video").read_film(
        data,
        picture_format,
        max_pixels=limits.max_pixels_video,
        max_frames=limits.max_frames,
        max_pixels_together=limits.max_animated_pixels,
    )
    width, height = film.picture.size
    if is_sideways(film.orientation):
        width, height = height, width
    return OpenedImage(film.picture, picture_format, film.orientation, width, height, colours=film.colours)


def _check_size(size: tuple[int, int] | None, allowed_pixels: int) -> None:
    if size is not None and size[0] * size[1] > allowed_pixels:
        raise PictureError(Reason.TOO_MANY_PIXELS)


def _allowed_pixels(picture_format: PictureFormat, limits: DecodeLimits, jpeg: JpegFile | None) -> int:
    """Say how many pixels the header may declare; of a sequential JPEG a fraction is decoded."""
    if picture_format is PictureFormat.WEBP:
        return limits.max_pixels_webp
    if picture_format is PictureFormat.JPEG_2000:
        return min(limits.max_pixels, _MAX_JPEG_2000_PIXELS)
    if jpeg is not None and not jpeg.in_memory:
        return max(limits.max_pixels, min(_MAX_JPEG_PIXELS, limits.max_pixels * _SMALLEST_SCALE**2))
    return limits.max_pixels


def _declared_size(data: bytes, picture_format: PictureFormat) -> tuple[int, int] | None:
    """Read the size of a picture whose decoder takes memory for all of it, or refuses it, when it is opened."""
    match picture_format:
        case PictureFormat.WEBP:
            return formats.declared_size(data)
        case PictureFormat.AVIF | PictureFormat.HEIC:
            return isobmff.declared_size(data)
        case PictureFormat.JPEG_2000:
            return jpeg2000.declared_size(data) or _refuse(Reason.CORRUPT)
        case _:
            return None


def _refuse(reason: Reason) -> NoReturn:
    raise PictureError(reason)


def _moving(
    data: bytes, picture_format: PictureFormat, png: PngFile | None, limits: DecodeLimits
) -> ApngFile | GifFile | None:
    if picture_format is PictureFormat.GIF:
        return read_gif(data, limits.max_frames + 1)
    return None if png is None else read_apng(png)


def set_draft_size(opened: OpenedImage, sizes: Sequence[tuple[int, int]], limits: DecodeLimits) -> None:
    """Decode a JPEG at the smallest scale that covers each size. Raises PictureError when that is still too large."""
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


def _colours(data: bytes, picture: Image.Image, picture_format: PictureFormat, png: PngFile | None) -> Colours | None:
    if png is not None:
        return png.colours
    profile = picture.info.get("icc_profile")
    if isinstance(profile, bytes) and profile:
        return profile
    if picture_format is PictureFormat.AVIF and (points := isobmff.colour_code_points(data)) is not None:
        return colours_of_code_points(*points, television_gamma=None)
    return None


def frame_count(opened: OpenedImage, limits: DecodeLimits) -> int:
    """Return the number of frames; 1 when there are too many frames or pixels to animate.

    The pages of a TIFF are no animation.
    """
    picture: Any = opened.picture
    if opened.moving is not None:
        frames = len(opened.moving.frames)
    elif opened.picture_format in _MOVING and getattr(picture, "is_animated", False):
        frames = int(picture.n_frames)
    else:
        return 1
    pixels = frames * picture.size[0] * picture.size[1]
    if isinstance(opened.moving, GifFile):
        pixels = opened.moving.pixels
    return 1 if frames > limits.max_frames or pixels > limits.max_animated_pixels else frames


_SIZE = (1600, 1200)


def sample_picture() -> bytes:
    """Draw a landscape and encode it as JPEG."""
    sky = Image.linear_gradient("L").resize(_SIZE)
    picture = Image.merge(
        "RGB", (sky.point(lambda v: 90 + v // 2), sky.point(lambda v: 150 + v // 3), sky.point(lambda _: 235))
    )
    draw = ImageDraw.Draw(picture)
    draw.ellipse((1150, 140, 1370, 360), fill=(255, 214, 92))
    draw.polygon([(0, 900), (420, 380), (820, 900)], fill=(88, 104, 138))
    draw.polygon([(500, 900), (980, 300), (1500, 900)], fill=(66, 80, 112))
    draw.rectangle((0, 890, 1600, 1200), fill=(62, 122, 74))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=88)
    return out.getvalue()
