"""Blobs of imported content, many at a time, in the transaction that inserts their media."""

from collections.abc import Iterable, Mapping, Sequence

from mediarepo.db.database import NOW_MS, Connection
from mediarepo.model.import_ledger import ImportedBytes

Place = tuple[str, str]
"""A store and an object key."""


async def make_blobs(
    connection: Connection, contents: Iterable[ImportedBytes], source_id: int
) -> dict[ImportedBytes, int]:
    """Insert blobs for a source's contents, or find them; contents that cannot be used any more are left out.

    Those are objects claimed by garbage collection, and contents whose existing blob is gone. Duplicate objects are
    queued for deletion.
    """
    wanted = set(contents)
    claimed = await _claim(connection, {place for content in wanted if content.intent and (place := _place(content))})
    usable = {content for content in wanted if not content.intent or _place(content) in claimed}
    borrowed = [content for content in usable if content.borrowed]
    hashed = [content for content in usable if not content.borrowed and content.sha256_known]
    others = [content for content in usable if not content.borrowed and not content.sha256_known]
    found = {
        **await _borrow(connection, borrowed),
        **await _own_or_join(connection, hashed),
        **(made := await _own(connection, others)),
    }
    rest = [content for content in others if content not in made]
    return {**found, **await _join_claimed(connection, rest, source_id, list(found.values()))}


def _place(content: ImportedBytes) -> Place | None:
    return None if content.object_key is None else (content.store, content.object_key)


async def _claim(connection: Connection, places: set[Place]) -> set[Place]:
    """Consume intents; who lost its intent to the sweep has lost its object."""
    if not places:
        return set()
    rows = await connection.fetch(
        """DELETE FROM multipart_intent i USING unnest($1::text[], $2::text[]) AS p (store, object_key)
           WHERE i.store = p.store AND i.object_key = p.object_key RETURNING i.store, i.object_key""",
        [store for store, _ in places],
        [key for _, key in places],
    )
    return {(row["store"], row["object_key"]) for row in rows}


async def _borrow(connection: Connection, contents: Sequence[ImportedBytes]) -> dict[ImportedBytes, int]:
    """Record objects where they lie; several media may share one."""
    first = {_place(content): content for content in contents}
    ids: dict[Place | None, int] = {}
    if first:
        rows = await connection.fetch(
            f"""INSERT INTO blob (store, object_key, size_bytes, sha256, sha256_state, ownership, created_ts)
                SELECT c.store, c.object_key, c.size_bytes, c.sha256,
                    CASE WHEN c.sha256 IS NULL THEN 'unknown' WHEN c.known THEN 'verified' ELSE 'claimed' END,
                    'borrowed', {NOW_MS}
                FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[], $5::boolean[])
                    AS c (store, object_key, size_bytes, sha256, known)
                ORDER BY c.store, c.object_key
                ON CONFLICT (store, object_key) DO UPDATE SET missing_ts = NULL, parent_blob_id = NULL,
                    sha256 = CASE WHEN blob.parent_blob_id IS NULL THEN blob.sha256 ELSE EXCLUDED.sha256 END,
                    sha256_state = CASE WHEN blob.parent_blob_id IS NULL THEN blob.sha256_state
                        ELSE EXCLUDED.sha256_state END
                RETURNING store, object_key, blob_id""",
            *_columns(list(first.values())),
        )
        await _forget_thumbnails_at(connection, [row["blob_id"] for row in rows])
        ids = {(row["store"], row["object_key"]): row["blob_id"] for row in rows}
    return {content: ids[place] for content in contents if (place := _place(content)) in ids}


async def _forget_thumbnails_at(connection: Connection, blob_ids: Sequence[int]) -> None:
    """Let objects that are media serve as no other media's thumbnails, which would go, and take them along."""
    await connection.execute(
        "DELETE FROM thumbnail WHERE blob_id = ANY($1::bigint[]) AND source_blob_id <> blob_id", list(blob_ids)
    )


async def _own(connection: Connection, contents: Sequence[ImportedBytes]) -> dict[ImportedBytes, int]:
    """Record objects of ours whose content nobody here has hashed."""
    made = [content for content in contents if content.object_key is not None]
    if not made:
        return {}
    rows = await connection.fetch(
        f"""INSERT INTO blob (store, object_key, size_bytes, sha256, sha256_state, created_ts)
            SELECT c.store, c.object_key, c.size_bytes, c.sha256,
                CASE WHEN c.sha256 IS NULL THEN 'unknown' ELSE 'claimed' END, {NOW_MS}
            FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[], $5::boolean[])
                AS c (store, object_key, size_bytes, sha256, known)
            RETURNING store, object_key, blob_id""",
        *_columns(made),
    )
    ids: dict[Place | None, int] = {(row["store"], row["object_key"]): row["blob_id"] for row in rows}
    return {content: ids[place] for content in made if (place := _place(content)) in ids}


async def _join_claimed(
    connection: Connection, contents: Sequence[ImportedBytes], source_id: int, made: Sequence[int]
) -> dict[ImportedBytes, int]:
    """Find the blobs of content by what the source says its hash is, among those that came from this very source.

    With others' content joined, who writes a source's rows would read any content that he knows the hash of.
    """
    wanted = [content for content in contents if content.object_key is None and content.sha256 is not None]
    if not wanted:
        return {}
    rows = await connection.fetch(
        """SELECT b.store, b.sha256, b.size_bytes, b.blob_id
           FROM blob b JOIN unnest($1::text[], $2::bytea[]) AS k (store, sha256)
               ON b.store = k.store AND b.sha256 = k.sha256
           WHERE b.ownership = 'owned' AND b.missing_ts IS NULL AND b.parent_blob_id IS NULL
               AND (b.blob_id = ANY($4::bigint[]) OR EXISTS (
                   SELECT FROM media m WHERE m.blob_id = b.blob_id AND m.import_source_id = $3))
           ORDER BY b.blob_id FOR KEY SHARE OF b""",
        [content.store for content in wanted],
        [content.sha256 for content in wanted],
        source_id,
        list(made),
    )
    ids = {(row["store"], row["sha256"], row["size_bytes"]): row["blob_id"] for row in rows}
    places = {content: (content.store, content.sha256, content.size_bytes) for content in wanted}
    return {content: ids[place] for content, place in places.items() if place in ids}


async def _own_or_join(connection: Connection, contents: Sequence[ImportedBytes]) -> dict[ImportedBytes, int]:
    """Record content that we have hashed, once for each store; further objects of it go."""
    made: dict[tuple[str, bytes], ImportedBytes] = {}
    for content in contents:
        if content.object_key is not None and content.sha256 is not None:
            made.setdefault((content.store, content.sha256), content)
    ids = await _insert_known(connection, list(made.values()))
    ids |= await _lock_known(connection, {key for one in contents if (key := _key(one)) and key not in ids})
    kept = {_place(made[key]) for key in ids if key in made}
    found: dict[ImportedBytes, int] = {}
    for content in contents:
        key = _key(content)
        if key is not None and key in ids:
            found[content] = ids[key]
    await _remove_second_ones(connection, found, ids, kept)
    return found


def _key(content: ImportedBytes) -> tuple[str, bytes] | None:
    return None if content.sha256 is None else (content.store, content.sha256)


async def _insert_known(connection: Connection, made: Sequence[ImportedBytes]) -> dict[tuple[str, bytes], int]:
    if not made:
        return {}
    rows = await connection.fetch(
        f"""INSERT INTO blob (store, object_key, size_bytes, sha256, sha256_state, created_ts)
            SELECT c.store, c.object_key, c.size_bytes, c.sha256, 'verified', {NOW_MS}
            FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[], $5::boolean[])
                AS c (store, object_key, size_bytes, sha256, known)
            ORDER BY c.store, c.sha256
            ON CONFLICT (store, sha256)
                WHERE ownership = 'owned' AND sha256_state = 'verified' AND missing_ts IS NULL
                    AND parent_blob_id IS NULL
                DO NOTHING
            RETURNING store, sha256, blob_id""",
        *_columns(made),
    )
    return {(row["store"], row["sha256"]): row["blob_id"] for row in rows}


async def _lock_known(connection: Connection, keys: set[tuple[str, bytes]]) -> dict[tuple[str, bytes], int]:
    """Find and keep the blobs of content that is stored already."""
    if not keys:
        return {}
    rows = await connection.fetch(
        """SELECT b.store, b.sha256, b.blob_id
           FROM blob b JOIN unnest($1::text[], $2::bytea[]) AS k (store, sha256)
               ON b.store = k.store AND b.sha256 = k.sha256
           WHERE b.ownership = 'owned' AND b.sha256_state = 'verified' AND b.missing_ts IS NULL
               AND b.parent_blob_id IS NULL
           ORDER BY b.blob_id FOR KEY SHARE OF b""",
        [store for store, _ in keys],
        [sha256 for _, sha256 in keys],
    )
    return {(row["store"], row["sha256"]): row["blob_id"] for row in rows}


async def _remove_second_ones(
    connection: Connection,
    found: Mapping[ImportedBytes, int],
    ids: Mapping[tuple[str, bytes], int],
    kept: set[Place | None],
) -> None:
    """Queue every object that was made but is not the one its blob names."""
    places = {place for content in found if content.intent and (place := _place(content))}
    rows = await connection.fetch(
        "SELECT store, object_key FROM blob WHERE blob_id = ANY($1::bigint[])", sorted(set(ids.values()))
    )
    named = {(row["store"], row["object_key"]) for row in rows}
    await queue_deletions(connection, (places | {place for place in kept if place}) - named)


async def queue_deletions(connection: Connection, places: Iterable[Place]) -> None:
    """Queue objects that no row refers to."""
    listed = list(places)
    if listed:
        await connection.execute(
            f"""INSERT INTO object_deletion (store, object_key, queued_ts, next_attempt_ts)
                SELECT s, k, {NOW_MS}, {NOW_MS} FROM unnest($1::text[], $2::text[]) AS p (s, k)
                ON CONFLICT DO NOTHING""",
            [store for store, _ in listed],
            [key for _, key in listed],
        )


def _columns(contents: Sequence[ImportedBytes]) -> list[list[object]]:
    return [
        [content.store for content in contents],
        [content.object_key for content in contents],
        [content.size_bytes for content in contents],
        [content.sha256 for content in contents],
        [content.sha256_known for content in contents],
    ]
