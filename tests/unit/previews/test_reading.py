import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediarepo.model.previews import Page
from mediarepo.previews.build import compose
from mediarepo.previews.page import is_page_type, read_page
from mediarepo.previews.structured_data import read_linked_data

URL = "https://a.example/b/c"
PIECES = [
    "<title>", "</title>", "<p>", "</p>", "<a href=x>", "</a>", "<h1>", "</h1>", "<template>", "</template>",
    "<frameset>",
    "<svg>", "</svg>", "<table>", "<td>", "</table>", "<script type=application/ld+json>", "</script>",
    '{"@type":"Article"',
    "<meta property=og:title content='x'>", "<meta property='og:image' content='//'>", "<base href='//['>", "<!--",
    "-->",
    "<img srcset=', ,'>", "<body hidden>", "</body>", "<html lang=x>", "</html>", "<head>",
    "<![CDATA[", "]]>", "<?xml ?>",
    "text ", "&lt;", "&#x110000;", "\ud7ff\U0001f600", "<select>", "<b a='", "'>", "<noscript>", "<frame>",
    "<plaintext>",
]  # fmt: skip


def read(html: str) -> Page:
    page = read_page(html.encode("utf-8", "replace"), url=URL, content_type="text/html; charset=utf-8")
    assert page is not None
    return page


@given(st.lists(st.sampled_from(PIECES), max_size=60))
def test_whatever_markup_comes_it_is_read(pieces: list[str]) -> None:
    preview = compose(read("".join(pieces)))

    assert preview.values["og:title"]
    assert set(preview.rules) == set(preview.values)


@given(
    st.binary(max_size=300),
    st.sampled_from([None, "text/html", "application/xml", "text/plain", "application/rss+xml"]),
)
def test_whatever_bytes_come_they_are_read(body: bytes, content_type: str | None) -> None:
    page = read_page(body, url=URL, content_type=content_type)

    assert page is None or page.url == URL


def test_what_follows_the_largest_size_is_left_out() -> None:
    body = b"<title>x</title>" + b" " * 100 + b"<meta property=og:title content=late>"

    page = read_page(body, url=URL, content_type="text/html", max_bytes=100)

    assert page is not None
    assert page.meta == ()
    assert page.title == "x"


def test_parts_nobody_sees_say_nothing() -> None:
    hidden = "".join(
        f"<{tag}>secret</{tag.split()[0]}>"
        for tag in ("nav", "script", "style", "header", "footer", "aside", "noscript", "template", "svg", "div hidden",
                    "div style='display:none'", "p class='sr-only'", "div role=dialog", "span aria-hidden=true",
                    "button",
                    "iframe", "textarea", "select", "dialog", "figcaption")
    )  # fmt: skip

    assert [block.text for block in read(f"<body>{hidden}<p>seen</p></body>").blocks] == ["seen"]


def test_titles_of_drawings_are_not_the_pages() -> None:
    assert read("<svg><title>Icon</title></svg><title>Page</title><title>Other</title>").title == "Page"


def test_headings_in_a_header_count_and_in_a_menu_do_not() -> None:
    page = read("<nav><h1>Menu</h1></nav><header><h1>Seen</h1></header><h2 hidden>No</h2>")

    assert page.headings == (("h1", "Seen"),)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("0;url=/x", "https://a.example/x"),
        ("5; URL='https://d.example/'", "https://d.example/"),
        ("0, /x", "https://a.example/x"),
        ("60; url=/x", None),
        ("5", None),
        ("0;url=javascript:alert(1)", None),
    ],
)
def test_a_page_may_lead_elsewhere_at_once(content: str, expected: str | None) -> None:
    assert read(f'<meta http-equiv="Refresh" content="{content}">').refresh_url == expected


def test_oembed_answers_are_discovered() -> None:
    page = read(
        "<link rel='alternate' type='application/json+oembed' href='/o?a&amp;b'>"
        "<link rel='alternate nofollow' type='text/xml+oembed; charset=utf-8' href='//o.example/'>"
        "<link rel=alternate type=application/json+oembed href='file:///x'>"
        "<link rel=alternate type=application/rss+xml href=/rss>"
    )

    assert page.oembed_urls == ("https://a.example/o?a&b", "https://o.example/")


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("text/html; charset=x", True),
        ("Application/XHTML+xml", True),
        ("application/rss+xml", True),
        ("text/plain", True),
        ("", True),
        (None, True),
        ("image/svg+xml", False),
        ("audio/mpeg", False),
        ("application/json", False),
        ("application/pdf", False),
        ("text/css", False),
    ],
)
def test_headers_tell_whether_a_body_is_worth_reading(content_type: str | None, *, expected: bool) -> None:
    assert is_page_type(content_type) is expected
    assert read_page(b"", url=URL, content_type="image/svg+xml") is None


def test_a_thing_is_found_wherever_it_stands_in_linked_data() -> None:
    scripts = [
        '{"@graph": [{"@type": "WebSite", "name": "Site"}, {"@type": "WebPage", "name": "Page"}]}',
        '<!-- --> [{"@type": ["Thing2", "schema:NewsArticle"], "headline": "First"}]',
        '[{"@type": ["Person", "Organization"], "name": "Owner"}, {"@type": "VideoObject", "name": "Clip"}]',
        '{"@type": "WebPage", "mainEntity": {"@type": "https://schema.org/Recipe", "name": "Soup", "image": "s.png"}};',
    ]

    assert [(thing.type, thing.title, thing.is_site) for thing in read_linked_data(scripts)] == [
        ("thing2", "First", False),
        ("recipe", "Soup", False),
        ("videoobject", "Clip", False),
        ("webpage", "Page", False),
        ("webpage", None, False),
        ("website", "Site", True),
    ]


def test_a_list_of_things_of_one_kind_is_not_what_the_page_is_about() -> None:
    listed = ",".join('{"@type": "Product", "name": "p"}' for _ in range(4))

    assert read_linked_data([f'[{listed}, {{"@type": "ItemList", "name": "l"}}]']) == ()


def test_a_videos_poster_is_a_picture_and_its_text_is_none() -> None:
    page = read("<video poster=/p.jpg width=9>Get a browser<img src=/no.jpg></video>")

    assert [picture.url for picture in page.pictures] == ["https://a.example/p.jpg", "https://a.example/no.jpg"]
    assert page.blocks == ()


@pytest.mark.parametrize(
    "name",
    ["layout has-sidebar", "content-sidebar-wrap", "api-reference", "post tag-cookies", "paywall", "no-toc", "tocsin"],
)
def test_names_that_only_mention_what_is_beside_the_text_hide_nothing(name: str) -> None:
    assert [block.text for block in read(f'<div class="{name}" id="{name}"><p>seen</p></div>').blocks] == ["seen"]


@pytest.mark.parametrize("name", ["sidebar", "x sidebar-left", "cookie-banner", "js-consent", "toc", "skip-link x"])
def test_names_of_what_is_beside_the_text_hide_it(name: str) -> None:
    assert read(f'<div class="{name}"><p>no</p></div><div id="{name}"><p>no</p></div>').blocks == ()


@pytest.mark.parametrize("content_type", ["text/html", "text/plain", None, "application/xml"])
def test_a_file_that_is_called_a_page_is_a_file(content_type: str | None) -> None:
    body = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\1\0\0\0\1\0\x08\x06" + bytes(range(256)) * 8

    assert read_page(body, url=URL, content_type=content_type) is None


@pytest.mark.parametrize("body", [b"<title>a\0\0\0b</title>", "\ufeff<title>ab</title>".encode("utf-16-le")])
def test_a_page_with_many_nuls_stays_a_page(body: bytes) -> None:
    page = read_page(body, url=URL, content_type="text/html")

    assert page is not None
    assert page.title == "ab"
