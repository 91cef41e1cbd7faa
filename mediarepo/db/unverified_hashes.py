"""Content whose hash is unknown, or claimed by an import source and not verified."""

from collections.abc import Sequence

import asyncpg

from mediarepo.db.database import Database, Row
from mediarepo.db.deletion import delete_if_unreferenced
from mediarepo.db.failed_items import is_due
from mediarepo.db.media_marks import any_of_length, hide_as_hash
from mediarepo.model.marks import SMALLEST_HIDDEN_BYTES
from mediarepo.model.media import Blob
from mediarepo.model.mxc import Mxc
from mediarepo.model.tasks import Queue

_BLOB = "b.blob_id, b.store, b.object_key, b.size_bytes"
_UNSURE = """b.sha256_state <> 'verified' AND NOT b.claim_checked AND b.parent_blob_id IS NULL
    AND b.missing_ts IS NULL"""


_SUSPECTS = f"""SELECT {_BLOB} FROM blob b WHERE {_UNSURE} AND (
        (b.size_bytes >= {SMALLEST_HIDDEN_BYTES} AND {any_of_length("b.size_bytes")})
        OR EXISTS (SELECT FROM quarantined_blob q WHERE q.blob_id = b.blob_id)
        OR EXISTS (SELECT FROM failed_item f WHERE f.queue = '{Queue.HASHING}' AND f.item_key = b.blob_id::text))
        AND {is_due(Queue.HASHING, "b.blob_id::text")}
    ORDER BY b.blob_id LIMIT $1"""


class UnverifiedHashTable:
    """Finds contents with unverified hashes, and stores the computed ones."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, mxcs: Sequence[Mxc]) -> list[Blob]:
        """Return the contents of media whose hash is not verified."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"""SELECT DISTINCT {_BLOB} FROM media m JOIN blob b USING (blob_id)
                    WHERE {_UNSURE}
                        AND (m.server_name, m.media_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))""",
                [mxc.server_name for mxc in mxcs],
                [mxc.media_id for mxc in mxcs],
            )
        return [_blob(row) for row in rows]

    async def suspects(self, limit: int) -> list[Blob]:
        """Return contents with unverified hashes that may be quarantined, by their length."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SUSPECTS, limit)
        return [_blob(row) for row in rows]

    async def confirm(self, blob: Blob, sha256: bytes) -> None:
        """Record that a claimed hash is right, or store one that was unknown."""
        await self.keep(blob, sha256)

    async def keep(self, blob: Blob, sha256: bytes) -> None:
        """Store a computed hash; a second copy of known content does not become the one that uploads refer to.

        Content quarantined by its claimed hash is quarantined by the real one from now on, and deleted when its media
        were deleted meanwhile.
        """
        try:
            await self._keep(blob, sha256)
        except asyncpg.UniqueViolationError:  # equal content has become what uploads refer to at this very moment
            await self._keep(blob, sha256)

    async def _keep(self, blob: Blob, sha256: bytes) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(
                """UPDATE blob b SET sha256 = $2, claim_checked = true,
                       sha256_state = CASE WHEN b.ownership = 'owned' AND EXISTS (
                           SELECT FROM blob o WHERE o.store = b.store AND o.sha256 = $2 AND o.ownership = 'owned'
                               AND o.sha256_state = 'verified' AND o.missing_ts IS NULL AND o.parent_blob_id IS NULL)
                       THEN 'claimed' ELSE 'verified' END
                   WHERE b.blob_id = $1 AND b.sha256_state <> 'verified' AND NOT b.claim_checked""",
                blob.blob_id,
                sha256,
            )
            if await hide_as_hash(connection, blob.blob_id, sha256):
                await delete_if_unreferenced(connection, blob.blob_id)


def _blob(row: Row) -> Blob:
    return Blob(row["blob_id"], row["store"], row["object_key"], row["size_bytes"])
