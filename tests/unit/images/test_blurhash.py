"""BlurHashes, decoded again as the specification says."""

import math

import pytest
from PIL import Image

from mediarepo.images.blurhash import encode_blurhash
from mediarepo.images.worker_pool import Rendered
from mediarepo.model.media import PictureFacts
from tests.pictures.drawn import BLUE, GREEN, RED, WHITE, corners, encoded, jpeg, oriented
from tests.pictures.screen import Screen

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz#$%*+,-.:;=?@[]^_{|}~"


def number(text: str) -> int:
    value = 0
    for letter in text:
        value = value * 83 + DIGITS.index(letter)
    return value


def linear(value: int) -> float:
    share = value / 255
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4


def decoded(blurhash: str, x: float, y: float) -> list[float]:
    """Return the light of red, green and blue at a place, 0 to 1 across and down."""
    across, down = number(blurhash[0]) % 9 + 1, number(blurhash[0]) // 9 + 1
    strongest = (number(blurhash[1]) + 1) / 166
    mean = number(blurhash[2:6])
    waves = [[linear(mean >> shift & 255) for shift in (16, 8, 0)]]
    for at in range(6, len(blurhash), 2):
        value = number(blurhash[at : at + 2])
        steps = [(value // 19**place % 19 - 9) / 9 for place in (2, 1, 0)]
        waves.append([math.copysign(step * step, step) * strongest for step in steps])
    assert len(waves) == across * down
    return [
        sum(
            wave[colour] * math.cos(math.pi * x * (at % across)) * math.cos(math.pi * y * (at // across))
            for at, wave in enumerate(waves)
        )
        for colour in range(3)
    ]


@pytest.mark.parametrize("colour", [RED, GREEN, BLUE, WHITE, (0, 0, 0), (255, 255, 255), (17, 130, 201)])
def test_one_colour_is_itself(colour: tuple[int, int, int]) -> None:
    blurhash = encode_blurhash(Image.new("RGB", (50, 40), colour))

    assert blurhash[0] == "L"
    assert number(blurhash[2:6]) == colour[0] << 16 | colour[1] << 8 | colour[2]


def test_colours_are_where_they_were() -> None:
    blurhash = encode_blurhash(corners(300, 200))

    for (x, y), colour in zip(((0.2, 0.2), (0.8, 0.2), (0.2, 0.8), (0.8, 0.8)), (RED, GREEN, BLUE, WHITE), strict=True):
        seen = decoded(blurhash, x, y)
        assert all(abs(light - linear(value)) < 0.3 for light, value in zip(seen, colour, strict=True)), (x, y, seen)


def test_known_hashes_come_out() -> None:
    """They were made with another encoder, the package blurhash 1.1.5."""
    gradient = Image.linear_gradient("L").resize((32, 32)).convert("RGB")

    assert encode_blurhash(corners(32, 32)) == KNOWN["corners"]
    assert encode_blurhash(gradient) == KNOWN["gradient"]


def test_what_can_be_seen_through_is_white() -> None:
    assert encode_blurhash(Image.new("RGBA", (9, 9), (0, 0, 0, 0))) == encode_blurhash(Image.new("L", (9, 9), 255))


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (2, 2)])
def test_any_size_has_one(size: tuple[int, int]) -> None:
    assert len(encode_blurhash(Image.new("RGB", size, "red"))) == 28


@pytest.mark.parametrize("data", [jpeg(400, 300), encoded(corners(20, 15), "PNG"), oriented(400, 300, 6)])
async def test_the_worker_tells_it_with_the_size(data: bytes) -> None:
    screen, off = Screen(blurhash=True), Screen()
    async with screen.pool, off.pool:
        told, silent = await screen.render(data), await off.render(data)

    assert isinstance(told, Rendered)
    assert told.facts is not None
    assert (told.facts.width, told.facts.height) in {(400, 300), (20, 15)}
    for (x, y), colour in zip(((0.2, 0.2), (0.8, 0.8)), (RED, WHITE), strict=True):
        seen = decoded(told.facts.blurhash, x, y)
        assert all(abs(light - linear(value)) < 0.3 for light, value in zip(seen, colour, strict=True))
    assert isinstance(told.facts, PictureFacts)
    assert silent.facts is None
    assert [one.spec for one in told.thumbnails] == [one.spec for one in silent.thumbnails]


KNOWN = {
    "corners": "L~K1g[QEaMtjRK=doLNaawoLjtay",
    "gradient": "L#HetWoffQof00WBfQWBxuj[fQj[",
}
