"""GIF animations frame by frame (GIF89a), composed as browsers do: disposal 2 clears to transparent."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

_HEADER_BYTES = 13
_TRAILER, _EXTENSION, _IMAGE = 0x3B, 0x21, 0x2C
_GRAPHIC_CONTROL, _APPLICATION = 0xF9, 0xFF
_CLEAR, _PREVIOUS, _ALSO_PREVIOUS = 2, 3, 4
_MOST_PLAYS = 65_535
_SUB_BLOCK_BYTES = 255


@dataclass(frozen=True, slots=True)
class GifFrame:
    """One frame: its pixels as they are stored, where they go, for how long (ms), and what becomes of them."""

    table: bytes
    table_flags: int
    pixels: bytes
    interlaced: bool
    transparent: int | None
    left: int
    top: int
    width: int
    height: int
    duration_ms: int
    disposal: int

    def data(self, transparent: int | None) -> bytes:
        """Write a GIF of its own, with nothing but the frame's pixels."""
        size = self.width.to_bytes(2, "little") + self.height.to_bytes(2, "little")
        own = b"GIF89a" + size + bytes((self.table_flags & 0x87, 0, 0)) + self.table
        if transparent is not None:
            own += b"\x21\xf9\x04\x01\x00\x00" + bytes((transparent,)) + b"\x00"
        return own + b"\x2c" + bytes(4) + size + bytes((0x40 if self.interlaced else 0,)) + self.pixels + b"\x3b"


@dataclass(frozen=True, slots=True)
class GifFile:
    """An animation; `plays` is how often it is shown, 0 for ever."""

    width: int
    height: int
    plays: int
    frames: tuple[GifFrame, ...]

    @property
    def pixels(self) -> int:
        """How many pixels are decoded and composed for all frames."""
        return sum(max(frame.width * frame.height, self.width * self.height) for frame in self.frames)


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
        start, last, first = self.at, self.at, b""
        while self.at < len(self.data) and self.data[self.at]:
            if not first:
                first = self.data[self.at + 1 : self.at + 1 + self.data[self.at]]
            last = self.at
            self.at += 1 + self.data[self.at]
        self.at += 1
        if not self.is_cut:
            return self.data[start : self.at], first
        there = self.data[last + 1 :][:_SUB_BLOCK_BYTES]
        return self.data[start:last] + bytes((len(there),)) + there + (b"\x00" if there else b""), first

    @property
    def is_cut(self) -> bool:
        """Whether what was read last is not all there."""
        return self.at > len(self.data)


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
            frame = _frame(walk, global_table, flags, control)
            if walk.is_cut and frames:
                break
            frames.append(frame)
            control = b""
        else:
            break
    if frames:  # some are larger than they say
        width, height = max(width, frames[0].left + frames[0].width), max(height, frames[0].top + frames[0].height)
    return GifFile(width, height, min(plays, _MOST_PLAYS), tuple(frames))


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
    return GifFrame(
        table=table,
        table_flags=table_flags,
        pixels=walk.data[start : start + 1] + pixels,
        interlaced=bool(flags & 0x40),
        transparent=control[3] if control and control[0] & 1 else None,
        left=left,
        top=top,
        width=width,
        height=height,
        duration_ms=int.from_bytes(control[1:3], "little") * 10 if control else 0,
        disposal=control[0] >> 2 & 7 if control else 0,
    )


def composed_gif(gif: GifFile) -> Iterator[tuple[Image.Image, int]]:
    """Compose the frames one after the other, each with its duration as stored (ms)."""
    canvas = Image.new("RGBA", (gif.width, gif.height))
    for frame in gif.frames:
        before = canvas.copy() if frame.disposal in {_PREVIOUS, _ALSO_PREVIOUS} else None
        if frame.width and frame.height:
            patch = _decoded(frame)
            canvas.paste(patch, (frame.left, frame.top), patch)
        yield canvas.copy(), frame.duration_ms
        if frame.disposal == _CLEAR:
            box = (frame.left, frame.top, frame.left + frame.width, frame.top + frame.height)
            canvas.paste((0, 0, 0, 0), box)
        elif before is not None:
            canvas = before


def _decoded(frame: GifFrame) -> Image.Image:
    """Decode a frame; pixels that it lacks are transparent."""
    with Image.open(io.BytesIO(frame.data(frame.transparent)), formats=["GIF"]) as picture:
        picture.load()
        spare = _spare_colour(picture) if frame.transparent is None else None
        if spare is None:
            return picture.convert("RGBA")
    with Image.open(io.BytesIO(frame.data(spare)), formats=["GIF"]) as picture:
        return picture.convert("RGBA")


def _spare_colour(picture: Image.Image) -> int | None:
    """Find a colour that no pixel has, where the last rows may be missing: decoders leave them as they were."""
    last = picture.crop((0, max(picture.height - 2, 0), picture.width, picture.height))
    if picture.mode not in {"P", "L"} or any(last.tobytes()):
        return None
    return next((index for index, count in enumerate(picture.histogram()) if not count), None)
