"""Opens videos and sound with FFmpeg (PyAV): the given bytes alone, one thread, and only the named decoders."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from mediarepo.images.errors import PictureError, Reason
from mediarepo.images.formats import PictureFormat

_DEMUXERS = {
    PictureFormat.MP4: "mov",
    PictureFormat.MATROSKA: "matroska",
    PictureFormat.OGG: "ogg",
    PictureFormat.MP3: "mp3",
    PictureFormat.FLAC: "flac",
    PictureFormat.WAV: "wav",
}
_MAX_READS = 4
"""How often the bytes of a file may be read altogether; indexes are at its end, and sometimes point backwards."""
_SPARE_BYTES = 16 * 1024 * 1024


class _Source(io.BytesIO):
    """The file; a demuxer that reads it again and again is stopped."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = _MAX_READS * len(data) + _SPARE_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        self._left -= len(piece)
        if self._left < 0:
            raise PictureError(Reason.TOO_MUCH_WORK)
        return piece


def silence() -> None:
    """Keep FFmpeg from writing to stderr."""
    av.logging.set_level(None)


@contextmanager
def open_container(
    data: bytes, picture_format: PictureFormat, *, decoders: str, max_pixels: int
) -> Iterator[InputContainer]:
    """Open a file as the format that its first bytes say. Raises PictureError for what fails meanwhile."""
    options = {
        "codec_whitelist": decoders,
        "enable_drefs": "0",
        "max_pixels": str(max_pixels),
        "protocol_whitelist": "none",
        "threads": "1",
    }
    demuxer = _DEMUXERS[picture_format]
    try:
        with av.open(_Source(data), "r", format=demuxer, options=options, metadata_errors="ignore") as container:
            yield container
    except av.MemoryError as exc:
        raise PictureError(Reason.OUT_OF_MEMORY) from exc
    except av.FFmpegError as exc:
        raise PictureError(Reason.CORRUPT) from exc


def picture_stream(container: InputContainer) -> VideoStream | None:
    """Return the first stream of moving pictures; the cover of a piece of music is none."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    return None
