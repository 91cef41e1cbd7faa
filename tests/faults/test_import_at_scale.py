"""Imports of many media, killed again and again: in the end everything is here once, and nothing else is."""

import asyncio
import json
import os
import random
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aioboto3
import asyncpg
import pytest
import yaml

from mediarepo.app.build_services import build_sweeps
from mediarepo.app.foundation import Foundation, open_foundation
from mediarepo.config.settings import Settings
from mediarepo.config.storage import StoreConfig
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.storage.store import Store
from tests.support.installation import TOKEN, document_for, homeserver
from tests.support.s3_wire import S3Wire
from tests.support.synapse_contents import SOUND, SPOILT, Contents, Name, fill
from tests.support.synapse_store import SERVER_NAME, SynapseStore

MANY = int(os.environ.get("MEDIAREPO_IMPORT_ROWS", "100000"))
FEW = 2000
KILLS = 10
INCOMPLETE = 2
LIST_PAGE, KINDS = 1000, 3
"""A walk through local media, previews and other servers' media ends with a page each that is not full."""
SAMPLES = 50
"""A run tries some objects before it begins, however many there are."""
ROWS_PER_S = 1_000
"""About what an import may do here, so that kills spread over the whole of it."""
heavy = [pytest.mark.heavy, pytest.mark.timeout(3600)]


@dataclass
class Importing:
    """A configuration in a file, and the command that imports with it."""

    document: dict[str, Any]
    folder: Path
    commanding: asyncio.subprocess.Process

    @property
    def settings(self) -> Settings:
        return Settings.model_validate(self.document)

    async def start(self, *words: str) -> int:
        """Start a command; gives its process id."""
        line = json.dumps([[*words, "--config", str(self.folder / "config.yaml")], str(self.folder / "said")])
        assert self.commanding.stdin is not None
        self.commanding.stdin.write(f"{line}\n".encode())
        return await self.answer()

    async def answer(self) -> int:
        """Wait for the process id of a command that was started, and after that for its exit status."""
        assert self.commanding.stdout is not None
        return int(await self.commanding.stdout.readline())

    async def tell(self, *words: str) -> tuple[int, str]:
        """Run a command to its end; gives its exit status and what it printed."""
        await self.start(*words)
        status = await self.answer()
        return status, (self.folder / "said").read_text()

    async def run(self) -> int:
        began = time.monotonic()
        status, said = await self.tell("import", "old", "run")
        print(f"run: {status} after {time.monotonic() - began:.1f} s\n{said[-1500:]}")
        return status

    async def summary(self) -> dict[str, Any]:
        _, said = await self.tell("import", "old", "report", "--format", "jsonl")
        found: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
        return found


@asynccontextmanager
async def importing(document: dict[str, Any], folder: Path) -> AsyncIterator[Importing]:
    (folder / "config.yaml").write_text(yaml.safe_dump(document))
    command = [sys.executable, "-m", "tests.faults.commanding"]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    one = Importing(document, folder, process)
    try:
        status, said = await one.tell("migrate")
        assert status == 0, said
        yield one
    finally:
        process.stdin.close()
        await process.wait()


async def kill_now_and_then(one: Importing, rows: int) -> int:
    """Kill one run after the other, the first before it has begun; gives how many died."""
    source, died = random.Random(7), 0
    for number in range(KILLS):
        before = await latest_run(one)
        pid, ended = await one.start("import", "old", "run"), asyncio.ensure_future(one.answer())
        while number > 0 and not ended.done() and await latest_run(one) == before:
            await asyncio.sleep(0.02)
        await asyncio.wait([ended], timeout=source.uniform(0, 2 * rows / ROWS_PER_S / KILLS))
        if not ended.done():
            os.kill(pid, signal.SIGKILL)
        died += await ended == -signal.SIGKILL
        await let_the_lease_run_out(one)
    return died


@asynccontextmanager
async def tables(one: Importing) -> AsyncIterator[Any]:
    database = one.document["database"]
    connection = await asyncpg.connect(database["url"], server_settings={"search_path": database["schema"]})
    try:
        yield connection
    finally:
        await connection.close()


async def let_the_lease_run_out(one: Importing) -> None:
    """Do at once what half a minute would do."""
    async with tables(one) as connection:
        await connection.execute("DELETE FROM lease")


async def latest_run(one: Importing) -> int:
    async with tables(one) as connection:
        return int(await connection.fetchval("SELECT coalesce(max(run_id), 0) FROM import_run"))


async def etags(s3: EmbeddedS3, prefix: str) -> dict[str, str]:
    """List what lies under a prefix, our marker aside; an ETag is the MD5 of an object that came with one PUT."""
    found = {}
    async with aioboto3.Session().client(
        "s3",
        endpoint_url=s3.endpoint_url,
        region_name=s3.region,
        aws_access_key_id=s3.access_key_id,
        aws_secret_access_key=s3.secret_access_key,
    ) as client:
        async for page in client.get_paginator("list_objects_v2").paginate(Bucket=s3.bucket, Prefix=f"{prefix}/"):
            for one in page.get("Contents", ()):
                if not one["Key"].endswith("/installation") and "/journal/" not in one["Key"]:
                    found[one["Key"]] = one["ETag"].strip('"')
    return found


async def rows_of(foundation: Foundation) -> dict[Name, Any]:
    async with foundation.database.connection() as connection:
        rows = await connection.fetch(
            """SELECT m.server_name, m.media_id, m.state, (SELECT min(set_by) FROM media_mark k
                       WHERE k.server_name = m.server_name
                           AND k.media_id = m.media_id AND k.kind = 'quarantine') AS quarantined_by, b.blob_id, b.store,
                   b.object_key, b.size_bytes, b.sha256, b.ownership
               FROM media m LEFT JOIN blob b USING (blob_id)"""
        )
    return {(row["server_name"], row["media_id"]): row for row in rows}


def differences(contents: Contents, rows: dict[Name, Any], objects: dict[str, str] | None) -> list[str]:
    """Compare the source with what we have made of it; with `objects`, the bytes too."""
    wanted = contents.served.keys() | contents.missing | contents.pending
    found = [f"{name} is too much" for name in rows.keys() - wanted]
    found += [f"{name} is not there" for name in wanted - rows.keys()]
    for name, row in rows.items():
        expected = contents.served.get(name)
        if expected is None:
            state = "pending" if name in contents.pending else "missing"
            found += [f"{name} is {row['state']}"] if row["state"] != state or row["blob_id"] is not None else []
        elif (row["state"], row["size_bytes"]) != ("ready", expected.size_bytes):
            found.append(f"{name} is {row['state']} with {row['size_bytes']} bytes")
        elif row["sha256"] not in {None, expected.sha256}:
            found.append(f"{name} has another hash")
        elif objects is not None and objects.get(row["object_key"]) != expected.md5:
            found.append(f"{name} has other bytes, or none")
        if (row["quarantined_by"] is not None) != (name in contents.quarantined):
            found.append(f"{name} is quarantined by {row['quarantined_by']}")
    return found


async def check_against(one: Importing, contents: Contents, s3: EmbeddedS3) -> None:
    """Let a sweep remove what the dead left; then all is there, every byte right, and nothing else."""
    await asyncio.sleep(1.5)
    async with open_foundation(one.settings) as foundation:
        prefix = foundation.stores.by_name["main"].prefix
        before = len(await etags(s3, prefix))
        (report,) = await build_sweeps(foundation).sweep()
        rows, objects = await rows_of(foundation), await etags(s3, prefix)
        async with foundation.database.connection() as connection:
            blobs = await connection.fetch("SELECT object_key, sha256 FROM blob WHERE store = 'main'")
    print(f"{len(rows)} media, {len(objects)} objects, {before - len(objects)} removed by the sweep")

    assert report.stopped is None
    assert differences(contents, rows, objects)[:10] == []
    assert objects.keys() == {blob["object_key"] for blob in blobs}
    assert len(blobs) == len({expected.sha256 for expected in contents.served.values()})


async def check_summary(one: Importing, contents: Contents) -> None:
    summary = await one.summary()
    counted = Counter({name: summary[name] for name in ("committed", "skipped", "missing", "mismatched")})
    assert counted == contents.outcomes, summary
    assert (summary["rows"], summary["failed"]) == (contents.rows, 0)


@pytest.mark.parametrize("rows", [FEW, pytest.param(MANY, marks=heavy)])
async def test_an_import_killed_ten_times_ends_with_everything_here_once(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path, rows: int
) -> None:
    store = SynapseStore(tmp_path)
    contents = fill(store, rows, store.write, kinds=SOUND | SPOILT)
    source = {"kind": "synapse", "paths": [str(store.config)], "remote": "all"}
    document = document_for(
        postgres, s3, homeservers=[homeserver(SERVER_NAME, TOKEN)], imports={"old": source}, sweep={"grace_ms": 1000}
    )
    async with importing(document, tmp_path) as one:
        died = await kill_now_and_then(one, rows)
        status = await one.run()
        print(f"{died} runs were killed")

        assert died > KILLS // 2
        assert status == INCOMPLETE
        await check_against(one, contents, s3)
        await check_summary(one, contents)
        assert await one.run() == INCOMPLETE
        await check_against(one, contents, s3)


class Anywhere(Store):
    """A store that writes where a source keeps its objects."""

    def holds(self, object_key: str) -> bool:
        return bool(object_key)


async def put_all(s3: EmbeddedS3, objects: list[tuple[str, bytes]]) -> None:
    config = StoreConfig.model_validate(access_of(s3))
    left = iter(objects)

    async def worker(store: Store) -> None:
        for key, data in left:
            await store.put(key, [data], size_bytes=len(data), metadata={})

    async with Anywhere("source", config) as store:
        await asyncio.gather(*(worker(store) for _ in range(16)))


def access_of(s3: EmbeddedS3) -> dict[str, Any]:
    return {
        "endpoint_url": s3.endpoint_url,
        "region": s3.region,
        "bucket": s3.bucket,
        "access_key_id": s3.access_key_id,
        "secret_access_key": s3.secret_access_key,
    }


def adopting_document(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, wire: S3Wire, store: SynapseStore, prefix: str
) -> dict[str, Any]:
    """Name the bucket twice: where Synapse's objects lie, only to be read, and where ours go."""
    provider = {**access_of(s3), "endpoint_url": wire.endpoint_url, "prefix": f"{prefix}/"}
    region = provider.pop("region")
    module = "s3_storage_provider.S3StorageProviderBackend"
    store.changes["media_storage_providers"] = [{"module": module, "config": {**provider, "region_name": region}}]
    document = document_for(
        postgres,
        s3,
        homeservers=[homeserver(SERVER_NAME, TOKEN)],
        imports={"old": {"kind": "synapse", "paths": [str(store.config)]}},
        store={"endpoint_url": wire.endpoint_url},
    )
    old = {**access_of(s3), "endpoint_url": wire.endpoint_url, "prefix": prefix, "read_only": True}
    document["stores"]["old"] = old
    return document


@pytest.mark.parametrize("rows", [FEW, pytest.param(MANY, marks=heavy)])
async def test_adopting_moves_no_bytes_and_asks_for_no_more_than_lists(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, s3_wire: S3Wire, tmp_path: Path, rows: int
) -> None:
    store, prefix = SynapseStore(tmp_path), f"synapse-{secrets.token_hex(4)}"
    objects: list[tuple[str, bytes]] = []
    document = adopting_document(postgres, s3, s3_wire, store, prefix)
    contents = fill(store, rows, lambda path, data: objects.append((f"{prefix}/{path}", data)), kinds=SOUND)
    await put_all(s3, objects)
    async with importing(document, tmp_path) as one:
        s3_wire.clear()
        assert await one.run() == 0
        counts, moved = s3_wire.counts, sum(seen.sent_bytes for seen in s3_wire.of("GetObject"))
        written = [
            seen.key
            for seen in s3_wire.of("PutObject")
            if not seen.key.endswith("/installation") and "/journal/" not in seen.key
        ]
        async with open_foundation(one.settings) as foundation:
            rows_here = await rows_of(foundation)
        print(f"{len(objects)} objects: {dict(counts)}, {moved} bytes read")

        assert differences(contents, rows_here, await etags(s3, prefix))[:10] == []
        assert {row["ownership"] for row in rows_here.values()} == {"borrowed"}
        assert written == []
        assert counts["CopyObject"] == counts["HeadObject"] == moved == 0
        lists = [seen.query for seen in s3_wire.of("ListObjectsV2")]
        pages = [query for query in lists if query.get("max-keys") != "1"]
        assert len(pages) <= len(objects) // LIST_PAGE + KINDS
        assert len(lists) - len(pages) <= SAMPLES
        await check_summary(one, contents)
