"""APNG files: every way to dispose of a frame and to blend it, delays, repetitions, and what is broken in them."""

import struct
import zlib
from collections.abc import Iterator

from tests.pictures.varied.pngs import HEIGHT, WIDTH, Chunk, bad_crc, head, written

Colour = tuple[int, int, int, int]
COLOURS: tuple[Colour, ...] = ((220, 20, 20, 255), (20, 20, 220, 128), (20, 200, 20, 255), (240, 200, 0, 60))
WHOLE = (WIDTH, HEIGHT, 0, 0)
PLACES = (WHOLE, (48, 36, 0, 0), (48, 36, 24, 18), (48, 36, 48, 36))


def pixels(colour: Colour, width: int, height: int) -> bytes:
    return zlib.compress((b"\x00" + bytes(colour) * width) * height)


class Writer:
    """Numbers the chunks of an animation."""

    def __init__(self) -> None:
        self.number = 0

    def control(
        self, place: tuple[int, int, int, int], *, delay: tuple[int, int] = (20, 100), dispose: int = 0, blend: int = 0
    ) -> Chunk:
        self.number += 1
        return (b"fcTL", struct.pack(">5I2H2B", self.number - 1, *place, *delay, dispose, blend))

    def frame(self, colour: Colour, place: tuple[int, int, int, int]) -> Chunk:
        self.number += 1
        return (b"fdAT", struct.pack(">I", self.number - 1) + pixels(colour, place[0], place[1]))


def animation(
    *,
    plays: int = 0,
    delays: tuple[tuple[int, int], ...] = ((20, 100),) * 4,
    dispose: tuple[int, ...] = (0,) * 4,
    blend: tuple[int, ...] = (0,) * 4,
    hidden: bool = False,
    claimed: int | None = None,
    count: int = 4,
) -> list[Chunk | bytes]:
    """Make the chunks of an animation; `hidden` gives it a first picture that is no frame."""
    writer, chunks = Writer(), list[Chunk | bytes]()
    chunks = [head(6, 8), (b"acTL", struct.pack(">II", count if claimed is None else claimed, plays))]
    if hidden:
        chunks.append((b"IDAT", pixels((250, 250, 250, 255), WIDTH, HEIGHT)))
    for at in range(count):
        chunks.append(writer.control(PLACES[at], delay=delays[at], dispose=dispose[at], blend=blend[at]))
        first = at == 0 and not hidden
        chunks.append((b"IDAT", pixels(COLOURS[at], WIDTH, HEIGHT)) if first else writer.frame(COLOURS[at], PLACES[at]))
    return [*chunks, (b"IEND", b"")]


def moving() -> Iterator[tuple[str, bytes]]:
    for dispose in range(3):
        for blend in range(2):
            name = f"apng dispose {dispose} blend {blend}"
            yield name, written(*animation(dispose=(0, dispose, dispose, dispose), blend=(0, blend, blend, blend)))
            yield f"{name} from the first", written(*animation(dispose=(dispose,) * 4, blend=(blend,) * 4))
    yield "apng mixed", written(*animation(dispose=(0, 2, 1, 0), blend=(0, 1, 1, 1)))
    for plays in (0, 1, 2, 5):
        yield f"apng plays {plays}", written(*animation(plays=plays))
    for delay in ((0, 0), (0, 100), (1, 100), (1, 0), (1, 1000), (10, 1000), (11, 1000), (3, 2), (1, 3), (100, 0)):
        yield f"apng delay {delay[0]}/{delay[1]}", written(*animation(delays=(delay,) * 4))
    for count in (1, 2, 4):
        yield f"apng hidden {count}", written(*animation(hidden=True, count=count))
    yield "apng one frame", written(*animation(count=1))
    yield "apng with a comment in it", written(*(two := animation())[:5], (b"tEXt", b"Comment\x00x"), *two[5:])


def broken() -> Iterator[tuple[str, bytes]]:
    chunks = animation()
    whole = written(*chunks)
    for percent in (99, 90, 60, 30):
        yield f"apng cut at {percent}", whole[: len(whole) * percent // 100]
    yield "apng without end", whole[:-12]
    yield "apng claims more", written(*animation(claimed=9))
    yield "apng claims fewer", written(*animation(claimed=2))
    yield "apng claims none", written(*animation(claimed=0))
    yield "apng claims billions", written(*animation(claimed=(1 << 31) - 1))
    for at in (1, 2, 4, 5):
        one = chunks[at]
        assert isinstance(one, tuple)
        yield f"apng bad crc {one[0].decode()} {at}", written(*chunks[:at], bad_crc(*one), *chunks[at + 1 :])
        yield f"apng without {one[0].decode()} {at}", written(*chunks[:at], *chunks[at + 1 :])
    yield "apng frames in another order", written(*chunks[:4], chunks[6], chunks[7], chunks[4], chunks[5], *chunks[8:])
    outside = (b"fcTL", struct.pack(">5I2H2B", 1, 48, 36, 80, 60, 20, 100, 0, 0))
    yield "apng frame outside", written(*chunks[:4], outside, *chunks[5:])
    empty = (b"fcTL", struct.pack(">5I2H2B", 1, 0, 36, 0, 0, 20, 100, 0, 0))
    yield "apng frame of no width", written(*chunks[:4], empty, *chunks[5:])
    odd = (b"fcTL", struct.pack(">5I2H2B", 1, 48, 36, 0, 0, 20, 100, 7, 9))
    yield "apng unknown disposal", written(*chunks[:4], odd, *chunks[5:])
    short = (b"fcTL", chunks[4][1][:20] if isinstance(chunks[4], tuple) else b"")
    yield "apng short control", written(*chunks[:4], short, *chunks[5:])
    picture = chunks[5]
    assert isinstance(picture, tuple)
    yield "apng broken frame", written(*chunks[:5], (b"fdAT", picture[1][:4] + b"garbage"), *chunks[6:])
    yield "apng control behind", written(chunks[0], *chunks[2:4], chunks[1], *chunks[4:])


def cases() -> Iterator[tuple[str, bytes]]:
    yield from moving()
    yield from broken()
