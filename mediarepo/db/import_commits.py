"""Commits imported rows, up to some hundreds in one transaction."""

from collections.abc import Mapping, Sequence

from mediarepo.db.database import NOW_MS, Connection, Database, DatabaseUnavailableError, LeaseLostError, Row
from mediarepo.db.deletion import delete_all_if_unreferenced
from mediarepo.db.import_blobs import make_blobs, queue_deletions
from mediarepo.db.import_ledger import ledger_name, write_lines
from mediarepo.db.import_media import (
    forget_marks,
    insert_marks,
    insert_media,
    marks_of,
    note_access,
    refresh_marks,
    refresh_media,
)
from mediarepo.db.publishing import NOTIFY
from mediarepo.model.import_ledger import ImportedThumbnail, LedgerEntry, ThumbnailEnd
from mediarepo.model.import_source import SourceKey
from mediarepo.model.marks import EMPTY_SHA256, IMPORTED_FROM, SMALLEST_HIDDEN_BYTES
from mediarepo.model.media import ThumbnailSpec
from mediarepo.model.tasks import Lease

_HIDERS = """unnest(CASE WHEN k.owner IS NOT NULL THEN ARRAY[k.owner] WHEN i.kind = 'local' THEN ARRAY[i.server_name]
    ELSE $4::text[] END) AS h (owner)"""
"""Whose an imported quarantine is: as its mark says, or where no media could be made of the row, the source's."""


class ImportCommits:
    """Writes media, blobs and ledger together; marks are those of the source's homeservers, whatever rows say."""

    def __init__(self, database: Database, server_names: frozenset[str]) -> None:
        """`server_names` are the homeservers that the source speaks for."""
        self._database = database
        self._server_names = server_names

    def for_homeservers(self, server_names: frozenset[str]) -> "ImportCommits":
        """Return a writer for a source of these homeservers; empty: of all of ours."""
        return ImportCommits(self._database, server_names or self._server_names)

    async def commit(
        self, source_id: int, run_id: int, entries: Sequence[LedgerEntry], lease: Lease | None = None
    ) -> list[LedgerEntry]:
        """Commit rows with distinct keys; returns those that must be decided again.

        Those are rows whose content was garbage collected meanwhile, or that another process has just committed. Raises
        LeaseLostError when `lease` is lost; nothing is written then.
        """
        async with self._database.transaction() as connection:
            await check_lease(connection, lease)
            await _lock(connection, entries)
            contents = [entry.content for entry in entries if entry.content is not None]
            blobs = await make_blobs(connection, contents, source_id)
            usable = [entry for entry in entries if entry.content is None or entry.content in blobs]
            blob_ids = {entry.media.key: blobs[entry.content] for entry in usable if entry.content is not None}
            written = await self._write(connection, source_id, usable, blob_ids)
            kept = [entry for entry in usable if entry.media.key in written]
            await write_lines(connection, source_id, run_id, kept, walked=lease is not None)
            await note_access(connection, source_id, kept)
            await delete_all_if_unreferenced(connection, await _unused(connection, set(blob_ids.values())))
        again = {id(entry) for entry in entries} - {id(entry) for entry in kept}
        return [entry for entry in entries if id(entry) in again]

    async def _write(
        self, connection: Connection, source_id: int, entries: Sequence[LedgerEntry], blob_ids: Mapping[SourceKey, int]
    ) -> set[SourceKey]:
        """Write media; gives the rows whose line may be written, as nobody else was quicker."""
        inserted = await insert_media(connection, source_id, entries, blob_ids)
        there_before = [entry for entry in entries if entry.media.key not in inserted]
        refreshed = await refresh_media(connection, source_id, there_before, blob_ids)
        new = [entry for entry in entries if entry.media.key in inserted]
        await insert_marks(connection, source_id, marks_of(new, self._server_names))
        known = [entry for entry in there_before if entry.recordable]
        if known:
            await refresh_marks(connection, source_id, known, marks_of(known, self._server_names))
        for entry in entries:
            if entry.media.key in refreshed.filled:
                await connection.execute(NOTIFY, f"mxc://{entry.media.server_name}/{entry.media.media_id}")
        wanted = {entry.media.key for entry in entries if entry.content is not None}
        return {entry.media.key for entry in entries} - (wanted - inserted - refreshed.filled)

    async def is_away(self) -> bool:
        """Return whether the database is unavailable, so that no row is to blame."""
        try:
            await self._database.check()
        except DatabaseUnavailableError:
            return True
        return False

    async def release_blocks(self, source_id: int) -> None:
        """Unblock addresses that a source no longer blocks, unless they were quarantined here since."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                """SELECT m.server_name, m.media_id FROM media m JOIN import_item i USING (server_name, media_id)
                   WHERE i.source_id = $1 AND i.gone AND split_part(i.reason, ':', 1) = 'blocked'
                       AND m.import_source_id = $1 AND m.state = 'missing' AND m.blob_id IS NULL
                   ORDER BY 1, 2 FOR UPDATE OF m""",
                source_id,
            )
            names = [row["server_name"] for row in rows], [row["media_id"] for row in rows]
            await forget_marks(connection, source_id, *names)
            await connection.execute(
                """DELETE FROM media m WHERE (server_name, media_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
                       AND NOT EXISTS (SELECT FROM media_mark k WHERE k.server_name = m.server_name
                           AND k.media_id = m.media_id AND k.kind = 'quarantine')""",
                *names,
            )

    async def list_hidden(self, source_id: int, name: str) -> int:
        """Quarantine the hashes of media hidden at the source, and lift those of media shown again.

        A hash that the source also shows, even on unprotected media, is not quarantined: an admin allowed it.
        """
        note = f"{IMPORTED_FROM}{name}"
        async with self._database.transaction() as connection:
            tag = await connection.execute(
                f"""INSERT INTO quarantined_hash
                        (sha256, quarantined_by, reason, created_ts, size_bytes, owner, scope)
                    SELECT DISTINCT ON (i.sha256, h.owner) i.sha256, i.quarantined_by, $2, {NOW_MS}, i.size_bytes,
                        h.owner, h.owner
                    FROM import_item i LEFT JOIN media_mark k ON k.server_name = i.server_name
                        AND k.media_id = i.media_id AND k.kind = 'quarantine' AND k.reason = $2
                        CROSS JOIN LATERAL {_HIDERS}
                    WHERE i.source_id = $1 AND i.quarantined_by IS NOT NULL AND i.sha256 IS NOT NULL AND NOT i.gone
                        AND h.owner = ANY($4)
                        AND (k.owner IS NOT NULL OR NOT EXISTS (SELECT FROM media m
                            WHERE m.server_name = i.server_name AND m.media_id = i.media_id))
                        AND i.sha256 <> $3
                        AND coalesce(i.size_bytes, {SMALLEST_HIDDEN_BYTES}) >= {SMALLEST_HIDDEN_BYTES}
                        AND NOT EXISTS (SELECT FROM import_item o
                            WHERE o.source_id = $1 AND o.sha256 = i.sha256 AND o.quarantined_by IS NULL
                                AND NOT o.protected AND NOT o.gone AND o.state = 'committed')
                    ORDER BY i.sha256, h.owner ON CONFLICT DO NOTHING""",
                source_id,
                note,
                EMPTY_SHA256,
                sorted(self._server_names),
            )
            await connection.execute(
                """DELETE FROM quarantined_hash q WHERE q.reason = $2 AND NOT EXISTS (
                       SELECT FROM import_item i WHERE i.source_id = $1 AND i.sha256 = q.sha256
                           AND i.quarantined_by IS NOT NULL)""",
                source_id,
                note,
            )
        return int(tag.rpartition(" ")[2])


async def check_lease(connection: Connection, lease: Lease | None) -> None:
    """Check that the lease is still held, in this transaction.

    Raises LeaseLostError when another process has taken it over.
    """
    if lease is None:
        return
    held = await connection.fetchval(
        "SELECT fence FROM lease WHERE name = $1 AND fence = $2 FOR SHARE", lease.name, lease.fence
    )
    if held is None:
        raise LeaseLostError("another import of the same source has taken over", retry_after_s=60)


async def _lock(connection: Connection, entries: Sequence[LedgerEntry]) -> None:
    """Lock media that are there already, in the order in which everybody locks them."""
    await connection.execute(
        """SELECT FROM media m WHERE (server_name, media_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
           ORDER BY server_name, media_id FOR UPDATE""",
        [ledger_name(entry.media.server_name) for entry in entries],
        [ledger_name(entry.media.media_id) for entry in entries],
    )


async def _unused(connection: Connection, blob_ids: set[int]) -> list[int | None]:
    """Name blobs that were made for media which somebody else has made meanwhile."""
    rows = await connection.fetch(
        """SELECT blob_id FROM unnest($1::bigint[]) AS b (blob_id)
           WHERE NOT EXISTS (SELECT FROM media m WHERE m.blob_id = b.blob_id)""",
        sorted(blob_ids),
    )
    return [row["blob_id"] for row in rows]


_BLOB_OF = """SELECT b.blob_id FROM media m JOIN blob b ON b.blob_id = m.blob_id
    WHERE m.server_name = $2 AND m.media_id = $3 AND m.import_source_id = $1 AND m.state = 'ready'
        AND b.missing_ts IS NULL FOR KEY SHARE OF b"""
_OWN_BLOB = f"""INSERT INTO blob (store, object_key, size_bytes, sha256_state, ownership, parent_blob_id, created_ts)
    VALUES ($1, $2, $3, 'unknown', $4, $5, {NOW_MS}) ON CONFLICT DO NOTHING
    RETURNING blob_id"""
_THUMBNAIL = """INSERT INTO thumbnail
        (source_blob_id, width, height, method, animated, blob_id, byte_offset, size_bytes, content_type)
    VALUES ($1, $2, $3, $4, $5, $6, 0, $7, $8) ON CONFLICT DO NOTHING"""


class ImportThumbnails:
    """Finds which source thumbnails are wanted, and records those that were imported."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ends(
        self, source_id: int, wanted: Sequence[tuple[SourceKey, ThumbnailSpec]]
    ) -> Mapping[tuple[SourceKey, ThumbnailSpec], ThumbnailEnd | int]:
        """Return which thumbnails need no work, and the blobs of the others."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """SELECT w.position, b.blob_id, EXISTS (SELECT FROM thumbnail t
                           WHERE t.source_blob_id = b.blob_id AND t.width = w.width AND t.height = w.height
                               AND t.method = w.method AND t.animated = w.animated) AS is_taken
                   FROM unnest($2::text[], $3::text[], $4::int[], $5::int[], $6::text[], $7::boolean[])
                       WITH ORDINALITY AS w (server_name, media_id, width, height, method, animated, position)
                   LEFT JOIN media m ON m.server_name = w.server_name AND m.media_id = w.media_id
                       AND m.import_source_id = $1 AND m.state = 'ready'
                   LEFT JOIN blob b ON b.blob_id = m.blob_id AND b.missing_ts IS NULL""",
                source_id,
                [ledger_name(key.server_name) for key, _ in wanted],
                [ledger_name(key.media_id) for key, _ in wanted],
                [spec.width for _, spec in wanted],
                [spec.height for _, spec in wanted],
                [str(spec.method) for _, spec in wanted],
                [spec.animated for _, spec in wanted],
            )
        return {wanted[row["position"] - 1]: _end(row) for row in rows}

    async def take(self, source_id: int, taken: Sequence[ImportedThumbnail], lease: Lease) -> list[ImportedThumbnail]:
        """Record thumbnails; returns those whose objects have another use here already, which must be copied.

        An object of ours that is not needed is queued for deletion.
        """
        async with self._database.transaction() as connection:
            await check_lease(connection, lease)
            ordered = sorted(taken, key=lambda one: (one.key, one.spec))
            return [one for one in ordered if not await self._take(connection, source_id, one)]

    async def _take(self, connection: Connection, source_id: int, one: ImportedThumbnail) -> bool:
        content, place = one.content, (one.content.store, one.content.object_key or "")
        if content.intent and not await _claimed(connection, *place):
            return True  # the sweep was quicker; the next run takes it
        source_blob_id = await connection.fetchval(_BLOB_OF, source_id, one.key.server_name, one.key.media_id)
        blob_id = None
        if source_blob_id is not None:
            ownership = "borrowed" if content.borrowed else "owned"
            blob_id = await connection.fetchval(_OWN_BLOB, *place, content.size_bytes, ownership, source_blob_id)
            blob_id = blob_id or await connection.fetchval(
                "SELECT blob_id FROM blob WHERE store = $1 AND object_key = $2 AND parent_blob_id = $3",
                *place,
                source_blob_id,
            )
            if blob_id is None:
                return False
            spec = one.spec
            values = (spec.width, spec.height, spec.method, spec.animated, blob_id, content.size_bytes)
            tag = await connection.execute(_THUMBNAIL, source_blob_id, *values, one.content_type)
            if tag == "INSERT 0 1":
                return True
            await connection.execute(
                "DELETE FROM blob b WHERE blob_id = $1 AND NOT EXISTS (SELECT FROM thumbnail t WHERE t.blob_id = $1)",
                blob_id,
            )
        if content.intent:
            await queue_deletions(connection, [place])
        return True


async def _claimed(connection: Connection, store: str, object_key: str) -> bool:
    tag = await connection.execute(
        "DELETE FROM multipart_intent WHERE store = $1 AND object_key = $2", store, object_key
    )
    return tag == "DELETE 1"


def _end(row: Row) -> ThumbnailEnd | int:
    if row["blob_id"] is None:
        return ThumbnailEnd.WITHOUT_MEDIA
    return ThumbnailEnd.HERE if row["is_taken"] else int(row["blob_id"])
