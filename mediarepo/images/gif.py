"""GIF animations frame by frame (GIF89a), composed as browsers do: disposal 2 clears to transparent."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

_HEADER_BYTES = 13
_TRAILER, _EXTENSION, _IMAGE = 0x3B, 0x21, 0x2C
_GRAPHIC_CONTROL, _APPLICATION = 0xF9, 0xFF
_CLEAR, _PREVIOUS = 2, 3


@dataclass(frozen=True, slots=True)
class GifFrame:
    """One frame: a GIF of its own with nothing but its pixels, where they go, and for how long (ms)."""

    data: bytes
    left: int
    top: int
    width: int
    height: int
    duration_ms: int
    disposal: int


@dataclass(frozen=True, slots=True)
class GifFile:
    """An animation; `plays` is how often it is shown, 0 for ever."""

    width: int
    height: int
    plays: int
    frames: tuple[GifFrame, ...]


class _Walk:
    """Reads blocks one after the other; what lies behind the end of the file is missing."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = _HEADER_BYTES

    def colour_table(self, flags: int) -> bytes:
        size = 3 << ((flags & 7) + 1) if flags & 0x80 else 0
        table = self.data[self.at : self.at + size]
        self.at += size
        return table

    def sub_blocks(self) -> tuple[bytes, bytes]:
        """Read data sub-blocks up to their terminator: as they are stored, and the first one's bytes."""
        start, first = self.at, b""
        while self.at < len(self.data) and self.data[self.at]:
            if not first:
                first = self.data[self.at + 1 : self.at + 1 + self.data[self.at]]
            self.at += 1 + self.data[self.at]
        self.at += 1
        stored = self.data[start : min(self.at, len(self.data))]
        return (stored if stored.endswith(b"\x00") else stored + b"\x00"), first


def read_gif(data: bytes, max_frames: int) -> GifFile:
    """Walk the blocks; frames beyond `max_frames`, and what is cut off, are left out."""
    width, height, flags = int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little"), data[10]
    walk = _Walk(data)
    global_table = walk.colour_table(flags)
    frames, plays, control = list[GifFrame](), 1, b""
    while walk.at < len(data) and len(frames) < max_frames:
        introducer = data[walk.at]
        if introducer == _EXTENSION and walk.at + 1 < len(data):
            label = data[walk.at + 1]
            walk.at += 2
            start = walk.at
            _, first = walk.sub_blocks()
            if label == _GRAPHIC_CONTROL and len(first) >= 4:  # noqa: PLR2004 - flags, delay, colour
                control = first
            elif label == _APPLICATION and first.startswith((b"NETSCAPE2.0", b"ANIMEXTS1.0")):
                plays = _plays(data, start, plays)
        elif introducer == _IMAGE and walk.at + 10 <= len(data):
            frames.append(_frame(walk, global_table, flags, control))
            control = b""
        else:
            break
    return GifFile(width, height, plays, tuple(frames))


def _plays(data: bytes, start: int, otherwise: int) -> int:
    """Read the repetitions behind the first showing; 0 is for ever."""
    loop = data[start + 12 : start + 16]
    if len(loop) < 4 or loop[0] != 3 or loop[1] & 7 != 1:  # noqa: PLR2004 - a sub-block of three bytes, of the first kind
        return otherwise
    repetitions = int.from_bytes(loop[2:4], "little")
    return repetitions + 1 if repetitions else 0


def _frame(walk: _Walk, global_table: bytes, screen_flags: int, control: bytes) -> GifFrame:
    left, top, width, height = (
        int.from_bytes(walk.data[walk.at + at : walk.at + at + 2], "little") for at in (1, 3, 5, 7)
    )
    flags = walk.data[walk.at + 9]
    walk.at += 10
    local_table = walk.colour_table(flags)
    start = walk.at
    walk.at += 1  # the code size
    pixels, _ = walk.sub_blocks()
    table, table_flags = (local_table, flags) if local_table else (global_table, screen_flags)
    size = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    own = b"GIF89a" + size + bytes((table_flags & 0x87, 0, 0)) + table
    if control and control[0] & 1:
        own += b"\x21\xf9\x04\x01\x00\x00" + control[3:4] + b"\x00"
    own += b"\x2c" + bytes(4) + size + bytes((flags & 0x40,)) + walk.data[start : start + 1] + pixels + b"\x3b"
    duration_ms = int.from_bytes(control[1:3], "little") * 10 if control else 0
    return GifFrame(own, left, top, width, height, duration_ms, control[0] >> 2 & 7 if control else 0)


def composed(gif: GifFile) -> Iterator[tuple[Image.Image, int]]:
    """Compose the frames one after the other, each with its duration as stored (ms)."""
    canvas = Image.new("RGBA", (gif.width, gif.height))
    for frame in gif.frames:
        before = canvas.copy() if frame.disposal == _PREVIOUS else None
        with Image.open(io.BytesIO(frame.data), formats=["GIF"]) as picture:
            patch = picture.convert("RGBA")
        canvas.paste(patch, (frame.left, frame.top), patch)
        yield canvas.copy(), frame.duration_ms
        if frame.disposal == _CLEAR:
            box = (frame.left, frame.top, frame.left + frame.width, frame.top + frame.height)
            canvas.paste((0, 0, 0, 0), box)
        elif before is not None:
            canvas = before
