import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediarepo.model.previews import OEmbed
from mediarepo.previews.oembed import read_oembed

URL = "https://a.example/oembed?x"


def of(fields: dict[str, object]) -> OEmbed:
    found = read_oembed(json.dumps(fields).encode(), url=URL, content_type="application/json")
    assert found is not None
    return found


def test_a_video_has_its_thumbnail_and_no_html() -> None:
    found = of(
        {
            "type": "video",
            "version": 1.0,
            "title": "T",
            "author_name": "A",
            "provider_name": "P",
            "thumbnail_url": "//i.a.example/t.jpg",
            "thumbnail_width": "480",
            "thumbnail_height": 360,
            "html": "<iframe src='https://a.example/embed'>no frames</iframe><script>x</script>",
            "cache_age": 3600,
        }
    )

    assert (found.title, found.author_name, found.provider_name, found.text) == ("T", "A", "P", None)
    assert found.picture is not None
    assert (found.picture.url, found.picture.width, found.picture.height) == ("https://i.a.example/t.jpg", 480, 360)


def test_a_photo_is_its_own_picture() -> None:
    found = of({"type": "photo", "url": "/p.jpg", "width": 10, "thumbnail_url": "/t.jpg"})

    assert found.picture is not None
    assert found.picture.url == "https://a.example/p.jpg"


def test_a_photo_without_an_address_has_its_thumbnail() -> None:
    found = of({"type": "photo", "url": "javascript:x", "thumbnail_url": "/t.jpg"})

    assert found.picture is not None
    assert found.picture.rule == "oEmbed thumbnail_url"


def test_a_link_has_no_picture_of_its_page() -> None:
    assert of({"type": "link", "url": "https://a.example/"}).picture is None


def test_rich_html_becomes_its_text() -> None:
    html = "<style>p{}</style><blockquote><p>One &amp; <b>two</b></p><p hidden>no</p>&mdash; Three<script>x()</script>"

    assert of({"type": "rich", "html": html}).text == "One & two \u2014 Three"


def test_xml_is_read_too() -> None:
    fields = b"<type>rich</type><title>A &amp; B</title><html>&lt;p&gt;x y&lt;/p&gt;</html>"
    body = b'<?xml version="1.0" encoding="utf-8"?><oembed>' + fields + b"</oembed>"

    found = read_oembed(body, url=URL, content_type="text/xml")

    assert found == OEmbed(type="rich", title="A & B", text="x y")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", None),
        (b"null", "application/json"),
        (b"[]", "application/json"),
        (b'"x"', "application/json"),
        (b"{}", "application/json"),
        (b'{"type": "vid', "application/json"),
        (b"<html><title>404</title></html>", "text/html"),
        (b"<oembed></oembed>", "text/xml"),
        (b"<oembed", "text/xml"),
        (b'<!DOCTYPE o [<!ENTITY x SYSTEM "file:///etc/passwd">]><oembed><title>&x;</title></oembed>', "text/xml"),
        (b"{}", "text/xml"),
    ],
)
def test_what_is_no_oembed_answer_is_none(body: bytes, content_type: str | None) -> None:
    assert read_oembed(body, url=URL, content_type=content_type) is None


@given(st.binary(max_size=200), st.sampled_from([None, "text/xml", "application/json"]))
def test_any_bytes_are_an_answer_or_none(body: bytes, content_type: str | None) -> None:
    assert isinstance(read_oembed(body, url=URL, content_type=content_type), OEmbed | None)
