import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediarepo.outbound.errors import OutboundError, OutboundReason
from mediarepo.outbound.urls import check_request_target, join_reference, parse_url

REFUSED = [
    "",
    "example.org",
    "//example.org/",
    "ftp://example.org/",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "https:example.org",
    "https:/example.org/",
    "https:///example.org/",
    "https://",
    "https://:443/",
    "https://user@example.org/",
    "https://user:secret@example.org/",
    "https://example.org@127.0.0.1/",
    "https://example.org%40127.0.0.1/",
    "https://example.org\\@127.0.0.1/",
    "https://example.org/\\..\\x",
    "https:\\\\example.org/",
    " https://example.org/",
    "https://example.org/ ",
    "https://exa mple.org/",
    "https://exa\tmple.org/",
    "https://example.org/\r\nHost: 127.0.0.1",
    "https://example.org/\x00",
    "https://ex\u00e4mple.org/",
    "https://127\u30020\u30020\u30021/",
    "https://\uff11\uff12\uff17.0.0.1/",
    "https://example.org/\u00e4",
    "https://[127.0.0.1]/",
    "https://[::1/",
    "https://::1/",
    "https://[::1]x/",
    "https://[fe80::1%25eth0]/",
    "https://[fe80::1%eth0]/",
    "https://[v1.fe80::a]/",
    "https://[::1]:99999/",
    "https://127.1/",
    "https://0177.0.0.1/",
    "https://0x7f.0.0.1/",
    "https://0x7f000001/",
    "https://2130706433/",
    "https://017700000001/",
    "https://127.0.0.1.1/",
    "https://127.0.0.01/",
    "https://127.0.0.1./",
    "https://127.0.0.1../",
    "https://1.2.3.256/",
    "https://example.0x7f/",
    "https://example..org/",
    "https://.example.org/",
    "https://example.org../",
    "https://-example.org/",
    "https://example-.org/",
    f"https://{'a' * 64}.org/",
    f"https://{'a.' * 130}org/",
    "https://example.org:0/",
    "https://example.org:65536/",
    "https://example.org:999999/",
    "https://example.org:-1/",
    "https://example.org:+443/",
    "https://example.org:44\u0663/",
    "https://example.org:/",
    f"https://example.org/{'a' * 9000}",
]


@pytest.mark.parametrize("text", REFUSED)
def test_what_could_be_understood_in_two_ways_is_not_followed(text: str) -> None:
    with pytest.raises(OutboundError) as caught:
        parse_url(text)

    assert caught.value.reason == OutboundReason.BAD_URL


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("https://example.org", "example.org", 443),
        ("https://example.org/", "example.org", 443),
        ("http://example.org/a?b", "example.org", 80),
        ("https://example.org?b=c", "example.org", 443),
        ("https://example.org/a@b:c", "example.org", 443),
        ("https://example.org:8448/%2e%2E/", "example.org", 8448),
        ("https://EXAMPLE.org./", "EXAMPLE.org.", 443),
        ("https://xn--exmple-cua.org/", "xn--exmple-cua.org", 443),
        ("https://a_b.example/", "a_b.example", 443),
        ("https://8.8.8.8:1/", "8.8.8.8", 1),
        ("https://[2600::1]:65535/", "2600::1", 65535),
        ("https://[::ffff:127.0.0.1]/", "::ffff:127.0.0.1", 443),
    ],
)
def test_plain_urls_are_understood(text: str, host: str, port: int) -> None:
    parsed = parse_url(text)

    assert (parsed.host, parsed.port, parsed.url.raw_host, parsed.url.port) == (host, port, host, port)


def test_a_fragment_is_not_sent() -> None:
    assert str(parse_url("https://example.org/a?b#c@d").url) == "https://example.org/a?b"


@given(st.text(max_size=40) | st.from_regex(r"\A(?:https?:)?//[\x00-\x7f]{0,30}\Z"))
def test_any_text_is_a_url_or_is_refused(text: str) -> None:
    try:
        parsed = parse_url(text)
    except OutboundError:
        return
    assert text.startswith(f"{parsed.scheme}://")
    assert parsed.url.user is None
    assert (parsed.url.raw_host or "").lower() == parsed.host.lower()


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/c", "https://a.example/c"),
        ("c?d", "https://a.example/x/c?d"),
        ("//b.example/c", "https://b.example/c"),
        ("http://b.example:81/c", "http://b.example:81/c"),
        ("", "https://a.example/x/y"),
    ],
)
def test_a_location_is_read_from_where_it_was_found(location: str, expected: str) -> None:
    assert join_reference("https://a.example/x/y", location) == expected


@pytest.mark.parametrize("location", ["//[::1", "http://[", "/\t", "https://b\t.example/", "\u00e4", "/a b", "/\udce4"])
def test_a_location_that_is_none_is_refused(location: str) -> None:
    with pytest.raises(OutboundError):
        join_reference("https://a.example/", location)


@pytest.mark.parametrize("text", ["", "a", "https://x/", "/a b", "/a#b", "/a?", "/\r\n", "/\u00e4", "*"])
def test_a_request_target_that_would_be_changed_on_its_way_is_refused(text: str) -> None:
    with pytest.raises(OutboundError):
        check_request_target(text)
