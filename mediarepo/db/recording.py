"""The media row of content that has just become durable."""

from mediarepo.db.clock import NOW_MS
from mediarepo.db.connections import Connection
from mediarepo.db.deleting import let_go
from mediarepo.db.errors import LeaseLostError
from mediarepo.db.leases import end_lease
from mediarepo.db.quotas import settle
from mediarepo.model.media import NewMedia

NOTIFY = "SELECT pg_notify('mediarepo_' || md5(current_schema()), $1)"
"""Tells every process, once the transaction is committed, that something about these media (an mxc://) changed."""


async def record(connection: Connection, media: NewMedia, blob_id: int) -> None:
    """Write the row of new, of announced or of remote media; LeaseLostError when the right to it has passed on."""
    if media.lease is not None and not await end_lease(connection, media.lease):
        raise LeaseLostError("the upload took too long and was given up; try again", retry_after_s=1)
    if media.remote:
        await _record_remote(connection, media, blob_id)
    elif media.lease is not None:
        await _fill_pending(connection, media, blob_id)
    else:
        await _insert(connection, media, blob_id)
    if media.reservation is not None:
        await settle(connection, media.reservation, blob_id)
    if media.remote or media.lease is not None:
        await connection.execute(NOTIFY, str(media.mxc))


async def lock_known(connection: Connection, media: NewMedia) -> None:
    """Lock the row of remote media that may be known already, before any blob is locked for them."""
    if media.remote:
        await connection.execute(
            "SELECT FROM media WHERE server_name = $1 AND media_id = $2 FOR UPDATE",
            media.mxc.server_name,
            media.mxc.media_id,
        )


async def _insert(connection: Connection, media: NewMedia, blob_id: int) -> None:
    await connection.execute(
        f"""INSERT INTO media (server_name, media_id, state, remote, blob_id, content_type, upload_name, uploaded_by,
                authenticated, created_ts, preview_expires_ts)
            VALUES ($1, $2, 'ready', $3, $4, $5, $6, $7, $8, coalesce($9, {NOW_MS}), $10)""",  # noqa: S608 - static text
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
            WHERE server_name = $1 AND media_id = $2 AND state = 'pending'""",  # noqa: S608 - static text
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
        await let_go(connection, unused_id)


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
