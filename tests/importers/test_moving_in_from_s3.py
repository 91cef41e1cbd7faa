import hashlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml

from mediarepo.app.build_imports_exports import build_ownership_transfer, build_verifier
from mediarepo.db.import_verification import ImportedContentTable
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.services.imports.verification import VerifyReport, VerifyScope
from tests.importers.test_synapse_postgres_s3 import FIXTURE, OTHER, OWN, PREFIX
from tests.support.installation import OTHER_SERVER_NAME, OTHER_TOKEN
from tests.support.moving_in import MovingIn, moving_in, synapse_yaml

LOST = "TOSprLDjGszqGmOkZodvQTIe"
PENDING = "wmIlVMlJhOeeYGtzIrpSCKLH"
REMOTE = {
    "pfyNaslSWCQUfnrAUzlpAkMl": "UFMFjPrSPXTHQNaAjmFKRmtV",
    "nNJBzwEZTouPRcvrRmSGIRps": "MuPsSKSgfAICQRfFnTeZzWCR",
}
HIDDEN = {
    "YsulTdJPrnrKNgQmxljXOUwN",
    "joOOoEzbvvSrzRoNojfFvgJP",
    "wMUsiUKRSpyQPjOrUNnnumEF",
    "nNJBzwEZTouPRcvrRmSGIRps",
}
PREVIEW, PAGE = "2026-11-23_AIwhpPHrvaYyniks", "2026-11-23_iZRofsAmcancUcOT"
PHOTO, EMPTY, PROTECTED = "eJERnIQCfGLJxuiEszggZjvN", "rrUYiklrjUnplBcfLkWAWZqO", "lYQhQKQySMrMECpwmZyHSnxu"
REFETCHED = {"HCMPRePSlrwbTNioTTxmaiqF", "nMWFfobNjeEcYKkaVGvYoakn"}


@pytest.fixture
async def moving(
    postgres: EmbeddedPostgres,
    s3: EmbeddedS3,
    synapse_database: dict[str, Any],
    source_bucket: Any,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> AsyncIterator[MovingIn]:
    """A mediarepo whose bucket is the one that Synapse's storage provider filled."""
    await source_bucket.fill(FIXTURE / "bucket")
    connection = await asyncpg.connect(**synapse_database)
    await connection.execute("UPDATE local_media_repository SET created_ts = 1 WHERE media_id = $1", PENDING)
    now_ms = int(time.time() * 1000)
    await connection.execute("UPDATE local_media_repository SET created_ts = $2 WHERE media_id = $1", PREVIEW, now_ms)
    await connection.close()
    address = source_bucket.address
    provider = {
        "module": "s3_storage_provider.S3StorageProviderBackend",
        "store_local": True,
        "config": {
            "bucket": address.bucket,
            "region_name": address.region,
            "endpoint_url": address.endpoint_url,
            "access_key_id": address.access_key_id,
            "secret_access_key": address.secret_access_key,
            "prefix": source_bucket.prefix + PREFIX,
        },
    }
    path = synapse_yaml(
        tmp_path,
        OWN,
        {"name": "psycopg2", "args": synapse_database},
        media_store_path=str(FIXTURE / "media_store"),
        media_storage_providers=[provider],
    )
    source = {"kind": "synapse", "paths": [str(path)], "remote": "all", **getattr(request, "param", {})}
    async with moving_in(postgres, s3, tmp_path, OWN, source) as moving:
        yield moving


def original(media_id: str) -> bytes:
    name, folder = REMOTE.get(media_id, media_id), f"remote_content/{OTHER}" if media_id in REMOTE else "local_content"
    return (FIXTURE / "bucket" / PREFIX / folder / name[:2] / name[2:4] / name[4:]).read_bytes()


@pytest.mark.parametrize(
    ("moving", "mode", "ownership"),
    [
        ({"mode": "auto"}, "adopt", "borrowed"),
        ({"mode": "copy"}, "copy", "owned"),
        ({"mode": "stream"}, "stream", "owned"),
    ],
    indirect=["moving"],
)
async def test_everything_moves_in_whichever_way(moving: MovingIn, mode: str, ownership: str) -> None:
    figures = await moving.run(status=2)
    items, orphans, summary = await moving.report()
    media = await moving.media()
    ready = {media_id for media_id, row in media.items() if row["state"] == "ready"}

    assert (figures["rows"], summary["balances"]) == (21, True)
    assert {key: item["state"] for key, item in items.items() if item["state"] != "committed"} == {
        LOST: "missing",
        PENDING: "skipped",
        **{key: "skipped" for key in items if key.startswith("2026-")},
    }
    assert {items[key]["mode"] for key in ready if "s3://" in items[key]["place"]} == {mode}
    assert len(ready) == 17
    for media_id in ready:
        row, data = media[media_id], original(media_id)
        answer = await moving.get(OTHER if media_id in REMOTE else OWN, media_id)
        assert (answer.status == 404) is (media_id in HIDDEN), media_id
        assert answer.body == data or media_id in HIDDEN
        assert (row["ownership"], row["remote"]) == (ownership, media_id in REMOTE)
        assert row["sha256"] == hashlib.sha256(data).digest()
    assert {orphan.place[-26:].replace("/", "") for orphan in orphans if "s3://" in orphan.place} >= REFETCHED
    assert summary["orphans"] == 4


@pytest.mark.parametrize("moving", [{"mode": "copy"}, {"mode": "auto"}, {"mode": "stream"}], indirect=True)
async def test_a_source_that_claims_a_neighbours_hash_is_given_none_of_the_neighbours_content(
    moving: MovingIn, synapse_database: dict[str, Any]
) -> None:
    own, theirs = original(PHOTO), original(PHOTO)[::-1]
    upload = await moving.own.request(
        "POST", "/_matrix/media/v3/upload", data=theirs, token=OTHER_TOKEN, host=OTHER_SERVER_NAME
    )
    connection = await asyncpg.connect(**synapse_database)
    claim = hashlib.sha256(theirs).hexdigest()
    await connection.execute("UPDATE local_media_repository SET sha256 = $2 WHERE media_id = $1", PHOTO, claim)
    await connection.close()
    await moving.run(status=2)
    answer = await moving.get(OWN, PHOTO)

    assert upload.status == 200
    assert answer.body != theirs
    assert answer.status == 404 or answer.body == own


async def test_adopting_moves_nothing_and_lists_once(moving: MovingIn) -> None:
    figures = await moving.run(status=2)

    assert (figures["moved_bytes"], await moving.own.object_keys()) == (0, set())
    assert int(figures["lists"]) <= 6


async def test_an_adopted_object_survives_the_deletion_of_its_media(moving: MovingIn, source_bucket: Any) -> None:
    await moving.run(status=2)
    await moving.command("undo", "all", "--yes")
    kept = {found.key async for found in source_bucket.store.list(source_bucket.prefix)}

    assert len(kept) == sum(1 for file in (FIXTURE / "bucket").rglob("*") if file.is_file())


@pytest.mark.parametrize("moving", [{"remote": "none"}], indirect=True)
async def test_without_other_servers_media_their_quarantine_still_counts(moving: MovingIn) -> None:
    await moving.run()
    items, _, _ = await moving.report()
    media = await moving.media()

    assert items["pfyNaslSWCQUfnrAUzlpAkMl"]["reason"].startswith("remote_not_wanted")
    assert media["nNJBzwEZTouPRcvrRmSGIRps"]["quarantined_by"] == f"@alice:{OWN}"
    assert "pfyNaslSWCQUfnrAUzlpAkMl" not in media


@pytest.mark.parametrize("moving", [{"thumbnails": True}], indirect=True)
async def test_thumbnails_can_be_taken_too(moving: MovingIn) -> None:
    await moving.run(status=2)
    taken = await moving.own.value("SELECT count(*) FROM thumbnail")
    answer = await moving.own.get(f"/_matrix/client/v1/media/thumbnail/{OWN}/{PHOTO}?width=96&height=96&method=crop")
    kept = FIXTURE / "bucket" / PREFIX / "local_thumbnails/eJ/ER/nIQCfGLJxuiEszggZjvN/96-96-image-png-crop"

    assert taken > 0
    assert (answer.status, answer.body) == (200, kept.read_bytes())
    assert await moving.own.object_keys() == set()


@pytest.mark.parametrize("moving", [{"url_previews": True}], indirect=True)
async def test_images_of_previews_are_taken_for_as_long_as_they_last(moving: MovingIn) -> None:
    await moving.run(status=2)
    items, _, _ = await moving.report()
    row = (await moving.media())[PREVIEW]

    assert (items[PAGE]["reason"], items[PREVIEW]["mode"]) == ("url_preview", "upload")
    assert row["preview_expires_ts"] == row["created_ts"] + 2 * 86_400_000
    assert (await moving.get(OWN, PREVIEW)).status == 200


async def test_what_is_damaged_later_is_found_by_each_level(moving: MovingIn, source_bucket: Any) -> None:
    await moving.run(status=2)
    media = await moving.media()
    await source_bucket.put(f"{PREFIX}local_content/eJ/ER/nIQCfGLJxuiEszggZjvN", b"short")
    data = original(PROTECTED)
    await source_bucket.put(f"{PREFIX}local_content/lY/Qh/QKQySMrMECpwmZyHSnxu", bytes([data[0] ^ 1]) + data[1:])
    found = {}
    for level in ("size", "server", "full"):
        code, output, errors = await moving.command("verify", "--level", level, "--json")
        found[level] = (code, json.loads(output), errors)

    assert [wrong["mxc"] for wrong in found["size"][1]["wrong"]] == [f"mxc://{OWN}/{PHOTO}"]
    assert found["server"][1]["only_by_size"] == found["server"][1]["checked"] == len(media) - 1
    assert [wrong["mxc"] for wrong in found["server"][1]["wrong"]] == [f"mxc://{OWN}/{PHOTO}"]
    assert [wrong["mxc"] for wrong in found["full"][1]["wrong"]] == [f"mxc://{OWN}/{one}" for one in (PHOTO, PROTECTED)]
    assert "known to be missing" in found["full"][1]["wrong"][0]["why"]
    assert [code for code, _, _ in found.values()] == [2, 2, 2]
    assert [(await moving.get(OWN, one)).status for one in (PHOTO, PROTECTED, EMPTY)] == [404, 404, 200]


async def test_a_sample_tells_how_sure_one_may_be(moving: MovingIn) -> None:
    await moving.run(status=2)
    verify_scope, findings = VerifyScope.parse("sample:50%"), VerifyReport()
    async with moving.opened() as imports:
        verifying = build_verifier(imports.foundation, imports.opened.source, jobs=2)
        chances = iter([0.1, 0.9] * 50)
        verifying.chance = lambda: next(chances)
        await verifying.verify(imports.known, verify_scope, findings)

    assert 8 <= findings.checked <= 9
    assert findings.wrong == []
    assert 0.3 < findings.bound < 0.4


async def test_adopted_objects_become_our_own(moving: MovingIn, source_bucket: Any) -> None:
    await moving.run(status=2)
    code, output, errors = await moving.command("finalize", "--take-ownership")
    media = await moving.media()
    for key in [found.key async for found in source_bucket.store.list(source_bucket.prefix)]:
        await source_bucket.store.delete([key])
    ready = {media_id for media_id, row in media.items() if row["state"] == "ready"}

    assert code == 0, errors
    assert "adopted objects were copied into our own stores" in output
    assert {media[media_id]["ownership"] for media_id in ready} == {"owned"}
    for media_id in ready - HIDDEN:
        assert (await moving.get(OTHER if media_id in REMOTE else OWN, media_id)).body == original(media_id)
    keys = {media[media_id]["object_key"] for media_id in ready}
    assert await moving.own.object_keys() == keys


async def test_an_object_that_cannot_be_taken_over_keeps_none_of_the_others_and_the_import_open(
    moving: MovingIn,
) -> None:
    await moving.run(status=2)
    blob_id = (await moving.media())[PHOTO]["blob_id"]
    await moving.own.rows(
        f"ALTER TABLE blob ADD CONSTRAINT refused CHECK (blob_id <> {blob_id} OR ownership <> 'owned')"
    )
    code, _, errors = await moving.command("finalize", "--take-ownership")
    first = {
        row["ownership"] for media_id, row in (await moving.media()).items() if row["blob_id"] and media_id != PHOTO
    }
    await moving.own.rows("ALTER TABLE blob DROP CONSTRAINT refused")
    again, _, _ = await moving.command("finalize", "--take-ownership")

    assert (code, again) == (3, 0)
    assert "1 objects are still adopted" in errors
    assert first == {"owned"}
    assert (await moving.media())[PHOTO]["ownership"] == "owned"


async def test_a_store_that_may_only_be_read_is_never_written_to(
    moving: MovingIn, source_bucket: Any, tmp_path: Path
) -> None:
    document = yaml.safe_load(moving.config.read_text())
    store = dict(document["stores"]["main"])
    document["stores"]["old"] = {**store, "prefix": "nobodys", "read_only": True}
    (tmp_path / "read-only.yaml").write_text(yaml.safe_dump(document))
    before = {found.key async for found in source_bucket.store.list("nobodys")}
    code, output, _ = await MovingIn(moving.own, tmp_path / "read-only.yaml").command("run")

    assert (code, "21 rows" in output) == (2, True)
    assert {found.key async for found in source_bucket.store.list("nobodys")} == before == set()


async def test_taking_over_again_after_a_crash_goes_on(moving: MovingIn) -> None:
    await moving.run(status=2)
    owned: list[int] = []

    class CrashError(Exception):
        pass

    def on_owned(size_bytes: int) -> None:
        owned.append(size_bytes)
        if len(owned) == 3:
            raise CrashError

    async with moving.opened() as imports:
        for expected in (pytest.raises(ExceptionGroup), nullcontext()):
            with expected:
                async with imports.import_runner.lock_source(imports.known) as lease:
                    owning = build_ownership_transfer(
                        imports.foundation,
                        imports.import_runner,
                        imports.opened.source,
                        imports.known,
                        lease,
                        imports.options,
                        on_owned,
                    )
                    await owning.own_all(imports.known)
    contents = ImportedContentTable(moving.own.repository.foundation.database)
    stores = await contents.stores(1)

    assert all(ownership == "owned" for _, ownership in stores)
