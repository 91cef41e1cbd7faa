import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediarepo.errors import InvalidParamError
from mediarepo.federation.discovery import ServerName, split_server_name
from mediarepo.federation.multipart import parse_upload_name


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("", None),
        ("inline", None),
        ("inline; filename=out.png", "out.png"),
        ('inline; filename="out.png"', "out.png"),
        ('inline; filename="a%20b.png"', "a%20b.png"),
        ('attachment; filename="aze\\"rty"', 'aze"rty'),
        ('attachment; filename="with;semicolon.txt"', "with;semicolon.txt"),
        ("inline; filename*=utf-8''%E2%98%83.png", "☃.png"),
        ("inline; filename=ascii.png; filename*=UTF-8''%E2%98%83.png", "☃.png"),
        ("inline;filename=a.png;size=3", "a.png"),
        ('inline; FILENAME = "a.png"', "a.png"),
        ("inline; filename*=utf-7''abc", None),
        ("inline; filename*=broken", None),
        ('inline; filename=""', None),
        ("inline; filename=a\x00b\r\nc", "abc"),
        ("inline; filename=\udce2\udc98\udc83.png", "☃.png"),
        (f"inline; filename={'a' * 3000}", None),
        (f"inline; filename={'a' * 20_000}", None),
    ],
)
def test_the_name_is_the_one_that_was_meant(header: str | None, expected: str | None) -> None:
    assert parse_upload_name(header) == expected


@given(st.text(max_size=300))
def test_a_name_can_always_be_stored(text: str) -> None:
    for header in (text, f"inline; filename={text}", f"inline; filename*=utf-8''{text}"):
        name = parse_upload_name(header)
        assert name is None or ("\0" not in name and len(name.encode("utf-8", "surrogateescape")) <= 2048)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("example.org", ("example.org", None, False)),
        ("example.org:8448", ("example.org", 8448, False)),
        ("1.2.3.4", ("1.2.3.4", None, True)),
        ("1.2.3.4:80", ("1.2.3.4", 80, True)),
        ("[2001:db8::1]", ("2001:db8::1", None, True)),
        ("[2001:db8::1]:443", ("2001:db8::1", 443, True)),
    ],
)
def test_server_names_come_apart(text: str, expected: tuple[str, int | None, bool]) -> None:
    server = split_server_name(text)

    assert (server.host, server.port, server.is_address) == expected
    assert server.text == text


@pytest.mark.parametrize("text", ["", "a b", "a/b", "a:0", "a:99999", "[::1", "::1", "a@b", "a\x00", "ä.example"])
def test_what_is_no_server_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidParamError):
        split_server_name(text)


@given(st.text(max_size=80))
def test_any_text_is_a_server_name_or_refused(text: str) -> None:
    try:
        server = split_server_name(text)
    except InvalidParamError:
        return
    assert isinstance(server, ServerName)
    assert server.bare in text
