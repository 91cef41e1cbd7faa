"""Restores rows from a journal: gathers the newest state of each, then makes the tables match it."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

from mediarepo.db.database import NOW_MS, Connection, Database, LeaseLostError
from mediarepo.db.journal import FOLLOWED
from mediarepo.model.journal import JournalRow
from mediarepo.model.mxc import Mxc
from mediarepo.model.tasks import Lease

_BATCH = 5000
_TIMEOUT_S = 3600
_RANGE = "r.kind = $1 AND ($2::text[] IS NULL OR r.row_key > $2) AND r.row_key <= $3"
_STANDS = """NOT EXISTS (SELECT FROM journal_change c
    WHERE c.kind = r.kind AND c.row_key = r.row_key AND c.created_ts > $4)"""
_SECOND_COPY = """EXISTS (SELECT FROM blob o WHERE o.store = (p).store AND o.sha256 = (p).sha256
    AND o.object_key <> (p).object_key AND o.ownership = 'owned' AND o.sha256_state = 'verified'
    AND o.missing_ts IS NULL AND o.parent_blob_id IS NULL)"""
_KEYS = {
    "blob": "store, object_key",
    "media": "server_name, media_id",
    "media_mark": "server_name, media_id, kind, owner",
    "quarantined_hash": "sha256, owner, scope",
    "quarantined_blob": "blob_id, owner, scope",
    "quarantined_server_name": "server_name",
}
_ORDER = ("blob", "media", "thumbnail", "media_mark", "quarantined_hash", "quarantined_blob", "quarantined_server_name")


class RebuildTable:
    """Gathers rows, and makes the tables match them, while no other process writes the journal (`lease`)."""

    def __init__(self, database: Database, lease: Lease) -> None:
        self._database = database
        self._lease = lease

    async def is_empty(self) -> bool:
        """Return whether the database has no media and no object."""
        async with self._database.connection() as connection:
            found = await connection.fetchval("SELECT EXISTS (SELECT FROM media) OR EXISTS (SELECT FROM blob)")
        return not found

    async def become(self, installation_id: UUID) -> None:
        """Take the installation id of a journal; only an empty database may."""
        async with self._database.connection() as connection:
            await connection.execute("UPDATE schema_meta SET installation_id = $1", installation_id)

    async def parts_done(self) -> set[str]:
        """Return the parts that have been gathered."""
        async with self._database.connection() as connection:
            return {row["object_key"] for row in await connection.fetch("SELECT object_key FROM rebuild_part")}

    async def gather(self, rows: Sequence[JournalRow], sequence: int) -> None:
        """Keep rows, unless a newer state of them is known."""
        async with self._transaction() as connection:
            await connection.execute(
                """INSERT INTO rebuild_row (kind, row_key, sequence, value)
                   SELECT kind, ARRAY(SELECT jsonb_array_elements_text(k)), $4, v
                   FROM unnest($1::text[], $2::jsonb[], $3::jsonb[]) AS read (kind, k, v)
                   ON CONFLICT (kind, row_key) DO UPDATE SET sequence = EXCLUDED.sequence, value = EXCLUDED.value
                       WHERE rebuild_row.sequence <= EXCLUDED.sequence""",
                [row.kind for row in rows],
                [json.dumps(row.key) for row in rows],
                [None if row.row is None else json.dumps(row.row) for row in rows],
                sequence,
                timeout=_TIMEOUT_S,
            )

    async def note_part(self, object_key: str) -> None:
        """Record that a part has been gathered completely."""
        async with self._database.connection() as connection:
            await connection.execute("INSERT INTO rebuild_part VALUES ($1) ON CONFLICT DO NOTHING", object_key)

    async def gathered(self) -> dict[str, int]:
        """Count the gathered rows by table, deleted ones excluded."""
        async with self._transaction() as connection:
            rows = await connection.fetch(
                "SELECT kind, count(value) AS count FROM rebuild_row GROUP BY kind", timeout=_TIMEOUT_S
            )
        return {row["kind"]: int(row["count"]) for row in rows}

    async def note_absent(self) -> None:
        """Mark rows deleted that a snapshot does not have."""
        async with self._transaction() as connection:
            for followed in FOLLOWED:
                await connection.execute(
                    f"""INSERT INTO rebuild_row (kind, row_key, sequence, value)
                        SELECT $1, {followed.key}, 0, NULL {followed.joins} WHERE {followed.only}
                        ON CONFLICT DO NOTHING""",
                    followed.kind,
                    timeout=_TIMEOUT_S,
                )
            await connection.execute("ANALYZE rebuild_row", timeout=_TIMEOUT_S)

    async def apply(self, written_ts: int) -> AsyncIterator[int]:
        """Make the tables match the gathered rows; yields the number of rows done, from time to time."""
        await self._give_way()
        for kind in _ORDER:
            statements = await self._statements(kind)
            async for count in self._in_batches(kind, statements, written_ts):
                yield count
        for kind in reversed(_ORDER):
            async for _ in self._in_batches(kind, _REMOVALS[kind], written_ts):
                pass

    async def _in_batches(self, kind: str, statements: Sequence[str], written_ts: int) -> AsyncIterator[int]:
        for statement in statements:
            after: list[str] | None = None
            while True:
                async with self._transaction() as connection:
                    last = await connection.fetchrow(
                        """SELECT max(row_key) AS row_key, count(*) AS count FROM (SELECT row_key FROM rebuild_row r
                           WHERE kind = $1 AND ($2::text[] IS NULL OR row_key > $2) ORDER BY row_key LIMIT $3) page""",
                        kind,
                        after,
                        _BATCH,
                        timeout=_TIMEOUT_S,
                    )
                    if last is None or last["row_key"] is None:
                        break
                    await connection.execute(statement, kind, after, last["row_key"], written_ts, timeout=_TIMEOUT_S)
                after = last["row_key"]
                if statement is statements[-1]:
                    yield int(last["count"])

    async def _give_way(self) -> None:
        """Let no content of this database stand where the journal has another object for it."""
        async with self._transaction() as connection:
            await connection.execute(
                """UPDATE blob b SET sha256_state = 'claimed', claim_checked = true FROM rebuild_row r
                   WHERE r.kind = 'blob' AND r.row_key = ARRAY[b.store, b.object_key] AND b.sha256_state = 'verified'
                       AND b.parent_blob_id IS NULL AND b.missing_ts IS NULL
                       AND (r.value IS NULL OR r.value->>'sha256_state' <> 'verified'
                           OR r.value->>'missing_ts' IS NOT NULL)""",
                timeout=_TIMEOUT_S,
            )

    async def _statements(self, kind: str) -> list[str]:
        """Write the statements that make rows of what was gathered, whatever columns this version has."""
        async with self._database.connection() as connection:
            names = await connection.fetch(
                """SELECT attname FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0
                       AND NOT attisdropped AND attgenerated = '' ORDER BY attnum""",
                kind,
            )
        columns = [row["attname"] for row in names]
        if kind == "thumbnail":
            return [_OLD_THUMBNAILS, _thumbnails(columns)]
        if kind == "blob":
            return [_blobs(columns, children=False), _blobs(columns, children=True)]
        return [_rows(kind, columns)]

    async def is_known(self, mxc: Mxc) -> bool:
        """Return whether media have a row, or had one that was deleted; reserved ids without content do not count."""
        row = await self._database.get(
            """SELECT EXISTS (SELECT FROM media WHERE server_name = $1 AND media_id = $2 AND state <> 'pending')
                   OR EXISTS (SELECT FROM rebuild_row WHERE kind = 'media' AND row_key = ARRAY[$1, $2]::text[]
                       AND value IS NULL)""",
            mxc.server_name,
            mxc.media_id,
        )
        return bool(row is not None and row[0])

    async def forget_pending(self, mxc: Mxc) -> None:
        """Remove the reservation of a media id whose content exists."""
        async with self._database.connection() as connection:
            await connection.execute(
                "DELETE FROM media WHERE server_name = $1 AND media_id = $2 AND state = 'pending'",
                mxc.server_name,
                mxc.media_id,
            )

    async def media_of(self, store: str, object_key: str) -> list[Mxc]:
        """Return the media that have an object as their content."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """SELECT m.server_name, m.media_id FROM media m JOIN blob b USING (blob_id)
                   WHERE b.store = $1 AND b.object_key = $2 AND m.state IN ('ready', 'missing') ORDER BY 1, 2""",
                store,
                object_key,
            )
        return [Mxc(row["server_name"], row["media_id"]) for row in rows]

    async def finish(self, sequence: int) -> None:
        """Continue behind the journal's last number, have a snapshot made soon, and drop the gathered rows."""
        async with self._transaction() as connection:
            await connection.execute(
                "UPDATE journal_state SET sequence = greatest(sequence, $1), snapshot_ts = NULL", sequence
            )
            await connection.execute("TRUNCATE rebuild_row, rebuild_part")

    async def _check_lease(self, connection: Connection) -> None:
        """Write nothing once somebody else may write the journal: what was read of it is old then."""
        held = await connection.fetchval(
            "SELECT fence FROM lease WHERE name = $1 AND fence = $2 FOR SHARE", self._lease.name, self._lease.fence
        )
        if held is None:
            raise LeaseLostError("another process is using the journal: run it again", retry_after_s=60)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        async with self._database.transaction() as connection:
            await self._check_lease(connection)
            await connection.execute("SET LOCAL statement_timeout = 0")
            await connection.execute("SET LOCAL mediarepo.unjournaled = 'on'")
            yield connection


def _blobs(columns: Sequence[str], *, children: bool) -> str:
    own = [name for name in columns if name not in {"blob_id", "parent_blob_id", "sha256_state", "claim_checked"}]
    flag = str(children).lower()
    state = f"CASE WHEN (p).sha256_state = 'verified' AND NOT {flag} AND {_SECOND_COPY}"
    state += " THEN 'claimed' ELSE (p).sha256_state END"
    written = [*own, "sha256_state", "claim_checked", "parent_blob_id"]
    values = [*(f"(p).{name}" for name in own), state, f"(p).claim_checked OR ({state}) <> (p).sha256_state"]
    return f"""INSERT INTO blob ({", ".join(written)})
        SELECT {", ".join(values)}, parent.blob_id
        FROM (SELECT jsonb_populate_record(NULL::blob, r.value) AS p, r.value FROM rebuild_row r
            WHERE {_RANGE} AND {_STANDS} AND r.value IS NOT NULL
                AND (jsonb_typeof(r.value->'parent') = 'array') = {flag}) read
            LEFT JOIN blob parent ON {_of("parent", "read.value->'parent'")}
        ON CONFLICT (store, object_key) DO UPDATE SET {_excluded(written)}"""


def _rows(kind: str, columns: Sequence[str]) -> str:
    """Write the statement for a table whose rows stand for themselves, or refer to one blob."""
    special = {"blob_id": "b.blob_id", "import_source_id": "s.source_id"}
    if kind == "media":
        special["state"] = "CASE WHEN (p).state = 'ready' AND b.blob_id IS NULL THEN 'missing' ELSE (p).state END"
    values = [special.get(name, f"(p).{name}") for name in columns]
    joins = ""
    if "blob_id" in columns:
        outer = "" if kind == "quarantined_blob" else "LEFT "
        place = _of("b", "read.value->'object'")
        joins += f"{outer}JOIN blob b ON {place} "
    if "import_source_id" in columns:
        joins += "LEFT JOIN import_source s ON s.name = read.value->>'import_source'"
    return f"""INSERT INTO {kind} ({", ".join(columns)})
        SELECT {", ".join(values)}
        FROM (SELECT jsonb_populate_record(NULL::{kind}, r.value) AS p, r.value FROM rebuild_row r
            WHERE {_RANGE} AND {_STANDS} AND r.value IS NOT NULL) read {joins}
        ON CONFLICT ({_KEYS[kind]}) DO UPDATE SET {_excluded(columns)}"""


def _thumbnails(columns: Sequence[str]) -> str:
    special = {"blob_id": "b.blob_id", "source_blob_id": "source.blob_id"}
    values = [special.get(name, f"(p).{name}") for name in columns]
    return f"""INSERT INTO thumbnail ({", ".join(columns)})
        SELECT {", ".join(values)}
        FROM (SELECT jsonb_populate_record(NULL::thumbnail, one) AS p, one, r.row_key
            FROM rebuild_row r CROSS JOIN jsonb_array_elements(r.value) AS one
            WHERE {_RANGE} AND {_STANDS} AND r.value IS NOT NULL) read
            JOIN blob source ON source.store = read.row_key[1] AND source.object_key = read.row_key[2]
            JOIN blob b ON {_of("b", "read.one->'object'")}
        ON CONFLICT DO NOTHING"""


def _of(alias: str, place: str) -> str:
    return f"{alias}.store = ({place})->>0 AND {alias}.object_key = ({place})->>1"


def _excluded(columns: Sequence[str]) -> str:
    return ", ".join(f"{name} = EXCLUDED.{name}" for name in columns)


_OLD_THUMBNAILS = f"""DELETE FROM thumbnail t USING blob b, rebuild_row r
    WHERE b.blob_id = t.source_blob_id AND b.store = r.row_key[1] AND b.object_key = r.row_key[2]
        AND {_RANGE} AND {_STANDS}"""
_GONE = f"{_RANGE} AND {_STANDS} AND r.value IS NULL"
_GONE_BLOBS = f"""DELETE FROM blob b USING rebuild_row r
    WHERE b.store = r.row_key[1] AND b.object_key = r.row_key[2] AND {_GONE} AND {{only}}
        AND NOT EXISTS (SELECT FROM media m WHERE m.blob_id = b.blob_id)
        AND NOT EXISTS (SELECT FROM blob child WHERE child.parent_blob_id = b.blob_id)
        AND NOT EXISTS (SELECT FROM thumbnail t WHERE t.blob_id = b.blob_id AND t.source_blob_id <> b.blob_id)"""
_REMOVALS: dict[str, Sequence[str]] = {
    "quarantined_server_name": [
        f"DELETE FROM quarantined_server_name q USING rebuild_row r WHERE q.server_name = r.row_key[1] AND {_GONE}"
    ],
    "quarantined_blob": [
        f"""DELETE FROM quarantined_blob q USING rebuild_row r, blob b WHERE b.blob_id = q.blob_id
            AND b.store = r.row_key[1] AND b.object_key = r.row_key[2] AND q.owner = r.row_key[3]
            AND q.scope = r.row_key[4] AND {_GONE}"""
    ],
    "quarantined_hash": [
        f"""DELETE FROM quarantined_hash q USING rebuild_row r WHERE q.sha256 = decode(r.row_key[1], 'hex')
            AND q.owner = r.row_key[2] AND q.scope = r.row_key[3] AND {_GONE}"""
    ],
    "media_mark": [
        f"""DELETE FROM media_mark q USING rebuild_row r WHERE q.server_name = r.row_key[1]
            AND q.media_id = r.row_key[2] AND q.kind = r.row_key[3] AND q.owner = r.row_key[4] AND {_GONE}"""
    ],
    "thumbnail": [],
    "media": [
        f"""DELETE FROM media q USING rebuild_row r WHERE q.server_name = r.row_key[1] AND q.media_id = r.row_key[2]
            AND {_GONE}"""
    ],
    "blob": [
        _GONE_BLOBS.format(only="b.parent_blob_id IS NOT NULL"),
        _GONE_BLOBS.format(only="b.parent_blob_id IS NULL"),
        f"""INSERT INTO object_deletion (store, object_key, queued_ts, next_attempt_ts)
            SELECT r.row_key[1], r.row_key[2], {NOW_MS}, {NOW_MS} FROM rebuild_row r
            WHERE {_GONE} AND r.row_key[2] ~ '/[0-9a-z]{{9}}-[0-9a-z]{{32}}$' AND r.sequence > 0
                AND NOT EXISTS (SELECT FROM blob b WHERE b.store = r.row_key[1] AND b.object_key = r.row_key[2])
            ON CONFLICT DO NOTHING""",
    ],
}
"""What removes rows that are no more; bytes go as always, by the outbox, where the journal says that they may."""
