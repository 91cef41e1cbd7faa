"""Rows that no sound repository would have: each comes to an end with a reason, and none stops the run."""

import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.importers.test_moving_in import NAME, add, change, file_of, synapse
from tests.support.moving_in import MovingIn, moving_in

__all__ = ["synapse"]
INSERT = "INSERT INTO local_media_repository (media_id, media_length, created_ts) VALUES (?, ?, ?)"


@pytest.fixture
async def moving(postgres: EmbeddedPostgres, s3: EmbeddedS3, synapse: Path, tmp_path: Path) -> AsyncIterator[MovingIn]:
    source = {"kind": "synapse", "paths": [str(synapse / "homeserver.yaml")], "remote": "all"}
    async with moving_in(postgres, s3, tmp_path, NAME, source) as moving:
        yield moving


@pytest.mark.parametrize(
    ("media_id", "state", "reason"),
    [
        ("abc", "skipped", "unsafe"),
        ("", "skipped", "no_mxc"),
        ("..", "skipped", "no_mxc"),
        ("../../../etc/passwd", "skipped", "no_mxc"),
        ("ab/cd/ef", "skipped", "no_mxc"),
        ("nul\0nul\0nul", "skipped", "no_mxc"),
        ("été-à-la-mer", "skipped", "no_mxc"),
        ("x" * 5000, "skipped", "no_mxc"),
        ("-leadingdash", "missing", "not_found"),
        ("_leadingunderscore", "missing", "not_found"),
        ("a" * 51, "missing", "not_found"),
        ("0" * 64, "missing", "not_found"),
    ],
)
async def test_odd_ids_end_with_a_reason(
    moving: MovingIn, synapse: Path, media_id: str, state: str, reason: str
) -> None:
    change(synapse, INSERT, media_id, 3, 1)
    await moving.run(status=2 if state == "missing" else 0)
    items, _, summary = await moving.report()
    (item,) = [one for key, one in items.items() if key[:20] == media_id.replace("\0", "\\x00")[:20]]

    assert (item["state"], item["reason"].partition(":")[0]) == (state, reason)
    assert (summary["rows"], summary["balances"]) == (23, True)


async def test_ids_that_differ_in_case_alone_are_two(moving: MovingIn, synapse: Path) -> None:
    add(synapse, "MixedCaseIdAAA", b"one")
    add(synapse, "mixedcaseidaaa", b"two")
    await moving.run()

    assert (await moving.get(NAME, "MixedCaseIdAAA")).body == b"one"
    assert (await moving.get(NAME, "mixedcaseidaaa")).body == b"two"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"created_ts": None}, {"created_ts": 1895400785345}),
        ({"created_ts": 0}, {"created_ts": 1895400785345}),
        ({"created_ts": -5}, {"created_ts": 1895400785345}),
        ({"created_ts": 1_500_000_000}, {"created_ts": 1_500_000_000_000}),
        ({"created_ts": 9_000_000_000_000}, {"created_ts": 9_000_000_000_000}),
        ({"created_ts": 2_000_000_000_000}, {"created_ts": 2_000_000_000_000}),
        ({"user_id": None}, {"uploaded_by": None}),
        ({"user_id": "@far:elsewhere.test"}, {"uploaded_by": "@far:elsewhere.test"}),
        ({"upload_name": ""}, {"upload_name": ""}),
        ({"upload_name": "n" * 600}, {"upload_name": "n" * 600}),
        ({"upload_name": "nul\0\nline"}, {"upload_name": "nul\nline"}),
        ({"media_type": None}, {"content_type": "application/octet-stream"}),
        ({"media_type": "no slash"}, {"content_type": "no slash"}),
        ({"media_type": "text/html; charset=x"}, {"content_type": "text/html; charset=x"}),
        ({"sha256": "not a hash"}, {"state": "ready"}),
        ({"quarantined_by": "system"}, {"quarantined_by": "system"}),
    ],
)
async def test_odd_values_do_no_harm(
    moving: MovingIn, synapse: Path, values: dict[str, Any], expected: dict[str, Any]
) -> None:
    add(synapse, "oddvaluesAAA", b"content")
    change(synapse, "UPDATE local_media_repository SET last_access_ts = 1895400785345 WHERE media_id = 'oddvaluesAAA'")
    for name, value in values.items():
        change(synapse, f"UPDATE local_media_repository SET {name} = ? WHERE media_id = 'oddvaluesAAA'", value)
    await moving.run()
    row = (await moving.media())["oddvaluesAAA"]

    assert {name: row[name] for name in expected} == expected
    assert (await moving.get(NAME, "oddvaluesAAA")).status == (404 if row["quarantined_by"] else 200)


@pytest.mark.parametrize(
    ("column", "value", "kept"),
    [
        ("media_type", 'text/html; charset="x"; \x01weird', {"content_type": "application/octet-stream"}),
        ("media_type", "a" * 256, {"content_type": "application/octet-stream"}),
        ("media_type", "text/html\r\nX-Injected: yes", {"content_type": "application/octet-stream"}),
        ("media_type", "téxt/html", {"content_type": "application/octet-stream"}),
        ("upload_name", "n" * 2049, {"upload_name": None}),
        ("upload_name", "é" * 2000, {"upload_name": None}),
        ("user_id", "nobody at all", {"uploaded_by": None}),
        ("user_id", f"@{'a' * 300}:{NAME}", {"uploaded_by": None}),
        ("created_ts", -5, {}),
        ("created_ts", 2**62, {}),
        ("last_access_ts", 2**62, {"last_access_ts": None}),
    ],
)
async def test_what_an_upload_would_be_refused_for_is_left_out_and_told(
    moving: MovingIn, synapse: Path, column: str, value: object, kept: dict[str, Any]
) -> None:
    add(synapse, "oddvaluesAAA", b"content")
    change(synapse, f"UPDATE local_media_repository SET {column} = ? WHERE media_id = 'oddvaluesAAA'", value)
    await moving.run()
    again = await moving.run()
    row = (await moving.media())["oddvaluesAAA"]
    items, _, _ = await moving.report()
    answer = await moving.get(NAME, "oddvaluesAAA")
    _, report, _ = await moving.command("report")

    assert {name: row[name] for name in kept} == kept
    assert 0 < row["created_ts"] < 253_402_300_800_000
    assert (answer.status, answer.body) == (200, b"content")
    assert items["oddvaluesAAA"]["state"] == "committed"
    assert items["oddvaluesAAA"]["reason"].startswith("repaired:")
    assert "oddvaluesAAA" in report
    assert again["unchanged"] == again["rows"]


async def test_a_row_that_postgres_refuses_fails_alone_and_is_tried_again(moving: MovingIn, synapse: Path) -> None:
    add(synapse, "refusedAAAAA", b"refused")
    await moving.own.rows("ALTER TABLE media ADD CONSTRAINT refused CHECK (media_id <> 'refusedAAAAA')")
    await moving.run(status=3)
    items, _, summary = await moving.report()
    await moving.own.rows("ALTER TABLE media DROP CONSTRAINT refused")
    await moving.run()

    assert (items["refusedAAAAA"]["state"], summary["committed"], summary["balances"]) == ("failed", 19, True)
    assert items["refusedAAAAA"]["reason"].startswith("refused: ")
    assert (await moving.get(NAME, "refusedAAAAA")).body == b"refused"


CHANGES = """CREATE TABLE quarantined_media_changes (
    stream_id INTEGER PRIMARY KEY, instance_name TEXT, origin TEXT, media_id TEXT, quarantined BOOLEAN)"""


async def test_what_synapse_quarantined_and_has_no_row_of_any_more_stays_hidden_until_it_is_shown(
    moving: MovingIn, synapse: Path
) -> None:
    add(synapse, "hasitsrowAAA", b"content")
    change(synapse, "DROP TABLE IF EXISTS quarantined_media_changes")
    change(synapse, CHANGES)
    for number, (origin, media_id, quarantined) in enumerate(
        [
            (None, "deletedhereA", 1),
            ("far.test", "purgedAAAAAA", 1),
            ("far.test", "shownAAAAAAA", 1),
            ("far.test", "shownAAAAAAA", 0),
            (None, "hasitsrowAAA", 1),
        ]
    ):
        change(
            synapse,
            "INSERT INTO quarantined_media_changes VALUES (?, 'm', ?, ?, ?)",
            number,
            origin,
            media_id,
            quarantined,
        )
    await moving.run()
    again = await moving.run()
    hidden = {key: row["quarantined_by"] for key, row in (await moving.media()).items() if row["state"] == "missing"}
    _, _, summary = await moving.report()
    answers = [await moving.get(NAME, "deletedhereA"), await moving.get("far.test", "purgedAAAAAA")]
    change(synapse, "INSERT INTO quarantined_media_changes VALUES (9, 'm', 'far.test', 'purgedAAAAAA', 0)")
    await moving.run()
    left = {key for key, row in (await moving.media()).items() if row["state"] == "missing"}

    assert hidden == {"deletedhereA": "synapse", "purgedAAAAAA": "synapse"}
    assert [answer.status for answer in answers] == [404, 404]
    assert (summary["balances"], again["unchanged"]) == (True, again["rows"])
    assert left == {"deletedhereA"}
    assert (await moving.get(NAME, "hasitsrowAAA")).body == b"content"


async def test_names_too_long_for_an_index_are_noted_all_the_same(moving: MovingIn, synapse: Path) -> None:
    change(synapse, INSERT, "".join(chr(0x10000 + 7919 * number % 0x10000) for number in range(590)), 3, 1)
    await moving.run()
    _, _, summary = await moving.report()

    assert summary["balances"]


async def test_a_folder_where_a_file_should_be_fails_alone(moving: MovingIn, synapse: Path) -> None:
    change(synapse, INSERT, "afolderAAAAA", 3, 1)
    file_of(synapse, "afolderAAAAA").mkdir(parents=True)
    await moving.run(status=3)
    items, _, summary = await moving.report()

    assert (items["afolderAAAAA"]["state"], summary["failed"], summary["committed"]) == ("failed", 1, 19)
    assert summary["balances"]


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
async def test_a_file_that_may_not_be_read_fails_alone_and_is_tried_again(moving: MovingIn, synapse: Path) -> None:
    add(synapse, "unreadableAA", b"secret")
    file_of(synapse, "unreadableAA").chmod(0)
    await moving.run(status=3)
    file_of(synapse, "unreadableAA").chmod(0o600)
    await moving.run()

    assert (await moving.get(NAME, "unreadableAA")).body == b"secret"


async def test_media_removed_while_they_are_carried_are_no_failure(
    moving: MovingIn, synapse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(synapse, "passingAAAAA", b"passing")
    from mediarepo.services.imports.transfer import ItemTransfer  # noqa: PLC0415 - to be held up

    carry = ItemTransfer.carry

    async def late(self: ItemTransfer, item: Any) -> Any:
        if item.media.media_id == "passingAAAAA":
            file_of(synapse, "passingAAAAA").unlink(missing_ok=True)
            change(synapse, "DELETE FROM local_media_repository WHERE media_id = 'passingAAAAA'")
        return await carry(self, item)

    monkeypatch.setattr(ItemTransfer, "carry", late)
    await moving.run()
    items, _, summary = await moving.report()

    assert "passingAAAAA" not in items
    assert summary["balances"]


async def test_other_servers_names_with_ports_and_brackets_are_kept(moving: MovingIn, synapse: Path) -> None:
    for number, origin in enumerate(("localhost:18448", "[::1]:8448", "UPPER.example", NAME, "bad name")):
        name = f"remoteFile{number:02}"
        file = synapse / "media_store/remote_content" / origin / name[:2] / name[2:4] / name[4:]
        file.parent.mkdir(parents=True)
        file.write_bytes(origin.encode())
        change(
            synapse,
            "INSERT INTO remote_media_cache (media_origin, media_id, media_type, created_ts, media_length, "
            "filesystem_id, authenticated) VALUES (?, ?, 'text/plain', 1, ?, ?, 1)",
            origin,
            f"remote{number}",
            len(origin),
            name,
        )
    await moving.run()
    items, _, summary = await moving.report()

    for number, origin in enumerate(("localhost:18448", "[::1]:8448", "UPPER.example")):
        assert (await moving.get(origin, f"remote{number}")).body == origin.encode()
    assert "remote3" not in items, "Synapse never serves its own media from its cache"
    assert items["remote4"]["reason"].startswith("no_mxc")
    assert summary["balances"]


async def test_equal_bytes_may_be_hidden_and_protected_at_once(moving: MovingIn, synapse: Path) -> None:
    for media_id in ("hiddenAAAAAA", "protectedAAA", "shownAAAAAAA"):
        add(synapse, media_id, b"the same bytes")
    change(synapse, "UPDATE local_media_repository SET quarantined_by = '@a:b' WHERE media_id = 'hiddenAAAAAA'")
    change(synapse, "UPDATE local_media_repository SET safe_from_quarantine = 1 WHERE media_id = 'protectedAAA'")
    await moving.run()
    statuses = [(await moving.get(NAME, one)).status for one in ("hiddenAAAAAA", "protectedAAA", "shownAAAAAAA")]

    assert statuses == [404, 200, 200]


async def test_hidden_media_without_bytes_stay_hidden_when_the_bytes_come_back(moving: MovingIn, synapse: Path) -> None:
    add(synapse, "hiddenlostAA", b"gone")
    file_of(synapse, "hiddenlostAA").unlink()
    change(synapse, "UPDATE local_media_repository SET quarantined_by = '@a:b' WHERE media_id = 'hiddenlostAA'")
    await moving.run(status=2)
    lost = (await moving.media())["hiddenlostAA"]
    file_of(synapse, "hiddenlostAA").write_bytes(b"gone")
    await moving.run()
    found = (await moving.media())["hiddenlostAA"]

    assert (lost["state"], lost["quarantined_by"]) == ("missing", "@a:b")
    assert (found["state"], found["quarantined_by"]) == ("ready", "@a:b")
    assert (await moving.get(NAME, "hiddenlostAA")).status == 404


async def test_a_source_that_is_written_to_meanwhile_is_read_right(moving: MovingIn, synapse: Path) -> None:
    """A Synapse that runs keeps what it wrote last in the write-ahead log, beside the database."""
    connection = sqlite3.connect(synapse / "homeserver.db")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    add(synapse, "inthelogAAAA", b"in the log")
    before = (synapse / "homeserver.db").stat()
    await moving.run()
    after = (synapse / "homeserver.db").stat()
    connection.close()

    assert (await moving.get(NAME, "inthelogAAAA")).body == b"in the log"
    assert (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
