"""Shows a video by one of its first frames, decoded by FFmpeg (PyAV) in this thread, from the given bytes alone."""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image, ImageStat

from mediarepo.images.color_profiles import HLG, PQ, Colours, HighRange
from mediarepo.images.errors import PictureError, Reason
from mediarepo.images.ffmpeg import open_container, picture_stream, silence
from mediarepo.images.formats import PictureFormat

_DECODERS = "h264,hevc,vp8,vp9,libdav1d,mpeg4,theora,mjpeg,prores,h263"
_MAX_PACKETS = 2_000
_DARK = 24
"""A frame whose mean brightness (0 to 255) is below this shows nothing: most films begin with a fade-in."""
_GLIMPSE = (32, 18)
_WIDEST_PIXEL = 8
_HD_LINES = 720
_BT_709, _UNSPECIFIED = 1, 2  # H.273, matrix coefficients
_BT_2020 = 9


@dataclass(frozen=True, slots=True)
class Film:
    """A frame of a video, as it is stored: `orientation` is EXIF's."""

    picture: Image.Image
    orientation: int
    colours: Colours | None


def warm_up() -> None:
    """Keep FFmpeg from writing to stderr, and use it once: it could not load anything later, inside the sandbox."""
    silence()
    film = io.BytesIO()
    with av.open(film, "w", format="mov") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.thread_count = 1
        for packet in (*stream.encode(VideoFrame.from_image(Image.new("RGB", (64, 48), "red"))), *stream.encode()):
            container.mux(packet)
    read_film(film.getvalue(), PictureFormat.MP4, max_pixels=10_000, max_frames=2, max_pixels_together=10_000)


def read_film(
    data: bytes, picture_format: PictureFormat, *, max_pixels: int, max_frames: int, max_pixels_together: int
) -> Film:
    """Decode a video up to its first frame that is not dark, and take the brightest if all are.

    At most `max_frames` are decoded, and no more than `max_pixels_together` beyond the first. Raises PictureError when
    there is no video, or a frame has more than `max_pixels`.
    """
    with open_container(data, picture_format, decoders=_DECODERS, max_pixels=max_pixels) as container:
        stream = picture_stream(container)
        if stream is None:
            raise PictureError(Reason.UNSUPPORTED_FORMAT)
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        size = stream.codec_context.width * stream.codec_context.height
        if size > max_pixels:
            raise PictureError(Reason.TOO_MANY_PIXELS)
        most = max(1, min(max_frames, max_pixels_together // max(size, 1)))
        return _shown(_telling(_frames(container, stream), most), stream, max_pixels)


def _frames(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Decode frames; what is broken between them is skipped, as players do."""
    for count, packet in enumerate(container.demux(stream)):
        if count >= _MAX_PACKETS:
            return
        try:
            yield from (frame for frame in packet.decode() if isinstance(frame, VideoFrame))
        except av.InvalidDataError:
            continue


def _telling(frames: Iterator[VideoFrame], most: int) -> VideoFrame:
    best, brightest = None, -1.0
    for count, frame in enumerate(frames, 1):
        grey = frame.reformat(*_GLIMPSE, "gray", threads=1).to_image()
        brightness = ImageStat.Stat(grey).mean[0]
        if brightness > brightest:
            best, brightest = frame, brightness
        if brightness >= _DARK or count >= most:
            break
    if best is None:
        raise PictureError(Reason.CORRUPT)
    return best


def _shown(frame: VideoFrame, stream: VideoStream, max_pixels: int) -> Film:
    """Convert a frame to RGB, its pixels square."""
    width, height = _square(frame.width, frame.height, stream.sample_aspect_ratio)
    if max(width * height, frame.width * frame.height) > max_pixels:
        raise PictureError(Reason.TOO_MANY_PIXELS)
    matrix = frame.colorspace
    if matrix == _UNSPECIFIED and frame.height >= _HD_LINES:
        matrix = _BT_709
    rgb = frame.reformat(width, height, "rgb24", src_colorspace=matrix, threads=1)
    transfer = int(frame.color_trc)
    primaries = int(frame.color_primaries)
    colours = HighRange(primaries if primaries == _BT_2020 else 1, transfer) if transfer in {PQ, HLG} else None
    return Film(rgb.to_image(), _orientation(frame), colours)


def _square(width: int, height: int, pixel: Fraction | None) -> tuple[int, int]:
    """Return the size once pixels are square; the ratio of unlikely ones is a lie."""
    if not pixel or not 1 / _WIDEST_PIXEL <= pixel <= _WIDEST_PIXEL:
        return width, height
    return (round(width * pixel), height) if pixel >= 1 else (width, round(height / pixel))


def _orientation(frame: VideoFrame) -> int:
    """Read the display matrix (ISO/IEC 14496-12, track header) as an EXIF orientation."""
    found: Any = frame.side_data.get("DISPLAYMATRIX")
    matrix = b"" if found is None else bytes(found)
    if len(matrix) != 36:
        return 1
    a, b, _, c, d = struct.unpack("=5i", matrix[:20])
    turned = {(1, 1): 1, (-1, 1): 2, (-1, -1): 3, (1, -1): 4}
    sideways = {(1, 1): 5, (1, -1): 6, (-1, -1): 7, (-1, 1): 8}
    if a == d == 0:
        return sideways.get((_sign(b), _sign(c)), 1)
    return turned.get((_sign(a), _sign(d)), 1)


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)
