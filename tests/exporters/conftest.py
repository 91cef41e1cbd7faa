"""A mediarepo with media of every kind, and empty Synapses to export them to."""

import asyncio
import hashlib
import json
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest
import yaml

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.importers.synapse.config import SynapseConfig, load_synapse_config
from tests.importers.conftest import FIXTURES, new_database, restore, source_bucket
from tests.support.installation import SERVER_NAME, Installation, document_for, installed, settings_for

__all__ = ["new_database", "source_bucket"]

USER = f"@bridge:{SERVER_NAME}"
OTHER_USER = f"@_bridge_other:{SERVER_NAME}"
TABLES = (
    "local_media_repository",
    "remote_media_cache",
    "local_media_repository_thumbnails",
    "remote_media_cache_thumbnails",
)


@dataclass
class Exit:
    """What a command left behind; `lines` are its JSON lines."""

    status: int
    output: bytes
    errors: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.decode().splitlines()]

    @property
    def done(self) -> dict[str, Any]:
        return self.lines[-1]

    @property
    def problems(self) -> dict[str, tuple[str, str]]:
        found = [line for line in self.lines if line["action"] == "problem"]
        return {line["mxc"].rpartition("/")[2]: (line["outcome"], line["why"]) for line in found}


@dataclass
class Leaving:
    """A running mediarepo that media leave."""

    own: Installation
    config: Path
    contents: dict[str, bytes] = field(default_factory=dict)

    async def begin(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mediarepo", "export", *arguments, "--config", str(self.config)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def export(self, *arguments: str) -> Exit:
        process = await self.begin(*arguments)
        output, errors = await process.communicate()
        return Exit(process.returncode or 0, output, errors.decode())

    async def upload(self, data: bytes, *, name: str | None = None, user: str = USER, **arguments: Any) -> str:
        query = f"?user_id={quote(user)}" + ("" if name is None else f"&filename={quote(name, safe='')}")
        media_id = await self.own.upload(data, query=query, **{"content_type": "text/plain", **arguments})
        self.contents[media_id] = data
        return media_id

    async def change(self, media_id: str, assignments: str) -> None:
        await self.own.rows(f"UPDATE media SET {assignments} WHERE media_id = $1", media_id)

    async def hide(self, media_id: str) -> None:
        await self.own.mark(media_id, "quarantine", by="@admin:media.example", owner="media.example")

    async def object_key(self, media_id: str) -> str:
        query = "SELECT object_key FROM blob JOIN media USING (blob_id) WHERE media_id = $1"
        return str(await self.own.value(query, media_id))


@pytest.fixture
async def leaving(postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path) -> AsyncIterator[Leaving]:
    document, config = document_for(postgres, s3), tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(document))
    async with installed(settings_for(postgres, s3, **document)) as own:
        yield Leaving(own, config)


@dataclass
class Target:
    """A Synapse that has no media yet; `rows` asks its database."""

    yaml: Path
    arguments: dict[str, Any]

    @property
    def config(self) -> SynapseConfig:
        return load_synapse_config([self.yaml])

    @property
    def store(self) -> Path:
        return self.config.media_store_path

    def options(self) -> list[str]:
        return ["--to", "synapse", "--synapse-config", str(self.yaml), "--json"]

    def change_config(self, **changes: Any) -> None:
        self.yaml.write_text(yaml.safe_dump({**yaml.safe_load(self.yaml.read_text()), **changes}))

    async def rows(self, query: str) -> list[dict[str, Any]]:
        if "host" not in self.arguments:
            with sqlite3.connect(self.arguments["database"]) as connection:
                connection.row_factory = sqlite3.Row
                rows = [dict(row) for row in connection.execute(query).fetchall()]
            connection.close()
            return rows
        database = await asyncpg.connect(**self.arguments)
        try:
            return [dict(row) for row in await database.fetch(query)]
        finally:
            await database.close()

    async def run_script(self, script: Path) -> None:
        if "host" in self.arguments:
            database = await asyncpg.connect(**self.arguments)
            await database.execute(script.read_text())
            await database.close()
        else:
            with sqlite3.connect(self.arguments["database"]) as connection:
                connection.executescript(script.read_text())
            connection.close()


def make_target(folder: Path, name: str, arguments: dict[str, Any]) -> Target:
    document = {"server_name": SERVER_NAME, "media_store_path": str(folder / "media_store")}
    document["database"] = {"name": name, "args": {**arguments, "cp_min": 5}}  # type: ignore[assignment]
    (folder / "homeserver.yaml").write_text(yaml.safe_dump(document))
    return Target(folder / "homeserver.yaml", arguments)


@pytest.fixture
def empty_sqlite(tmp_path: Path) -> Target:
    """The tables of a real Synapse on SQLite, without their rows."""
    folder = tmp_path / "synapse"
    folder.mkdir()
    path = folder / "homeserver.db"
    path.write_bytes((FIXTURES / "synapse-sqlite" / "homeserver.db").read_bytes())
    with sqlite3.connect(path) as connection:
        for table in TABLES:
            connection.execute(f"DELETE FROM {table}")
    connection.close()
    return make_target(folder, "sqlite3", {"database": str(path)})


@pytest.fixture
async def empty_postgres(new_database: Callable[..., Any], tmp_path: Path) -> Target:
    """The tables of a real Synapse on Postgres, without their rows."""
    folder = tmp_path / "synapse"
    folder.mkdir(exist_ok=True)
    arguments = await new_database()
    await restore(arguments, FIXTURES / "synapse-pg-s3" / "media_tables.sql")
    target = make_target(folder, "psycopg2", arguments)
    await target.rows(f"TRUNCATE {', '.join(TABLES)}")
    return target


@pytest.fixture(params=["sqlite", "postgres"])
def target(request: pytest.FixtureRequest) -> Target:
    """An empty Synapse on either database."""
    found: Target = request.getfixturevalue(f"empty_{request.param}")
    return found


def sums_agree(folder: Path) -> str:
    """Let coreutils check an archive; gives what it says."""
    checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    return checked.stdout


def hash_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
