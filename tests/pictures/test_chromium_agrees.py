"""Thumbnails and a real Chromium, given the very same pictures: the same is seen, or there is a reason why not."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mediarepo.config.media import ThumbnailsConfig
from mediarepo.images.worker_pool import WorkerPool
from tests.pictures.browsing import difference, in_chromium, in_thumbnails
from tests.pictures.varied import gifs, moving_pngs, photographs, png_colours, pngs
from tests.support.chromium import chromium

pytestmark = pytest.mark.heavy

COLOURS_APART = 10
GROUPS: dict[str, Callable[[], Iterator[tuple[str, bytes]]]] = {
    "png": pngs.cases,
    "png colours": png_colours.cases,
    "apng": moving_pngs.cases,
    "gif": gifs.cases,
    "photograph": photographs.cases,
}
REASONS: dict[str, list[str]] = {
    "a picture that can be read is shown; Chromium gives up at chunks that it does not expect, and at broken data": [
        "png comment between parts", "png picture overwritten", "png without palette", "png wrong filter",
        "png unknown critical", "png second header", "png header not first", "chunk acTL whole", "chunk acTL twice",
        *(f"chunk fcTL {way}" for way in ("whole", "empty", "long", "cut", "twice")),
        "chunk b'\\x00\\x01\\x02\\x03'", "chunk b'IDAt'", "apng bad crc fcTL 2", "apng without fcTL 2",
        "gif zeros before the frame", "gif unknown block", "gif code size 0", "jpeg RGB cut at 25",
        "avif of many brands",
    ],
    "colours that are not described as they should be are taken for sRGB; Chromium gives the picture up": [
        "colours cICP 12 13 1 1", "colours cICP 12 13 1 1 and gAMA 1.0", "avif profile broken", "avif profile cut",
        "avif profile Lab", "avif nclx 1 11",
    ],
    "of a transparent colour only the bits that a sample has count, as the PNG specification (11.3.1.1) says": [
        "png type 0 depth 1 key with higher bits", "png type 0 depth 4 key with higher bits",
    ],
    "colours that a palette lacks are black, as elsewhere; Chromium repeats the last one": ["png short palette"],
    "where nothing may move, the picture for those that know no animation is shown; Chromium never shows it": [
        "apng hidden 1", "apng hidden 2", "apng hidden 4",
    ],
    "a frame that is there is shown, whatever becomes of the end of the file": [
        "apng cut at 99", "apng without end", "apng broken frame", "gif animation broken frame",
    ],
    "of a frame that was cut, as much is shown as can be unpacked": ["apng cut at 30"],
    "WebP counts to 65535": ["gif loop 65535"],
    "WebP joins frames that look alike": ["gif animation empty frame"],
    "thumbnails of JPEG and BMP are opaque: what is missing is grey, white or black, not transparent": [
        *(f"jpeg {mode} cut at {left}" for mode in ("L", "CMYK") for left in photographs.CUTS),
        *(f"jpeg RGB cut at {left}" for left in (99, 95, 90, 75, 50)),
        *(f"jpeg {mode} last byte cut" for mode in ("L", "RGB", "CMYK")), "jpeg zeros",
        *(f"bmp {mode} cut at {left}" for mode in ("P", "RGB") for left in (90, 75, 50, 25)),
    ],
    "broken data is guessed in different ways": ["jpeg arithmetic header", "jpeg taller than its data"],
    "EXIF turns WebP as it turns all others; Chromium does not read it there": [
        *(f"webp turned {orientation}" for orientation in range(2, 9)), "webp turned 6 without a name",
        "webp animation turned",
    ],
    "the profile of a WebP counts for animations too": ["webp animation profile"],
    "transparency, and all of an animation that has some, is as it was encoded; Chromium takes it for narrow range": [
        "avif RGBA", "avif RGBA trailer", "avif animation", "avif animation trailer",
        *(f"avif duration {duration}" for duration in (0, 1, 10, 11, 20, 1000)), *(f"avif loop {n}" for n in (1, 2, 5)),
    ],
}  # fmt: skip
DIFFERENT = {name: reason for reason, names in REASONS.items() for name in names}


@pytest.mark.parametrize("group", GROUPS)
async def test_thumbnails_and_chromium_show_the_same(tmp_path: Path, group: str) -> None:
    pictures = dict(GROUPS[group]())
    page, config = tmp_path / "page.html", ThumbnailsConfig(workers=1)
    page.write_text("<!doctype html>")
    async with chromium(tmp_path / "profile") as browser:
        browsed = await in_chromium(browser, page.as_uri(), pictures)

    found = dict[str, str]()
    async with WorkerPool(config) as pool:
        for name, data in pictures.items():
            told = difference(await in_thumbnails(pool, config, data), browsed[name], COLOURS_APART)
            if told is not None:
                found[name] = told

    unexpected = {name: told for name, told in found.items() if name not in DIFFERENT}
    assert unexpected == {}
    assert {name for name in pictures if name in DIFFERENT} == set(found)


def test_there_are_hundreds_of_pictures_and_every_difference_is_one_of_them() -> None:
    pictures = [name for cases in GROUPS.values() for name, _ in cases()]

    assert len(pictures) == len(set(pictures)) >= 300
    assert set(DIFFERENT) <= set(pictures)
