"""Media rows of what is imported."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mediarepo.db.clock import NOW_MS
from mediarepo.db.connections import Connection
from mediarepo.model.import_items import Entry, ItemMode, ItemState, Reason
from mediarepo.model.imports import MediaKind, SourceKey

_ANY_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Refreshed:
    """Which media that were here already got their content now."""

    filled: set[SourceKey]


def media_state(entry: Entry) -> str | None:
    """Say in which state media are recorded; None when there is nothing to record."""
    if entry.mode is ItemMode.PENDING:
        return "pending"
    if entry.content is not None:
        return "ready"
    if entry.reason is Reason.THUMBNAIL:
        return None
    if entry.media.quarantined_by is not None and entry.state is not ItemState.COMMITTED:
        return "missing"  # without content, but never to be fetched, or served from elsewhere
    if entry.state in {ItemState.MISSING, ItemState.MISMATCHED}:
        is_wanted = entry.media.is_local and entry.media.kind is not MediaKind.URL_CACHE
        return "missing" if is_wanted else None
    return None


async def insert_media(
    connection: Connection, source_id: int, entries: Sequence[Entry], blob_ids: Mapping[SourceKey, int]
) -> set[SourceKey]:
    """Make media of rows that were not here; gives those that were made."""
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
            ON CONFLICT DO NOTHING RETURNING server_name, media_id""",  # noqa: S608 - static text
        source_id,
        *_columns(made, blob_ids),
    )
    return {SourceKey(row["server_name"], row["media_id"]) for row in rows}


async def refresh_media(
    connection: Connection, source_id: int, entries: Sequence[Entry], blob_ids: Mapping[SourceKey, int]
) -> Refreshed:
    """Bring media that came from this source up to its present state."""
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


async def note_access(connection: Connection, source_id: int, entries: Sequence[Entry]) -> None:
    """Carry over when media were last asked for, unless they have been asked for here since."""
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


def _columns(entries: Sequence[Entry], blob_ids: Mapping[SourceKey, int]) -> list[list[object]]:
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
