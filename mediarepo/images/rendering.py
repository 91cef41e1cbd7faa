"""From one picture to all its thumbnails, with one decode."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageSequence

from mediarepo.images.colours import has_alpha, to_scalable, to_srgb
from mediarepo.images.formats import CONTENT_TYPES, PictureFormat
from mediarepo.images.geometry import Framing, frame, region
from mediarepo.images.metadata import is_bare
from mediarepo.images.opening import Limits, Opened, frame_count, open_picture
from mediarepo.images.orientation import lies_on_its_side, upright
from mediarepo.model.thumbnails import ThumbnailSpec

_REDUCING_GAP = 2.0
_PNG_LEVEL = 3
_WEBP_METHOD = 2
_DEFAULT_FRAME_MS = 100


@dataclass(frozen=True, slots=True)
class Made:
    """One finished thumbnail; `data` is None when the source's own bytes are the answer."""

    spec: ThumbnailSpec
    content_type: str
    width: int
    height: int
    data: bytes | None


def render(data: bytes, specs: Sequence[ThumbnailSpec], limits: Limits) -> list[Made]:
    """Make thumbnails of a file; those of `specs` that ask for animation get it where the file has it."""
    opened = open_picture(data, limits)
    moving = [spec for spec in specs if spec.animated] if frame_count(opened, limits) > 1 else []
    still = [spec for spec in specs if spec not in moving]
    made = _stills(data, opened, still, limits) if still else []
    return made + [_moving_or_still(data, opened, spec, limits) for spec in moving]


def _stills(data: bytes, opened: Opened, specs: Sequence[ThumbnailSpec], limits: Limits) -> list[Made]:
    framed = [(spec, frame(spec, opened.width, opened.height)) for spec in specs]
    whole = [spec for spec, framing in framed if (framing.width, framing.height) == (opened.width, opened.height)]
    made = list[Made]()
    own_type = CONTENT_TYPES.get(opened.picture_format)
    if whole and own_type is not None and _is_still_and_bare(data, opened):
        made = [Made(spec, own_type, opened.width, opened.height, None) for spec in whole]
        framed = [(spec, framing) for spec, framing in framed if spec not in whole]
    return made + (_cascade(opened, framed, limits) if framed else [])


def _is_still_and_bare(data: bytes, opened: Opened) -> bool:
    animated = getattr(opened.picture, "is_animated", False)
    if animated or opened.orientation != 1 or not is_bare(data, opened.picture_format):
        return False
    opened.picture.load()  # a file that cannot be decoded is no answer either
    return True


def _cascade(opened: Opened, framed: list[tuple[ThumbnailSpec, Framing]], limits: Limits) -> list[Made]:
    """Decode once, at the smallest scale that serves, and take each thumbnail from the next larger whole."""
    largest = max(framing.factor for _, framing in framed)
    whole = _decoded(opened, largest)
    made = list[Made]()
    for spec, framing in sorted(framed, key=lambda one: one[1].factor, reverse=True):
        factor = framing.factor * _stored_width(opened) / whole.width
        small = _resized(whole, _as_stored(framing, opened.orientation, min(factor, 1.0)))
        if small.size == _scaled_size(whole, factor) and factor < 1:
            whole = small
        finished = _put_upright(small, opened)
        made.append(_encoded(finished, spec, opened.picture_format, limits))
    return made


def _decoded(opened: Opened, factor: float) -> Image.Image:
    """Decode, letting the JPEG decoder skip detail that no thumbnail shows."""
    picture = opened.picture
    width, height = picture.size
    picture.draft(picture.mode, (max(round(width * factor), 1), max(round(height * factor), 1)))
    picture.load()
    profile = picture.info.get("icc_profile")
    whole = to_scalable(picture)
    whole.info = {"icc_profile": profile} if isinstance(profile, bytes) else {}
    return whole


def _stored_width(opened: Opened) -> int:
    return opened.height if lies_on_its_side(opened.orientation) else opened.width


def _scaled_size(whole: Image.Image, factor: float) -> tuple[int, int]:
    return max(round(whole.width * factor), 1), max(round(whole.height * factor), 1)


def _as_stored(framing: Framing, orientation: int, factor: float) -> Framing:
    """Turn a framing of the upright picture into one of the picture as it is stored."""
    if lies_on_its_side(orientation):
        return Framing(framing.height, framing.width, factor)
    return Framing(framing.width, framing.height, factor)


def _resized(whole: Image.Image, framing: Framing) -> Image.Image:
    size = (framing.width, framing.height)
    if size == whole.size:
        return whole
    box = region(framing, whole.width, whole.height)
    small = whole.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=_REDUCING_GAP)
    small.info = whole.info
    return small


def _put_upright(small: Image.Image, opened: Opened) -> Image.Image:
    finished = upright(to_srgb(small, small.info.get("icc_profile")), opened.orientation)
    if finished is small:
        finished = small.copy()
    finished.info = {}
    return finished


def _encoded(finished: Image.Image, spec: ThumbnailSpec, source: PictureFormat, limits: Limits) -> Made:
    """Encode: PNG and GIF as PNG, JPEG as JPEG, others by whether anything can be seen through them."""
    out = io.BytesIO()
    as_png = source in {PictureFormat.PNG, PictureFormat.GIF}
    if as_png or (source is not PictureFormat.JPEG and has_alpha(finished)):
        finished.save(out, "PNG", compress_level=_PNG_LEVEL)
        return Made(spec, "image/png", finished.width, finished.height, out.getvalue())
    opaque = finished if finished.mode in {"L", "RGB"} else finished.convert("RGB")
    opaque.save(out, "JPEG", quality=limits.jpeg_quality)
    return Made(spec, "image/jpeg", finished.width, finished.height, out.getvalue())


def _moving_or_still(data: bytes, opened: Opened, spec: ThumbnailSpec, limits: Limits) -> Made:
    """Animate; a file whose later frames are broken is shown by its first one."""
    try:
        return _animation(opened, spec, limits)
    except (OSError, EOFError, SyntaxError, ValueError):
        return _stills(data, open_picture(data, limits), [spec], limits)[0]


def _animation(opened: Opened, spec: ThumbnailSpec, limits: Limits) -> Made:
    """Make an animated WebP that keeps the frames' durations and the number of rounds."""
    framing = frame(spec, opened.width, opened.height)
    stored = _as_stored(framing, opened.orientation, framing.factor)
    picture = opened.picture
    loop = picture.info.get("loop", 1)
    profile = picture.info.get("icc_profile")
    frames, durations = list[Image.Image](), list[int]()
    for one in ImageSequence.Iterator(picture):
        durations.append(int(one.info.get("duration", _DEFAULT_FRAME_MS)))
        small = _resized(one.convert("RGBA"), stored)
        frames.append(upright(to_srgb(small, profile if isinstance(profile, bytes) else None), opened.orientation))
    out = io.BytesIO()
    frames[0].save(
        out,
        "WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=loop if isinstance(loop, int) else 0,
        quality=limits.webp_quality,
        method=_WEBP_METHOD,
    )
    return Made(spec, "image/webp", frames[0].width, frames[0].height, out.getvalue())
