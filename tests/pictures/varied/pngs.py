"""PNG and APNG files written by hand: every depth and colour type, colours, animations, and what is broken in them."""

import random
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence

from tests.pictures.drawn import png_chunk

WIDTH, HEIGHT = 96, 72
SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
QUARTERS = ((0.2, 0.9, 0.4, 1.0), (0.85, 0.1, 0.3, 0.5), (0.35, 0.35, 0.95, 0.0), (0.6, 0.6, 0.1, 1.0))
"""Red, green, blue and alpha of the quarters: top left, top right, bottom left, bottom right."""
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
Chunk = tuple[bytes, bytes]
Samples = tuple[int, ...]


def samples_of(quarter: int, colour_type: int, depth: int) -> Samples:
    """Give a quarter's stored samples."""
    red, green, blue, alpha = QUARTERS[quarter]
    most = (1 << depth) - 1
    if colour_type == 3:
        return (min(quarter, most),)
    chosen = {0: (green,), 2: (red, green, blue), 4: (green, alpha), 6: (red, green, blue, alpha)}[colour_type]
    return tuple(round(value * most) for value in chosen)


def _row(samples: Sequence[Samples], depth: int) -> bytes:
    """Pack pixels, unfiltered."""
    if depth == 16:
        return b"\x00" + b"".join(struct.pack(f">{len(one)}H", *one) for one in samples)
    bits = "".join(format(value, f"0{depth}b") for one in samples for value in one)
    bits += "0" * (-len(bits) % 8)
    return b"\x00" + int(bits, 2).to_bytes(len(bits) // 8, "big")


def rows(colour_type: int, depth: int, *, interlaced: bool = False, size: tuple[int, int] = (WIDTH, HEIGHT)) -> bytes:
    """Write the quarters as filtered rows, or Adam7's passes."""
    quarters = [samples_of(number, colour_type, depth) for number in range(4)]
    width, height = size

    def at(x: int, y: int) -> Samples:
        return quarters[(x >= width // 2) + 2 * (y >= height // 2)]

    passes = PASSES if interlaced else ((0, 0, 1, 1),)
    return b"".join(
        _row([at(x, y) for x in range(left, width, across)], depth)
        for left, top, across, down in passes
        for y in range(top, height, down)
        if left < width
    )


def palette(count: int = 4) -> Chunk:
    colours = [bytes(round(value * 255) for value in QUARTERS[number % 4][:3]) for number in range(count)]
    return (b"PLTE", b"".join(colours))


def head(colour_type: int, depth: int, *, interlaced: bool = False, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Chunk:
    return (b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour_type, 0, 0, int(interlaced)))


def written(*chunks: Chunk | bytes) -> bytes:
    """Put chunks together; bytes are taken as they are."""
    return SIGNATURE + b"".join(one if isinstance(one, bytes) else png_chunk(*one) for one in chunks)


def png(
    colour_type: int = 2,
    depth: int = 8,
    *before: Chunk | bytes,
    interlaced: bool = False,
    after: tuple[Chunk, ...] = (),
) -> bytes:
    more = [palette(min(4, 1 << depth))] if colour_type == 3 else []
    picture = (b"IDAT", zlib.compress(rows(colour_type, depth, interlaced=interlaced)))
    return written(head(colour_type, depth, interlaced=interlaced), *more, *before, picture, *after, (b"IEND", b""))


def bad_crc(kind: bytes, data: bytes) -> bytes:
    whole = png_chunk(kind, data)
    return whole[:-1] + bytes((whole[-1] ^ 0x55,))


def key_of(colour_type: int, depth: int, quarter: int = 0) -> Samples:
    return samples_of(quarter, colour_type, depth)


def depths() -> Iterator[tuple[str, bytes]]:
    """Every depth and colour type, with and without transparency, in rows and interlaced."""
    kinds = [(0, depth) for depth in (1, 2, 4, 8, 16)] + [(3, depth) for depth in (1, 2, 4, 8)]
    kinds += [(kind, depth) for kind in (2, 4, 6) for depth in (8, 16)]
    for colour_type, depth in kinds:
        for interlaced in (False, True):
            name = f"png type {colour_type} depth {depth}{' interlaced' if interlaced else ''}"
            yield name, png(colour_type, depth, interlaced=interlaced)
            if colour_type in {0, 2}:
                key = key_of(colour_type, depth)
                yield f"{name} key", png(colour_type, depth, (b"tRNS", packed(key)), interlaced=interlaced)
                near = (key[0] ^ 1, *key[1:])
                yield (
                    f"{name} key that is none",
                    png(colour_type, depth, (b"tRNS", packed(near)), interlaced=interlaced),
                )
            elif colour_type == 3:
                yield f"{name} alphas", png(colour_type, depth, (b"tRNS", b"\x00\x80"), interlaced=interlaced)
    for colour_type, depth in ((0, 1), (0, 4), (0, 8), (2, 8)):
        key = tuple(value | 1 << depth for value in key_of(colour_type, depth))
        yield (
            f"png type {colour_type} depth {depth} key with higher bits",
            png(colour_type, depth, (b"tRNS", packed(key))),
        )


def packed(key: Samples) -> bytes:
    return struct.pack(f">{len(key)}H", *key)


def transparency() -> Iterator[tuple[str, bytes]]:
    """Transparency in odd places and forms."""
    grey, true = (b"tRNS", packed(key_of(0, 8))), (b"tRNS", packed(key_of(2, 8)))
    other = (b"tRNS", packed(key_of(2, 8, 1)))
    yield "trns grey short", png(0, 8, (b"tRNS", b"\x00"))
    yield "trns grey long", png(0, 8, (b"tRNS", grey[1] + b"\x00\x01"))
    yield "trns true short", png(2, 8, (b"tRNS", true[1][:4]))
    yield "trns empty", png(2, 8, (b"tRNS", b""))
    yield "trns with alpha", png(6, 8, (b"tRNS", true[1]))
    yield "trns bad crc", png(2, 8, bad_crc(*true))
    yield "trns palette bad crc", png(3, 8, bad_crc(b"tRNS", b"\x00\x80"))
    yield "trns twice", png(2, 8, true, other)
    yield "trns behind the picture", png(2, 8, after=(true,))
    yield (
        "trns before the palette",
        written(head(3, 8), (b"tRNS", b"\x00\x80"), palette(), (b"IDAT", zlib.compress(rows(3, 8))), (b"IEND", b"")),
    )
    yield "trns longer than the palette", png(3, 8, (b"tRNS", b"\x00\x80" + b"\x40" * 20))
    yield "trns in a comment", png(2, 8, (b"tEXt", b"Comment\x00" + png_chunk(*true)))
    yield "trns behind a long comment", png(2, 8, (b"tEXt", b"Comment\x00" + b"x" * 1_500_000), true)


def damaged() -> Iterator[tuple[str, bytes]]:
    """Files that are cut, or broken where the picture is."""
    picture = zlib.compress(_noisy(), 6)
    whole = written(head(2, 8), (b"IDAT", picture), (b"IEND", b""))
    for percent in (99, 90, 75, 50, 25):
        yield f"png cut at {percent}", whole[: len(whole) * percent // 100]
    yield "png without end", whole[:-12]
    yield "png end cut", whole[:-6]
    yield "png trailer", whole + b"PK\x03\x04" * 1000
    yield "png picture bad crc", written(head(2, 8), bad_crc(b"IDAT", picture), (b"IEND", b""))
    yield "png picture bad checksum", written(head(2, 8), (b"IDAT", picture[:-4] + b"xxxx"), (b"IEND", b""))
    yield "png picture without checksum", written(head(2, 8), (b"IDAT", picture[:-4]), (b"IEND", b""))
    yield "png header bad crc", written(bad_crc(*head(2, 8)), (b"IDAT", picture), (b"IEND", b""))
    yield (
        "png palette bad crc",
        written(head(3, 8), bad_crc(*palette()), (b"IDAT", zlib.compress(rows(3, 8))), (b"IEND", b"")),
    )
    yield "png end bad crc", written(head(2, 8), (b"IDAT", picture), bad_crc(b"IEND", b""))
    parts = [(b"IDAT", picture[at : at + 97]) for at in range(0, len(picture), 97)]
    yield "png many parts", written(head(2, 8), *parts, (b"IEND", b""))
    yield "png empty parts", written(head(2, 8), (b"IDAT", b""), *parts, (b"IDAT", b""), (b"IEND", b""))
    yield (
        "png comment between parts",
        written(head(2, 8), *parts[:3], (b"tEXt", b"Comment\x00x"), *parts[3:], (b"IEND", b"")),
    )
    yield (
        "png more picture than rows",
        written(head(2, 8), (b"IDAT", zlib.compress(_noisy() + bytes(5000))), (b"IEND", b"")),
    )
    yield "png fewer rows", written(head(2, 8), (b"IDAT", zlib.compress(_noisy()[: 289 * 40])), (b"IEND", b""))
    broken = bytearray(picture)
    broken[len(broken) // 2 : len(broken) // 2 + 40] = bytes(40)
    yield "png picture overwritten", written(head(2, 8), (b"IDAT", bytes(broken)), (b"IEND", b""))
    yield "png without palette", written(head(3, 8), (b"IDAT", zlib.compress(rows(3, 8))), (b"IEND", b""))
    yield "png short palette", written(head(3, 8), palette(2), (b"IDAT", zlib.compress(rows(3, 8))), (b"IEND", b""))
    yield (
        "png palette of odd length",
        written(head(3, 8), (b"PLTE", palette()[1] + b"\x01"), (b"IDAT", zlib.compress(rows(3, 8))), (b"IEND", b"")),
    )
    yield "png long palette", written(head(3, 2), palette(9), (b"IDAT", zlib.compress(rows(3, 2))), (b"IEND", b""))
    yield "png wrong filter", written(head(2, 8), (b"IDAT", zlib.compress(b"\x09" + _noisy()[1:])), (b"IEND", b""))
    yield "png unknown critical", written(head(2, 8), (b"ABCD", b"x"), (b"IDAT", picture), (b"IEND", b""))
    yield "png without a picture", written(head(2, 8), (b"IEND", b""))
    yield "png of no width", written((b"IHDR", struct.pack(">IIBBBBB", 0, 72, 8, 2, 0, 0, 0)), (b"IDAT", picture))
    yield "png second header", written(head(2, 8), head(2, 8), (b"IDAT", picture), (b"IEND", b""))
    yield "png header not first", written((b"tEXt", b"a\x00b"), head(2, 8), (b"IDAT", picture), (b"IEND", b""))
    yield "png suggested palette", written(head(2, 8), palette(), (b"IDAT", picture), (b"IEND", b""))
    interlaced = zlib.compress(rows(2, 8, interlaced=True), 0)
    cut = written(head(2, 8, interlaced=True), (b"IDAT", interlaced), (b"IEND", b""))
    for percent in (90, 50):
        yield f"png interlaced cut at {percent}", cut[: len(cut) * percent // 100]


def _noisy() -> bytes:
    """Write rows that hardly pack, so that a cut file lacks as much of its picture."""
    noise, plain = random.Random(7).randbytes(WIDTH * HEIGHT), rows(2, 8)
    stride = 1 + 3 * WIDTH
    found = bytearray()
    for y in range(HEIGHT):
        row = bytearray(plain[y * stride : (y + 1) * stride])
        for x in range(WIDTH):
            row[1 + 3 * x] = row[1 + 3 * x] & 0xF0 | noise[y * WIDTH + x] & 0x0F
        found += row
    return bytes(found)


ANCILLARY: dict[bytes, bytes] = {
    b"tEXt": b"Comment\x00hello",
    b"zTXt": b"Comment\x00\x00" + zlib.compress(b"hello"),
    b"iTXt": b"Comment\x00\x00\x00\x00\x00hello",
    b"pHYs": struct.pack(">IIB", 2835, 2835, 1),
    b"gAMA": struct.pack(">I", 100_000),
    b"cHRM": struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000),
    b"sRGB": b"\x00",
    b"sBIT": b"\x08\x08\x08",
    b"bKGD": bytes(6),
    b"hIST": bytes(8),
    b"sPLT": b"x\x00\x08" + bytes(6),
    b"tIME": struct.pack(">H5B", 2026, 1, 1, 0, 0, 0),
    b"eXIf": b"MM\x00*\x00\x00\x00\x08" + bytes(6),
    b"cICP": bytes((12, 13, 0, 1)),
    b"mDCV": bytes(24),
    b"cLLI": bytes(8),
    b"oFFs": bytes(9),
    b"vpAg": bytes(9),
    b"acTL": struct.pack(">II", 1, 0),
    b"fcTL": bytes(26),
}


def ancillary() -> Iterator[tuple[str, bytes]]:
    """Chunks that are not the picture, whole and broken, in front of it and behind it."""
    ways: dict[str, Callable[[bytes, bytes], bytes]] = {
        "whole": png_chunk,
        "bad crc": bad_crc,
        "empty": lambda kind, _: png_chunk(kind, b""),
        "long": lambda kind, data: png_chunk(kind, data + b"\xff" * 100),
        "cut": lambda kind, data: png_chunk(kind, data[:-1]),
        "twice": lambda kind, data: png_chunk(kind, data) * 2,
    }
    for kind, data in ANCILLARY.items():
        for way, write in ways.items():
            yield f"chunk {kind.decode()} {way}", png(2, 8, write(kind, data))
        yield f"chunk {kind.decode()} behind the picture", png(2, 8, after=((kind, data),))
    for name in (b"\x00\x01\x02\x03", b"ab d", b"abcd", b"aBCd", b"\xff\xfe\xfd\xfc", b"zz\x80z", b"idat", b"IDAt"):
        yield f"chunk {name!r}", png(2, 8, (name, b"x" * 10))
    length = struct.pack(">I", 1 << 20)
    picture = (b"IDAT", zlib.compress(rows(2, 8)))
    yield "chunk longer than the file", written(head(2, 8), length + b"tEXtabc", picture, (b"IEND", b""))
    yield "chunk of 2 GiB", written(head(2, 8), b"\x80\x00\x00\x00tEXtabc", picture, (b"IEND", b""))
    yield "chunk longer than the file behind the picture", written(head(2, 8), picture, length + b"tEXtabc")
    yield "chunk many empty", png(2, 8, *[(b"tEXt", b"")] * 5000)


def cases() -> Iterator[tuple[str, bytes]]:
    for group in (depths, transparency, damaged, ancillary):
        yield from group()
