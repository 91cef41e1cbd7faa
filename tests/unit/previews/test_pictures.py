import pytest

from mediarepo.model.previews import OEmbed, Page, Picture
from mediarepo.previews.image_candidates import (
    image_candidate,
    image_candidates,
    is_too_small_to_show,
    largest_source,
    parse_number,
)

URL = "https://a.example/b/"


@pytest.mark.parametrize(
    ("srcset", "expected"),
    [
        ("a.png", "a.png"),
        ("a.png 1x, b.png 2x", "b.png"),
        ("a.png 1x,b.png 2x", "b.png"),
        ("a.png 320w, b.png 1280w, c.png 5000w", "b.png"),
        ("c.png 5000w, d.png 9000w", "c.png"),
        ("https://x/a,b,c.png 320w,\n https://x/d,e.png 640w", "https://x/d,e.png"),
        ("a.png, b.png 2x", "b.png"),
        (" , ,a.png,", "a.png"),
        ("data:image/png;base64,AA== 1x, a.png 2x", "a.png"),
        ("a.png 1.5x, b.png ..x, c.png 9z", "a.png"),
        ("", None),
        (" , ", None),
        ("data:image/gif;base64,AA 1x", None),
    ],
)
def test_the_largest_of_a_srcset_that_fits_is_chosen(srcset: str, expected: str | None) -> None:
    assert largest_source(srcset) == expected


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"src": "x.png"}, URL + "x.png"),
        ({"src": "data:image/gif;base64,AA", "data-src": "x.png"}, URL + "x.png"),
        ({"src": "small.png", "srcset": "large.png 1000w"}, URL + "large.png"),
        ({"src": "blank.gif", "data-lazy-srcset": "l.png 900w"}, URL + "l.png"),
        ({"data-src": "javascript:x", "src": "x.png"}, URL + "x.png"),
        ({"src": "data:,x"}, None),
        ({"alt": "x"}, None),
    ],
)
def test_an_image_is_found_where_a_script_would_find_it(attributes: dict[str, str], expected: str | None) -> None:
    picture = image_candidate(attributes, URL, "img")

    assert (picture.url if picture else None) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("300", 300),
        (" 300px ", 300),
        ("300.5", 300),
        ("100%", None),
        ("auto", None),
        ("0", None),
        ("", None),
        ("-3", None),
    ],
)
def test_a_size_is_a_number_of_pixels(text: str, expected: int | None) -> None:
    assert parse_number(text) == expected


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(1, 1, True), (16, None, True), (49, 500, True), (1000, 100, True), (600, 200, False), (None, None, False)],
)
def test_icons_and_lines_are_too_small(width: int | None, height: int | None, *, expected: bool) -> None:
    assert is_too_small_to_show(Picture(url=URL, rule="img", width=width, height=height)) is expected


def meta(*pairs: tuple[str, str]) -> Page:
    return Page(url=URL, base_url=URL, meta=pairs)


def test_properties_belong_to_the_image_before_them() -> None:
    page = meta(
        ("og:image", "1.png"),
        ("og:image:secure_url", "https://s.example/1.png"),
        ("og:image:width", "100"),
        ("og:image", "2.png"),
        ("og:image:alt", "<b>Two</b>"),
        ("og:image:url", "2.png"),
        ("og:image:url", "3.png"),
    )

    found = image_candidates(page, None, 5)

    assert [(one.url, one.width, one.alt) for one in found] == [
        ("https://s.example/1.png", 100, None),
        (URL + "2.png", None, "Two"),
        (URL + "3.png", None, None),
    ]


def test_images_are_tried_from_the_most_to_the_least_deliberate() -> None:
    oembed = OEmbed(type="video", picture=Picture(url="https://o.example/t.jpg", rule="oEmbed thumbnail_url"))
    page = Page(
        url=URL,
        base_url=URL,
        meta=(("twitter:image", "t.png"), ("og:image", "o.png"), ("itemprop:image", "i.png")),
        pictures=(Picture(url=URL + "b.png", rule="img"), Picture(url=URL + "l.png", rule="link rel=image_src")),
    )

    assert [one.rule for one in image_candidates(page, oembed, 9)] == [
        "og:image",
        "twitter:image",
        "oEmbed thumbnail_url",
        "link rel=image_src",
        "itemprop=image",
        "img",
    ]
    assert len(image_candidates(page, oembed, 2)) == 2
    assert image_candidates(page, oembed, 0) == ()
