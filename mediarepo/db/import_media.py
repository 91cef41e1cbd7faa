"""Media rows of imported media, and the quarantine and protection they came with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mediarepo.db.database import NOW_MS, Connection
from mediarepo.model.import_ledger import ImportReason, ItemMode, ItemState, LedgerEntry
from mediarepo.model.import_source import MediaKind, SourceKey, SourceMedia
from mediarepo.model.marks import MarkKind

_ANY_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Refreshed:
    """Existing media whose content has arrived now."""

    filled: set[SourceKey]


def media_state(entry: LedgerEntry) -> str | None:
    """Return the state in which media are inserted; None when nothing is."""
    if entry.mode is ItemMode.PENDING:
        return "pending"
    if entry.content is not None:
        return "ready"
    if entry.reason is ImportReason.THUMBNAIL:
        return None
    if entry.media.quarantined_by is not None and entry.state is not ItemState.COMMITTED:
        return "missing"  # without content, but never to be fetched, or served from elsewhere
    if entry.state in {ItemState.MISSING, ItemState.MISMATCHED}:
        is_wanted = entry.media.is_local and entry.media.kind is not MediaKind.URL_CACHE
        return "missing" if is_wanted else None
    return None


async def insert_media(
    connection: Connection, source_id: int, entries: Sequence[LedgerEntry], blob_ids: Mapping[SourceKey, int]
) -> set[SourceKey]:
    """Insert media for rows that have none; returns those inserted."""
    made = [entry for entry in entries if entry.recordable and media_state(entry) is not None]
    if not made:
        return set()
    rows = await connection.fetch(
        f"""INSERT INTO media (server_name, media_id, state, remote, blob_id, content_type, upload_name, uploaded_by,
                created_ts, expires_ts, authenticated, preview_expires_ts, import_source_id)
            SELECT e.server_name, e.media_id, e.state, e.remote, e.blob_id, e.content_type, e.upload_name,
                e.uploaded_by, coalesce(e.created_ts, {NOW_MS}), e.expires_ts, e.authenticated,
                e.preview_expires_ts, $1
            FROM unnest($2::text[], $3::text[], $4::text[], $5::boolean[], $6::bigint[], $7::text[], $8::text[],
                    $9::text[], $10::bigint[], $11::bigint[], $12::boolean[], $13::bigint[])
                AS e (server_name, media_id, state, remote, blob_id, content_type, upload_name, uploaded_by, created_ts,
                    expires_ts, authenticated, preview_expires_ts)
            ORDER BY e.server_name, e.media_id
            ON CONFLICT DO NOTHING RETURNING server_name, media_id""",
        source_id,
        *_columns(made, blob_ids),
    )
    return {SourceKey(row["server_name"], row["media_id"]) for row in rows}


async def refresh_media(
    connection: Connection, source_id: int, entries: Sequence[LedgerEntry], blob_ids: Mapping[SourceKey, int]
) -> Refreshed:
    """Update media that came from this source to its present state."""
    recordable = [entry for entry in entries if entry.recordable]
    if not recordable:
        return Refreshed(set())
    columns = _columns(recordable, blob_ids)
    filled = await connection.fetch(
        """UPDATE media m SET state = 'ready', blob_id = e.blob_id, expires_ts = NULL, content_type = e.content_type,
               upload_name = e.upload_name, revision = revision + CASE WHEN m.state = 'missing' THEN 1 ELSE 0 END,
               created_ts = coalesce(e.created_ts, m.created_ts), authenticated = e.authenticated
           FROM unnest($2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::bigint[], $8::boolean[])
               AS e (server_name, media_id, blob_id, content_type, upload_name, created_ts, authenticated)
           WHERE m.server_name = e.server_name AND m.media_id = e.media_id AND m.import_source_id = $1
               AND e.blob_id IS NOT NULL
               AND (m.state = 'pending' OR m.state = 'missing'
                   OR EXISTS (SELECT FROM blob b WHERE b.blob_id = m.blob_id AND b.missing_ts IS NOT NULL))
           RETURNING m.server_name, m.media_id""",
        source_id,
        *(columns[number] for number in (0, 1, 4, 5, 6, 8, 10)),
    )
    return Refreshed({SourceKey(row["server_name"], row["media_id"]) for row in filled})


async def note_access(connection: Connection, source_id: int, entries: Sequence[LedgerEntry]) -> None:
    """Import last-access times, unless media have been accessed here since."""
    read = [entry.media for entry in entries if entry.recordable and entry.media.last_access_ts is not None]
    if read:
        await connection.execute(
            """INSERT INTO media_access AS a (server_name, media_id, last_access_ts)
               SELECT m.server_name, m.media_id, e.ts
               FROM unnest($2::text[], $3::text[], $4::bigint[]) AS e (server_name, media_id, ts)
                   JOIN media m USING (server_name, media_id) WHERE m.import_source_id = $1
               ORDER BY 1, 2
               ON CONFLICT (server_name, media_id) DO UPDATE
                   SET last_access_ts = greatest(a.last_access_ts, EXCLUDED.last_access_ts)""",
            source_id,
            [one.server_name for one in read],
            [one.media_id for one in read],
            [one.last_access_ts for one in read],
        )


def _columns(entries: Sequence[LedgerEntry], blob_ids: Mapping[SourceKey, int]) -> list[list[object]]:
    media = [entry.media for entry in entries]
    return [
        [one.server_name for one in media],
        [one.media_id for one in media],
        [media_state(entry) for entry in entries],
        [not one.is_local for one in media],
        [blob_ids.get(one.key) for one in media],
        [one.content_type or _ANY_TYPE for one in media],
        [one.upload_name for one in media],
        [one.user_id or None for one in media],
        [one.last_access_ts if one.created_ts is None else one.created_ts for one in media],
        [one.expires_ts if entry.mode is ItemMode.PENDING else None for one, entry in zip(media, entries, strict=True)],
        [one.authenticated for one in media],
        [entry.preview_expires_ts for entry in entries],
    ]


_NOTE = "(SELECT 'imported from ' || name FROM import_source WHERE source_id = $1)"
_INSERT = f"""INSERT INTO media_mark (server_name, media_id, kind, owner, scope, set_by, reason, created_ts)
    SELECT e.server_name, e.media_id, e.kind, e.owner, e.owner, e.set_by, {_NOTE}, {NOW_MS}
    FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
        AS e (server_name, media_id, kind, owner, set_by)
    ORDER BY 1, 2, 3, 4 ON CONFLICT DO NOTHING"""

Mark = tuple[str, str, MarkKind, str, str]
"""Server name, media id, kind, owner, who set it."""


def owners_of(media: SourceMedia, server_names: frozenset[str]) -> list[str]:
    """Return the homeservers that own an imported mark.

    That is the homeserver of the media, or of the admin who set it; else all homeservers of the source. Never others,
    whatever a row says.
    """
    if media.is_local:
        return [media.server_name] if media.server_name in server_names else []
    domain = (media.quarantined_by or "").partition(":")[2]
    return [domain] if domain in server_names else sorted(server_names)


def marks_of(entries: Sequence[LedgerEntry], server_names: frozenset[str]) -> list[Mark]:
    """Return the marks that rows of a source carry."""
    found: list[Mark] = []
    for media in (entry.media for entry in entries):
        at = media.server_name, media.media_id
        for owner in owners_of(media, server_names):
            if media.quarantined_by is not None:
                found.append((*at, MarkKind.QUARANTINE, owner, media.quarantined_by))
            if media.protected:
                found.append((*at, MarkKind.PROTECTION, owner, media.user_id or "imported"))
    return found


async def insert_marks(connection: Connection, source_id: int, marks: Sequence[Mark]) -> None:
    """Insert marks beside those set here."""
    if marks:
        await connection.execute(_INSERT, source_id, *(list(column) for column in zip(*marks, strict=True)))


async def refresh_marks(
    connection: Connection, source_id: int, entries: Sequence[LedgerEntry], marks: list[Mark]
) -> None:
    """Import changes of marks since the ledger's line; quarantine wherever media came from."""
    media = [entry.media for entry in entries]
    rows = await connection.fetch(
        """SELECT e.server_name, e.media_id, m.import_source_id = $1 AS is_ours,
               i.media_id IS NULL OR i.quarantined_by IS DISTINCT FROM e.quarantined_by AS rehidden,
               i.media_id IS NOT NULL AND i.protected <> e.protected AS reprotected
           FROM unnest($2::text[], $3::text[], $4::boolean[], $5::text[])
                   AS e (server_name, media_id, protected, quarantined_by)
               JOIN media m ON m.server_name = e.server_name AND m.media_id = e.media_id
               LEFT JOIN import_item i
                   ON i.source_id = $1 AND i.server_name = e.server_name AND i.media_id = e.media_id""",
        source_id,
        [one.server_name for one in media],
        [one.media_id for one in media],
        [one.protected for one in media],
        [one.quarantined_by for one in media],
    )
    keys = [(row["server_name"], row["media_id"]) for row in rows]
    ours = [row["is_ours"] is True for row in rows]
    rehidden = {key for key, row in zip(keys, rows, strict=True) if row["rehidden"]}
    reprotected = {key for key, row, is_ours in zip(keys, rows, ours, strict=True) if is_ours and row["reprotected"]}
    wanted = {MarkKind.QUARANTINE: rehidden, MarkKind.PROTECTION: reprotected}
    for kind, some in wanted.items():
        await _remove(connection, source_id, kind, some)
    await insert_marks(connection, source_id, [mark for mark in marks if mark[:2] in wanted[mark[2]]])


async def _remove(connection: Connection, source_id: int, kind: MarkKind, keys: set[tuple[str, str]]) -> None:
    """Take back what was imported before."""
    if keys:
        await connection.execute(
            f"""DELETE FROM media_mark WHERE kind = $2 AND reason = {_NOTE}
                    AND (server_name, media_id) IN (SELECT * FROM unnest($3::text[], $4::text[]))""",
            source_id,
            kind,
            [name for name, _ in keys],
            [media_id for _, media_id in keys],
        )


async def forget_marks(connection: Connection, source_id: int, server_names: list[str], media_ids: list[str]) -> None:
    """Remove the imported marks of some media."""
    await connection.execute(
        f"""DELETE FROM media_mark WHERE reason = {_NOTE}
                AND (server_name, media_id) IN (SELECT * FROM unnest($2::text[], $3::text[]))""",
        source_id,
        server_names,
        media_ids,
    )
