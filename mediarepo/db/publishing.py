"""Publishes stored bytes as media."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from mediarepo.db.database import NOW_MS, Connection, Database, LeaseLostError, StaleKeyError, is_fenced
from mediarepo.db.deletion import delete_if_unreferenced, queue_deletion
from mediarepo.db.failed_items import is_due
from mediarepo.db.limits import commit_reservation
from mediarepo.db.media_admin import MXC
from mediarepo.db.sweep import UploadIntents
from mediarepo.db.tasks import end_lease
from mediarepo.errors import LimitExceededError
from mediarepo.model.media import MediaState, NewMedia, NewObject, PendingMedia
from mediarepo.model.mxc import Mxc
from mediarepo.model.tasks import Queue

NOTIFY = "SELECT pg_notify('mediarepo_' || md5(current_schema()), $1)"
"""Tells every process, once the transaction is committed, that something about these media (an mxc://) changed."""


async def record(connection: Connection, media: NewMedia, blob_id: int) -> None:
    """Write the row of new, reserved or remote media. Raises LeaseLostError when the lease on it is lost."""
    if media.lease is not None and not await end_lease(connection, media.lease):
        raise LeaseLostError("the upload took too long and was given up; try again", retry_after_s=1)
    if media.remote:
        await _record_remote(connection, media, blob_id)
    elif media.lease is not None:
        await _fill_pending(connection, media, blob_id)
    else:
        await _insert(connection, media, blob_id)
    if media.reservation is not None:
        await commit_reservation(connection, media.reservation, blob_id)
    if media.remote or media.lease is not None:
        await connection.execute(NOTIFY, str(media.mxc))


async def lock_known(connection: Connection, media: NewMedia) -> None:
    """Lock the row of media that may exist already, before any blob is locked for them."""
    if media.remote or media.lease is not None:
        await connection.execute(
            "SELECT FROM media WHERE server_name = $1 AND media_id = $2 FOR UPDATE",
            media.mxc.server_name,
            media.mxc.media_id,
        )


async def _insert(connection: Connection, media: NewMedia, blob_id: int) -> None:
    await connection.execute(
        f"""INSERT INTO media (server_name, media_id, state, remote, blob_id, content_type, upload_name, uploaded_by,
                authenticated, created_ts, preview_expires_ts)
            VALUES ($1, $2, 'ready', $3, $4, $5, $6, $7, $8, coalesce($9, {NOW_MS}), $10)""",
        media.mxc.server_name,
        media.mxc.media_id,
        media.remote,
        blob_id,
        media.content_type,
        media.upload_name,
        media.uploaded_by,
        media.authenticated,
        media.created_ts,
        media.preview_expires_ts,
    )


async def _fill_pending(connection: Connection, media: NewMedia, blob_id: int) -> None:
    tag = await connection.execute(
        f"""UPDATE media SET state = 'ready', expires_ts = NULL, blob_id = $3, content_type = $4, upload_name = $5,
                authenticated = $6, created_ts = {NOW_MS}
            WHERE server_name = $1 AND media_id = $2 AND state = 'pending'""",
        media.mxc.server_name,
        media.mxc.media_id,
        blob_id,
        media.content_type,
        media.upload_name,
        media.authenticated,
    )
    if tag != "UPDATE 1":
        raise LeaseLostError("the media id has expired or been filled meanwhile", retry_after_s=1)


async def _record_remote(connection: Connection, media: NewMedia, blob_id: int) -> None:
    """Insert remote media, or give those that went missing their content back.

    Other bytes than before are another revision, so that no client joins stretches of the two.
    """
    before = await connection.fetchrow(
        """SELECT m.blob_id, b.sha256, m.state = 'missing' OR b.missing_ts IS NOT NULL AS lost
           FROM media m LEFT JOIN blob b ON b.blob_id = m.blob_id
           WHERE m.server_name = $1 AND m.media_id = $2 FOR UPDATE OF m""",
        media.mxc.server_name,
        media.mxc.media_id,
    )
    if before is None:
        await _insert(connection, media, blob_id)
        return
    if before["lost"]:
        await _give_back(connection, media, blob_id, before["sha256"])
    unused_id = before["blob_id"] if before["lost"] else blob_id
    if unused_id is not None and blob_id != before["blob_id"]:
        await delete_if_unreferenced(connection, unused_id)


async def _give_back(connection: Connection, media: NewMedia, blob_id: int, sha256_before: bytes | None) -> None:
    await connection.execute(
        """UPDATE media SET state = 'ready', blob_id = $3, content_type = $4, upload_name = $5, revision = revision
               + (SELECT CASE WHEN sha256 IS DISTINCT FROM $6 THEN 1 ELSE 0 END FROM blob WHERE blob_id = $3)
           WHERE server_name = $1 AND media_id = $2""",
        media.mxc.server_name,
        media.mxc.media_id,
        blob_id,
        media.content_type,
        media.upload_name,
        sha256_before,
    )


_BEGIN = "SELECT begin_upload($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
_PUBLISH = "SELECT publish_upload($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"


def _is_plain(media: NewMedia) -> bool:
    """Say whether media are new, so that nothing need be locked or checked for them: one statement will do."""
    return not (media.remote or media.lease or media.reservation or is_fenced())


def _columns(media: NewMedia) -> tuple[object, ...]:
    return (
        media.mxc.server_name,
        media.mxc.media_id,
        media.content_type,
        media.upload_name,
        media.uploaded_by,
        media.authenticated,
        media.created_ts,
        media.preview_expires_ts,
    )


def _too_late(stored: NewObject) -> StaleKeyError:
    if stored.multipart:
        return StaleKeyError("the upload took too long and was given up; try again", retry_after_s=1)
    return StaleKeyError("the upload took too long to record; try again", retry_after_s=1)


def _lost_all_races() -> StaleKeyError:
    return StaleKeyError("the upload could not be recorded; try again", retry_after_s=1)


_ATTEMPTS = 10


async def _go_on() -> None:
    """Stand where a test may hold a publication between finding a blob and referring to it."""


class PublishTable:
    """Writes blob and media rows; half of `grace_ms`, garbage collection's grace, is a key's life before its row."""

    def __init__(self, database: Database, grace_ms: int, *, on_lock: Callable[[], Awaitable[None]] = _go_on) -> None:
        self._database = database
        self._grace_ms = grace_ms
        self._on_lock = on_lock

    async def link(self, media: NewMedia, *, store: str, sha256: bytes) -> bool:
        """Make media of content that `store` has already; False when it has none."""
        async with self._database.transaction() as connection:
            await lock_known(connection, media)
            blob_id = await self._lock_blob(connection, store, sha256)
            if blob_id is None:
                return False
            await record(connection, media, blob_id)
            return True

    async def begin(
        self, media: NewMedia, *, store: str, sha256: bytes, object_key: str, look_for_equal: bool = True
    ) -> bool:
        """Make media of equal content that `store` holds already; else record that an object is about to be made.

        Returns whether equal content was found, so that no object is needed. One statement for new uploads.
        """
        if _is_plain(media):
            async with self._database.connection() as connection:
                return bool(
                    await connection.fetchval(_BEGIN, store, sha256, object_key, look_for_equal, *_columns(media))
                )
        if look_for_equal and await self.link(media, store=store, sha256=sha256):
            return True
        await UploadIntents(self._database).begin(store, object_key)
        return False

    async def publish(self, media: NewMedia, stored: NewObject) -> None:
        """Make media of an object just stored, or refer to equal content that was stored meanwhile.

        One statement for new uploads. Raises StaleKeyError when garbage collection may have claimed the object.
        """
        if _is_plain(media) and stored.sha256 is not None:
            await self._publish_at_once(media, stored)
            return
        async with self._database.transaction() as connection:
            await lock_known(connection, media)
            await claim_key(connection, stored, self._grace_ms)
            blob_id = await self._own_or_join(connection, stored)
            await record(connection, media, blob_id)

    async def _publish_at_once(self, media: NewMedia, stored: NewObject) -> None:
        async with self._database.connection() as connection:
            outcome = await connection.fetchval(
                _PUBLISH,
                stored.store,
                stored.sha256,
                stored.object_key,
                stored.size_bytes,
                stored.key_ts,
                None if stored.multipart else self._grace_ms // 2,
                *_columns(media),
            )
        if outcome == "late":
            raise _too_late(stored)
        if outcome == "lost":
            raise _lost_all_races()

    async def adopt(self, media: NewMedia, stored: NewObject) -> None:
        """Make media of an object that a lost database knew: garbage collection cannot have claimed it."""
        async with self._database.transaction() as connection:
            blob_id = await self._own_or_join(connection, stored)
            await record(connection, media, blob_id)

    async def give_up(self, stored: NewObject) -> None:
        """Queue an object for deletion that came too late to be published, as its intent may be gone."""
        async with self._database.connection() as connection:
            await queue_deletion(connection, stored.store, stored.object_key)

    async def _own_or_join(self, connection: Connection, stored: NewObject) -> int:
        for _ in range(_ATTEMPTS):
            own_id = await insert_blob(connection, stored, parent_blob_id=None)
            if own_id is not None:
                return own_id
            if stored.sha256 is None:
                break
            winner_id = await self._lock_blob(connection, stored.store, stored.sha256)
            if winner_id is not None:
                await queue_deletion(connection, stored.store, stored.object_key)
                return winner_id
        raise _lost_all_races()

    async def _lock_blob(self, connection: Connection, store: str, sha256: bytes) -> int | None:
        blob_id: int | None = await connection.fetchval(
            """SELECT blob_id FROM blob
               WHERE store = $1 AND sha256 = $2 AND ownership = 'owned' AND sha256_state = 'verified'
                   AND missing_ts IS NULL AND parent_blob_id IS NULL
               FOR KEY SHARE""",
            store,
            sha256,
        )
        if blob_id is not None:
            await self._on_lock()
        return blob_id


async def claim_key(connection: Connection, stored: NewObject, grace_ms: int) -> None:
    """Check that garbage collection cannot have claimed the object: its intent is ours, or its key is young.

    Raises StaleKeyError when it may have; the upload can be retried.
    """
    tag = await connection.execute(
        "DELETE FROM multipart_intent WHERE store = $1 AND object_key = $2", stored.store, stored.object_key
    )
    if tag == "DELETE 1":
        return
    if stored.multipart:
        raise _too_late(stored)
    age_ms = await connection.fetchval(f"SELECT {NOW_MS} - $1::bigint", stored.key_ts)
    if age_ms > grace_ms // 2:
        raise _too_late(stored)


async def insert_blob(connection: Connection, stored: NewObject, *, parent_blob_id: int | None) -> int | None:
    """Insert a blob for an object; None when equal content has one already."""
    blob_id: int | None = await connection.fetchval(
        f"""INSERT INTO blob (store, object_key, size_bytes, sha256, sha256_state, parent_blob_id, created_ts)
            VALUES ($1, $2, $3, $4, CASE WHEN $4::bytea IS NULL THEN 'unknown' ELSE 'verified' END, $5, {NOW_MS})
            ON CONFLICT (store, sha256)
                WHERE ownership = 'owned' AND sha256_state = 'verified' AND missing_ts IS NULL
                    AND parent_blob_id IS NULL
                DO NOTHING
            RETURNING blob_id""",
        stored.store,
        stored.object_key,
        stored.size_bytes,
        stored.sha256,
        parent_blob_id,
    )
    return blob_id


@dataclass(frozen=True, slots=True)
class PendingUploadRow:
    """A reserved media id: who created it, and whether content may still follow."""

    state: MediaState
    uploaded_by: str | None
    expired: bool


class PendingTable:
    """Reserves media ids, within what one user may have open at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, mxc: Mxc, uploaded_by: str, *, lifetime_ms: int, limit: int | None) -> PendingMedia:
        """Reserve a media id. Raises LimitExceededError saying when the next of the user's open ones expires."""
        async with self._database.transaction() as connection:
            if limit is not None:
                await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 7))", uploaded_by)
                waiting = await connection.fetchrow(
                    f"""SELECT count(*) AS count, min(expires_ts) - {NOW_MS} AS next_ms FROM media
                        WHERE uploaded_by = $1 AND state = 'pending' AND expires_ts >= {NOW_MS}""",
                    uploaded_by,
                )
                if waiting is not None and waiting["count"] >= limit:
                    retry_after_s = max(1, -(-(waiting["next_ms"] or 0) // 1000))
                    raise LimitExceededError("too many uploads are pending already", retry_after_s=retry_after_s)
            expires_ts = await connection.fetchval(
                f"""INSERT INTO media
                        (server_name, media_id, state, remote, content_type, uploaded_by, created_ts, expires_ts,
                        authenticated)
                    VALUES ($1, $2, 'pending', false, '', $3, {NOW_MS}, {NOW_MS} + $4::bigint, true)
                    RETURNING expires_ts""",
                mxc.server_name,
                mxc.media_id,
                uploaded_by,
                lifetime_ms,
            )
        return PendingMedia(mxc, expires_ts)

    async def get(self, mxc: Mxc) -> PendingUploadRow | None:
        """Return a reserved media id; None when there is none."""
        row = await self._database.get(
            f"""SELECT state, uploaded_by, coalesce(expires_ts < {NOW_MS}, false) AS expired FROM media
                WHERE server_name = $1 AND media_id = $2 AND NOT remote""",
            mxc.server_name,
            mxc.media_id,
        )
        return None if row is None else PendingUploadRow(MediaState(row["state"]), row["uploaded_by"], row["expired"])

    async def expired(self, age_ms: int, limit: int) -> list[Mxc]:
        """Return ids expired for so long without content, failed items excluded."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"""SELECT m.server_name, m.media_id FROM media m
                    WHERE m.state = 'pending' AND m.expires_ts < {NOW_MS} - $1::bigint
                        AND {is_due(Queue.PENDING_MEDIA, MXC)}
                    ORDER BY m.expires_ts LIMIT $2""",
                age_ms,
                limit,
            )
        return [Mxc(row["server_name"], row["media_id"]) for row in rows]

    async def forget_expired(self, mxcs: Sequence[Mxc], age_ms: int) -> int:
        """Remove ids expired for so long without content; returns how many."""
        async with self._database.connection() as connection:
            tag = await connection.execute(
                f"""DELETE FROM media WHERE state = 'pending' AND expires_ts < {NOW_MS} - $1::bigint
                        AND (server_name, media_id) IN (SELECT * FROM unnest($2::text[], $3::text[]))""",
                age_ms,
                [mxc.server_name for mxc in mxcs],
                [mxc.media_id for mxc in mxcs],
            )
        return int(tag.rpartition(" ")[2])
