import pytest

from mediarepo.previews.oembed import OEmbedProviders
from mediarepo.previews.url_policy import parse_preview_url

SHIPPED = OEmbedProviders.shipped()


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("https://www.youtube.com/watch?v=abc", "https://www.youtube.com/oembed?url="),
        ("https://youtu.be/abc", "https://www.youtube.com/oembed?url="),
        ("https://vimeo.com/123", "https://vimeo.com/api/oembed.json?url="),
        ("https://www.reddit.com/r/a/comments/b/c/", "https://www.reddit.com/oembed?url="),
        ("https://x.com/a/status/1", "https://publish.x.com/oembed?url="),
        ("https://open.spotify.com/track/1", "https://open.spotify.com/oembed?url="),
    ],
)
def test_well_known_pages_have_their_endpoint(url: str, endpoint: str) -> None:
    address = SHIPPED.request_url(parse_preview_url(url))

    assert address is not None
    assert address.startswith(endpoint)
    assert address.endswith("&format=json")
    assert parse_preview_url(address).scheme == "https"


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/",
        "https://www.youtube.com/",
        "https://evil.example/https://www.youtube.com/watch?v=1",
        "https://evil.example/?x=.youtube.com/watch",
        "https://youtube.com.evil.example/watch?v=1",
        "https://notyoutube.com/watch?v=1",
    ],
)
def test_other_pages_have_none(url: str) -> None:
    assert SHIPPED.request_url(parse_preview_url(url)) is None


def test_patterns_stand_for_parts_of_host_and_path() -> None:
    providers = OEmbedProviders(
        [
            ("https://*.a.example/*/photo/*", "https://a.example/oembed.{format}"),
            ("https://b.example/x", "https://b.example/oembed?key=1"),
            ("c.example/x", "https://c.example/"),
        ]
    )

    def asked(url: str) -> str | None:
        return providers.request_url(parse_preview_url(url), language="de")

    assert asked("https://www.a.example/me/photo/1?q=2") == (
        "https://a.example/oembed.json?url=https%3A%2F%2Fwww.a.example%2Fme%2Fphoto%2F1%3Fq%3D2&format=json&lang=de"
    )
    assert asked("https://a.example/me/photo/1") is not None
    assert asked("https://www.a.example/me/video/1") is None
    assert (
        asked("https://b.example/x")
        == "https://b.example/oembed?key=1&url=https%3A%2F%2Fb.example%2Fx&format=json&lang=de"
    )
    assert asked("https://b.example/xy") is None
    assert asked("https://c.example/x") is None
