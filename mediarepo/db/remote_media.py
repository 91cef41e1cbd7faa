"""Failed fetches from other servers, back-off, and other servers' keys."""

import base64
import json
from dataclasses import dataclass

from mediarepo.db.database import NOW_MS, Database, all_but_newest_sql
from mediarepo.db.media_marks import scopes_hidden_from_sql
from mediarepo.db.publishing import NOTIFY
from mediarepo.model.marks import SMALLEST_HIDDEN_BYTES
from mediarepo.model.mxc import Mxc
from mediarepo.model.remote_media import FetchReason, KeysOfServer
from mediarepo.model.tasks import storable_text


@dataclass(frozen=True, slots=True)
class PastFailure:
    """A failed fetch, and how long ago."""

    reason: FetchReason
    message: str
    age_ms: int


@dataclass(frozen=True, slots=True)
class Backoff:
    """A server in back-off, and for how many ms still; 0 or less: no longer."""

    failures: int
    remaining_ms: int
    reason: FetchReason


_HIDDEN_FROM = f"""SELECT array(SELECT s.scope
    FROM (SELECT $1::text AS server_name, $2::text AS media_id) k,
        (SELECT true AS remote, NULL::bigint AS blob_id) m,
        (SELECT $3::bytea AS sha256, $4::bigint AS size_bytes) b,
        LATERAL ({scopes_hidden_from_sql("k")}) s (scope))"""
"""For media `k` with content `b` of which there is no row `m` yet."""


class RemoteTable:
    """Records failed fetches, for every process that shares the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def hidden_from(self, mxc: Mxc, sha256: bytes, size_bytes: int) -> frozenset[str]:
        """Return the homeservers for which just fetched media are quarantined; OPERATOR: for all."""
        row = await self._database.get(_HIDDEN_FROM, mxc.server_name, mxc.media_id, sha256, size_bytes)
        return frozenset() if row is None else frozenset(row[0])

    async def may_content_be_hidden(self, least_bytes: int, most_bytes: int | None) -> bool:
        """Return whether some quarantined content could have this length; None: any length.

        Content of unknown length, as in imported lists of hashes, could have any.
        """
        if most_bytes is not None and most_bytes < SMALLEST_HIDDEN_BYTES:
            return False
        row = await self._database.get(
            """SELECT (SELECT min(scope) FROM quarantined_hash WHERE size_bytes IS NULL) IS NOT NULL
                OR coalesce((SELECT min(size_bytes) FROM quarantined_hash WHERE size_bytes >= $1)
                    <= coalesce($2, 9223372036854775807), false)""",
            max(least_bytes, SMALLEST_HIDDEN_BYTES),
            most_bytes,
        )
        return bool(row is not None and row[0])

    async def failure(self, mxc: Mxc, asked_by: str) -> PastFailure | None:
        """Return the last failed fetch for a homeserver, if there is one."""
        row = await self._database.get(
            f"""SELECT kind, message, {NOW_MS} - created_ts AS age_ms FROM remote_failure
                WHERE server_name = $1 AND media_id = $2 AND asked_by = $3""",
            mxc.server_name,
            mxc.media_id,
            asked_by,
        )
        return None if row is None else PastFailure(FetchReason(row["kind"]), row["message"], row["age_ms"])

    async def note_failure(self, mxc: Mxc, asked_by: str, reason: FetchReason, message: str) -> None:
        """Record a failed fetch for a homeserver, and notify those who wait for it."""
        async with self._database.transaction() as connection:
            await connection.execute(
                f"""INSERT INTO remote_failure (server_name, media_id, asked_by, kind, message, created_ts)
                    VALUES ($1, $2, $3, $4, $5, {NOW_MS})
                    ON CONFLICT (server_name, media_id, asked_by) DO UPDATE
                        SET kind = EXCLUDED.kind, message = EXCLUDED.message, created_ts = EXCLUDED.created_ts""",
                mxc.server_name,
                mxc.media_id,
                asked_by,
                reason,
                storable_text(message),
            )
            await connection.execute(NOTIFY, str(mxc))

    async def backoff(self, server_name: str, asked_by: str) -> Backoff | None:
        """Return a homeserver's back-off for a server, if any."""
        row = await self._database.get(
            f"""SELECT failures, retry_ts - {NOW_MS} AS remaining_ms, reason FROM server_backoff
                WHERE server_name = $1 AND asked_by = $2""",
            server_name,
            asked_by,
        )
        return None if row is None else Backoff(row["failures"], row["remaining_ms"], FetchReason(row["reason"]))

    async def note_unreachable(
        self, server_name: str, asked_by: str, reason: FetchReason, *, first_ms: int, longest_ms: int
    ) -> None:
        """Count a failure to reach a server; from the second in a row on there is back-off, doubled each time."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"""INSERT INTO server_backoff AS b (server_name, asked_by, failures, retry_ts, reason)
                    VALUES ($1, $2, 1, {NOW_MS}, $3)
                    ON CONFLICT (server_name, asked_by) DO UPDATE
                    SET failures = b.failures + 1, reason = EXCLUDED.reason, retry_ts = {NOW_MS}
                            + least($4::bigint * (1::bigint << least(b.failures - 1, 30)), $5::bigint)""",
                server_name,
                asked_by,
                reason,
                first_ms,
                longest_ms,
            )

    async def note_reached(self, server_name: str, asked_by: str) -> None:
        """Clear a server's back-off."""
        async with self._database.connection() as connection:
            await connection.execute(
                "DELETE FROM server_backoff WHERE server_name = $1 AND asked_by = $2", server_name, asked_by
            )

    async def forget_old(self, age_ms: int, keep: int) -> None:
        """Remove old failures and back-offs, and all but the newest `keep` of each: users make up addresses."""
        async with self._database.connection() as connection:
            await connection.execute(f"DELETE FROM remote_failure WHERE created_ts < {NOW_MS} - $1::bigint", age_ms)
            await connection.execute(f"DELETE FROM server_backoff WHERE retry_ts < {NOW_MS} - $1::bigint", age_ms)
            await connection.execute(all_but_newest_sql("remote_failure", "created_ts", "$1"), keep)
            await connection.execute(all_but_newest_sql("server_backoff", "retry_ts", "$1"), keep)


class ServerKeyTable:
    """Stores the keys that servers published last."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, server_name: str) -> KeysOfServer | None:
        """Return the stored keys of a server."""
        row = await self._database.get(
            "SELECT verify_keys, valid_until_ts, fetched_ts FROM server_keys WHERE server_name = $1", server_name
        )
        if row is None:
            return None
        keys = {key_id: base64.b64decode(f"{key}=") for key_id, key in json.loads(row["verify_keys"]).items()}
        return KeysOfServer(keys, row["valid_until_ts"], row["fetched_ts"])

    async def keep(self, server_name: str, keys: KeysOfServer) -> None:
        """Store the keys of a server."""
        texts = {key_id: base64.b64encode(key).decode().rstrip("=") for key_id, key in keys.verify_keys.items()}
        async with self._database.connection() as connection:
            await connection.execute(
                """INSERT INTO server_keys (server_name, verify_keys, valid_until_ts, fetched_ts)
                   VALUES ($1, $2::jsonb, $3, $4)
                   ON CONFLICT (server_name) DO UPDATE SET verify_keys = EXCLUDED.verify_keys,
                       valid_until_ts = EXCLUDED.valid_until_ts, fetched_ts = EXCLUDED.fetched_ts""",
                server_name,
                json.dumps(texts),
                keys.valid_until_ts,
                keys.fetched_ts,
            )

    async def forget_old(self, age_ms: int, keep: int) -> None:
        """Remove keys that expired long ago, and all but the newest `keep`: they are fetched again when needed."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"DELETE FROM server_keys WHERE greatest(valid_until_ts, fetched_ts) < {NOW_MS} - $1::bigint", age_ms
            )
            await connection.execute(all_but_newest_sql("server_keys", "fetched_ts", "$1"), keep)
