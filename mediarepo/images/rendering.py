"""Renders all thumbnails of an image from one decode."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from PIL import Image

from mediarepo.images.animations import ApngFile, GifFile, composed_apng, composed_gif
from mediarepo.images.color_conversion import has_alpha, to_rgb_or_grey, to_srgb
from mediarepo.images.decode import (
    DecodeLimits,
    OpenedImage,
    frame_count,
    is_sideways,
    open_picture,
    set_draft_size,
    upright,
)
from mediarepo.images.formats import CONTENT_TYPES, PictureFormat
from mediarepo.images.isobmff import play_count
from mediarepo.images.metadata import is_bare
from mediarepo.model.media import ThumbnailMethod, ThumbnailSpec


@dataclass(frozen=True, slots=True)
class CropGeometry:
    """A thumbnail of `width` x `height` pixels: the centre of the image, scaled by `factor` (at most 1)."""

    width: int
    height: int
    factor: float


def crop_geometry(spec: ThumbnailSpec, width: int, height: int) -> CropGeometry:
    """Return the geometry of a thumbnail; never larger than the image (client-server API, thumbnails).

    An image within the box keeps its size. `scale` fits into the box; `crop` fills it, and where the image is too small
    for that, keeps the box's aspect ratio.
    """
    if width <= spec.width and height <= spec.height:
        return CropGeometry(width, height, 1.0)
    if spec.method is ThumbnailMethod.SCALE:
        factor = min(spec.width / width, spec.height / height)
        return CropGeometry(max(round(width * factor), 1), max(round(height * factor), 1), factor)
    factor = max(spec.width / width, spec.height / height)
    if factor <= 1:
        return CropGeometry(spec.width, spec.height, factor)
    return CropGeometry(max(round(spec.width / factor), 1), max(round(spec.height / factor), 1), 1.0)


def crop_region(framing: CropGeometry, width: int, height: int) -> tuple[float, float, float, float]:
    """Return the box (left, top, right, bottom) of an image of `width` x `height` pixels that a geometry shows.

    The image may be a smaller version of the original: then `framing.factor` is relative to this one.
    """
    shown_width = min(framing.width / framing.factor, width)
    shown_height = min(framing.height / framing.factor, height)
    left, top = (width - shown_width) / 2, (height - shown_height) / 2
    return left, top, left + shown_width, top + shown_height


_REDUCING_GAP = 2.0
_PNG_LEVEL = 3
_WEBP_METHOD = 2
_DEFAULT_FRAME_MS = 100
_MAX_OWN_PIXELS = 16_000_000
_TRIFLE_BYTES = 1024
"""Thumbnails up to this size are worth no second thought: they fit into one packet."""
_MOST_PLAYS = 65_535
_SHORTEST_FRAME_MS = 10
"""Frames of so many milliseconds or fewer are shown for the default time, as browsers do."""


_ANY_SPEC = ThumbnailSpec(1, 1, ThumbnailMethod.SCALE)


@dataclass(frozen=True, slots=True)
class RenderedImage:
    """One finished thumbnail; `data` is None when the source's own bytes are the result."""

    spec: ThumbnailSpec
    content_type: str
    width: int
    height: int
    data: bytes | None


def render(data: bytes, specs: Sequence[ThumbnailSpec], limits: DecodeLimits) -> list[RenderedImage]:
    """Render thumbnails of a file; those of `specs` that ask for animation get it where the file has it."""
    return render_opened(data, open_picture(data, limits), specs, limits)


def render_opened(
    data: bytes, opened: OpenedImage, specs: Sequence[ThumbnailSpec], limits: DecodeLimits
) -> list[RenderedImage]:
    """Render thumbnails of an opened file, as `render` does."""
    moving = [spec for spec in specs if spec.animated] if frame_count(opened, limits) > 1 else []
    still = [spec for spec in specs if spec not in moving]
    made = _stills(data, opened, still, limits) if still else []
    return made + [_moving_or_still(data, opened, spec, limits) for spec in moving]


def _stills(
    data: bytes, opened: OpenedImage, specs: Sequence[ThumbnailSpec], limits: DecodeLimits
) -> list[RenderedImage]:
    framed = [(spec, crop_geometry(spec, opened.width, opened.height)) for spec in specs]
    whole = [spec for spec, framing in framed if (framing.width, framing.height) == (opened.width, opened.height)]
    made = list[RenderedImage]()
    own = _own_bytes(data, opened)
    if whole and own is not None and opened.width * opened.height <= limits.max_pixels:
        opened.picture.load()  # a file that cannot be decoded is no answer either
        made = [replace(own, spec=spec) for spec in whole]
        framed = [(spec, framing) for spec, framing in framed if spec not in whole]
    made += _cascade(opened, framed, limits) if framed else []
    return [_no_larger_than(data, own, one) if own is not None else one for one in made]


def _no_larger_than(data: bytes, own: RenderedImage, made: RenderedImage) -> RenderedImage:
    """Answer with the source where it has fewer bytes than a thumbnail of the whole of it, and few enough pixels."""
    if made.data is None or len(made.data) <= len(data) or made.spec.method is not ThumbnailMethod.SCALE:
        return made
    if made.content_type == "image/png":
        made = replace(made, data=squeeze(made.data, len(data)))
    may_be_own = own.width * own.height <= _MAX_OWN_PIXELS
    too_large = len(made.data or b"") > max(len(data), _TRIFLE_BYTES)
    return replace(own, spec=made.spec) if may_be_own and too_large else made


def squeeze(data: bytes, wanted_bytes: int) -> bytes:
    """Encode a PNG smaller, with a palette if that helps: drawings shrink, photographs do not."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as opened:
        picture = opened.copy()  # what was opened would be compared with a file's path when it is saved
        for colours in (None, 256):
            out = io.BytesIO()
            one = picture if colours is None else picture.quantize(colours, method=Image.Quantize.FASTOCTREE)
            one.save(out, "PNG", optimize=True)
            data = min(data, out.getvalue(), key=len)
            if len(data) <= wanted_bytes:
                break
    return data


def _own_bytes(data: bytes, opened: OpenedImage) -> RenderedImage | None:
    """Describe the source as an answer; None when it may not be shown itself."""
    own_type = CONTENT_TYPES.get(opened.picture_format)
    animated = getattr(opened.picture, "is_animated", False) or (
        opened.moving is not None and len(opened.moving.frames) > 1
    )
    if own_type is None or animated or opened.orientation != 1 or not is_bare(data, opened.picture_format):
        return None
    return RenderedImage(_ANY_SPEC, own_type, opened.width, opened.height, None)


def _cascade(
    opened: OpenedImage, framed: list[tuple[ThumbnailSpec, CropGeometry]], limits: DecodeLimits
) -> list[RenderedImage]:
    """Decode once, at the smallest scale that serves, and take each thumbnail from the next larger whole."""
    largest = max(framing.factor for _, framing in framed)
    whole = _decoded(opened, largest, limits)
    made = list[RenderedImage]()
    for spec, framing in sorted(framed, key=lambda one: one[1].factor, reverse=True):
        factor = framing.factor * _stored_width(opened) / whole.width
        small = _resized(whole, _as_stored(framing, opened.orientation, min(factor, 1.0)))
        if small.size == _scaled_size(whole, factor) and factor < 1:
            whole = small
        finished = _put_upright(small, opened)
        made.append(_encoded(finished, spec, opened.picture_format, limits, is_drawn=opened.is_drawn))
    return made


def _decoded(opened: OpenedImage, factor: float, limits: DecodeLimits) -> Image.Image:
    """Decode, letting the JPEG decoder skip detail that no thumbnail shows."""
    picture = opened.picture
    if isinstance(opened.moving, GifFile) and opened.moving.frames:
        return next(composed_gif(opened.moving))[0]
    width, height = picture.size
    set_draft_size(opened, [(round(width * factor), round(height * factor))], limits)
    whole = to_rgb_or_grey(picture, opened.png)
    whole.info = {}
    return whole


def _stored_width(opened: OpenedImage) -> int:
    return opened.height if is_sideways(opened.orientation) else opened.width


def _scaled_size(whole: Image.Image, factor: float) -> tuple[int, int]:
    return max(round(whole.width * factor), 1), max(round(whole.height * factor), 1)


def _as_stored(framing: CropGeometry, orientation: int, factor: float) -> CropGeometry:
    """Turn a framing of the upright picture into one of the picture as it is stored."""
    if is_sideways(orientation):
        return CropGeometry(framing.height, framing.width, factor)
    return CropGeometry(framing.width, framing.height, factor)


def _resized(whole: Image.Image, framing: CropGeometry) -> Image.Image:
    size = (framing.width, framing.height)
    if size == whole.size:
        return whole
    box = crop_region(framing, whole.width, whole.height)
    return whole.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=_REDUCING_GAP)


def _put_upright(small: Image.Image, opened: OpenedImage) -> Image.Image:
    finished = upright(to_srgb(small, opened.colours), opened.orientation)
    if finished is small:
        finished = small.copy()
    finished.info = {}
    return finished


def _encoded(
    finished: Image.Image, spec: ThumbnailSpec, source: PictureFormat, limits: DecodeLimits, *, is_drawn: bool
) -> RenderedImage:
    """Encode: PNG, GIF and drawings as PNG, JPEG as JPEG, others by whether anything can be seen through them."""
    out = io.BytesIO()
    as_png = is_drawn or source in {PictureFormat.PNG, PictureFormat.GIF}
    if finished.mode == "RGBA" and not has_alpha(finished):
        finished = finished.convert("RGB")
    if as_png or (source is not PictureFormat.JPEG and has_alpha(finished)):
        finished.save(out, "PNG", compress_level=_PNG_LEVEL)
        return RenderedImage(spec, "image/png", finished.width, finished.height, out.getvalue())
    opaque = finished if finished.mode in {"L", "RGB"} else finished.convert("RGB")
    opaque.save(out, "JPEG", quality=limits.jpeg_quality)
    return RenderedImage(spec, "image/jpeg", finished.width, finished.height, out.getvalue())


def _moving_or_still(data: bytes, opened: OpenedImage, spec: ThumbnailSpec, limits: DecodeLimits) -> RenderedImage:
    """Animate; a file whose later frames are broken is shown by its first one."""
    try:
        return _animation(data, opened, spec, limits)
    except (OSError, EOFError, SyntaxError, ValueError):
        return _stills(data, open_picture(data, limits), [spec], limits)[0]


def _animation(data: bytes, opened: OpenedImage, spec: ThumbnailSpec, limits: DecodeLimits) -> RenderedImage:
    """Make an animated WebP that keeps the frames' durations and how often they are played."""
    framing = crop_geometry(spec, opened.width, opened.height)
    stored = _as_stored(framing, opened.orientation, framing.factor)
    frames, durations = list[Image.Image](), list[int]()
    for one, duration_ms in _frames(opened):
        small = _resized(one, stored)
        frames.append(upright(to_srgb(small, opened.colours), opened.orientation))
        durations.append(duration_ms if duration_ms > _SHORTEST_FRAME_MS else _DEFAULT_FRAME_MS)
    out = io.BytesIO()
    frames[0].save(
        out,
        "WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=_plays(data, opened),
        quality=limits.webp_quality,
        method=_WEBP_METHOD,
    )
    return RenderedImage(spec, "image/webp", frames[0].width, frames[0].height, out.getvalue())


def _frames(opened: OpenedImage) -> Iterator[tuple[Image.Image, int]]:
    """Decode the frames, each as it is seen, with its duration in ms."""
    if isinstance(opened.moving, GifFile):
        yield from composed_gif(opened.moving)
        return
    if isinstance(opened.moving, ApngFile):
        yield from composed_apng(opened.moving)
        return
    picture = opened.picture
    for number in range(int(getattr(picture, "n_frames", 1))):
        picture.seek(number)
        shown = picture.convert("RGBA")  # some decoders know the duration only now
        yield shown, round(picture.info.get("duration", 0))


def _plays(data: bytes, opened: OpenedImage) -> int:
    """Say how often the animation is played; 0 is for ever."""
    if opened.moving is not None:
        return min(opened.moving.plays, _MOST_PLAYS)
    if opened.picture_format is PictureFormat.AVIF:
        return play_count(data)
    plays = opened.picture.info.get("loop", 1)
    return min(plays, _MOST_PLAYS) if isinstance(plays, int) and plays >= 0 else 0
