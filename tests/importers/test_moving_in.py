import asyncio
import hashlib
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.services.imports.ownership import PruneRefusedError
from tests.support.moving_in import MovingIn, moving_in, synapse_yaml

NAME = "fix.test"
ODD, PREVIEWS = "we~rd.chars", {"2026-11-23_FYeHgYaLMHkEzpkl", "2026-11-23_SqkqTcuNyoKHVIYw"}
QUARANTINE = "UPDATE local_media_repository SET quarantined_by = ? WHERE media_id = ?"
HIDDEN = "HcFtaDvniAHtPtCKyzAIMQAh"
PENDING = "SmRQiRJqWhvGzWEXwhYWVurU"
PHOTO, SAME_PHOTO = "KHUabRSCxHJxifHTrQWdABGy", "KFsdLdxyWBptQbXGqSeRCdOe"


def rows_of(store: Path) -> dict[str, dict[str, Any]]:
    connection = sqlite3.connect(store / "homeserver.db")
    connection.row_factory = sqlite3.Row
    rows = {row["media_id"]: dict(row) for row in connection.execute("SELECT * FROM local_media_repository")}
    connection.close()
    return rows


def change(store: Path, statement: str, *arguments: object) -> None:
    connection = sqlite3.connect(store / "homeserver.db")
    connection.execute(statement, arguments)
    connection.commit()
    connection.close()


def add(store: Path, media_id: str, data: bytes) -> None:
    """Have Synapse store one more."""
    file = file_of(store, media_id)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    change(
        store,
        "INSERT INTO local_media_repository (media_id, media_length, media_type, created_ts, user_id, authenticated) "
        "VALUES (?, ?, 'text/plain', 1795400778596, '@a:fix.test', 1)",
        media_id,
        len(data),
    )


def file_of(store: Path, media_id: str) -> Path:
    return store / "media_store/local_content" / media_id[:2] / media_id[2:4] / media_id[4:]


@pytest.fixture
def synapse(sqlite_store: Path) -> Path:
    """A real Synapse's store, whose pending media is as young as it was then."""
    now_ms = int(time.time() * 1000)
    change(sqlite_store, "UPDATE local_media_repository SET created_ts = ? WHERE media_length IS NULL", now_ms)
    synapse_yaml(sqlite_store, NAME, {"name": "sqlite3", "args": {"database": "homeserver.db"}})
    return sqlite_store


@pytest.fixture
async def moving(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, synapse: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[MovingIn]:
    options: dict[str, Any] = getattr(request, "param", {})
    source = {"kind": "synapse", "paths": [str(synapse / "homeserver.yaml")], **options}
    async with moving_in(postgres, s3, tmp_path, NAME, source) as moving:
        yield moving


async def test_every_byte_hash_date_and_flag_moves_in(moving: MovingIn, synapse: Path) -> None:
    figures = await moving.run()
    rows, media = rows_of(synapse), await moving.media()
    expected = set(rows) - {ODD} - PREVIEWS

    assert set(media) == expected
    assert (figures["rows"], figures["committed"], figures["skipped"]) == (len(rows), len(expected), 3)
    for media_id in expected - {PENDING}:
        row, own, data = rows[media_id], media[media_id], file_of(synapse, media_id).read_bytes()
        kept = (own["content_type"], own["size_bytes"], own["created_ts"], own["upload_name"], own["uploaded_by"])
        assert kept == (row["media_type"], len(data), row["created_ts"], row["upload_name"], row["user_id"])
        flags = (own["quarantined_by"], own["protected"], own["authenticated"], own["last_access_ts"])
        assert flags == (
            row["quarantined_by"],
            bool(row["safe_from_quarantine"]),
            bool(row["authenticated"]),
            row["last_access_ts"],
        )
        assert (own["state"], own["sha256"], own["sha256_state"]) == (
            "ready",
            hashlib.sha256(data).digest(),
            "verified",
        )
        answer = await moving.get(NAME, media_id)
        assert (answer.status, answer.body) == ((404, answer.body) if row["quarantined_by"] else (200, data))
    pending = media[PENDING]
    assert (pending["state"], pending["uploaded_by"], pending["created_ts"]) == (
        "pending",
        rows[PENDING]["user_id"],
        rows[PENDING]["created_ts"],
    )


async def test_equal_bytes_are_one_object_and_nothing_else_is_left(moving: MovingIn) -> None:
    await moving.run()
    media = await moving.media()
    keys = {own["object_key"] for own in media.values() if own["object_key"] is not None}

    assert media[PHOTO]["object_key"] == media[SAME_PHOTO]["object_key"]
    assert await moving.own.object_keys() == keys
    assert await moving.own.value("SELECT count(*) FROM multipart_intent") == 0


async def test_a_second_run_changes_nothing(moving: MovingIn) -> None:
    await moving.run()
    before = await moving.media()
    figures = await moving.run()

    assert (figures["unchanged"], figures["moved_bytes"]) == (22, 0)
    assert await moving.media() == before


async def test_every_row_is_accounted_for_with_its_reason(moving: MovingIn) -> None:
    await moving.run()
    items, orphans, summary = await moving.report()

    assert len(items) == 22
    assert {key: item["reason"].partition(":")[0] for key, item in items.items() if item["state"] == "skipped"} == {
        ODD: "unsafe",
        **dict.fromkeys(PREVIEWS, "url_preview"),
    }
    assert (summary["rows"], summary["committed"], summary["skipped"], summary["balances"]) == (22, 19, 3, True)
    assert (summary["missing"], summary["mismatched"], summary["failed"], orphans) == (0, 0, 0, [])


async def test_hashes_that_the_source_hides_are_hidden_here(moving: MovingIn, synapse: Path) -> None:
    await moving.run()
    copy = await moving.own.upload(file_of(synapse, HIDDEN).read_bytes())

    assert (await moving.own.get(moving.own.download_path(copy))).status == 404


async def test_what_changes_at_the_source_changes_here(moving: MovingIn, synapse: Path) -> None:
    await moving.run()
    late = file_of(synapse, PENDING)
    late.parent.mkdir(parents=True)
    late.write_bytes(b"at last")
    change(synapse, QUARANTINE, f"@new:{NAME}", PHOTO)
    change(synapse, QUARANTINE, None, HIDDEN)
    change(
        synapse,
        "UPDATE local_media_repository SET media_length = 7, media_type = 'text/plain' WHERE media_id = ?",
        PENDING,
    )
    before = await moving.get(NAME, PHOTO), await moving.get(NAME, HIDDEN), await moving.get(NAME, PENDING)
    figures = await moving.run()
    after = await moving.get(NAME, PHOTO), await moving.get(NAME, HIDDEN), await moving.get(NAME, PENDING)

    assert [answer.status for answer in before] == [200, 404, 504]
    assert [answer.status for answer in after] == [404, 200, 200]
    assert (after[2].body, after[2].headers["Content-Type"]) == (b"at last", "text/plain")
    assert figures["unchanged"] == 19


async def test_what_the_source_hid_of_media_that_were_made_here_is_shown_when_the_source_shows_it(
    moving: MovingIn, synapse: Path
) -> None:
    add(synapse, "madehereAAAA", b"content")
    await moving.run()
    await moving.own.rows("UPDATE media SET import_source_id = NULL WHERE media_id = 'madehereAAAA'")
    statuses = []
    for quarantined_by in ("'@a:b'", "NULL"):
        change(
            synapse,
            f"UPDATE local_media_repository SET quarantined_by = {quarantined_by} WHERE media_id = 'madehereAAAA'",
        )
        await moving.run()
        statuses.append((await moving.get(NAME, "madehereAAAA")).status)

    assert statuses == [404, 200]


async def test_what_admins_decide_here_stays_unless_it_changes_at_the_source(moving: MovingIn, synapse: Path) -> None:
    await moving.run()
    await moving.own.rows("DELETE FROM media_mark WHERE media_id = $1", HIDDEN)
    await moving.own.rows("DELETE FROM quarantined_hash")
    await moving.own.mark(PHOTO, "protection")
    for media_id in (HIDDEN, PHOTO):
        change(synapse, "UPDATE local_media_repository SET last_access_ts = 1895400785345 WHERE media_id = ?", media_id)
    await moving.run()
    media = await moving.media()

    assert (media[HIDDEN]["quarantined_by"], media[PHOTO]["protected"]) == (None, True)
    assert media[PHOTO]["last_access_ts"] == 1895400785345


async def test_media_made_here_are_never_changed(moving: MovingIn) -> None:
    await moving.own.rows(
        """INSERT INTO media (server_name, media_id, state, remote, content_type, created_ts, authenticated)
           VALUES ($1, $2, 'missing', false, 'image/gif', 1, true)""",
        NAME,
        PHOTO,
    )
    figures = await moving.run()
    items, _, summary = await moving.report()

    assert (await moving.media())[PHOTO]["content_type"] == "image/gif"
    assert items[PHOTO]["reason"].startswith("exists_here")
    assert (figures["skipped"], summary["balances"]) == (4, True)


async def test_what_was_deleted_here_does_not_come_back(moving: MovingIn) -> None:
    await moving.run()
    path = f"/_mediarepo/admin/v1/media/{NAME}/{PHOTO}"
    await moving.own.rows("UPDATE media SET state = 'tombstone', blob_id = NULL WHERE media_id = $1", PHOTO)
    await moving.run()
    items, _, summary = await moving.report()

    assert (await moving.get(NAME, PHOTO)).status == 404, path
    assert items[PHOTO]["reason"].startswith("deleted_here")
    assert summary["balances"]


async def test_lost_longer_and_other_bytes_are_told_apart(moving: MovingIn, synapse: Path) -> None:
    sound = {key: row for key, row in rows_of(synapse).items() if key not in {ODD, PENDING} | PREVIEWS}
    shown = [key for key, row in sound.items() if not row["quarantined_by"] and row["media_length"] > 8]
    lost, longer, other = shown[:3]
    data = file_of(synapse, other).read_bytes()
    file_of(synapse, lost).unlink()
    file_of(synapse, longer).write_bytes(file_of(synapse, longer).read_bytes() + b"more")
    file_of(synapse, other).write_bytes(bytes([data[0] ^ 1]) + data[1:])
    await moving.run(status=2)
    items, _, summary = await moving.report()
    states = {
        media_id: (items[media_id]["state"], items[media_id]["reason"].partition(":")[0])
        for media_id in (lost, longer, other)
    }
    statuses = [(await moving.get(NAME, media_id)).status for media_id in (lost, longer, other)]

    assert states == {lost: ("missing", "not_found"), longer: ("mismatched", "size"), other: ("mismatched", "hash")}
    assert statuses == [404, 404, 404]
    assert (summary["missing"], summary["mismatched"], summary["balances"]) == (1, 2, True)

    await moving.run(accept_mismatch=True, status=2)
    assert (await moving.get(NAME, longer)).body.endswith(b"more")

    file_of(synapse, other).write_bytes(data)
    await moving.run(accept_mismatch=True, status=2)
    assert (await moving.get(NAME, other)).body == data


async def test_what_the_source_removes_goes_only_when_asked(moving: MovingIn, synapse: Path) -> None:
    await moving.run()
    change(synapse, "DELETE FROM local_media_repository WHERE media_id = ?", PHOTO)
    await moving.run()
    kept = (await moving.get(NAME, PHOTO)).status
    _, _, summary = await moving.report()
    await moving.run(prune=True)

    assert (kept, summary["gone"], summary["balances"]) == (200, 1, True)
    assert (await moving.get(NAME, PHOTO)).status == 404


async def test_nothing_is_removed_unless_the_operator_says_yes(moving: MovingIn, synapse: Path) -> None:
    await moving.run()
    change(synapse, "DELETE FROM local_media_repository WHERE media_id = ?", PHOTO)
    alone = await moving.command("run", "--prune")
    kept = (await moving.get(NAME, PHOTO)).status
    agreed = await moving.command("run", "--prune", "--yes")

    assert (alone[0], "gone from the source" in alone[2], "use --yes" in alone[2], kept) == (5, True, True, 200)
    assert agreed[0] in {0, 2}, agreed
    assert (await moving.get(NAME, PHOTO)).status == 404


async def test_much_that_vanishes_at_once_is_believed_to_be_an_accident(moving: MovingIn, synapse: Path) -> None:
    for number in range(25):
        add(synapse, f"passing{number:02}", b"passing")
    await moving.run()
    change(synapse, "DELETE FROM local_media_repository WHERE media_id LIKE 'passing%'")
    with pytest.raises(PruneRefusedError, match="25 of 47"):
        await moving.run(prune=True)

    assert (await moving.get(NAME, "passing00")).status == 200


async def test_an_import_can_be_taken_back_and_done_again(moving: MovingIn) -> None:
    await moving.run()
    native = await moving.own.upload(b"uploaded here")
    code, output, _ = await moving.command("undo", "all", "--yes")
    gone = [(await moving.get(NAME, media_id)).status for media_id in (PHOTO, SAME_PHOTO)]
    keys = await moving.own.object_keys()

    log = await moving.own.rows(
        "SELECT admin, action, target, affected FROM audit_log WHERE homeserver = $1 AND affected > 0", NAME
    )

    assert (code, output) == (0, "19 media were deleted\n")
    assert [tuple(row)[1:] for row in log] == [("undo_import", "old", 19)]
    assert log[0]["admin"].startswith("command line (")
    assert gone == [404, 404]
    assert len(keys) == 1
    assert (await moving.get(NAME, native)).status == 200
    assert await moving.own.value("SELECT count(*) FROM quarantined_hash") == 0
    assert (await moving.run())["committed"] == 19
    assert (await moving.get(NAME, PHOTO)).status == 200


async def test_one_run_can_be_taken_back_alone(moving: MovingIn, synapse: Path) -> None:
    first = (await moving.run())["run"]
    add(synapse, "newcomerAAAA", b"new")
    second = (await moving.run())["run"]
    before = (await moving.get(NAME, "newcomerAAAA")).body
    await moving.command("undo", str(second), "--yes")

    assert (before, (await moving.get(NAME, "newcomerAAAA")).status) == (b"new", 404)
    assert (await moving.get(NAME, PHOTO)).status == 200
    assert first < second


async def test_two_at_once_are_one_after_the_other(moving: MovingIn) -> None:
    first, second = await asyncio.gather(moving.command("run", "--json"), moving.command("run", "--json"))
    _, _, summary = await moving.report()

    assert (first[0], second[0]) == (0, 0), (first, second)
    assert summary["balances"]


async def test_reports_are_written_in_every_form(moving: MovingIn, tmp_path: Path) -> None:
    await moving.run()
    for form, start in (
        ("csv", "server_name,media_id,"),
        ("html", "<!doctype html>"),
        ("text", "import old"),
        ("jsonl", "{"),
    ):
        output = tmp_path / f"report.{form}"
        code, _, errors = await moving.command("report", "--format", form, "--output", str(output))
        assert (code, output.read_text()[: len(start)]) == (0, start), errors
        assert ODD in output.read_text()
    code, output_text, _ = await moving.command("status")

    assert "22 rows = 19 committed + 3 skipped + 0 missing + 0 mismatched + 0 failed" in output_text
    assert code == 0


async def test_a_plan_says_what_would_happen_and_does_nothing(moving: MovingIn) -> None:
    code, output, _ = await moving.command("plan", "--json")

    assert code == 0
    assert '"upload": 18' in output
    assert await moving.media() == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"server_name": "other.test"}, "is not configured under homeservers"),
        ({"database": {"name": "sqlite3", "args": {"database": "nowhere.db"}}}, "nowhere.db"),
        ({"media_store_path": "nowhere"}, "cannot be read"),
        (
            {"database": {"name": "psycopg2", "args": {"host": "127.0.0.1", "port": 1, "database": "x"}}},
            "cannot be read",
        ),
    ],
)
async def test_preflight_finds_what_is_wrong_in_words(
    moving: MovingIn, synapse: Path, changes: dict[str, Any], words: str
) -> None:
    document = {"server_name": NAME, "database": {"name": "sqlite3", "args": {"database": "homeserver.db"}}, **changes}
    name, database = document.pop("server_name"), document.pop("database")
    synapse_yaml(synapse, name, database, **document)
    code, output, errors = await moving.command("preflight")
    ran = await moving.command("run")

    assert (code, ran[0]) == (4, 4), (output, errors)
    assert words in output
    assert "Traceback" not in errors + ran[2]


async def test_words_instead_of_tracebacks(moving: MovingIn, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("{")
    unknown = await moving.command("undo", "x")
    nobody = MovingIn(moving.own, moving.config, "nobody")
    answers = [
        await nobody.command("status"),
        await nobody.command("run"),
        await moving.command("run", "--bwlimit", "much"),
        await moving.command("preflight", "--from", str(tmp_path / "broken.yaml")),
        unknown,
    ]

    assert [code for code, _, _ in answers] == [1] * 5
    assert all(errors.startswith("mediarepo: ") and "Traceback" not in errors for _, _, errors in answers)
