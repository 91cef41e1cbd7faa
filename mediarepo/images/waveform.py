"""Shows sound by its waveform: decoded by FFmpeg (PyAV) in this thread, drawn as bars."""

import io
import struct
import wave
from array import array
from collections.abc import Iterator
from typing import Any, Literal

import av
from av.audio.frame import AudioFrame
from PIL import Image, ImageDraw

from mediarepo.images.errors import PictureError, Reason
from mediarepo.images.ffmpeg import open_container, picture_stream, silence
from mediarepo.images.formats import PictureFormat

_DECODERS = (
    "mp3float,mp3,aac,vorbis,opus,flac,alac,pcm_u8,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s32le,pcm_f32le,pcm_alaw,pcm_mulaw"
)
_MAX_SECONDS = 900
_MAX_PACKETS = 200_000
_LOOKS_PER_S = 8_000
"""How many samples of a second are looked at."""
_PEAKS_PER_S = 20
_SAMPLES: dict[str, tuple[Literal["B", "h", "i", "f", "d"], int, int]] = {
    "u8": ("B", 128, 127),
    "s16": ("h", 0, 1 << 15),
    "s32": ("i", 0, 1 << 31),
    "flt": ("f", 0, 1),
    "dbl": ("d", 0, 1),
}
"""By FFmpeg's names: the type, the value of silence, and that of the loudest sound."""
_BARS, _BAR, _GAP, _HEIGHT = 200, 3, 1, 200
_BACKGROUND, _COLOUR = (242, 244, 246), (20, 110, 120)
_QUIETEST = 0.02
"""Quieter recordings are not drawn louder than this one would be."""


def draw_waveform(data: bytes, picture_format: PictureFormat) -> Image.Image:
    """Draw the peaks of the first channel, the loudest as high as the picture, of the first 15 minutes at most.

    Raises PictureError when there is no sound, or when there are moving pictures as well.
    """
    with open_container(data, picture_format, decoders=_DECODERS, max_pixels=1) as container:
        if not container.streams.audio or picture_stream(container) is not None:
            raise PictureError(Reason.UNSUPPORTED_FORMAT)
        stream = container.streams.audio[0]
        stream.codec_context.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        peaks = array("f", _peaks(_frames(container.demux(stream))))
    if not peaks:
        raise PictureError(Reason.CORRUPT)
    return _drawn(peaks)


def _frames(packets: Iterator[Any]) -> Iterator[AudioFrame]:
    """Decode frames; what is broken between them is skipped, as players do."""
    for count, packet in enumerate(packets):
        if count >= _MAX_PACKETS:
            return
        try:
            yield from (frame for frame in packet.decode() if isinstance(frame, AudioFrame))
        except av.InvalidDataError:
            continue


def _peaks(frames: Iterator[AudioFrame]) -> Iterator[float]:
    """Give the loudest sample of each twentieth of a second, 0 to 1."""
    seconds = peak = since = 0.0
    for frame in frames:
        if frame.sample_rate <= 0 or frame.samples <= 0:
            continue
        for loudness, length in _loudness(frame):
            peak, since = max(peak, loudness), since + length
            if since >= 1 / _PEAKS_PER_S:
                yield peak
                seconds, peak, since = seconds + since, 0.0, 0.0
            if seconds >= _MAX_SECONDS:
                return
    if since:
        yield peak


def _loudness(frame: AudioFrame) -> Iterator[tuple[float, float]]:
    """Give the loudest sample of each piece of a frame, and the piece's length in seconds."""
    known = _SAMPLES.get(frame.format.name.removesuffix("p"))
    if known is None:
        raise PictureError(Reason.UNSUPPORTED_FORMAT)
    kind, silent, loudest = known
    apart = 1 if frame.format.is_planar else len(frame.layout.channels)
    samples: memoryview[Any] = memoryview(frame.planes[0]).cast("B")
    size_bytes = frame.samples * apart * struct.calcsize(kind)
    if len(samples) < size_bytes:
        raise PictureError(Reason.CORRUPT)
    piece = max(frame.sample_rate // _PEAKS_PER_S, 1)
    every = max(frame.sample_rate // _LOOKS_PER_S, 1)
    values = samples[:size_bytes].cast(kind)
    for start in range(0, frame.samples, piece):
        end = min(start + piece, frame.samples)
        looked_at = values[start * apart : end * apart : apart * every]
        strength = max(max(looked_at) - silent, silent - min(looked_at)) / loudest
        yield min(max(strength, 0.0), 1.0), (end - start) / frame.sample_rate


def _drawn(peaks: "array[float]") -> Image.Image:
    picture = Image.new("RGB", (_BARS * (_BAR + _GAP) + _GAP, _HEIGHT), _BACKGROUND)
    draw = ImageDraw.Draw(picture)
    loudest = max(*peaks, _QUIETEST)
    for bar in range(_BARS):
        start = bar * len(peaks) // _BARS
        end = max((bar + 1) * len(peaks) // _BARS, start + 1)
        half = round(max(peaks[start:end]) / loudest * (_HEIGHT / 2 - 4))
        left = _GAP + bar * (_BAR + _GAP)
        draw.rectangle((left, _HEIGHT // 2 - half, left + _BAR - 1, _HEIGHT // 2 + half), fill=_COLOUR)
    return picture


def warm_up() -> None:
    """Use it once: it could not load anything later, inside the sandbox."""
    silence()
    sound = io.BytesIO()
    with wave.open(sound, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(8000)
        writer.writeframes(bytes(800))
    draw_waveform(sound.getvalue(), PictureFormat.WAV)
