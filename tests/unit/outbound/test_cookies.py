from datetime import UTC, datetime

import pytest

from mediarepo.outbound.web_client import PreviewCookies

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def jar(*set_cookies: bytes, scheme: str = "https", host: str = "a.example", path: str = "/x/y") -> PreviewCookies:
    made = PreviewCookies(lambda: NOW)
    for one in set_cookies:
        made.keep(one, scheme=scheme, host=host, path=path)
    return made


def told(made: PreviewCookies, *, scheme: str = "https", host: str = "a.example", path: str = "/x/z") -> bytes | None:
    return made.header(scheme=scheme, host=host, path=path)


@pytest.mark.parametrize(
    ("set_cookie", "expected"),
    [
        (b"a=1", b"a=1"),
        (b" a = 1 ; Path=/; HttpOnly; SameSite=Lax", b"a=1"),
        (b'a="1=2"', b'a="1=2"'),
        (b"a=", b"a="),
        (b"1", b"1"),
        (b"a=\xc3\xb6", b"a=\xc3\xb6"),
        (b"a=1; Domain=a.example", b"a=1"),
        (b"a=1; Domain=.example", b"a=1"),
        (b"a=1; Domain=b.example", None),
        (b"a=1; Domain=www.a.example", None),
        (b"a=1; Path=/other", None),
        (b"a=1; Path=nonsense", b"a=1"),
        (b"a=1; Max-Age=0", None),
        (b"a=1; Max-Age=10; Expires=Thu, 01 Jan 1970 00:00:00 GMT", b"a=1"),
        (b"a=1; Expires=Thu, 01-Jan-1970 00:00:00 GMT", None),
        (b"a=1; Expires=Thu, 01 Jan 2037 00:00:00 GMT", b"a=1"),
        (b"a=1; Expires=whenever", b"a=1"),
        (b"__Host-a=1; Path=/; Secure", b"__Host-a=1"),
        (b"__Host-a=1; Path=/", None),
        (b"__Secure-a=1", None),
        (b"", None),
        (b"=", None),
        (b"a=1\r\nX: y", None),
        (b"a=" + b"x" * 5000, None),
    ],
)
def test_a_cookie_is_told_again_when_its_host_may_set_it(set_cookie: bytes, expected: bytes | None) -> None:
    assert told(jar(set_cookie)) == expected


def test_cookies_are_for_their_very_host_and_path_and_secure_ones_for_tls() -> None:
    made = jar(b"a=1; Domain=example", b"b=2; Secure; Path=/", b"c=3; Path=/x/")

    assert told(made) == b"c=3; a=1; b=2"
    assert told(made, host="b.example") is told(made, host="www.a.example") is told(made, host="example") is None
    assert told(made, scheme="http") == b"c=3; a=1"
    assert told(made, path="/xy") == b"b=2"
    assert told(jar(b"a=1; Secure", scheme="http"), scheme="https") is None


def test_a_later_cookie_replaces_and_removes_an_earlier_one() -> None:
    assert told(jar(b"a=1", b"a=2")) == b"a=2"
    assert told(jar(b"a=1", b"a=; Max-Age=0")) is None
    assert jar(b"a=1", b"a=1", b"a=2").changes == 2


def test_only_so_many_cookies_are_kept() -> None:
    made = jar(*(b"a%d=1" % number for number in range(1000)))

    assert (told(made) or b"").count(b"=") == 50
    assert told(jar(*(b"a%d=%s" % (number, b"x" * 4000) for number in range(50)))) is None
