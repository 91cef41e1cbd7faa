"""Rows as the journal has them, in a form that another database understands."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from mediarepo.db.database import NOW_MS, Connection, Database

_PAGE = 2000


@dataclass(frozen=True, slots=True)
class JournaledTable:
    """A table whose changes are journaled.

    `key` names a row r of the table, `row` is what is written of it, `joins` what both need. `columns` are those that a
    key k consists of, as `values`; a snapshot reads the table in their order.
    """

    kind: str
    key: str
    row: str
    joins: str
    columns: str
    values: str
    only: str = "true"


def _place_of(column: str) -> str:
    return f"(SELECT jsonb_build_array(o.store, o.object_key) FROM blob o WHERE o.blob_id = {column})"


FOLLOWED = (
    JournaledTable(
        "blob",
        "ARRAY[r.store, r.object_key]",
        f"""to_jsonb(r) - 'blob_id' - 'parent_blob_id'
            || jsonb_build_object('parent', {_place_of("r.parent_blob_id")})""",
        "FROM blob r",
        "(r.store, r.object_key)",
        "(k[1], k[2])",
    ),
    JournaledTable(
        "media",
        "ARRAY[r.server_name, r.media_id]",
        f"""to_jsonb(r) - 'blob_id' - 'import_source_id' || jsonb_build_object('object', {_place_of("r.blob_id")},
            'import_source', (SELECT s.name FROM import_source s WHERE s.source_id = r.import_source_id))""",
        "FROM media r",
        "(r.server_name, r.media_id)",
        "(k[1], k[2])",
    ),
    JournaledTable(
        "thumbnail",
        "ARRAY[b.store, b.object_key]",
        f"""(SELECT jsonb_agg(to_jsonb(t) - 'blob_id' - 'source_blob_id'
            || jsonb_build_object('object', {_place_of("t.blob_id")}))
            FROM thumbnail t WHERE t.source_blob_id = b.blob_id)""",
        "FROM blob b",
        "(b.store, b.object_key)",
        "(k[1], k[2])",
        "EXISTS (SELECT FROM thumbnail t WHERE t.source_blob_id = b.blob_id)",
    ),
    JournaledTable(
        "media_mark",
        "ARRAY[r.server_name, r.media_id, r.kind, r.owner]",
        "to_jsonb(r)",
        "FROM media_mark r",
        "(r.server_name, r.media_id, r.kind, r.owner)",
        "(k[1], k[2], k[3], k[4])",
    ),
    JournaledTable(
        "quarantined_hash",
        "ARRAY[encode(r.sha256, 'hex'), r.owner, r.scope]",
        "to_jsonb(r)",
        "FROM quarantined_hash r",
        "(r.sha256, r.owner, r.scope)",
        "(decode(k[1], 'hex'), k[2], k[3])",
    ),
    JournaledTable(
        "quarantined_blob",
        "ARRAY[b.store, b.object_key, r.owner, r.scope]",
        "to_jsonb(r) - 'blob_id' || jsonb_build_object('object', jsonb_build_array(b.store, b.object_key))",
        "FROM quarantined_blob r JOIN blob b USING (blob_id)",
        "(b.store, b.object_key, r.owner, r.scope)",
        "(k[1], k[2], k[3], k[4])",
    ),
    JournaledTable(
        "quarantined_server_name",
        "ARRAY[r.server_name]",
        "to_jsonb(r)",
        "FROM quarantined_server_name r",
        "r.server_name",
        "k[1]",
    ),
)


@dataclass(frozen=True, slots=True)
class Pending:
    """Changes to be journaled: their sequence number, which ones, and their lines."""

    sequence: int
    change_ids: list[int]
    lines: list[str]


class JournalTable:
    """Reads the changes to journal, and records what was journaled."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, limit: int) -> Pending | None:
        """Take changes and the present rows, under a new sequence number; None when nothing has changed.

        The sequence row is locked first: a higher number was read later, so the newest state has the highest number. A
        change that commits meanwhile is taken next time, however long its transaction took.
        """
        async with self._database.transaction() as connection:
            if not await connection.fetchval("SELECT EXISTS (SELECT FROM journal_change)"):
                return None
            sequence = await connection.fetchval("UPDATE journal_state SET sequence = sequence + 1 RETURNING sequence")
            rows = await connection.fetch(
                "SELECT change_id, kind, row_key FROM journal_change ORDER BY change_id LIMIT $1", limit
            )
            lines: list[str] = []
            for followed in FOLLOWED:
                keys = sorted({tuple(row["row_key"]) for row in rows if row["kind"] == followed.kind})
                for start in range(0, len(keys), _PAGE):
                    lines += await _lines_of(connection, followed, keys[start : start + _PAGE])
        return Pending(int(sequence), [row["change_id"] for row in rows], lines)

    async def forget(self, change_ids: Sequence[int]) -> None:
        """Remove changes that S3 has."""
        async with self._database.connection() as connection:
            await connection.execute("DELETE FROM journal_change WHERE change_id = ANY($1::bigint[])", list(change_ids))

    async def forget_all(self) -> None:
        """Remove all changes, because no journal is written; the next snapshot is due at once."""
        async with self._database.transaction() as connection:
            await connection.execute("DELETE FROM journal_change")
            await connection.execute("UPDATE journal_state SET snapshot_ts = NULL, snapshot_sequence = NULL")

    async def sequence(self) -> int:
        """Return the last sequence number given out."""
        row = await self._database.get("SELECT sequence FROM journal_state")
        return int(row[0]) if row is not None else 0

    async def continue_after(self, sequence: int) -> None:
        """Continue behind this sequence number, which is not ours, and have a snapshot made soon."""
        async with self._database.connection() as connection:
            await connection.execute(
                "UPDATE journal_state SET sequence = $1, snapshot_ts = NULL WHERE sequence < $1", sequence
            )

    async def snapshot_due(self, interval_ms: int) -> bool:
        """Return whether the last snapshot is too old."""
        row = await self._database.get(
            f"SELECT snapshot_ts IS NULL OR snapshot_ts <= {NOW_MS} - $1::bigint FROM journal_state",
            interval_ms,
        )
        return bool(row is not None and row[0])

    async def note_snapshot(self, sequence: int) -> None:
        """Record that there is a snapshot, which later numbers add to."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"UPDATE journal_state SET snapshot_sequence = $1, snapshot_ts = {NOW_MS}",
                sequence,
            )

    async def all_lines(self) -> AsyncIterator[list[str]]:
        """Iterate over all rows in pages, each of its own instant; later changes are in later numbers."""
        for followed in FOLLOWED:
            after: list[str] | None = None
            while True:
                async with self._database.connection() as connection:
                    page = await _page(connection, followed, after)
                if not page:
                    break
                yield [_line(followed.kind, json.dumps(key), row) for key, row in page]
                after = page[-1][0]


async def _lines_of(connection: Connection, followed: JournaledTable, keys: Sequence[tuple[str, ...]]) -> list[str]:
    """Read the rows that keys name, one by one: a key's columns are those of an index."""
    rows = await connection.fetch(
        f"""SELECT name, (SELECT {followed.row} {followed.joins}
                WHERE {followed.columns} = {followed.values} AND {followed.only}) AS row
            FROM (SELECT name, ARRAY(SELECT jsonb_array_elements_text(name::jsonb)) AS k
                FROM unnest($1::text[]) AS name) keys""",
        [json.dumps(key) for key in keys],
    )
    return [_line(followed.kind, row["name"], row["row"]) for row in rows]


async def _page(
    connection: Connection, followed: JournaledTable, after: list[str] | None
) -> list[tuple[list[str], str]]:
    behind, arguments = "true", list[object]()
    if after is not None:
        behind, arguments = f"{followed.columns} > {followed.values.replace('k[', '($1::text[])[')}", [after]
    order = followed.columns.strip("()")
    rows = await connection.fetch(
        f"""SELECT {followed.key} AS key, {followed.row} AS row {followed.joins}
            WHERE {followed.only} AND {behind} ORDER BY {order} LIMIT {_PAGE}""",
        *arguments,
    )
    return [(list(row["key"]), row["row"]) for row in rows]


def _line(kind: str, key: str, row: str | None) -> str:
    return f'{{"kind":"{kind}","key":{key},"row":{row or "null"}}}'
