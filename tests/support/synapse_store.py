"""A Synapse's media as it keeps them, made without a Synapse: the real tables, bytes where Synapse puts them."""

import hashlib
import json
import random
import sqlite3
import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = Path(__file__).parents[1] / "fixtures" / "imports" / "synapse-sqlite" / "homeserver.db"
SERVER_NAME = "fix.test"
LONG_AGO_MS = 1_600_000_000_000
_LOCAL = ("media_id", "media_type", "media_length", "created_ts", "upload_name", "user_id", "quarantined_by")
_LOCAL_MORE = ("url_cache", "last_access_ts", "safe_from_quarantine", "authenticated", "sha256")
_REMOTE = ("media_origin", "media_id", "media_type", "created_ts", "upload_name", "media_length", "filesystem_id")
_REMOTE_MORE = ("last_access_ts", "quarantined_by", "authenticated", "sha256")


def synapse_id(source: random.Random) -> str:
    """Make a media id as Synapse does."""
    return "".join(source.choices(string.ascii_letters, k=24))


def local_path(media_id: str) -> str:
    return f"local_content/{media_id[:2]}/{media_id[2:4]}/{media_id[4:]}"


def remote_path(origin: str, filesystem_id: str) -> str:
    return f"remote_content/{origin}/{filesystem_id[:2]}/{filesystem_id[2:4]}/{filesystem_id[4:]}"


@dataclass
class SynapseStore:
    """A folder with homeserver.yaml, homeserver.db and media_store; rows are written by `close`."""

    folder: Path
    server_name: str = SERVER_NAME
    changes: dict[str, Any] = field(default_factory=dict)
    local: list[dict[str, Any]] = field(default_factory=list)
    remote: list[dict[str, Any]] = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.folder / "homeserver.yaml"

    @property
    def media(self) -> Path:
        return self.folder / "media_store"

    def add_local(self, media_id: str, data: bytes | None, **columns: Any) -> str:
        """Note a row, and give the path of its bytes; without data it is one that was announced and not filled."""
        row = dict.fromkeys((*_LOCAL, *_LOCAL_MORE)) | {
            "media_id": media_id,
            "user_id": f"@alice:{self.server_name}",
            "created_ts": LONG_AGO_MS,
            "safe_from_quarantine": 0,
            "authenticated": 1,
        }
        self.local.append(row | _facts(data) | columns)
        return local_path(media_id)

    def add_remote(self, origin: str, media_id: str, filesystem_id: str, data: bytes, **columns: Any) -> str:
        """Note a row of another server's media, and give the path of its bytes."""
        row = dict.fromkeys((*_REMOTE, *_REMOTE_MORE)) | {
            "media_origin": origin,
            "media_id": media_id,
            "filesystem_id": filesystem_id,
            "created_ts": LONG_AGO_MS,
            "last_access_ts": LONG_AGO_MS,
            "authenticated": 1,
        }
        self.remote.append(row | _facts(data) | columns)
        return remote_path(origin, filesystem_id)

    def write(self, path: str, data: bytes) -> None:
        """Put bytes where a row says that they are."""
        file = self.media / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    def close(self) -> None:
        """Write the rows and the configuration."""
        database = self.folder / "homeserver.db"
        with sqlite3.connect(database) as connection:
            for statement in _schema():
                connection.execute(statement)
            connection.execute("INSERT INTO schema_version (version, upgraded) VALUES (94, 1)")
            _insert(connection, "local_media_repository", self.local)
            _insert(connection, "remote_media_cache", self.remote)
        connection.close()
        document = {
            "server_name": self.server_name,
            "database": {"name": "sqlite3", "args": {"database": str(database)}},
            "media_store_path": str(self.media),
            **self.changes,
        }
        self.media.mkdir(exist_ok=True)
        self.config.write_text(json.dumps(document))  # JSON is YAML too


def _facts(data: bytes | None) -> dict[str, Any]:
    if data is None:
        return {}
    sha256 = hashlib.sha256(data).hexdigest()
    return {"media_type": "application/octet-stream", "media_length": len(data), "sha256": sha256}


def _schema() -> Iterator[str]:
    connection = sqlite3.connect(f"file:{SCHEMA}?mode=ro", uri=True)
    try:
        yield from [row[0] for row in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")]
    finally:
        connection.close()


def _insert(connection: sqlite3.Connection, table: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        columns = ", ".join(rows[0])
        values = ", ".join(f":{name}" for name in rows[0])
        connection.executemany(f"INSERT INTO {table} ({columns}) VALUES ({values})", rows)
