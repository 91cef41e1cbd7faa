"""APNG animations frame by frame (W3C PNG, third edition, section 12.5), composed with alpha as it says."""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from mediarepo.images.color_conversion import to_scalable
from mediarepo.images.png import SIGNATURE, PngFile, chunk, read_png

_CONTROL = struct.Struct(">5I2H2B")
_CLEAR, _PREVIOUS, _OVER = 1, 2, 1
_DEFAULT_DENOMINATOR = 100
_NUMBER_BYTES = 4


@dataclass(frozen=True, slots=True)
class ApngFrame:
    """One frame: its packed pixels, where they go, for how long (ms), and what becomes of them."""

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
    """An animation; `plays` is how often it is shown, 0 for ever."""

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
            self.frames.append(_frame(self.control, tuple(self.packed)))
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
    """Read the frames that are there, at most as many as are announced; None without an animation."""
    announced = [(at, content) for at, (kind, content) in enumerate(png.moving) if kind == b"acTL"]
    pictures = [at for at, (kind, _) in enumerate(png.moving) if kind == b"IDAT"]
    if not announced or not pictures or announced[0][0] > pictures[0] or len(announced[0][1]) != 8:  # noqa: PLR2004 - its fixed size
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
    return inside and disposal <= _PREVIOUS and blending <= _OVER


def _frame(control: tuple[int, ...], packed: tuple[bytes, ...]) -> ApngFrame:
    _, width, height, left, top, numerator, denominator, disposal, blending = control
    duration_ms = round(numerator * 1000 / (denominator or _DEFAULT_DENOMINATOR))
    return ApngFrame(packed, left, top, width, height, duration_ms, disposal, blending == _OVER)


def composed_apng(apng: ApngFile) -> Iterator[tuple[Image.Image, int]]:
    """Compose the frames one after the other, each with its duration as stored (ms)."""
    width, height = struct.unpack(">II", apng.png.header[:8])
    canvas = Image.new("RGBA", (width, height))
    for number, frame in enumerate(apng.frames):
        box = (frame.left, frame.top, frame.left + frame.width, frame.top + frame.height)
        disposal = _CLEAR if number == 0 and frame.disposal == _PREVIOUS else frame.disposal
        before = canvas.copy() if disposal == _PREVIOUS else None
        patch = _decoded(apng.png, frame)
        if frame.over:
            canvas.alpha_composite(patch, (frame.left, frame.top))
        else:
            canvas.paste(patch, box)
        yield canvas.copy(), frame.duration_ms
        if disposal == _CLEAR:
            canvas.paste((0, 0, 0, 0), box)
        elif before is not None:
            canvas = before


def _decoded(png: PngFile, frame: ApngFrame) -> Image.Image:
    header = chunk(b"IHDR", struct.pack(">II", frame.width, frame.height) + png.header[8:])
    packed = b"".join(chunk(b"IDAT", one) for one in frame.packed)
    key = b"" if png.colour_key is None else chunk(b"tRNS", struct.pack(f">{len(png.colour_key)}H", *png.colour_key))
    own = read_png(SIGNATURE + header + png.common + key + packed + chunk(b"IEND", b""))
    with Image.open(io.BytesIO(own.data), formats=["PNG"]) as opened:
        return to_scalable(opened, own).convert("RGBA")
