import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediarepo.previews.text import cut_at_word, to_plain_text

ENOUGH = 100


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("plain", "plain"),
        ("  two\n\twords\u00a0and\u3000more\u2028lines ", "two words and more lines"),
        ("<b>bold</b> move", "bold move"),
        ("&lt;b&gt;bold&lt;/b&gt; move", "bold move"),
        ("Fish &amp; chips", "Fish & chips"),
        ("&amp;amp;", "&amp;"),
        ("3 < 4 and <3 > 2", "3 < 4 and <3 > 2"),
        ("a <script>alert(1)</script>b", "a b"),
        ("a <!-- b --> c", "a c"),
        ("a <img src=x onerror=alert(1)", "a < img src=x onerror=alert(1)"),
        ("<<b>b>x", "< b>x"),
        ("<\u200bspan>x", "x"),
        ("&lt;&#8203;b&gt;x", "x"),
        ("<<\x00\u202e<b", "<<< b"),
        ("fdp\u202eexe.\u2066x\u2069", "fdpexe.x"),
        ("zero\u200bwidth\ufeff\u2060", "zerowidth"),
        ("so\u00adft", "soft"),
        ("bell\x07 \x1b[31mred", "bell [31mred"),
        ("\ud83d half", "half"),
        ("\U0001f469\u200d\U0001f467", "\U0001f469\u200d\U0001f467"),
        ("\u0646\u0627\u0645\u0647\u200c\u0627\u06cc", "\u0646\u0627\u0645\u0647\u200c\u0627\u06cc"),
        ("tag\U000e0041\U000e0042", "tag"),
        ("Z" + "\u0301" * 50 + "!", "Z" + "\u0301" * 4 + "!"),
    ],
)
def test_text_is_made_plain(given_text: str, expected: str) -> None:
    assert to_plain_text(given_text, ENOUGH) == expected


@pytest.mark.parametrize(
    "text", [None, "", " \n", "\u200b\u2060", "<br>", "&nbsp;", "\u200f\u200e", "\ufe0f", "\ufffd\ufffd"]
)
def test_text_that_nobody_sees_is_none(text: str | None) -> None:
    assert to_plain_text(text, ENOUGH) is None


@pytest.mark.parametrize(
    ("text", "max_chars", "expected"),
    [
        ("exactly ten", 11, "exactly ten"),
        ("one two three four", 10, "one two\u2026"),
        ("one two, three four", 10, "one two\u2026"),
        ("abcdefghijklmnop", 10, "abcdefghi\u2026"),
        ("a bcdefghijklmnop", 10, "a bcdefgh\u2026"),
        ("\u6f22\u5b57" * 10, 5, "\u6f22\u5b57\u6f22\u5b57\u2026"),
        ("abcde\u0301fgh", 6, "abcd\u2026"),
        ("ab\U0001f469\u200d\U0001f467xyz", 5, "ab\u2026"),
        ("abc\U0001f44d\U0001f3fdxyz", 5, "abc\u2026"),
        ("a\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7xyz", 5, "a\U0001f1e9\U0001f1ea\u2026"),
    ],
)
def test_text_is_cut_where_people_would_cut_it(text: str, max_chars: int, expected: str) -> None:
    assert cut_at_word(text, max_chars) == expected


@given(
    st.text(alphabet=st.characters() | st.sampled_from("<>&;/!-abscript \u202e\u200b\u0301\U0001f1e9"), max_size=300)
)
def test_whatever_the_text_nothing_of_it_is_markup_or_too_long(text: str) -> None:
    made = to_plain_text(text, 40)

    if made is not None:
        assert 0 < len(made) <= 40
        assert not re.search(r"<[A-Za-z/!?]", made)
        assert made.encode()
        assert not set(made) & set("\0\n\u202e\u200b")
