"""Other servers' keys, kept for all processes."""

import base64
import json

from mediarepo.db.connections import Database
from mediarepo.model.server_keys import KeysOfServer


class ServerKeyTable:
    """Keeps what servers published last."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, server_name: str) -> KeysOfServer | None:
        """Read what is kept of a server."""
        row = await self._database.get(
            "SELECT verify_keys, valid_until_ts, fetched_ts FROM server_keys WHERE server_name = $1", server_name
        )
        if row is None:
            return None
        keys = {key_id: base64.b64decode(f"{key}=") for key_id, key in json.loads(row["verify_keys"]).items()}
        return KeysOfServer(keys, row["valid_until_ts"], row["fetched_ts"])

    async def keep(self, server_name: str, keys: KeysOfServer) -> None:
        """Keep what a server published."""
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
