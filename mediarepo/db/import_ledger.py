"""Import runs, and the ledger: one row for each row of a source."""

import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence

from mediarepo.db.database import NOW_MS, Connection, Database, Row
from mediarepo.model.import_ledger import (
    ImportedBytes,
    ImportRun,
    ImportSource,
    ItemMode,
    ItemState,
    LedgerEntry,
    LedgerItem,
    LedgerState,
    LedgerSum,
    LedgerUnclaimedBytes,
)
from mediarepo.model.import_source import SourceKey

_RUN = "run_id, source_id, command, started_ts, heartbeat_ts, finished_ts, complete, figures, error"
_RUN_OF_SOURCE = ", ".join(f"r.{column}" for column in _RUN.split(", "))


class ImportRuns:
    """Records the sources and runs of imports, and their progress."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def source(self, name: str, kind: str) -> ImportSource:
        """Return the source of that name, inserting it if it is new.

        Raises LookupError when the insert returns no row.
        """
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                f"""INSERT INTO import_source (name, kind, created_ts) VALUES ($1, $2, {NOW_MS})
                    ON CONFLICT (name) DO UPDATE SET name = EXCLUDED.name
                    RETURNING source_id, name, kind, finalized_ts""",
                name,
                kind,
            )
        if row is None:
            raise LookupError(f"the source {name} could not be noted")
        return ImportSource(*row)

    async def find_source(self, name: str) -> ImportSource | None:
        """Return the source of that name, or None."""
        row = await self._database.get(
            "SELECT source_id, name, kind, finalized_ts FROM import_source WHERE name = $1", name
        )
        return None if row is None else ImportSource(*row)

    async def finalize(self, source_id: int) -> None:
        """Record that a source is finalized."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"UPDATE import_source SET finalized_ts = {NOW_MS} WHERE source_id = $1",
                source_id,
            )

    async def begin(self, source_id: int, command: str, options: Mapping[str, object]) -> int:
        """Record that a run begins; returns its number."""
        async with self._database.connection() as connection:
            run_id: int = await connection.fetchval(
                f"""INSERT INTO import_run (source_id, command, options, started_ts, heartbeat_ts)
                    VALUES ($1, $2, $3, {NOW_MS}, {NOW_MS}) RETURNING run_id""",
                source_id,
                command,
                json.dumps(options),
            )
        return run_id

    async def beat(self, run_id: int, figures: Mapping[str, object]) -> None:
        """Record the progress of a run."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"UPDATE import_run SET heartbeat_ts = {NOW_MS}, figures = $2 WHERE run_id = $1",
                run_id,
                json.dumps(figures),
            )

    async def end(
        self, run_id: int, figures: Mapping[str, object], *, complete: bool, error: str | None = None
    ) -> None:
        """Record that a run has ended, and whether it saw the whole source."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"""UPDATE import_run SET heartbeat_ts = {NOW_MS}, finished_ts = {NOW_MS}, figures = $2, complete = $3,
                        error = $4
                    WHERE run_id = $1""",
                run_id,
                json.dumps(figures),
                complete,
                error,
            )

    async def latest(self, source_id: int, limit: int = 20) -> list[ImportRun]:
        """Return the last runs, newest first."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"SELECT {_RUN} FROM import_run WHERE source_id = $1 ORDER BY run_id DESC LIMIT $2",
                source_id,
                limit,
            )
        return [_run(row) for row in rows]

    async def latest_of_each(self) -> dict[str, ImportRun]:
        """Return each source's newest run, by the source's name."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"""SELECT DISTINCT ON (s.name) s.name, {_RUN_OF_SOURCE}
                    FROM import_source s JOIN import_run r USING (source_id) ORDER BY s.name, r.run_id DESC"""
            )
        return {row["name"]: _run(row) for row in rows}

    async def last_complete(self, source_id: int) -> ImportRun | None:
        """Return the last run that saw the whole source."""
        row = await self._database.get(
            f"SELECT {_RUN} FROM import_run WHERE source_id = $1 AND complete ORDER BY run_id DESC LIMIT 1",
            source_id,
        )
        return None if row is None else _run(row)


def _run(row: Row) -> ImportRun:
    columns = {name: row[name] for name in _RUN.split(", ")}
    return ImportRun(**{**columns, "figures": json.loads(row["figures"])})


_PAGE = 1000
_MAX_NAME_BYTES = 600
_ITEM = "server_name, media_id, kind, state, mode, reason, size_bytes, place, gone, verified"


def ledger_name(text: str) -> str:
    """Return a source's name in a form that Postgres can store and index; it need not be a valid name."""
    kept = text.encode(errors="backslashreplace").decode().replace("\x00", "\\x00")
    if len(kept.encode()) <= _MAX_NAME_BYTES:
        return kept
    digest = hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()
    return f"{kept.encode()[:_MAX_NAME_BYTES].decode(errors='ignore')}…{digest}"


class ImportLedger:
    """Reads the ledger, and records rows that become no media."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def known(self, source_id: int, keys: Sequence[SourceKey]) -> dict[SourceKey, LedgerState]:
        """Return the state of rows; rows without one are left out."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """SELECT k.position, i.state, i.mode, i.reason, i.fingerprint, i.gone, m.state AS media_state,
                       m.import_source_id = $1 AS is_ours
                   FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS k (server_name, media_id, position)
                   LEFT JOIN import_item i ON i.source_id = $1 AND i.server_name = k.server_name
                       AND i.media_id = k.media_id
                   LEFT JOIN media m ON m.server_name = k.server_name AND m.media_id = k.media_id
                   WHERE i.source_id IS NOT NULL OR m.server_name IS NOT NULL""",
                source_id,
                [ledger_name(key.server_name) for key in keys],
                [ledger_name(key.media_id) for key in keys],
            )
        return {keys[row["position"] - 1]: _known(row) for row in rows}

    async def holds(self, store: str, sha256: bytes) -> bool:
        """Return whether a store has content as an object of ours."""
        row = await self._database.get(
            """SELECT 1 FROM blob WHERE store = $1 AND sha256 = $2 AND ownership = 'owned'
                   AND sha256_state = 'verified' AND missing_ts IS NULL AND parent_blob_id IS NULL""",
            store,
            sha256,
        )
        return row is not None

    async def has_content(self, content: ImportedBytes, source_id: int) -> bool:
        """Return whether a store has content as an object of ours, verified, or by another row of this source.

        A source's claim says nothing about other media: those may belong to somebody else.
        """
        row = await self._database.get(
            """SELECT 1 FROM blob b WHERE store = $1 AND sha256 = $2 AND ownership = 'owned' AND size_bytes = $3
                   AND CASE WHEN $4 THEN sha256_state = 'verified' ELSE EXISTS (
                       SELECT FROM media m WHERE m.blob_id = b.blob_id AND m.import_source_id = $5) END
                   AND missing_ts IS NULL AND parent_blob_id IS NULL""",
            content.store,
            content.sha256,
            content.size_bytes,
            content.sha256_known,
            source_id,
        )
        return row is not None

    async def take_stock(self) -> None:
        """Run ANALYZE, so that Postgres plans for the tables' present size."""
        async with self._database.connection() as connection:
            await connection.execute("ANALYZE media, blob, import_item")

    async def hashes(self, limit: int) -> set[bytes] | None:
        """Return the prefixes of all hashes of objects of ours; None when there are too many."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """SELECT substring(sha256 FOR 8) FROM blob WHERE ownership = 'owned' AND sha256_state <> 'unknown'
                       AND missing_ts IS NULL AND parent_blob_id IS NULL LIMIT $1""",
                limit + 1,
            )
        return None if len(rows) > limit else {row[0] for row in rows}

    async def mark_seen(self, source_id: int, run_id: int, keys: Sequence[SourceKey]) -> None:
        """Record that rows still exist unchanged."""
        if not keys:
            return
        async with self._database.connection() as connection:
            await connection.execute(
                """UPDATE import_item i SET seen_run_id = $2, gone = false
                   FROM unnest($3::text[], $4::text[]) AS k (server_name, media_id)
                   WHERE i.source_id = $1 AND i.server_name = k.server_name AND i.media_id = k.media_id
                       AND i.seen_run_id < $2""",
                source_id,
                run_id,
                [ledger_name(key.server_name) for key in keys],
                [ledger_name(key.media_id) for key in keys],
            )

    async def note_orphans(self, source_id: int, run_id: int, orphans: Sequence[LedgerUnclaimedBytes]) -> None:
        """Record bytes that no row of the source mentions."""
        async with self._database.connection() as connection:
            await connection.execute(
                """INSERT INTO import_orphan (source_id, run_id, place, size_bytes)
                   SELECT DISTINCT ON (o.place) $1, $2, o.place, o.size_bytes
                   FROM unnest($3::text[], $4::bigint[]) AS o (place, size_bytes)
                   ON CONFLICT (source_id, place) DO UPDATE
                       SET run_id = EXCLUDED.run_id, size_bytes = EXCLUDED.size_bytes""",
                source_id,
                run_id,
                [ledger_name(one.place) for one in orphans],
                [one.size_bytes for one in orphans],
            )

    async def forget_orphans_before(self, source_id: int, run_id: int) -> None:
        """Remove unclaimed bytes that a complete run did not see again."""
        async with self._database.connection() as connection:
            await connection.execute(
                "DELETE FROM import_orphan WHERE source_id = $1 AND run_id < $2", source_id, run_id
            )

    async def mark_gone(self, source_id: int, run_id: int) -> None:
        """Mark the rows that existed before a complete run and were not seen by it."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"""UPDATE import_item SET gone = true, updated_ts = {NOW_MS}
                    WHERE source_id = $1 AND seen_run_id < $2 AND NOT gone
                        AND updated_ts < (SELECT started_ts FROM import_run WHERE run_id = $2)""",
                source_id,
                run_id,
            )

    async def sums(self, source_id: int) -> list[LedgerSum]:
        """Count the lines of rows that still exist, by state, reason and mode."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """SELECT state, split_part(reason, ':', 1) AS reason, mode, count(*) AS count,
                       coalesce(sum(size_bytes), 0)::bigint AS size_bytes
                   FROM import_item WHERE source_id = $1 AND NOT gone GROUP BY 1, 2, 3 ORDER BY 1, 2, 3""",
                source_id,
            )
        return [
            LedgerSum(ItemState(row["state"]), row["reason"] or None, row["mode"], row["count"], row["size_bytes"])
            for row in rows
        ]

    async def count_since(self, source_id: int, run_id: int) -> int:
        """Count the rows looked up for clients that no run has met."""
        row = await self._database.get(
            "SELECT count(*) FROM import_item WHERE source_id = $1 AND seen_run_id < $2 AND NOT gone", source_id, run_id
        )
        return int(row[0]) if row is not None else 0

    async def count_gone(self, source_id: int) -> int:
        """Count the rows that no longer exist at the source."""
        row = await self._database.get("SELECT count(*) FROM import_item WHERE source_id = $1 AND gone", source_id)
        return int(row[0]) if row is not None else 0

    async def items(self, source_id: int, *, only_open: bool = False) -> AsyncIterator[LedgerItem]:
        """Iterate over the ledger in pages; `only_open` leaves out rows that were imported unchanged."""
        after, condition = ("", ""), "AND (state <> 'committed' OR gone OR reason IS NOT NULL)" if only_open else ""
        while True:
            async with self._database.connection() as connection:
                rows = await connection.fetch(
                    f"""SELECT {_ITEM} FROM import_item
                        WHERE source_id = $1 AND (server_name, media_id) > ($2, $3) {condition}
                        ORDER BY server_name, media_id LIMIT {_PAGE}""",
                    source_id,
                    *after,
                )
            for row in rows:
                yield _item(row)
            if len(rows) < _PAGE:
                return
            after = (rows[-1]["server_name"], rows[-1]["media_id"])

    async def orphans(self, source_id: int) -> AsyncIterator[LedgerUnclaimedBytes]:
        """Iterate over the bytes that no row mentions."""
        after = ""
        while True:
            async with self._database.connection() as connection:
                rows = await connection.fetch(
                    f"""SELECT place, size_bytes FROM import_orphan WHERE source_id = $1 AND place > $2
                        ORDER BY place LIMIT {_PAGE}""",
                    source_id,
                    after,
                )
            for row in rows:
                yield LedgerUnclaimedBytes(row["place"], row["size_bytes"])
            if len(rows) < _PAGE:
                return
            after = rows[-1]["place"]


async def write_lines(
    connection: Connection, source_id: int, run_id: int, entries: Sequence[LedgerEntry], *, walked: bool
) -> None:
    """Write the results of rows, replacing earlier ones; `walked` when a run met them."""
    await connection.execute(
        f"""INSERT INTO import_item AS i (source_id, server_name, media_id, kind, state, mode, reason, size_bytes,
                sha256, place, fingerprint, quarantined_by, protected, run_id, seen_run_id, updated_ts)
            SELECT $1, e.*, $2, $3, {NOW_MS}
            FROM unnest($4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::bigint[],
                $11::bytea[], $12::text[], $13::bytea[], $14::text[], $15::boolean[]) AS e
            ON CONFLICT (source_id, server_name, media_id) DO UPDATE SET kind = EXCLUDED.kind, state = EXCLUDED.state,
                mode = coalesce(EXCLUDED.mode, CASE WHEN EXCLUDED.state = 'committed' THEN i.mode END),
                reason = EXCLUDED.reason, size_bytes = EXCLUDED.size_bytes,
                sha256 = coalesce(EXCLUDED.sha256, i.sha256), place = coalesce(EXCLUDED.place, i.place),
                fingerprint = EXCLUDED.fingerprint, quarantined_by = EXCLUDED.quarantined_by,
                protected = EXCLUDED.protected, gone = false,
                seen_run_id = greatest(i.seen_run_id, EXCLUDED.seen_run_id),
                run_id = CASE WHEN i.state = EXCLUDED.state AND EXCLUDED.mode IS NULL THEN i.run_id
                    ELSE EXCLUDED.run_id END,
                attempts = i.attempts + 1, updated_ts = EXCLUDED.updated_ts""",
        source_id,
        run_id,
        run_id if walked else 0,
        *_columns(entries),
    )


def _columns(entries: Sequence[LedgerEntry]) -> list[list[object]]:
    media = [entry.media for entry in entries]
    return [
        [ledger_name(one.server_name) for one in media],
        [ledger_name(one.media_id) for one in media],
        [one.kind for one in media],
        [entry.state for entry in entries],
        [entry.mode for entry in entries],
        [entry.why for entry in entries],
        [entry.content.size_bytes if entry.content else entry.media.size_bytes for entry in entries],
        [(entry.content and entry.content.sha256) or entry.media.sha256 for entry in entries],
        [entry.place and ledger_name(entry.place) for entry in entries],
        [one.fingerprint for one in media],
        [one.quarantined_by for one in media],
        [one.protected for one in media],
    ]


def _known(row: Row) -> LedgerState:
    return LedgerState(
        state=None if row["state"] is None else ItemState(row["state"]),
        mode=None if row["mode"] is None else ItemMode(row["mode"]),
        why=row["reason"],
        fingerprint=row["fingerprint"],
        gone=row["gone"] is True,
        media_state=row["media_state"],
        is_ours=row["is_ours"] is True,
    )


def _item(row: Row) -> LedgerItem:
    values: Mapping[str, object] = {**dict(row), "state": ItemState(row["state"])}
    return LedgerItem(**values)  # type: ignore[arg-type]  # a row has what was selected
