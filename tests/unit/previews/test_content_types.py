import pytest

from mediarepo.previews.encoding import extract_content_type


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], None),
        ([""], None),
        (["text/html"], "text/html"),
        (["text/html; charset=koi8-r"], "text/html; charset=koi8-r"),
        (["text/html, text/html; charset=utf-8"], "text/html; charset=utf-8"),
        (["text/html; charset=utf-8, text/html"], "text/html; charset=utf-8"),
        (["text/html;charset=gbk", "text/plain"], "text/plain"),
        (["text/html;charset=gbk", "*/*"], "text/html;charset=gbk"),
        (["text/plain", "text/html"], "text/html"),
        (["text/html", "nonsense"], "text/html"),
        (["html"], None),
        (["*/*"], None),
        (['text/html; x=","; charset=utf-8'], 'text/html; x=","; charset=utf-8'),
        (['text/html;charset="shift_jis"', "text/html;x=y"], 'text/html;x=y;charset="shift_jis"'),
        (['text/html; x="unfinished, text/plain'], 'text/html; x="unfinished, text/plain'),
        (["text/html\u00f6"], None),
    ],
)
def test_the_last_valid_type_counts(values: list[str], expected: str | None) -> None:
    assert extract_content_type(values) == expected
