"""Drift of every kind among a hundred thousand objects. Opt-in, since it takes minutes."""

import asyncio
import hashlib
import json
import secrets
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from mediarepo.app.foundation import now_ms
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.model.drift import DriftKind
from mediarepo.model.ids import new_object_key
from mediarepo.model.media import StoreClass
from tests.support.installation import Installation, document_for, installed, settings_for

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(3600)]

OBJECTS = 100_000
AT_ONCE = 64
HOUR_MS = 3_600_000
MIB = 1024 * 1024
MAY_GROW = 24 * MIB
"""What the command may take more at its end than when it had begun: nothing that grows with the number of objects."""


def content(number: int) -> bytes:
    return f"object {number}".encode().ljust(64)


def fresh_key(own: Installation) -> str:
    return new_object_key(own.store.prefix, StoreClass.LOCAL, now_ms() - HOUR_MS)


async def plant(own: Installation, numbers: Sequence[int]) -> list[str]:
    """Store objects and write their rows, without going through an upload each."""
    keys = [fresh_key(own) for _ in numbers]
    gate = asyncio.Semaphore(AT_ONCE)

    async def put(key: str, number: int) -> None:
        async with gate:
            await own.store.put(key, [content(number)], size_bytes=64, metadata={})

    await asyncio.gather(*(put(key, number) for key, number in zip(keys, numbers, strict=True)))
    await own.rows(
        """INSERT INTO blob (store, object_key, size_bytes, sha256, sha256_state, created_ts)
           SELECT 'main', key, 64, sha256, 'verified', 1
           FROM unnest($1::text[], $2::bytea[]) AS planted (key, sha256)""",
        keys,
        [hashlib.sha256(content(number)).digest() for number in numbers],
    )
    await own.rows(
        """INSERT INTO media (server_name, media_id, state, remote, blob_id, content_type, authenticated, created_ts)
           SELECT 'media.example', 'planted' || blob_id, 'ready', false, blob_id, 'text/plain', true, 1
           FROM blob WHERE object_key = ANY($1::text[])""",
        keys,
    )
    return keys


async def spoil(own: Installation, keys: list[str]) -> dict[DriftKind, set[str]]:
    """Do every kind of damage a few times, spread over all keys."""
    step = len(keys) // 20
    gone, short, changed = keys[step : 6 * step : step], keys[7 * step : 10 * step : step], keys[11 * step :: 2 * step]
    await own.store.delete(gone)
    for key in short:
        await own.store.put(key, [b"short"], size_bytes=5, metadata={})
    for key in changed:
        await own.store.put(key, [bytes(64)], size_bytes=64, metadata={})
    strangers, multiparts = [fresh_key(own) for _ in range(7)], [fresh_key(own) for _ in range(2)]
    for key in strangers:
        await own.store.put(key, [b"nobody's"], size_bytes=8, metadata={})
    for key in multiparts:
        await own.store.begin_multipart(key, metadata={})
    return {
        DriftKind.ROW_WITHOUT_OBJECT: set(gone),
        DriftKind.SIZE: set(short),
        DriftKind.HASH: set(changed),
        DriftKind.OBJECT_WITHOUT_ROW: set(strangers),
        DriftKind.LEFTOVER_MULTIPART: set(multiparts),
        DriftKind.LOST_ROW: set(),
    }


@dataclass
class Outcome:
    """What the command said, and how much memory it took at which time."""

    status: int = 0
    lines: list[dict[str, Any]] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)

    def of(self, action: str) -> dict[DriftKind, set[str]]:
        found: dict[DriftKind, set[str]] = {kind: set() for kind in DriftKind}
        for line in self.lines:
            if line["action"] == action:
                found[DriftKind(line["kind"])].add(line["object_key"])
        return found

    @property
    def growth(self) -> int:
        return max(self.memory) - self.memory[len(self.memory) // 10]


async def fsck(config: Path, *arguments: str) -> Outcome:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mediarepo", "fsck", "--json", "--config", str(config), *arguments),
        stdout=asyncio.subprocess.PIPE,
    )
    outcome = Outcome()

    async def watch() -> None:
        while True:
            await asyncio.sleep(0.5)
            status = Path(f"/proc/{process.pid}/status").read_text()
            rss = next((line for line in status.splitlines() if line.startswith("VmRSS")), None)
            if rss is not None:
                outcome.memory.append(int(rss.split()[1]) * 1024)

    watching = asyncio.create_task(watch())
    output, _ = await process.communicate()
    watching.cancel()
    outcome.status = process.returncode or 0
    outcome.lines = [json.loads(line) for line in output.splitlines() if line.startswith(b"{")]
    return outcome


@asynccontextmanager
async def uploading(own: Installation) -> AsyncIterator[list[str]]:
    """Upload, and delete every third again, for as long as something else goes on."""
    kept: list[str] = []

    async def upload() -> None:
        for number in range(10**9):
            await asyncio.sleep(0.02)
            media_id = await own.upload(secrets.token_bytes(100))
            if number % 3:
                kept.append(media_id)
            else:
                await own.request("DELETE", f"/_synapse/admin/v1/media/media.example/{media_id}", token="operator")
                await own.repository.administration.deletion.empty_trash()
                await own.repository.sweeps.outbox.drain()

    task = asyncio.create_task(upload())
    try:
        yield kept
    finally:
        assert not task.done(), task.exception()
        task.cancel()
        await asyncio.wait([task])


async def test_exactly_the_drift_is_found_and_mended_while_uploads_go_on(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path
) -> None:
    overrides: dict[str, Any] = {
        "sweep": {"enabled": False, "grace_ms": 600_000, "unknown_object_age_ms": 0, "outbox_interval_ms": 3_600_000},
        "admin": {"token": "operator", "trash_ms": 0, "trash_interval_ms": 3_600_000},
    }
    document, config = document_for(postgres, s3, **overrides), tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(document))
    async with installed(settings_for(postgres, s3, **document)) as own:
        keys = [key for start in range(0, OBJECTS, 5_000) for key in await plant(own, range(start, start + 5_000))]
        seeded = await spoil(own, sorted(keys))

        async with uploading(own) as kept:
            found = await fsck(config, "--hashes")
            repaired = await fsck(config, "--hashes", "--repair", "--yes")
            repaired_too = await fsck(config, "--repair", "--yes")
            again = await fsck(config)  # while the outbox deletes what was condemned
        await own.repository.sweeps.outbox.drain()
        accepted = await fsck(config, "--accept-losses")
        last = await fsck(config)

        print(f"memory: {[one // MIB for one in found.memory[::20]]} MiB; {len(kept)} uploads meanwhile")
        nothing: dict[DriftKind, set[str]] = {kind: set() for kind in DriftKind}
        left = {DriftKind.OBJECT_WITHOUT_ROW: set[str]()}
        assert found.of("found") == nothing | seeded
        assert repaired.of("repaired") | left == nothing | seeded | left
        assert repaired_too.of("repaired")[DriftKind.OBJECT_WITHOUT_ROW] == seeded[DriftKind.OBJECT_WITHOUT_ROW]
        lost = seeded[DriftKind.ROW_WITHOUT_OBJECT] | seeded[DriftKind.SIZE] | seeded[DriftKind.HASH]
        assert again.of("found") == accepted.of("found") == nothing | {DriftKind.KNOWN_MISSING: lost}
        assert last.of("found") == nothing
        assert [one.status for one in (found, repaired, again, accepted, last)] == [1, 1, 1, 1, 0]
        assert found.growth < MAY_GROW
        for media_id in kept:
            assert (await own.get(own.download_path(media_id))).status == 200
