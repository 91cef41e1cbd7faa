import pytest

from mediarepo.model.previews import LinkedData, OEmbed, Page, PreviewImage, PreviewLimits
from mediarepo.previews.build import compose, compose_file
from mediarepo.previews.page import read_page
from mediarepo.previews.text import url_title

URL = "https://a.example/b/c"


def page(*meta: tuple[str, str], **more: object) -> Page:
    return Page(url=URL, base_url=URL, meta=meta, **more)  # type: ignore[arg-type]


def test_the_page_of_the_specifications_example_keeps_its_properties() -> None:
    html = b"""<html prefix="og: http://ogp.me/ns#"><head><title>The Rock (1996)</title>
      <meta property="og:title" content="The Rock" /><meta property="og:type" content="video.movie" />
      <meta property="og:url" content="http://films.example/title/tt0117500/" />
      <meta property="og:image" content="test.png" /></head><body></body></html>"""
    read = read_page(html, url="http://127.0.0.1:8000/test.html", content_type="text/html")
    assert read is not None

    preview = compose(read)
    answered = preview.with_image(
        preview.pictures[0],
        PreviewImage(mxc="mxc://a.example/b", content_type="image/png", size_bytes=2239, width=279, height=129),
    )

    assert preview.pictures[0].url == "http://127.0.0.1:8000/test.png"
    assert answered.values == {
        "og:title": "The Rock",
        "og:type": "video.movie",
        "og:url": "http://films.example/title/tt0117500/",
        "og:image": "mxc://a.example/b",
        "og:image:type": "image/png",
        "og:image:width": 279,
        "og:image:height": 129,
        "matrix:image:size": 2239,
    }
    assert answered.rules["og:image"] == "og:image"
    assert "og:image" not in preview.values


def test_open_graph_goes_before_cards_before_oembed_before_linked_data_before_the_title() -> None:
    oembed = OEmbed(type="video", title="oembed", text="embedded")
    data = (LinkedData(type="article", title="data", description="about"),)
    full = page(("og:title", "og"), ("twitter:title", "card"), title="title", linked_data=data)
    card = page(("twitter:title", "card"), title="title", linked_data=data)
    none = page(title="title", linked_data=data)

    assert compose(full, oembed=oembed).rules["og:title"] == "og:title"
    assert compose(card, oembed=oembed).rules["og:title"] == "twitter:title"
    assert compose(none, oembed=oembed).rules["og:title"] == "oEmbed title"
    assert compose(none).rules["og:title"] == "JSON-LD headline or name"
    assert compose(page(title="title")).rules["og:title"] == "title"
    assert compose(none, oembed=oembed).rules["og:description"] == "JSON-LD description"
    assert compose(page(), oembed=oembed).rules["og:description"] == "oEmbed html"


def test_only_known_properties_pass_and_none_that_is_an_address() -> None:
    preview = compose(
        page(
            ("og:title", "x"),
            ("og:video", "https://a.example/v.mp4"),
            ("og:audio:url", "https://a.example/a.mp3"),
            ("og:image", "https://a.example/i.png"),
            ("og:image:width", "1000"),
            ("og:anything", "y"),
            ("article:author", "https://a.example/me"),
            ("article:section", "//a.example/x"),
            ("profile:username", "me"),
        )
    )

    assert set(preview.values) == {"og:title", "og:url", "profile:username"}


@pytest.mark.parametrize(
    ("given_url", "expected"),
    [
        ("https://other.example/x", "https://other.example/x"),
        ("HTTPS://Other.example", "HTTPS://Other.example"),
        ("/x", "https://a.example/x"),
        ("https://other.example/\u00e4", "https://other.example/%C3%A4"),
        ('https://other.example/"><b>', "https://other.example/%22%3E%3Cb%3E"),
        ("javascript:alert(1)", URL),
        ("https://me:pw@other.example/", URL),
        ("https://other.example/" + "x" * 3000, URL),
    ],
)
def test_the_address_is_one_that_can_be_followed(given_url: str, expected: str) -> None:
    assert compose(page(("og:url", given_url))).values["og:url"] == expected


def test_texts_are_as_long_as_the_limits_say() -> None:
    limits = PreviewLimits(max_title_chars=10, max_description_chars=20, max_images=0)

    preview = compose(page(("og:title", "t " * 50), ("og:description", "d " * 50), ("og:image", "i")), limits=limits)

    assert preview.values["og:title"] == "t t t t t\u2026"
    assert len(str(preview.values["og:description"])) <= 20
    assert preview.pictures == ()


def test_a_preview_knows_that_it_says_nothing() -> None:
    assert compose(page()).says_nothing
    assert compose(page()).values == {"og:title": "a.example/b/c", "og:url": URL}
    assert not compose(page(title="x")).says_nothing
    assert not compose(page(("og:image", "x.png"))).says_nothing


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://www.a.example/", "a.example"),
        ("https://a.example/x/y/", "a.example/x/y"),
        ("https://a.example/x/r%C3%A9sum%C3%A9.pdf?x", "r\u00e9sum\u00e9.pdf"),
        ("https://a.example/v1.2", "a.example/v1.2"),
        ("https://a.example/page.html/", "a.example/page.html"),
        ("https://a.example/x.tar.7z", "x.tar.7z"),
        ("https://a.example/%ff.png", "\ufffd.png"),
        ("https://[2600::1]:8443/", "2600::1"),
    ],
)
def test_a_url_makes_a_title(url: str, expected: str) -> None:
    assert url_title(url) == expected


@pytest.mark.parametrize(
    ("content_type", "kind", "pictures"),
    [
        ("image/png", None, [URL]),
        ("image/jpeg; q=1", None, [URL]),
        ("image/svg+xml", None, []),
        ("image/x-icon", None, []),
        ("video/mp4", "video.other", []),
        ("audio/ogg", "music.song", []),
        ("application/pdf", None, []),
        (None, None, []),
    ],
)
def test_a_file_is_called_by_its_name(content_type: str | None, kind: str | None, pictures: list[str]) -> None:
    preview = compose_file(url=URL, content_type=content_type, upload_name=" a\u202efdp<b>.exe ")

    assert preview.values["og:title"] == "afdp .exe"
    assert preview.values.get("og:type") == kind
    assert [picture.url for picture in preview.pictures] == pictures
    assert compose_file(url=URL, content_type=content_type, upload_name=None).values["og:title"] == "a.example/b/c"
