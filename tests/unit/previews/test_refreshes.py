import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediarepo.previews.html import parse_refresh


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0;url=/a", "/a"),
        ("0; URL=/a", "/a"),
        ("  0 ; url = /a  ", "/a"),
        ("0;url='/a b'", "/a b"),
        ('0;url="/a"x', "/a"),
        ("0;url='/a", "/a"),
        ('0;url="/it\'s"', "/it's"),
        ("0;url=/with space", "/with space"),
        ("0,url=/a", "/a"),
        ("0 url=/a", "/a"),
        ("0;/a", "/a"),
        ("0; '/a'", "/a"),
        ("0.5;url=/a", "/a"),
        (".5;url=/a", "/a"),
        ("10;url=/a", "/a"),
        ("0;url=url=/a", "url=/a"),
        ("0;url=https://b.example/?a;b,c", "https://b.example/?a;b,c"),
        ("0;;url=/a", ";url=/a"),
        ("0", None),
        ("0;", None),
        ("0;url=", None),
        ("11;url=/a", None),
        ("-1;url=/a", None),
        ("a;url=/a", None),
        ("url=/a", None),
        ("0x;url=/a", None),
        ("99999999999999999999;url=/a", None),
        ("", None),
    ],
)
def test_a_refresh_is_read_as_html_says(text: str, expected: str | None) -> None:
    assert parse_refresh(text) == expected


@given(st.text(max_size=50) | st.from_regex(r"\A[ 0-9.]{0,5}[;, ]{0,3}(url)?[ =]{0,3}['\"]?.{0,9}\Z"))
def test_any_text_is_a_refresh_or_none(text: str) -> None:
    found = parse_refresh(text)

    assert found is None or (found and found in text)
