"""Real stores of other repositories, copied so that tests may spoil them."""

import asyncio
import json
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aioboto3
import asyncpg
import pytest
from yarl import URL

from mediarepo.config.storage import StoreConfig
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.importers.readers.source_bucket import BucketAddress
from mediarepo.storage.store import Store

FIXTURES = Path(__file__).parents[1] / "fixtures" / "imports"


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Path:
    """The folder of a real Synapse on SQLite: homeserver.db and media_store."""
    shutil.copytree(FIXTURES / "synapse-sqlite", tmp_path / "synapse")
    return tmp_path / "synapse"


@pytest.fixture
def bucket_folder() -> Path:
    """The objects of a real Synapse's bucket, by key."""
    return FIXTURES / "synapse-pg-s3" / "bucket"


@pytest.fixture
def manifest() -> dict[str, dict[str, Any]]:
    """What the S3 server listed, by key."""
    listed = json.loads((FIXTURES / "synapse-pg-s3" / "bucket_manifest.json").read_text())
    return {entry["Key"]: entry for entry in listed}


@pytest.fixture
async def new_database(postgres: EmbeddedPostgres) -> AsyncIterator[Callable[..., Any]]:
    """Makes empty databases; gives the libpq words for each as a dict, as homeserver.yaml has them."""
    administrator = await asyncpg.connect(postgres.dsn)
    names = []

    async def make() -> dict[str, Any]:
        name = f"import_{secrets.token_hex(6)}"
        names.append(name)
        await administrator.execute(f"CREATE DATABASE {name}")
        query = URL(postgres.dsn).query
        return {"host": query["host"], "port": int(query["port"]), "user": "mediarepo", "database": name}

    yield make
    for name in names:
        await administrator.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await administrator.close()


@pytest.fixture
async def synapse_database(new_database: Callable[..., Any]) -> dict[str, Any]:
    """The media tables of a real Synapse on Postgres, restored."""
    arguments: dict[str, Any] = await new_database()
    await restore(arguments, FIXTURES / "synapse-pg-s3" / "media_tables.sql")
    return arguments


async def restore(arguments: dict[str, Any], dump: Path) -> None:
    """Do what psql would with a plain dump."""
    connection = await asyncpg.connect(**arguments)
    try:
        for text, table, columns, rows in statements(dump.read_text()):
            if table:
                await _copy(connection, table, columns, rows)
            elif text:
                await connection.execute(text)
    finally:
        await connection.close()


def statements(dump: str) -> list[tuple[str, str, str, str]]:
    found = []
    dump = re.sub(r"^(?:\\(?:un)?restrict|SELECT pg_catalog.set_config|--).*\n?", "", dump, flags=re.MULTILINE)
    position = 0
    for match in re.finditer(
        r"^COPY public\.(\w+) \(([^)]*)\) FROM stdin;\n(.*?)^\\\.$", dump, re.MULTILINE | re.DOTALL
    ):
        found.append((dump[position : match.start()].strip(), "", "", ""))
        found.append(("", match[1], match[2], match[3]))
        position = match.end()
    found.append((dump[position:].strip(), "", "", ""))
    return found


async def _copy(connection: Any, table: str, columns: str, rows: str) -> None:
    async def source() -> AsyncIterator[bytes]:
        await asyncio.sleep(0)
        yield rows.encode()

    await connection.copy_to_table(table, source=source(), columns=[name.strip() for name in columns.split(",")])


@dataclass
class SourceBucket:
    """A bucket of a real S3 server, under a prefix that no other test has."""

    store: Store
    address: BucketAddress
    prefix: str

    async def put(self, key: str, data: bytes) -> None:
        await self.store.put(f"{self.prefix}{key}", [data], size_bytes=len(data), metadata={})

    async def fill(self, folder: Path, *, under: str = "") -> None:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                await self.put(f"{under}{file.relative_to(folder)}", file.read_bytes())


@pytest.fixture(scope="session")
async def whole_bucket(s3: EmbeddedS3) -> AsyncIterator[SourceBucket]:
    """A bucket of its own, for layouts without a prefix."""
    name = f"import-{secrets.token_hex(6)}"
    access = _access(s3) | {"bucket": name}
    async with aioboto3.Session().client(
        "s3",
        endpoint_url=s3.endpoint_url,
        region_name=s3.region,
        aws_access_key_id=s3.access_key_id,
        aws_secret_access_key=s3.secret_access_key,
    ) as client:
        await client.create_bucket(Bucket=name)

    class Anywhere(Store):
        def holds(self, object_key: str) -> bool:
            return bool(object_key)

    async with Anywhere("source", StoreConfig.model_validate(access)) as store:
        yield SourceBucket(store, BucketAddress(**access), "")


def _access(s3: EmbeddedS3) -> dict[str, Any]:
    return {
        "endpoint_url": s3.endpoint_url,
        "region": s3.region,
        "bucket": s3.bucket,
        "access_key_id": s3.access_key_id,
        "secret_access_key": s3.secret_access_key,
    }


@pytest.fixture
async def source_bucket(s3: EmbeddedS3) -> AsyncIterator[SourceBucket]:
    prefix = f"import-{secrets.token_hex(6)}"
    access = _access(s3)
    async with Store("source", StoreConfig.model_validate({**access, "prefix": prefix})) as store:
        yield SourceBucket(store, BucketAddress(**access), f"{prefix}/")
