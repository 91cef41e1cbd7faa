"""Recordings made for the tests, good ones and hostile ones."""

import io
import math
import struct
import wave
from array import array
from functools import cache

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream

from tests.pictures.filmed import box

RATE = 48_000


def tone(seconds: float, loudness: float) -> "array[int]":
    return array(
        "h", (round(32_000 * loudness * math.sin(at * 2 * math.pi * 440 / RATE)) for at in range(int(RATE * seconds)))
    )


@cache
def quiet_then_loud() -> "array[int]":
    """Three seconds: silence, half as loud, loud."""
    return tone(1, 0) + tone(1, 0.5) + tone(1, 1)


@cache
def recording(container: str, codec: str, sample_format: str) -> bytes:
    """Encode `quiet_then_loud`."""
    out, samples = io.BytesIO(), quiet_then_loud()
    with av.open(out, "w", format=container) as muxer:
        layout = "stereo" if codec == "vorbis" else "mono"  # FFmpeg's own encoder knows no other
        stream = muxer.add_stream(codec, rate=RATE, layout=layout, options={"strict": "experimental"})
        assert isinstance(stream, AudioStream)
        stream.codec_context.format = sample_format
        resampler = av.AudioResampler(format=sample_format, layout=layout, rate=RATE)
        fifo = av.AudioFifo()
        frame = AudioFrame(format="s16", layout="mono", samples=len(samples))
        frame.sample_rate = RATE
        frame.planes[0].update(samples.tobytes())
        for converted in resampler.resample(frame):
            converted.pts = None
            fifo.write(converted)
        for piece in fifo.read_many(stream.codec_context.frame_size or 1024, partial=True):
            for packet in stream.encode(piece):
                muxer.mux(packet)
        for packet in stream.encode():
            muxer.mux(packet)
    return out.getvalue()


@cache
def plain_wave(channels: int = 1, width: int = 2, rate: int = RATE, seconds: int = 1) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(width)
        writer.setframerate(rate)
        writer.writeframes(bytes(channels * width * rate * seconds))
    return out.getvalue()


def _claiming(**fields: int) -> bytes:
    """Write a WAV header with any values, and little sound behind it."""
    values = {"channels": 1, "rate": RATE, "bits": 16, "kind": 1, "length": 0xFFFFFFF0} | fields
    align = values["channels"] * values["bits"] // 8
    head = struct.pack(
        "<HHIIHH",
        values["kind"],
        values["channels"],
        values["rate"],
        (values["rate"] * align) & 0xFFFFFFFF,
        align & 0xFFFF,
        values["bits"],
    )
    data = b"fmt " + struct.pack("<I", len(head)) + head + b"data" + struct.pack("<I", values["length"]) + bytes(20_000)
    return b"RIFF" + struct.pack("<I", 0xFFFFFFF8) + b"WAVE" + data


@cache
def hostile_sounds() -> dict[str, bytes]:
    """Make small recordings that are meant to do harm."""
    mp3, flac = recording("mp3", "libmp3lame", "s16p"), recording("flac", "flac", "s16")
    ogg, m4a = recording("ogg", "libopus", "s16"), recording("mp4", "aac", "fltp")
    flipped = {
        f"flipped_{name}_{seed}": bytes(byte ^ (16 if at % 211 == seed * 7 + 40 else 0) for at, byte in enumerate(data))
        for seed in range(6)
        for name, data in (("mp3", mp3), ("flac", flac), ("ogg", ogg), ("m4a", m4a))
    }
    return flipped | {
        "no_frames.mp3": b"ID3\4\0\0\0\0\0\0" + bytes(1000),
        "huge_tag.mp3": b"ID3\4\0\0\x7f\x7f\x7f\x7f" + mp3,
        "tags_in_tags.mp3": b"ID3\4\0\0\0\0\0\0" * 50_000 + mp3,
        "truncated.mp3": mp3[: len(mp3) // 2],
        "nothing_but_heads.mp3": b"\xff\xfb\x90\x00" * 100_000,
        "truncated.flac": flac[: len(flac) // 3],
        "no_sound.flac": flac[:42],
        "endless_metadata.flac": b"fLaC" + b"\x04\xff\xff\xff" + bytes(100),
        "truncated.ogg": ogg[: len(ogg) // 2],
        "head_of_an.ogg": ogg[:60],
        "truncated.m4a": m4a[:-300],
        "endless.wav": _claiming(),
        "65535_channels.wav": _claiming(channels=65_535),
        "4_ghz.wav": _claiming(rate=0xFFFFFFFF),
        "one_hertz.wav": _claiming(rate=1),
        "no_rate.wav": _claiming(rate=0),
        "no_channels.wav": _claiming(channels=0),
        "65535_bits.wav": _claiming(bits=65_535),
        "unknown_kind.wav": _claiming(kind=0x1234),
        "not_numbers.wav": _claiming(kind=3, bits=32)[:44] + b"\x00\x00\xc0\x7f" * 5000,
        "long.wav": plain_wave(rate=8_000, width=1, seconds=3_600),
        "no_tracks.m4a": box(b"ftyp", b"M4A \0\0\0\0isom") + box(b"moov", b""),
    }
