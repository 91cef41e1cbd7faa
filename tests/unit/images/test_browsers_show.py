"""Odd and damaged pictures as Chromium shows them: what it showed of each is written down here."""

import io
import zlib
from functools import cache

import pytest
from PIL import Image

from mediarepo.images.decode import DecodeLimits
from mediarepo.images.rendering import render
from mediarepo.model.media import ThumbnailMethod, ThumbnailSpec
from tests.pictures.browsing import Cells, cells_of
from tests.pictures.varied import gifs, moving_pngs, photographs, png_colours, pngs

BOX = (48, 48, ThumbnailMethod.SCALE)
PLAIN = "33e666ff d91a4cff 5959f2ff 99991aff"
CORNERS = "d21e1fff 1cbe1bff 1d1ed1ff eeeeeeff"
SHOWN = {
    "png type 2 depth 16 key": "00000000 d9194cff 5959f3ff 999919ff",
    "png type 2 depth 16 key that is none": PLAIN,
    "png type 2 depth 16 interlaced key that is none": PLAIN,
    "trns behind the picture": PLAIN,
    "trns before the palette": PLAIN,
    "trns in a comment": PLAIN,
    "trns behind a long comment": "00000000 d91a4cff 5959f2ff 99991aff",
    "png cut at 75": "38e666ff d81a4cff 00000000 00000000",
    "png cut at 50": "38e666ff d81a4cff 00000000 00000000",
    "png fewer rows": "38e666ff d81a4cff 00000000 00000000",
    "png interlaced cut at 50": PLAIN,
    "png picture bad checksum": PLAIN,
    "chunk gAMA long": PLAIN,
    "chunk gAMA behind the picture": PLAIN,
    "chunk cICP behind the picture": PLAIN,
    "colours gAMA huge": "ffffffff ffffffff ffffffff ffffffff",
    "colours gAMA tiny": "000000ff 000000ff 000000ff 000000ff",
    "colours iCCP nameless": PLAIN,
    "colours cICP 9 16 0 1": "00ff00ff ff0000ff 0000ffff cfc900ff",
    "colours cICP 9 18 0 1": "00f401ff ff0035ff 0035f0ff 817e00ff",
    "colours cICP 12 16 0 1": "00ff00ff ff0000ff 0a0affff c9c900ff",
    "colours cICP 9 14 0 1": "00f13cff ff003eff 284dfcff 989400ff",
    "colours cICP 1 7 0 1": "45e975ff dd2c5dff 6969f4ff a4a42cff",
    "colours cICP 11 17 0 1": "00f03cff eb0037ff 4a49ffff 939300ff",
    "colours cICP 10 8 0 1": "00ff90ff ff00a5ff 46a4ffff ecc82eff",
    "colours cICP 12 13 0 0": PLAIN,
    "colours cICP 22 13 0 1": "1ee166ff db2c4bff 5963f2ff 999718ff",
    "colours gAMA 1.0 and cHRM 0": PLAIN,
    "colours gAMA 2.2 and cHRM on a line": PLAIN,
    "colours cICP 2 2 0 1 and iCCP P3": "e63366ff 1ad94cff 5959f2ff 99991aff",
    "colours iCCP no profile and gAMA 1.0": "7cf4aaff ee5a94ff 9f9ff9ff cbcb5aff",
    "colours type 3 depth 8 cICP 12 13 0 1": PLAIN,
    "png turned 6 behind the picture": PLAIN,
    "png turned 6 with Exif in front": PLAIN,
    "png turned 6": "5959f2ff 33e666ff 99991aff d91a4cff",
    "gif first frame small": "14c814ff 00000000 00000000 00000000",
    "gif screen larger than its frame": "dc1414ff 00000000 00000000 00000000",
    "gif cut at 50": "dc1414ff 14c814ff 00000000 00000000",
    "gif fewer pixels": "dc1414ff 14c814ff 00000000 00000000",
    "gif animation cut at 30": "1414dcff 1414dcff 00000000 00000000",
    "jpeg RGB progressive cut at 25": "d21e20ff 1bbe1bff 1c1dd1ff eeedeeff",
    "jpeg L progressive cut at 50": "545454ff 7b7b7bff 323232ff eeeeeeff",
    "jpeg exif a long": CORNERS,
    "jpeg exif two values": CORNERS,
    "jpeg exif wrong magic": CORNERS,
    "jpeg exif little": "1d1ed1ff d21e1fff eeeeeeff 1cbe1bff",
}
"""The cells in the corners, top left, top right, bottom left, bottom right: red, green, blue, alpha, premultiplied."""
RED, VIOLET, GREEN, NONE = (220, 20, 20, 255), (120, 20, 120, 255), (20, 200, 20, 255), (0, 0, 0, 0)
THIN_BLUE, BLUE, WHITE = (10, 10, 110, 128), (20, 20, 220, 255), (240, 240, 240, 255)
MOVING = {
    "apng dispose 0 blend 1": (0, 200, [RED, VIOLET, VIOLET, VIOLET], [RED, VIOLET, GREEN, GREEN]),
    "apng dispose 1 blend 1 from the first": (0, 200, [RED, THIN_BLUE, NONE, NONE], [RED, THIN_BLUE, GREEN, NONE]),
    "apng claims more": (0, 200, [RED, THIN_BLUE, THIN_BLUE, THIN_BLUE], [RED, THIN_BLUE, GREEN, GREEN]),
    "apng claims billions": (0, 200, [RED, THIN_BLUE, THIN_BLUE, THIN_BLUE], [RED, THIN_BLUE, GREEN, GREEN]),
    "apng bad crc fdAT 5": (0, 200, [RED, THIN_BLUE, THIN_BLUE, THIN_BLUE], [RED, THIN_BLUE, GREEN, GREEN]),
    "apng hidden 2": (0, 200, [RED, THIN_BLUE], [RED, THIN_BLUE]),
    "apng delay 100/0": (0, 1000, [RED, THIN_BLUE, THIN_BLUE, THIN_BLUE], [RED, THIN_BLUE, GREEN, GREEN]),
    "apng cut at 60": (0, 200, [RED, THIN_BLUE], [RED, THIN_BLUE]),
    "apng plays 2": (2, 200, [RED, THIN_BLUE, THIN_BLUE, THIN_BLUE], [RED, THIN_BLUE, GREEN, GREEN]),
    "gif disposal 4": (1, 200, [BLUE, GREEN, NONE, NONE, GREEN], [BLUE, GREEN, WHITE, NONE, GREEN]),
    "gif loop 1": (2, 200, [BLUE, GREEN, GREEN, GREEN, GREEN], [BLUE, GREEN, WHITE, WHITE, GREEN]),
    "gif loop by another name": (4, 200, [BLUE, GREEN, GREEN, GREEN, GREEN], [BLUE, GREEN, WHITE, WHITE, GREEN]),
    "gif animation cut at 90": (1, 200, [BLUE, GREEN, GREEN, GREEN], [BLUE, GREEN, WHITE, WHITE]),
    "gif delay 1": (1, 100, [BLUE, GREEN, GREEN, GREEN, GREEN], [BLUE, GREEN, WHITE, WHITE, GREEN]),
}
"""How often it is played (0: for ever), how long each frame lasts (ms), and two cells of each frame."""


@cache
def pictures() -> dict[str, bytes]:
    return {
        name: data for module in (pngs, png_colours, moving_pngs, gifs, photographs) for name, data in module.cases()
    }


def thumbnail(data: bytes, limits: DecodeLimits, *, animated: bool = False) -> Image.Image:
    (made,) = render(data, [ThumbnailSpec(*BOX, animated=animated)], limits)
    return Image.open(io.BytesIO(made.data or data))


def near(found: tuple[int, ...], expected: tuple[int, ...], by: int) -> bool:
    return all(abs(a - b) <= by for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", SHOWN)
def test_stills_look_as_in_chromium(limits: DecodeLimits, name: str) -> None:
    cells: Cells = cells_of(thumbnail(pictures()[name], limits))

    expected = [tuple(bytes.fromhex(one)) for one in SHOWN[name].split()]
    assert all(near(cells[at], one, 10) for at, one in zip((0, 3, 12, 15), expected, strict=True)), cells


@pytest.mark.parametrize("name", MOVING)
def test_animations_look_as_in_chromium(limits: DecodeLimits, name: str) -> None:
    plays, duration_ms, first, second = MOVING[name]
    moving = thumbnail(pictures()[name], limits, animated=True)

    assert getattr(moving, "n_frames", 1) == len(first)
    assert moving.info["loop"] == plays
    for number, expected in enumerate(zip(first, second, strict=True)):
        moving.seek(number)
        cells = cells_of(moving)
        assert moving.info["duration"] == duration_ms
        assert near(cells[0], expected[0], 18), cells
        assert near(cells[5], expected[1], 18), cells


@pytest.mark.parametrize(
    "name", ["apng without fcTL 4", "apng unknown disposal", "apng frame outside", "apng one frame"]
)
def test_what_is_no_animation_stands_still(limits: DecodeLimits, name: str) -> None:
    shown = thumbnail(pictures()[name], limits, animated=True)

    assert getattr(shown, "n_frames", 1) == 1
    assert near(cells_of(shown)[0], RED, 4)


def test_an_animation_that_is_played_65536_times_moves(limits: DecodeLimits) -> None:
    assert thumbnail(pictures()["gif loop 65535"], limits, animated=True).info["loop"] == 65_535


@pytest.mark.parametrize("dark", [0, 20, 60, 100, 140, 148])
def test_hdr_greys_are_halved_up_to_white(limits: DecodeLimits, dark: int) -> None:
    measured = {0: 0, 20: 1, 60: 26, 100: 76, 140: 163, 148: 187}
    row = b"\x00" + bytes((dark,)) * 3 * 96
    data = pngs.written(
        pngs.head(2, 8), (b"cICP", bytes((9, 16, 0, 1))), (b"IDAT", zlib.compress(row * 72)), (b"IEND", b"")
    )

    cells = cells_of(thumbnail(data, limits))
    assert all(near(cell, (measured[dark],) * 3 + (255,), 3) for cell in cells)


def test_colours_of_an_avif_are_those_of_the_item_that_is_shown(limits: DecodeLimits) -> None:
    expected = cells_of(thumbnail(pictures()["avif 4:2:0"], limits))

    for name in ("avif colours of no item 9 16", "avif colours of no item 1 8", "avif of many brands"):
        cells = cells_of(thumbnail(pictures()[name], limits))
        assert all(near(one, other, 6) for one, other in zip(cells, expected, strict=True)), name


def test_exif_of_an_avif_turns_nothing_that_its_container_does_not_turn(limits: DecodeLimits) -> None:
    assert thumbnail(pictures()["avif exif that turns more than irot"], limits).size == (48, 36)
    assert thumbnail(pictures()["avif turned 6"], limits).size == (36, 48)
