import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediarepo.previews.structured_data import read_json


@pytest.mark.parametrize(
    "text",
    [
        '{"a": "x, }", "b": [1, 2],}',
        '{"a": "x, }", "b": [1, 2,],}',
        '{"a": "x, }", "b": [1, 2 , ] , }',
        '{"a": "x, }", /* why, "not" */ "b": [1, 2]}',
        '{"a": "x, }", // said "who\n "b": [1, 2]}',
        '// before\n{"a": "x, }", "b": [1, 2, /* last */ ]}',
        '/* before */ {"a": "x, }", "b": [1, 2]} // after',
        '{"a": "x, }", "b": [1, 2]} /* does not end',
        '<!-- {"a": "x, }", "b": [1, 2,]} -->',
        '{"a": "x, }", "b": [1,, 2]}',
    ],
)
def test_comments_and_commas_too_many_are_passed_over(text: str) -> None:
    assert read_json(text) == {"a": "x, }", "b": [1, 2]}


@pytest.mark.parametrize("text", ['{"a": "http://b/c"}', '{"a": "/* no comment */"}', '{"a": ",]"}', '{"a": "\\",}"}'])
def test_what_stands_in_a_text_is_neither(text: str) -> None:
    assert read_json(text.removesuffix("}") + ",}") == json.loads(text)


@pytest.mark.parametrize("text", ["[" * 500_000, "[1,/**/" * 100_000, '{"a":/**/' * 100_000])
def test_what_nests_too_deeply_is_nothing_with_or_without_comments(text: str) -> None:
    assert read_json(text) is None


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=9), st.lists))
def test_what_is_json_already_stays_as_it_is(value: object) -> None:
    assert read_json(json.dumps(value)) == value or "\\ud" in json.dumps(value)
