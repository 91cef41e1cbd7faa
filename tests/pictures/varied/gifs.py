"""GIF files written by hand: disposals, delays, repetitions, transparency, odd sizes, and what is broken in them."""

from collections.abc import Iterator

WIDTH, HEIGHT = 96, 72
COLOURS = bytes((220, 20, 20, 20, 200, 20, 20, 20, 220, 240, 240, 240))
RED, GREEN, BLUE, WHITE = range(4)
PLACES = ((0, 0, WIDTH, HEIGHT), (0, 0, 48, 36), (24, 18, 48, 36), (48, 36, 48, 36), (3, 3, 90, 66))


def _le(value: int) -> bytes:
    return value.to_bytes(2, "little")


def screen(
    size: tuple[int, int] = (WIDTH, HEIGHT), *, table: bytes = COLOURS, background: int = 0, version: bytes = b"89a"
) -> bytes:
    flags = 0x80 | 0x70 | 1 if table else 0x70
    return b"GIF" + version + _le(size[0]) + _le(size[1]) + bytes((flags, background, 0)) + table


def control(delay: int = 20, *, disposal: int = 0, transparent: int | None = None) -> bytes:
    flags = disposal << 2 | (transparent is not None)
    return b"\x21\xf9\x04" + bytes((flags,)) + _le(delay) + bytes((transparent or 0,)) + b"\x00"


def packed(indices: bytes, bits: int = 2) -> bytes:
    """Write LZW that packs nothing: a clear code before it could grow, as sub-blocks with the code size in front."""
    clear, width = 1 << bits, bits + 1
    codes = list[int]()
    for at, index in enumerate(indices):
        if at % (clear - 2) == 0:
            codes.append(clear)
        codes.append(index)
    codes.append(clear + 1)
    number = 0
    for at, code in enumerate(codes):
        number |= code << (at * width)
    data = number.to_bytes((len(codes) * width + 7) // 8, "little")
    blocks = b"".join(bytes((len(data[at : at + 255]),)) + data[at : at + 255] for at in range(0, len(data), 255))
    return bytes((bits,)) + blocks + b"\x00"


def image(place: tuple[int, int, int, int], indices: bytes, *, table: bytes = b"", interlaced: bool = False) -> bytes:
    flags = (0x81 if table else 0) | (0x40 if interlaced else 0)
    return b"\x2c" + b"".join(_le(value) for value in place) + bytes((flags,)) + table + packed(indices)


def plain(place: tuple[int, int, int, int], index: int, hole: int | None = None) -> bytes:
    """Fill a frame with a colour; its left half with another one, if `hole` is one."""
    width, height = place[2:]
    return (bytes((index if hole is None else hole,)) * (width // 2) + bytes((index,)) * (width - width // 2)) * height


def quarters() -> bytes:
    top = (bytes((RED,)) * 48 + bytes((GREEN,)) * 48) * 36
    return top + (bytes((BLUE,)) * 48 + bytes((WHITE,)) * 48) * 36


def loop(count: int, name: bytes = b"NETSCAPE2.0") -> bytes:
    return b"\x21\xff\x0b" + name + b"\x03\x01" + _le(count) + b"\x00"


def animation(
    *, disposals: tuple[int, ...] = (0,) * 5, delay: int = 20, transparent: int | None = None, head: bytes | None = None
) -> list[bytes]:
    """Make the parts of an animation of five frames."""
    parts = [screen() if head is None else head]
    for at, place in enumerate(PLACES):
        parts.append(control(delay, disposal=disposals[at], transparent=transparent))
        hole = transparent if at else None
        parts.append(image(place, plain(place, (BLUE, GREEN, WHITE, RED, GREEN)[at], hole)))
    return [*parts, b"\x3b"]


def moving() -> Iterator[tuple[str, bytes]]:
    for disposal in range(8):
        name = f"gif disposal {disposal}"
        yield name, b"".join(animation(disposals=(disposal,) * 5))
        yield f"{name} transparent", b"".join(animation(disposals=(disposal,) * 5, transparent=BLUE))
    for disposals in ((1, 3, 2, 1, 0), (2, 3, 3, 2, 1), (3, 3, 3, 1, 2), (1, 2, 3, 2, 3), (0, 3, 1, 3, 2)):
        yield f"gif disposals {disposals}", b"".join(animation(disposals=disposals, transparent=WHITE))
    for delay in (0, 1, 2, 5, 6, 10, 300, 65535):
        yield f"gif delay {delay}", b"".join(animation(delay=delay))
    parts = animation()
    for count in (0, 1, 2, 7, 65535):
        yield f"gif loop {count}", parts[0] + loop(count) + b"".join(parts[1:])
    yield "gif loop by another name", parts[0] + loop(3, b"ANIMEXTS1.0") + b"".join(parts[1:])
    yield "gif loop by an unknown name", parts[0] + loop(3, b"UNKNOWN 1.0") + b"".join(parts[1:])
    yield "gif loop twice", parts[0] + loop(3) + loop(5) + b"".join(parts[1:])
    yield "gif loop at the end", b"".join(parts[:-1]) + loop(3) + b"\x3b"
    yield "gif loop between frames", b"".join(parts[:3]) + loop(3) + b"".join(parts[3:])
    yield "gif loop cut", parts[0] + b"\x21\xff\x0bNETSCAPE2.0\x01\x01\x00" + b"".join(parts[1:])
    yield "gif without controls", parts[0] + b"".join(parts[2::2])
    yield "gif one control for all", parts[0] + parts[1] + b"".join(parts[2::2])
    yield (
        "gif control behind the frame",
        parts[0] + b"".join(parts[at + 1] + parts[at] for at in range(1, 11, 2)) + b"\x3b",
    )
    yield "gif background", b"".join(animation(head=screen(background=GREEN), disposals=(2,) * 5))
    own = COLOURS[::-1]
    table = [image(place, plain(place, at % 4), table=own) for at, place in enumerate(PLACES)]
    yield "gif own tables", screen() + b"".join(control() + one for one in table) + b"\x3b"
    yield "gif own tables only", screen(table=b"") + b"".join(control() + one for one in table) + b"\x3b"
    yield "gif first frame small", screen() + b"".join(parts[3:])
    yield "gif first frame small transparent", b"".join([screen(), *animation(transparent=GREEN)[3:]])
    yield (
        "gif frame outside",
        parts[0] + parts[1] + parts[2] + control() + image((52, 40, 80, 60), plain((0, 0, 80, 60), RED)) + b"\x3b",
    )
    yield "gif comment between", b"".join(parts[:3]) + b"\x21\xfe\x05hello\x00" + b"".join(parts[3:])
    yield "gif text between", b"".join(parts[:3]) + b"\x21\x01\x0c" + bytes(12) + b"\x02hi\x00" + b"".join(parts[3:])


def still() -> Iterator[tuple[str, bytes]]:
    frame = image(PLACES[0], quarters())
    yield "gif still", screen() + frame + b"\x3b"
    yield "gif 87a", screen(version=b"87a") + frame + b"\x3b"
    yield "gif still interlaced", screen() + image(PLACES[0], plain(PLACES[0], RED, BLUE), interlaced=True) + b"\x3b"
    yield "gif still transparent", screen() + control(transparent=GREEN) + frame + b"\x3b"
    yield "gif transparent beyond the table", screen() + control(transparent=200) + frame + b"\x3b"
    yield "gif screen of no size", screen((0, 0)) + frame + b"\x3b"
    yield "gif screen smaller than its frame", screen((48, 36)) + frame + b"\x3b"
    yield "gif screen larger than its frame", screen((192, 144)) + frame + b"\x3b"
    yield "gif without colours", screen(table=b"") + frame + b"\x3b"
    whole = screen() + frame + b"\x3b"
    for percent in (99, 90, 50, 20):
        yield f"gif cut at {percent}", whole[: len(whole) * percent // 100]
    yield "gif without end", whole[:-1]
    yield "gif trailer", whole + b"PK\x03\x04" * 500
    yield "gif zeros before the frame", screen() + bytes(3) + frame + b"\x3b"
    yield "gif zeros behind the frame", screen() + frame + bytes(3) + b"\x3b"
    yield "gif unknown block", screen() + b"\x55" + frame + b"\x3b"
    yield "gif unknown extension", screen() + b"\x21\x77\x03abc\x00" + frame + b"\x3b"
    yield "gif no frame", screen() + b"\x3b"
    yield "gif empty frame", screen() + b"\x2c" + bytes(9) + b"\x02\x00\x3b"
    yield "gif code size 12", whole.replace(frame, frame[:10] + b"\x0c" + frame[11:])
    yield "gif code size 0", whole.replace(frame, frame[:10] + b"\x00" + frame[11:])
    yield "gif fewer pixels", screen() + image(PLACES[0], quarters()[: WIDTH * 40]) + b"\x3b"
    yield "gif more pixels", screen() + image(PLACES[0], quarters() + bytes(999)) + b"\x3b"


def broken() -> Iterator[tuple[str, bytes]]:
    whole = b"".join(animation())
    for percent in (99, 90, 60, 30):
        yield f"gif animation cut at {percent}", whole[: len(whole) * percent // 100]
    yield "gif animation without end", whole[:-1]
    yield "gif animation trailer", whole + b"PK\x03\x04" * 500
    parts = animation()
    yield "gif animation ends twice", b"".join(parts[:5]) + b"\x3b" + b"".join(parts[5:])
    yield "gif animation zeros between", b"".join(parts[:5]) + bytes(4) + b"".join(parts[5:])
    yield "gif animation garbage between", b"".join(parts[:5]) + b"\x99" + b"".join(parts[5:])
    yield "gif animation empty frame", b"".join(parts[:5]) + b"\x2c" + bytes(9) + b"\x02\x00" + b"".join(parts[5:])
    yield (
        "gif animation broken frame",
        b"".join(parts[:4]) + parts[4][:11] + b"\x05\xff\xff\xff\xff\xff\x00" + b"".join(parts[5:]),
    )


def cases() -> Iterator[tuple[str, bytes]]:
    yield from still()
    yield from moving()
    yield from broken()
