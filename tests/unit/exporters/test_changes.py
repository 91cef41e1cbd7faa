"""Statements for Synapse's database."""

import sqlite3

from hypothesis import given
from hypothesis import strategies as st

from mediarepo.exporters.synapse.database import Arguments, Fill, Insert, literal, render


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_any_text_is_itself_again_when_a_script_was_run(text: str) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE media (media_id TEXT, upload_name TEXT)")

    connection.executescript(render(Insert("media", {"media_id": "a", "upload_name": text}), literal) + ";")

    assert connection.execute("SELECT upload_name FROM media").fetchall() == [(text,)]
    connection.close()


def test_statements_refer_to_their_values_in_order() -> None:
    arguments = Arguments("$")

    insert = render(Insert("media", {"media_id": "a", "media_length": None}), arguments)
    fill = render(Fill("media", {"media_length": 3}, "b"), arguments)

    assert insert == "INSERT INTO media (media_id, media_length) VALUES ($1, $2) ON CONFLICT DO NOTHING"
    assert fill == "UPDATE media SET media_length = $3 WHERE media_id = $4 AND media_length IS NULL"
    assert arguments.values == ["a", None, 3, "b"]


def test_values_are_written_as_both_databases_read_them() -> None:
    assert [literal(value) for value in (None, True, False, 7, "it's")] == ["NULL", "TRUE", "FALSE", "7", "'it''s'"]
