"""Videos made for the tests, good ones and hostile ones."""

import io
import random
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import av
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

from tests.pictures.drawn import corners

IDENTITY = (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)


def film(
    container: str,
    codec: str,
    frames: list[Image.Image],
    *,
    pixel_format: str = "yuv420p",
    tagged: int | None = None,
    curve: tuple[int, int] | None = None,
    options: dict[str, str] | None = None,
) -> bytes:
    """Encode pictures, in a thread of its own: as root, SVT-AV1 gives the calling thread real-time priority for good,
    and whatever that starts afterwards.

    `tagged` are the matrix coefficients (H.273) that the file declares and that are used, `curve` the primaries and the
    transfer function that it declares.
    """

    def encode() -> bytes:
        out = io.BytesIO()
        with av.open(out, "w", format=container) as muxer:
            stream = muxer.add_stream(codec, rate=10, options=options or {})
            assert isinstance(stream, VideoStream)
            stream.width, stream.height = frames[0].size
            stream.pix_fmt = pixel_format
            stream.codec_context.thread_count = 1
            if tagged is not None:
                stream.codec_context.colorspace = tagged
            if curve is not None:
                stream.codec_context.color_primaries, stream.codec_context.color_trc = curve
            for picture in frames:
                frame = VideoFrame.from_image(picture)
                if tagged is not None:
                    frame = frame.reformat(format=pixel_format, dst_colorspace=tagged, dst_color_range=1)
                    frame.colorspace = tagged
                for packet in stream.encode(frame):
                    muxer.mux(packet)
            for packet in stream.encode():
                muxer.mux(packet)
        return out.getvalue()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(encode).result()


@cache
def sample(container: str = "mp4", codec: str = "libx264", pixel_format: str = "yuv420p") -> bytes:
    """Encode four equal frames with a colour in each corner."""
    return film(container, codec, [corners(320, 240)] * 4, pixel_format=pixel_format)


def turned(data: bytes, matrix: tuple[int, ...]) -> bytes:
    """Write another display matrix into the first track header of an MP4."""
    at = data.index(b"tkhd") + 4 + 40
    return data[:at] + struct.pack(">9i", *matrix) + data[at + 36 :]


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def patched(data: bytes, mark: bytes, offset: int, value: bytes) -> bytes:
    """Overwrite bytes at a distance from where a mark begins."""
    at = data.index(mark) + offset
    return data[:at] + value + data[at + len(value) :]


_FTYP = box(b"ftyp", b"isom\0\0\0\0isom")
_MOST = b"\xff\xff\xff\xff"


def _compressed_header(length: int) -> bytes:
    packed = zlib.compress(bytes(50_000_000), 9)
    return box(
        b"moov", box(b"cmov", box(b"dcom", b"zlib") + box(b"cmvd", struct.pack(">I", length & 0xFFFFFFFF) + packed))
    )


def _nested(kind: bytes, depth: int) -> bytes:
    content = b""
    for _ in range(depth):
        content = box(kind, content)
    return content


def _flipped(data: bytes, seed: int) -> bytes:
    chance, flipped = random.Random(seed), bytearray(data)
    for _ in range(12):
        flipped[chance.randrange(40, len(data))] ^= 1 << chance.randrange(8)
    return bytes(flipped)


def _elements_in_elements(depth: int) -> bytes:
    """Nest Matroska tags of unknown size."""
    return b"\x1aE\xdf\xa3\x80\x18S\x80g\x01\xff\xff\xff\xff\xff\xff\xff\x12T\xc3g\x01\xff\xff\xff\xff\xff\xff\xff" + (
        b"ss\x01\xff\xff\xff\xff\xff\xff\xff" + b"g\xc8\x01\xff\xff\xff\xff\xff\xff\xff" * depth
    )


@cache
def hostile_films() -> dict[str, bytes]:
    """Make small videos that are meant to do harm."""
    mp4, webm, mkv = sample(), sample("webm", "libvpx"), sample("matroska", "libx264")
    dark = film("mp4", "libx264", [Image.new("RGB", (1920, 1080))] * 120, options={"preset": "ultrafast"})
    files = {
        "only_a_header.mp4": _FTYP,
        "only_a_header.webm": webm[:4],
        "only_a_header.ogg": b"OggS\0",
        "truncated_index.mp4": mp4[:-200],
        "truncated.mkv": mkv[: len(mkv) // 2],
        "truncated_head.webm": webm[:150],
        "16383_pixels.webm": patched(webm, b"\x9d\x01\x2a", 3, b"\xff\x3f\xff\x3f"),
        "lying_track.mp4": patched(mp4, b"tkhd", 4 + 76, b"\xff\xff\0\0\xff\xff\0\0"),
        "lying_sample.mp4": patched(mp4, b"avc1", 4 + 24, b"\xff\xff\xff\xff") if mp4.count(b"avc1") == 1 else mp4,
        "endless_movie.mp4": patched(mp4, b"mvhd", 4 + 16, _MOST),
        "endless_media.mp4": patched(mp4, b"mdhd", 4 + 16, _MOST),
        "four_billion_samples.mp4": patched(mp4, b"stsz", 4 + 8, _MOST),
        "four_billion_times.mp4": patched(mp4, b"stts", 4 + 4, _MOST),
        "one_sample_four_billion_times.mp4": patched(mp4, b"stts", 4 + 8, _MOST),
        "huge_sample.mp4": patched(mp4, b"stsz", 4 + 12, _MOST),
        "chunk_behind_the_end.mp4": patched(mp4, b"stco", 4 + 8, _MOST),
        "another_file.mp4": patched(mp4, b"url \0\0\0\x01", 7, b"\0"),
        "compressed_header.mp4": _FTYP + _compressed_header(50_000_000),
        "compressed_header_of_4_gb.mp4": _FTYP + _compressed_header(0xFFFFFFFF),
        "boxes_in_boxes.mp4": _FTYP + _nested(b"moov", 5_000),
        "tracks_in_tracks.mp4": _FTYP + box(b"moov", _nested(b"trak", 5_000)),
        "many_tracks.mp4": _FTYP + box(b"moov", box(b"trak", b"") * 50_000),
        "endless_tags.mkv": _elements_in_elements(20_000),
        "dark_for_long.mp4": dark,
        "playlist.mp4": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n",
        "concatenation.mp4": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "description.mp4": b"v=0\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
        "pages.ogg": b"OggS\0\2" + bytes(8) + b"\1\0\0\0" + bytes(8) + b"\xff" + b"\xff" * 255 + bytes(4096),
        "nothing_but_pages.ogg": (b"OggS\0\0" + bytes(20) + b"\0") * 100_000,
    }
    for seed in range(8):
        files[f"flipped_{seed}.mp4"] = _flipped(mp4, seed)
        files[f"flipped_{seed}.webm"] = _flipped(webm, seed)
        files[f"flipped_{seed}.mkv"] = _flipped(mkv, seed)
    return files
