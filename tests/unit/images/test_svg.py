"""SVG, by the extra `svg`, through the real sandboxed worker."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mediarepo.images.errors import PictureError
from mediarepo.images.formats import PictureFormat, sniff
from mediarepo.images.svg import draw
from mediarepo.images.worker_pool import ImageDimensions, Rendered
from tests.pictures.drawn import corners, encoded
from tests.pictures.screen import Screen
from tests.pictures.vectors import CORNERS, DEADLY, GOOD, drawing, hostile_drawings
from tests.unit.images.test_rendering import looks_like


@pytest.fixture(scope="module")
async def screen() -> AsyncIterator[Screen]:
    made = Screen(svg=True)
    async with made.pool:
        yield made


@pytest.mark.parametrize("name", GOOD)
async def test_drawings_are_shown(screen: Screen, name: str) -> None:
    picture = await screen.largest(GOOD[name])

    assert picture.size in {(400, 300), (800, 600)}
    assert picture.format == "PNG"
    assert looks_like(picture)


async def test_what_is_transparent_stays_so(screen: Screen) -> None:
    picture = await screen.largest(drawing('<rect width="200" height="300" fill="red"/>'))

    assert [picture.convert("RGBA").getpixel((x, 150)) for x in (100, 300)] == [(255, 0, 0, 255), (0, 0, 0, 0)]


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ('width="40" height="30"', (40, 30)),
        ('width="1in" height="2in"', (96, 192)),
        ('width="40" viewBox="0 0 400 300"', (40, 30)),
        ('height="30" viewBox="0 0 400 300"', (40, 30)),
        ("", (300, 150)),
        ('viewBox="0 0 40000 30000"', (1633, 1225)),
    ],
)
async def test_the_size_of_a_drawing_is_that_of_browsers(
    screen: Screen, attributes: str, size: tuple[int, int]
) -> None:
    assert await screen.measure(drawing(CORNERS, attributes)) == ImageDimensions(PictureFormat.SVG, *size)


async def test_drawings_are_refused_where_they_are_not_switched_on() -> None:
    plain = Screen()
    async with plain.pool:
        with pytest.raises(PictureError, match="unsupported_format"):
            await plain.render(GOOD["plain"])
        (pid,) = plain.pool.pids

        assert "resvg" not in Path(f"/proc/{pid}/maps").read_text()


@pytest.mark.parametrize("name", sorted(set(hostile_drawings()) - DEADLY))
async def test_no_drawing_takes_the_worker_over_its_limits(screen: Screen, name: str) -> None:
    assert isinstance(await screen.withstands(hostile_drawings()[name]), Rendered | PictureError)


@pytest.mark.parametrize("name", sorted(DEADLY))
async def test_a_drawing_that_takes_too_long_ends_with_its_time(name: str) -> None:
    short = Screen(svg=True, cpu_limit_s=1)
    async with short.pool:
        outcome = await short.withstands(hostile_drawings()[name], deadly=True)

    assert isinstance(outcome, Rendered) or outcome.reason in {"too_much_work", "worker_died", "out_of_memory"}


@pytest.mark.parametrize("start", ["", "file://", " ", "data:image/png;base64,AAAA#"])
@pytest.mark.parametrize("attribute", ["href", "xlink:href"])
def test_no_picture_outside_of_the_document_is_drawn(tmp_path: Path, start: str, attribute: str) -> None:
    """Not even without the sandbox, which has no files to show."""
    path = tmp_path / "secret.png"
    path.write_bytes(encoded(corners(40, 30), "PNG"))

    picture = draw(drawing(f'<image width="400" height="300" {attribute}="{start}{path}"/>'), 1_000_000)

    assert picture.getchannel("A").getextrema() == (0, 0)


def test_only_svg_is_taken_for_it() -> None:
    assert sniff(b"<!DOCTYPE html><html><svg>") is None
    assert sniff(b"<svgfoo>") is None
    assert sniff(b"<!---->" * 146) is None
    assert sniff(b"<?xml version='1.0'?>\n<!-- a --> <!-- b -->\n<svg ") is PictureFormat.SVG
