import asyncio
import hashlib
import json
import secrets
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mediarepo.app.build_services import build_repairs
from mediarepo.app.foundation import now_ms
from mediarepo.db.deletion import DeletionTable
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.model.drift import Drift, DriftKind
from mediarepo.model.ids import new_object_key
from mediarepo.model.media import StoreClass
from mediarepo.model.mxc import Mxc
from mediarepo.services.fsck import FsckLevel, FsckProgress, RepairRefusedError, Repairs
from tests.support.installation import Installation, document_for, installed, settings_for

OLD_MS = 48 * 3_600_000


def repairs_of(own: Installation) -> Repairs:
    return build_repairs(own.repository.foundation)


async def found(own: Installation, **how: Any) -> tuple[list[Drift], FsckProgress]:
    progress = FsckProgress()
    drifts = [one async for one in repairs_of(own).fsck.check(own.store, FsckLevel(**how), progress, lambda: None)]
    for one in drifts:
        progress.found[one.kind] += 1
    return drifts, progress


async def orphan(own: Installation, age_ms: int = OLD_MS) -> str:
    key = new_object_key(own.store.prefix, StoreClass.LOCAL, now_ms() - age_ms)
    await own.store.put(key, [b"nobody's"], size_bytes=8, metadata={})
    return key


async def key_of(own: Installation, media_id: str) -> str:
    query = "SELECT object_key FROM blob JOIN media USING (blob_id) WHERE media_id = $1"
    return str(await own.value(query, media_id))


async def damaged(own: Installation) -> dict[DriftKind, str]:
    """Spoil a store in each way once; gives the keys."""
    ids = [await own.upload(secrets.token_bytes(100)) for _ in range(4)]
    keys = [await key_of(own, media_id) for media_id in ids]
    await own.store.delete([keys[0]])
    await own.store.put(keys[1], [b"short"], size_bytes=5, metadata={})
    await own.store.put(keys[2], [bytes(100)], size_bytes=100, metadata={})
    multipart = new_object_key(own.store.prefix, StoreClass.LOCAL, now_ms() - OLD_MS)
    await own.store.begin_multipart(multipart, metadata={})
    return {
        DriftKind.ROW_WITHOUT_OBJECT: keys[0],
        DriftKind.SIZE: keys[1],
        DriftKind.HASH: keys[2],
        DriftKind.OBJECT_WITHOUT_ROW: await orphan(own),
        DriftKind.LEFTOVER_MULTIPART: multipart,
    }


async def test_a_healthy_store_agrees(own: Installation) -> None:
    media_id = await own.upload(secrets.token_bytes(100))
    await own.upload(secrets.token_bytes(6_000_000))
    await orphan(own, age_ms=0)

    drifts, progress = await found(own, hashes=True)

    assert drifts == []
    assert (progress.rows, progress.objects) == (2, 3)
    assert (await own.get(own.download_path(media_id))).status == 200


async def test_each_kind_of_drift_is_found_and_nothing_else(own: Installation) -> None:
    planted = await damaged(own)

    shallow, _ = await found(own)
    deep, _ = await found(own, hashes=True)

    assert {one.kind: one.object_key for one in deep} == planted
    assert {one.kind for one in shallow} == set(planted) - {DriftKind.HASH}
    assert len(deep) == len(planted)


async def test_repair_converges_and_loses_nothing(own: Installation) -> None:
    healthy = await own.upload(b"healthy")
    await damaged(own)
    repaired: list[Drift] = []

    assert await repairs_of(own).repair(own.store, FsckLevel(hashes=True), repaired.append) == 1
    assert await repairs_of(own).repair(own.store, FsckLevel(hashes=True), repaired.append) == 0
    await own.repository.sweeps.outbox.drain()
    again, _ = await found(own, hashes=True)

    assert {one.kind for one in repaired} == set(DriftKind) - {DriftKind.KNOWN_MISSING, DriftKind.LOST_ROW}
    assert [one.kind for one in again] == [DriftKind.KNOWN_MISSING] * 3
    assert (await own.get(own.download_path(healthy))).body == b"healthy"
    assert await own.value("SELECT count(*) FROM media WHERE state = 'missing'") == 3


async def test_what_comes_and_goes_meanwhile_is_no_drift(own: Installation) -> None:
    for _ in range(5):
        await own.upload(secrets.token_bytes(100))
    store, listing = own.store, own.store.list
    deletion_table = DeletionTable(own.repository.foundation.database)
    media = await own.rows("SELECT media_id FROM media")

    async def unsteady(under: str, **arguments: Any) -> Any:
        """Between the listing and the rows, one is uploaded and one deleted."""
        async for one in listing(under, **arguments):
            yield one
        if arguments and under == f"{store.prefix}/":
            await own.upload(secrets.token_bytes(100))
            await deletion_table.delete(Mxc(own.server_name, media.pop()["media_id"]))
            await own.repository.sweeps.outbox.drain()

    store.list = unsteady  # type: ignore[method-assign]
    try:
        drifts, _ = await found(own)
    finally:
        store.list = listing  # type: ignore[method-assign]

    assert drifts == []


async def test_what_is_deleted_between_the_listing_and_the_last_look_is_no_drift(own: Installation) -> None:
    queued = [await orphan(own) for _ in range(3)]
    await own.repository.sweeps.sweep_table.condemn("main", queued)
    unknown = own.repository.sweeps.sweep_table.unknown
    repairs = repairs_of(own)

    async def drained_before(store: str, keys: list[str]) -> list[str]:
        await own.repository.sweeps.outbox.drain()
        return await unknown(store, keys)

    repairs.fsck.sweep_table.unknown = drained_before  # type: ignore[method-assign,assignment]
    drifts = [one async for one in repairs.fsck.check(own.store, FsckLevel(), FsckProgress(), lambda: None)]

    assert drifts == []
    assert not set(queued) & await own.object_keys()


async def test_media_deleted_while_their_object_is_looked_for_are_no_drift(own: Installation) -> None:
    media_id = await own.upload(secrets.token_bytes(100))
    key = await key_of(own, media_id)
    deletion_table, listing = DeletionTable(own.repository.foundation.database), own.store.list

    async def late(under: str, **arguments: Any) -> Any:
        """The listing misses the object; it is deleted when it is looked for by its key."""
        if under == key:
            await deletion_table.delete(Mxc(own.server_name, media_id))
            await own.repository.sweeps.outbox.drain()
        async for one in listing(under, **arguments):
            if one.key != key or under == key:
                yield one

    own.store.list = late  # type: ignore[method-assign]
    try:
        drifts, progress = await found(own)
    finally:
        own.store.list = listing  # type: ignore[method-assign]

    assert (drifts, progress.rows) == ([], 1)


async def adopted(own: Installation) -> dict[str, str]:
    """Put objects elsewhere in the bucket and adopt them; gives their keys by what becomes of them."""
    keys = {name: f"{own.store.prefix}-elsewhere/{name}" for name in ("good", "gone", "short", "changed")}
    for name, key in keys.items():
        content = name.encode().ljust(64)
        await own.store._wire.put(key, [content], size_bytes=64, headers={})
        await own.rows(
            """INSERT INTO blob (store, object_key, size_bytes, sha256, sha256_state, ownership, created_ts)
               VALUES ('main', $1, 64, $2, 'verified', 'borrowed', 1)""",
            key,
            hashlib.sha256(content).digest(),
        )
        await own.rows(
            """INSERT INTO media
                   (server_name, media_id, state, remote, blob_id, content_type, authenticated, created_ts)
               SELECT 'media.example', $2, 'ready', false, blob_id, 'text/plain', true, 1
               FROM blob WHERE object_key = $1""",
            key,
            name,
        )
    await own.store._control.delete_one(keys["gone"])
    await own.store._wire.put(keys["short"], [b"short"], size_bytes=5, headers={})
    await own.store._wire.put(keys["changed"], [bytes(64)], size_bytes=64, headers={})
    return keys


async def test_adopted_objects_are_checked_wherever_they_lie_and_never_deleted(own: Installation) -> None:
    keys = await adopted(own)

    drifts, progress = await found(own)
    deep, _ = await found(own, hashes=True)
    await repairs_of(own).repair(own.store, FsckLevel(hashes=True), lambda _drift: None)
    await own.repository.sweeps.outbox.drain()

    by_kind = {one.kind: one.object_key for one in drifts}
    assert by_kind == {DriftKind.ROW_WITHOUT_OBJECT: keys["gone"], DriftKind.SIZE: keys["short"]}
    assert {one.kind: one.object_key for one in deep} == {**by_kind, DriftKind.HASH: keys["changed"]}
    assert progress.borrowed == 4
    assert [await own.store.size_of(keys[name]) for name in ("good", "short", "changed")] == [64, 5, 64]
    assert await own.value("SELECT count(*) FROM media WHERE state = 'missing'") == 3


async def test_a_check_goes_on_behind_a_key(own: Installation) -> None:
    for _ in range(6):
        await own.upload(secrets.token_bytes(50))
    keys = sorted(await own.object_keys())

    _, progress = await found(own, after_key=keys[2])

    assert (progress.objects, progress.rows, progress.last_key) == (3, 3, keys[-1])
    assert progress.unchecked == [f"what comes up to {keys[2]}"]


async def test_a_database_from_a_backup_is_not_repaired_by_deleting(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> None:
    async with installed(settings_for(postgres, s3, sweep={"enabled": False, "max_unknown": 2})) as own:
        for _ in range(4):
            await orphan(own)
        _, progress = await found(own)

        with pytest.raises(RepairRefusedError, match="backup"):
            await repairs_of(own).check_safe(own.store, progress, force=False)
        await repairs_of(own).check_safe(own.store, progress, force=True)


async def test_a_store_that_is_not_ours_is_never_repaired(own: Installation) -> None:
    _, progress = await found(own)
    text = b"00000000-0000-0000-0000-000000000000\n"
    await own.store.put(f"{own.store.prefix}/installation", [text], size_bytes=len(text), metadata={})

    with pytest.raises(RepairRefusedError, match="another installation"):
        await repairs_of(own).check_safe(own.store, progress, force=True)


async def fsck(config: Path, *arguments: str) -> tuple[int, str]:
    """Run the command as a program of its own: it sets up logs for its whole process."""
    command = [sys.executable, "-m", "mediarepo", "fsck", "--config", str(config), *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_the_command_reports_and_mends(postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path) -> None:
    document, config = (
        document_for(postgres, s3, log={"level": "error"}, sweep={"unknown_object_age_ms": 0}),
        tmp_path / "config.yaml",
    )
    config.write_text(yaml.safe_dump(document))
    async with installed(settings_for(postgres, s3, **document)) as own:
        planted = await damaged(own)
        dry = await fsck(config, "--json", "--hashes")
        mended = await fsck(config, "--repair", "--hashes", "--yes")
        mended_too = await fsck(config, "--repair", "--hashes", "--yes")
        await own.repository.sweeps.outbox.drain()
        known = await fsck(config, "--hashes")
        told_again = await fsck(config, "--repair", "--accept-losses")
        clean = await fsck(config, "--hashes")
        audit = await own.rows("SELECT DISTINCT action, target, affected FROM audit_log WHERE action = 'accept_losses'")

    lines = [json.loads(line) for line in dry[1].splitlines()]
    assert {one["kind"]: one["object_key"] for one in lines if one["action"] == "found"} == planted
    assert lines[-1]["found"] == dict.fromkeys(planted, 1) | {DriftKind.KNOWN_MISSING: 0, DriftKind.LOST_ROW: 0}
    assert [one[0] for one in (dry, mended, known, told_again, clean)] == [1, 1, 1, 1, 0]
    assert known[1].count("found known_missing") == told_again[1].count("found known_missing") == 3
    assert [tuple(row) for row in audit] == [("accept_losses", "store main", 3)]
    assert (mended[1] + mended_too[1]).count("repaired ") == len(planted)
    assert "all agree" in clean[1]


async def test_the_exit_status_tells_what_was_not_checked_from_agreement_and_from_failure(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path
) -> None:
    document, config = document_for(postgres, s3, log={"level": "error"}), tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(document))
    async with installed(settings_for(postgres, s3, **document)) as own:
        for _ in range(2):
            await own.upload(secrets.token_bytes(50))
        first = min(await own.object_keys())
        whole, part = await fsck(config), await fsck(config, "--after", first)
        document["stores"]["main"]["bucket"] = "none"
        config.write_text(yaml.safe_dump(document))
        failed = await fsck(config)

    assert (whole[0], part[0], failed[0]) == (0, 3, 4)
    assert "contents were not read" in whole[1]
    assert f"not checked: what comes up to {first}" in part[1]
