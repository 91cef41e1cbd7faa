import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediarepo.errors import InvalidParamError
from mediarepo.previews.url_policy import parse_preview_url, resolve_url


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://example.org", "https://example.org/"),
        (" HTTPS://EXAMPLE.org:443/Path?Q=1#part ", "https://example.org/Path?Q=1"),
        ("http://example.org:80", "http://example.org/"),
        ("http://example.org:443/", "http://example.org:443/"),
        ("https://example.org:/", "https://example.org/"),
        ("https://example.org./a", "https://example.org/a"),
        ("https://m\u00fcller.example/\u00fc?\u00e4=\u00f6", "https://xn--mller-kva.example/%C3%BC?%C3%A4=%C3%B6"),
        ("https://\u4f8b\u3048.example/", "https://xn--r8jz45g.example/"),
        ("https://example.org/a/./b/../c", "https://example.org/a/c"),
        ("https://example.org/public/%2e%2E/%70rivate/", "https://example.org/private/"),
        ("https://example.org/../../..", "https://example.org/"),
        ("https://example.org/a%2fb%3f%c3%a4", "https://example.org/a%2Fb%3F%C3%A4"),
        ("https://example.org/100%", "https://example.org/100%25"),
        ("https://example.org/a b?c d", "https://example.org/a%20b?c%20d"),
        ("https://example.org/a//b/", "https://example.org/a//b/"),
        ("https://example.org?q", "https://example.org/?q"),
        ("https://example.org/?", "https://example.org/?"),
        ("https://example.org/#!/route", "https://example.org/"),
        ("https://[2600:0:0::1]:8443/x", "https://[2600::1]:8443/x"),
        ("https://8.8.8.8/", "https://8.8.8.8/"),
        ("https://ex%61mple.org/", "https://example.org/"),
        ("https://foo-.tumblr.com/post/1", "https://foo-.tumblr.com/post/1"),
        ("https://-foo.example/", "https://-foo.example/"),
        ("https://i\u2764.ws/", "https://xn--i-7iq.ws/"),
        ("https://fa\u00df.example/", "https://xn--fa-hia.example/"),
        ("https://a\u3002example\uff0eorg\uff61/", "https://a.example.org/"),
        ("https://a_b.example/", "https://a_b.example/"),
        ('https://example.org/t"a|x{y}^', "https://example.org/t%22a%7Cx%7By%7D%5E"),
        ("https://example.org/?a[]=1&b={c}|d", "https://example.org/?a[]=1&b={c}|d"),
    ],
)
def test_a_url_is_spelt_in_one_way(text: str, expected: str) -> None:
    url = parse_preview_url(text)

    assert url.text == str(url) == expected
    assert parse_preview_url(expected) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.org",
        "//example.org/",
        "ftp://example.org/",
        "javascript:alert(1)",
        "data:text/html,x",
        "mxc://example.org/a",
        "https://",
        "https:///x",
        "https://user@example.org/",
        "https://user:secret@example.org/",
        "https://example.org@127.0.0.1/",
        "https://example.org\\@127.0.0.1/",
        "https://example.org:99999/",
        "https://example.org:0/",
        "https://exa mple.org/",
        "https://example.org/\r\nX: y",
        "https://exam\tple.org/",
        "https://example.org/\x00",
        "https://ex%2fmple.org/",
        "https://ex%00mple.org/",
        "https://127.0.0.1.1/",
        "https://1.2.3.256/",
        "https://4294967296/",
        "https://a../",
        "https://[::1/",
        "https://[fe80::1%25eth0]/",
        "https://[1.2.3.4]/",
        "https://\u3002/",
        "https://a..b/",
        "https://example.org/" + "a" * 5000,
    ],
)
def test_what_is_no_address_of_a_page_is_refused(text: str) -> None:
    with pytest.raises(InvalidParamError):
        parse_preview_url(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://\uff11\uff12\uff17.0.0.1/",
        "https://\u2460\u2461\u2466.0.0.1/",
        "https://127\u30020\u30020\u30021/",
        "https://127.0.0.1./",
        "https://127.1/",
        "https://0x7f.0.0.1/",
        "https://0x7f.1/",
        "https://0177.0.0.01/",
        "https://2130706433/",
        "https://017700000001/",
        "https://%31%32%37.0.0.1/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:7f00:1]/",
        "https://[0:0:0:0:0:ffff:127.0.0.1]/",
    ],
)
def test_digits_in_disguise_are_what_they_are(text: str) -> None:
    assert parse_preview_url(text).host == "127.0.0.1"


@given(st.text(max_size=40) | st.from_regex(r"\Ahttps?://[^/]{1,15}/.{0,20}\Z"))
def test_any_text_is_refused_or_spelt_once_and_for_all(text: str) -> None:
    try:
        url = parse_preview_url(text)
    except InvalidParamError:
        return
    assert parse_preview_url(url.text) == url
    assert url.text.isascii()


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("x.png", "https://a.example/b/x.png"),
        ("/x.png", "https://a.example/x.png"),
        ("//c.example/x.png", "https://c.example/x.png"),
        ("?q", "https://a.example/b/c?q"),
        ("http://d.example", "http://d.example/"),
        (" x\n.png ", "https://a.example/b/x.png"),
        ("../../../x", "https://a.example/x"),
        (None, None),
        ("", None),
        ("data:image/png;base64,AA", None),
        ("mailto:a@b.example", None),
        ("http://[::1", None),
        ("https://u:p@a.example/", None),
        ("x" * 5000, None),
    ],
)
def test_a_reference_leads_to_http_or_nowhere(reference: str | None, expected: str | None) -> None:
    assert resolve_url("https://a.example/b/c", reference) == expected
