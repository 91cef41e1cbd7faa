"""The journal beside the objects: what it says, and that it misses nothing."""

import json
import zlib
from dataclasses import replace
from typing import Any

import pytest

from mediarepo.app.build_services import build_journal
from mediarepo.db.journal import JournalTable
from mediarepo.errors import UnavailableError
from mediarepo.services.journal import Journal
from tests.support.installation import Installation


def journal_of(own: Installation) -> Journal:
    return build_journal(own.repository.foundation)


async def parts(own: Installation, kind: str) -> list[list[dict[str, Any]]]:
    """Read all parts of a kind, in order."""
    under, found = f"{own.store.prefix}/journal/", []
    async for listed in own.store.list(under):
        if f"/{kind}/" in listed.key:
            data = await own.store.read(listed.key, max_bytes=10**7)
            found.append([json.loads(line) for line in zlib.decompress(data, 31).splitlines()])
    return found


def keys(part: list[dict[str, Any]], kind: str) -> set[str]:
    return {line["key"][-1] for line in part if line.get("kind") == kind}


async def test_what_changed_is_one_small_object_and_nothing_is_none(own: Installation) -> None:
    media_id = await own.upload(b"first", content_type="text/plain")
    await journal_of(own).write()
    await journal_of(own).write()
    second = await own.upload(b"second")
    await own.mark(media_id, "quarantine")
    await journal_of(own).write()

    first, later = await parts(own, "segment")
    (snapshot,) = await parts(own, "snapshot")

    assert (first[0]["format"], first[0]["installation"]) == (
        1,
        str(await own.value("SELECT installation_id FROM schema_meta")),
    )
    assert first[-1] == {"end": True, "rows": 2}
    assert keys(first, "media") == keys(snapshot, "media") == {media_id}
    assert keys(later, "media") == {second}
    assert [line["row"]["kind"] for line in later if line.get("kind") == "media_mark"] == ["quarantine"]
    assert await own.value("SELECT count(*) FROM journal_change") == 0


class Overtaken(JournalTable):
    """Another process writes a part right after this one has read how far the journal is."""

    def __init__(self, own: Installation) -> None:
        super().__init__(own.repository.foundation.database)
        self._own = own
        self.asked = 0

    async def sequence(self) -> int:
        found = await super().sequence()
        self.asked += 1
        if self.asked == 1:
            await self._own.upload(b"just now")
            await journal_of(self._own).write()
        return found


async def test_a_part_that_is_written_during_a_look_is_no_sign_of_an_older_database(own: Installation) -> None:
    await own.upload(b"first")
    await journal_of(own).write()
    table = Overtaken(own)
    looking = replace(own.repository.foundation.recency, journal=table)

    assert await looking.look(own.store) is None
    assert table.asked == 2
    assert await looking.problems() == {}


async def test_a_transaction_that_commits_late_is_in_a_later_part(own: Installation) -> None:
    insert = """INSERT INTO media (server_name, media_id, state, remote, content_type, authenticated, created_ts)
                VALUES ('media.example', 'late', 'tombstone', false, '', true, 1)"""
    async with own.repository.foundation.database.connection() as connection, connection.transaction():
        await connection.execute(insert)
        await own.upload(b"quicker")
        await journal_of(own).write()
    await journal_of(own).write()

    first, later = await parts(own, "segment")

    assert "late" not in keys(first, "media")
    assert keys(later, "media") == {"late"}


async def test_what_died_between_object_and_note_is_written_again(own: Installation) -> None:
    media_id = await own.upload(b"again")
    table = JournalTable(own.repository.foundation.database)
    taken = await table.take(10)
    await journal_of(own).write()

    (only,) = await parts(own, "segment")

    assert taken is not None
    assert keys(only, "media") == {media_id}
    assert await table.sequence() == 2


async def test_a_row_that_is_gone_is_said_to_be(own: Installation) -> None:
    media_id = await own.upload(b"gone")
    await journal_of(own).write()
    await own.rows("DELETE FROM media WHERE media_id = $1 RETURNING 1", media_id)
    await journal_of(own).write()

    _, later = await parts(own, "segment")

    assert [line["row"] for line in later if line.get("kind") == "media"] == [None]


async def test_old_parts_go_and_two_whole_copies_stay(own: Installation) -> None:
    foundation = own.repository.foundation
    config = foundation.settings.journal.model_copy(update={"keep_ms": 0, "snapshot_interval_ms": 1})
    journal = Journal(
        config=config,
        table=JournalTable(foundation.database),
        sweep_table=own.repository.sweeps.sweep_table,
        stores=foundation.stores,
        recency=foundation.recency,
    )
    for number in range(4):
        await own.upload(f"number {number}".encode())
        await own.rows("UPDATE journal_state SET snapshot_ts = 0 RETURNING 1")
        await journal.write()

    assert len(await parts(own, "snapshot")) == 2
    assert len(await parts(own, "segment")) == 1


async def test_a_number_that_this_database_has_not_given_out_is_proof(own: Installation) -> None:
    await own.upload(b"known")
    await journal_of(own).write()
    await own.rows("UPDATE journal_state SET sequence = 0 RETURNING 1")

    with pytest.raises(UnavailableError, match="older than the bucket"):
        await journal_of(own).write()
    (report,) = await own.repository.sweeps.sweep()

    assert report.stopped is not None
