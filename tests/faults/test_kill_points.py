"""kill -9 at each step of whatever changes bucket and database, one after the other."""

import asyncio
import json
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from mediarepo.app.foundation import now_ms
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.model.ids import new_object_key
from mediarepo.model.media import StoreClass
from mediarepo.model.usage import ObjectUsage
from tests.support.installation import Installation, document_for, installed, settings_for
from tests.support.two_stores import cold, keys_in, let_graces_pass, two_stores

MOST_STEPS = 150
NEVER = 1_000_000
POLICIES = [
    {"name": "remote", "what": "remote", "max_idle_ms": 3_600_000},
    {"name": "thumbs", "what": "thumbnails", "max_age_ms": 3_600_000},
    {"name": "local", "what": "local", "max_age_ms": 3_600_000, "keep_avatars": False},
]
OVERRIDES: dict[str, Any] = {
    "sweep": {
        "enabled": False,
        "grace_ms": 1000,
        "unknown_object_age_ms": 0,
        "outbox_interval_ms": 3_600_000,
        "max_unknown": 10_000,
    },
    "admin": {"trash_ms": 0, "trash_interval_ms": 3_600_000},
    "uploads": {"part_bytes": 5 * 1024 * 1024, "lease_ms": 300},
    "retention": {"policies": POLICIES},
    "quotas": {"rules": [{"max_bytes": 10**12}], "reservation_ms": 1000},
}


@dataclass(frozen=True)
class Mortal:
    """A process that does a scenario and dies at its n-th step."""

    process: asyncio.subprocess.Process

    async def do(self, scenario: str, number: int) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{scenario} {number}\n".encode())
        async with asyncio.timeout(60):
            return (await self.process.stdout.readline()).decode().strip()


@asynccontextmanager
async def mortal(document: dict[str, Any]) -> AsyncIterator[Mortal]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.faults.dying", json.dumps(document)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Mortal(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def nothing(_own: Installation) -> None:
    """Prepare nothing."""


async def picture(own: Installation) -> str:
    """Upload a file of its own, with a thumbnail pack beside it."""
    media_id = await own.upload(secrets.token_bytes(200))
    key = new_object_key(own.store.prefix, StoreClass.THUMBNAILS, now_ms())
    await own.store.put(key, [b"pack"], size_bytes=4, metadata={})
    await own.rows(
        """INSERT INTO blob (store, object_key, size_bytes, sha256_state, parent_blob_id, created_ts)
           SELECT 'main', $1, 4, 'unknown', blob_id, 1 FROM media WHERE media_id = $2""",
        key,
        media_id,
    )
    return media_id


async def to_be_deleted(own: Installation) -> None:
    media_id = await picture(own)
    await own.rows("UPDATE media SET upload_name = 'delete' WHERE media_id = $1", media_id)


async def to_be_let_go(own: Installation) -> None:
    """One remote picture, one local one, both old, and a thumbnail pack of each."""
    remote, local = await picture(own), await picture(own)
    old = "UPDATE media SET created_ts = 1, remote = $2, uploaded_by = CASE WHEN $2 THEN NULL ELSE '@b:x' END"
    await own.rows(f"{old} WHERE media_id = $1", remote, True)
    await own.rows(f"{old} WHERE media_id = $1", local, False)


async def to_be_repaired(own: Installation) -> None:
    """An object of nobody, one that is gone, one of another size, an open multipart upload."""
    orphan = new_object_key(own.store.prefix, StoreClass.LOCAL, now_ms() - 7_200_000)
    await own.store.put(orphan, [b"nobody's"], size_bytes=8, metadata={})
    multipart = new_object_key(own.store.prefix, StoreClass.LOCAL, now_ms() - 7_200_000)
    await own.store.begin_multipart(multipart, metadata={})
    for spoil in ("gone", "short"):
        media_id = await own.upload(secrets.token_bytes(100))
        key = await own.value("SELECT object_key FROM blob JOIN media USING (blob_id) WHERE media_id = $1", media_id)
        if spoil == "gone":
            await own.store.delete([key])
        else:
            await own.store.put(key, [b"short"], size_bytes=5, metadata={})


SCENARIOS: dict[str, Callable[[Installation], Awaitable[None]]] = {
    "upload": nothing,
    "upload_twice": nothing,
    "upload_large": nothing,
    "fill_pending": nothing,
    "delete": to_be_deleted,
    "retain": to_be_let_go,
    "repair": to_be_repaired,
}


CONTINUED = {"delete", "retain", "repair"}
"""Work that another process takes up after each death, so that the next one finds only its own to do."""


async def stored_bytes(own: Installation) -> tuple[int, int]:
    """Count objects and their bytes under our prefix."""
    sizes = [
        found.size_bytes
        async for found in own.store.list(f"{own.store.prefix}/")
        if not found.key.endswith("/installation") and "/journal/" not in found.key
    ]
    return len(sizes), sum(sizes)


async def known_bytes(own: Installation) -> tuple[int, int]:
    """Count them as the database has it."""
    objects: list[ObjectUsage] = await own.repository.administration.usage.of_objects()
    return sum(one.object_count for one in objects), sum(one.size_bytes for one in objects)


async def recover(own: Installation) -> None:
    """What happens by the clock after a crash: leases run out, a grace passes, then the next cycle."""
    await asyncio.sleep(1.5)
    await own.repository.pending.forget_expired()
    await own.repository.administration.deletion.empty_trash()
    (report,) = await own.repository.sweeps.sweep()
    assert report.stopped is None
    await own.rows("UPDATE object_deletion SET next_attempt_ts = 0")
    await own.repository.sweeps.outbox.drain()


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_whatever_the_step_at_which_a_process_dies_nothing_is_lost_and_nothing_leaks(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, scenario: str
) -> None:
    document = document_for(postgres, s3, **OVERRIDES)
    async with installed(settings_for(postgres, s3, **document)) as own, mortal(document) as dying:
        control, acknowledged, deaths = secrets.token_bytes(500), list[str](), 0
        kept = await own.upload(control)
        await own.mark(kept, "pin")
        for number in range(1, MOST_STEPS):
            await SCENARIOS[scenario](own)
            said = await dying.do(scenario, number)
            if said != "died":
                break
            deaths += 1
            if scenario in CONTINUED:
                assert (await dying.do(scenario, NEVER)).startswith("done")
        assert said.startswith("done")
        acknowledged += said.split()[1:]
        assert deaths >= (2 if scenario == "upload_twice" else 6)  # equal content costs one statement
        await SCENARIOS[scenario](own)
        last = await dying.do(scenario, NEVER)
        assert last.startswith("done")
        acknowledged += last.split()[1:]
        await recover(own)

        assert await stored_bytes(own) == await known_bytes(own)
        assert [found async for found in own.store.list_multiparts(f"{own.store.prefix}/")] == []
        assert (await own.get(own.download_path(kept))).body == control
        for media_id in acknowledged:
            assert (await own.get(own.download_path(media_id))).status == 200
        assert await own.value("SELECT count(*) FROM quota_reservation") == 0
        for row in await own.rows("SELECT media_id FROM media WHERE state = 'ready' AND NOT remote"):
            assert (await own.get(own.download_path(row["media_id"]))).status == 200


async def to_be_moved(own: Installation) -> str:
    return await picture(own)


async def large_to_be_moved(own: Installation) -> str:
    return await own.upload(secrets.token_bytes(6 * 1024 * 1024))


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("scenario", "prepare"), [("move", to_be_moved), ("move_streamed", large_to_be_moved)])
async def test_whatever_the_step_at_which_a_move_dies_it_goes_on_and_nothing_is_unreadable(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, scenario: str, prepare: Callable[[Installation], Awaitable[str]]
) -> None:
    document = two_stores(postgres, s3, **OVERRIDES)
    async with installed(settings_for(postgres, s3, **document)) as own, mortal(document) as dying:
        deaths = 0
        for number in range(1, MOST_STEPS, 2):  # after a change nothing differs from before the next one
            media_id = await prepare(own)
            said = await dying.do(scenario, number)
            assert (await own.get(own.download_path(media_id))).status == 200
            if said != "died":
                break
            deaths += 1
            assert (await dying.do(scenario, NEVER)).startswith("done")
        assert said.startswith("done")
        assert deaths >= 15
        await asyncio.sleep(1.5)
        assert {report.stopped for report in await own.repository.sweeps.sweep()} == {None}
        await let_graces_pass(own)

        assert await own.value("SELECT count(*) FROM blob WHERE store = 'main'") == 0
        assert await keys_in(own.store) == set()
        assert len(await keys_in(cold(own))) == await own.value("SELECT count(*) FROM blob WHERE store = 'cold'")
        assert [found async for found in cold(own).list_multiparts(f"{cold(own).prefix}/")] == []
        assert await own.value("SELECT count(*) FROM multipart_intent") == 0
        for row in await own.rows("SELECT media_id FROM media"):
            assert (await own.get(own.download_path(row["media_id"]))).status == 200
