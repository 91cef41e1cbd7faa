"""GIF and APNG animations frame by frame, composed as in browsers (GIF89a; W3C PNG, third edition, section 12.5)."""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from mediarepo.images.color_conversion import to_rgb_or_grey
from mediarepo.images.png import SIGNATURE, PngFile, chunk, read_png

_HEADER_BYTES = 13
_TRAILER, _EXTENSION, _IMAGE = 0x3B, 0x21, 0x2C
_GRAPHIC_CONTROL, _APPLICATION = 0xF9, 0xFF
_CLEAR, _PREVIOUS, _ALSO_PREVIOUS = 2, 3, 4
_MOST_PLAYS = 65_535
_SUB_BLOCK_BYTES = 255


@dataclass(frozen=True, slots=True)
class GifFrame:
    """One frame: its stored pixels, position, duration (ms) and disposal method."""

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
        """Return a GIF file with only this frame's pixels."""
        size = self.width.to_bytes(2, "little") + self.height.to_bytes(2, "little")
        own = b"GIF89a" + size + bytes((self.table_flags & 0x87, 0, 0)) + self.table
        if transparent is not None:
            own += b"\x21\xf9\x04\x01\x00\x00" + bytes((transparent,)) + b"\x00"
        return own + b"\x2c" + bytes(4) + size + bytes((0x40 if self.interlaced else 0,)) + self.pixels + b"\x3b"


@dataclass(frozen=True, slots=True)
class GifFile:
    """An animation; `plays` is its number of repetitions, 0 for endless."""

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
    """Parse the blocks; frames beyond `max_frames`, and a truncated last one, are left out."""
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
            if label == _GRAPHIC_CONTROL and len(first) >= 4:
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
    if len(loop) < 4 or loop[0] != 3 or loop[1] & 7 != 1:
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
    """Compose the frames in order, each with its stored duration (ms)."""
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


_CONTROL = struct.Struct(">5I2H2B")
_APNG_CLEAR, _APNG_PREVIOUS, _OVER = 1, 2, 1
_DEFAULT_DENOMINATOR = 100
_NUMBER_BYTES = 4


@dataclass(frozen=True, slots=True)
class ApngFrame:
    """One frame: its compressed pixels, position, duration (ms), disposal and blend method."""

    packed: tuple[bytes, ...]
    left: int
    top: int
    width: int
    height: int
    duration_ms: int
    disposal: int
    over: bool


@dataclass(frozen=True, slots=True)
class ApngFile:
    """An animation; `plays` is its number of repetitions, 0 for endless."""

    png: PngFile
    plays: int
    frames: tuple[ApngFrame, ...]


class _Frames:
    """Collects frames; whatever is not as it should be ends the animation."""

    def __init__(self, size: tuple[int, int], claimed: int) -> None:
        self.size, self.claimed = size, claimed
        self.frames = list[ApngFrame]()
        self.control: tuple[int, ...] | None = None
        self.packed = list[bytes]()
        self.number = 0

    def finish(self) -> bool:
        """End the frame that is being read; False when there can be no further one."""
        if self.control is not None:
            if not self.packed:
                return False
            self.frames.append(_apng_frame(self.control, tuple(self.packed)))
        self.control, self.packed = None, []
        return len(self.frames) < self.claimed

    def take(self, kind: bytes, content: bytes) -> bool:
        """Take a chunk; False when the animation ends here."""
        if kind == b"IDAT":
            if self.control is not None and not self.frames:
                self.packed.append(content)
            return True
        if len(content) < _NUMBER_BYTES or int.from_bytes(content[:_NUMBER_BYTES], "big") != self.number:
            return False
        self.number += 1
        if kind == b"fdAT":
            self.packed.append(content[_NUMBER_BYTES:])
            return self.control is not None
        if not self.finish() or len(content) != _CONTROL.size:
            return False
        control = _CONTROL.unpack(content)
        if not _is_sound(control, self.size):
            return False
        self.control = control
        return True


def read_apng(png: PngFile) -> ApngFile | None:
    """Parse the frames, at most as many as are declared; None without an animation."""
    announced = [(at, content) for at, (kind, content) in enumerate(png.moving) if kind == b"acTL"]
    pictures = [at for at, (kind, _) in enumerate(png.moving) if kind == b"IDAT"]
    if not announced or not pictures or announced[0][0] > pictures[0] or len(announced[0][1]) != 8:
        return None
    claimed, plays = struct.unpack(">II", announced[0][1])
    width, height = struct.unpack(">II", png.header[:8])
    found = _Frames((width, height), claimed)
    going = claimed > 0
    for kind, content in png.moving:
        if going and kind != b"acTL":
            going = found.take(kind, content)
    if going:
        found.finish()
    return ApngFile(png, plays, tuple(found.frames)) if found.frames else None


def _is_sound(control: tuple[int, ...], size: tuple[int, int]) -> bool:
    _, width, height, left, top, _, _, disposal, blending = control
    inside = 0 < width <= size[0] - left and 0 < height <= size[1] - top
    return inside and disposal <= _APNG_PREVIOUS and blending <= _OVER


def _apng_frame(control: tuple[int, ...], packed: tuple[bytes, ...]) -> ApngFrame:
    _, width, height, left, top, numerator, denominator, disposal, blending = control
    duration_ms = round(numerator * 1000 / (denominator or _DEFAULT_DENOMINATOR))
    return ApngFrame(packed, left, top, width, height, duration_ms, disposal, blending == _OVER)


def composed_apng(apng: ApngFile) -> Iterator[tuple[Image.Image, int]]:
    """Compose the frames in order, each with its stored duration (ms)."""
    width, height = struct.unpack(">II", apng.png.header[:8])
    canvas = Image.new("RGBA", (width, height))
    for number, frame in enumerate(apng.frames):
        box = (frame.left, frame.top, frame.left + frame.width, frame.top + frame.height)
        disposal = _APNG_CLEAR if number == 0 and frame.disposal == _APNG_PREVIOUS else frame.disposal
        before = canvas.copy() if disposal == _APNG_PREVIOUS else None
        patch = _decoded_apng(apng.png, frame)
        if frame.over:
            canvas.alpha_composite(patch, (frame.left, frame.top))
        else:
            canvas.paste(patch, box)
        yield canvas.copy(), frame.duration_ms
        if disposal == _APNG_CLEAR:
            canvas.paste((0, 0, 0, 0), box)
        elif before is not None:
            canvas = before


def _decoded_apng(png: PngFile, frame: ApngFrame) -> Image.Image:
    header = chunk(b"IHDR", struct.pack(">II", frame.width, frame.height) + png.header[8:])
    packed = b"".join(chunk(b"IDAT", one) for one in frame.packed)
    key = b"" if png.colour_key is None else chunk(b"tRNS", struct.pack(f">{len(png.colour_key)}H", *png.colour_key))
    own = read_png(SIGNATURE + header + png.common + key + packed + chunk(b"IEND", b""))
    with Image.open(io.BytesIO(own.data), formats=["PNG"]) as opened:
        return to_rgb_or_grey(opened, own).convert("RGBA")
