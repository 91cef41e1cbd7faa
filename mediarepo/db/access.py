"""When media was last asked for."""

from collections.abc import Mapping

from mediarepo.db.connections import Database
from mediarepo.model.mxc import Mxc


class AccessTable:
    """Writes last-access times in batches, so that reading media writes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def store(self, last_access: Mapping[Mxc, int]) -> None:
        """Move last-access times (ms) forward; media that is gone meanwhile is skipped."""
        ordered = sorted(last_access)
        async with self._database.connection() as connection:
            await connection.execute(
                """INSERT INTO media_access (server_name, media_id, last_access_ts)
                   SELECT m.server_name, m.media_id, seen.ts
                   FROM unnest($1::text[], $2::text[], $3::bigint[]) AS seen (server_name, media_id, ts)
                       JOIN media m USING (server_name, media_id)
                   ON CONFLICT (server_name, media_id) DO UPDATE SET last_access_ts = EXCLUDED.last_access_ts
                   WHERE media_access.last_access_ts < EXCLUDED.last_access_ts""",
                [mxc.server_name for mxc in ordered],
                [mxc.media_id for mxc in ordered],
                [last_access[mxc] for mxc in ordered],
            )
