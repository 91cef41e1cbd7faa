import re
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.importers import test_conduit as conduit
from tests.importers import test_dendrite as dendrite
from tests.importers import test_matrix_media_repo as mmr
from tests.importers.test_synapse_http import TOKEN, FakeSynapse, running
from tests.support.installation import homeserver
from tests.support.moving_in import MovingIn, moving_in
from tests.support.remote_server import remote_server


@asynccontextmanager
async def moved(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, folder: Path, names: list[str], source: dict[str, Any], **more: Any
) -> AsyncIterator[MovingIn]:
    homeservers = [homeserver(name, f"token-{name}") for name in names]
    async with moving_in(postgres, s3, folder, names[0], source, homeservers=homeservers, **more) as moving:
        moving.own.token = f"token-{names[0]}"
        yield moving


async def test_dendrites_media_move_in(postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path) -> None:
    dendrite.fill(tmp_path)
    connection = sqlite3.connect(tmp_path / "mediaapi.db")
    connection.executescript(dendrite.SCHEMA)
    connection.executemany("INSERT INTO mediaapi_media_repository VALUES (?, ?, ?, ?, ?, ?, ?, ?)", dendrite.rows())
    connection.commit()
    connection.close()
    config = dendrite.write_config(tmp_path, "file:mediaapi.db")
    source = {"kind": "dendrite", "paths": [str(config)], "remote": "all"}
    async with moved(postgres, s3, tmp_path, ["dendrite.test", "second.test"], source) as moving:
        figures = await moving.run(status=2)
        items, orphans, summary = await moving.report()
        first = await moving.get("dendrite.test", f"{1:064x}")
        again = await moving.get("dendrite.test", f"{2:064x}")
        remote = await moving.get("other.test", f"{6:064x}")
        media = await moving.media()

    assert (figures["rows"], summary["balances"]) == (7, True)
    assert {item["state"] for item in items.values()} == {"committed", "missing", "skipped"}
    assert items[f"{4:064x}"]["state"] == "missing"
    assert (first.body, again.body, remote.body) == (dendrite.FIRST, dendrite.FIRST, dendrite.REMOTE)
    assert (media[f"{1:064x}"]["uploaded_by"], media[f"{1:064x}"]["created_ts"]) == (
        "@alice:dendrite.test",
        1_700_000_000_001,
    )
    assert media[f"{1:064x}"]["object_key"] == media[f"{2:064x}"]["object_key"]
    assert len(orphans) == 1


async def test_matrix_media_repos_media_move_in(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path, new_database: Callable[..., Any], whole_bucket: Any
) -> None:
    arguments, address = await new_database(), whole_bucket.address
    await mmr.make_database(arguments, later=True)
    (tmp_path / "files/ab/cd").mkdir(parents=True)
    (tmp_path / "files" / mmr.FILE_PLACE).write_bytes(mmr.DATA["one"])
    await whole_bucket.put(mmr.LONG, mmr.DATA["two"])
    await whole_bucket.put("plainname", mmr.DATA["three"])
    options = {
        "endpoint": address.endpoint_url.removeprefix("http://"),
        "bucketName": address.bucket,
        "region": address.region,
        "accessKeyId": address.access_key_id,
        "accessSecret": address.secret_access_key,
        "ssl": False,
    }
    dsn = f"postgres://{arguments['user']}@/{arguments['database']}?host={arguments['host']}&port={arguments['port']}"
    config = tmp_path / "mmr.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "homeservers": [{"name": "mmr.test"}, {"name": "second.mmr.test"}],
                "database": {"postgres": dsn},
                "datastores": [
                    {"id": "files", "type": "file", "opts": {"path": str(tmp_path / "files")}},
                    {"id": "objects", "type": "s3", "opts": options},
                ],
            }
        )
    )
    source = {"kind": "matrix-media-repo", "paths": [str(config)], "remote": "all"}
    names = ["mmr.test", "second.mmr.test"]
    async with moved(postgres, s3, tmp_path, names, source) as moving:
        figures = await moving.run(status=3)
        items, _, summary = await moving.report()
        one = await moving.get("mmr.test", "one")
        two = await moving.get("mmr.test", "two")
        legacy = await moving.legacy("mmr.test", "one"), await moving.legacy("mmr.test", "two")
        three = await moving.get("remote.test", "three")
        media = await moving.media()

    assert summary["balances"], figures
    assert (one.body, two.body, three.body) == (mmr.DATA["one"], mmr.DATA["two"], mmr.DATA["three"])
    assert [answer.status for answer in legacy] == [200, 404]
    assert (media["one"]["protected"], media["one"]["last_access_ts"]) == (True, 1700000000005)
    assert media["one"]["blob_id"] == media["copy"]["blob_id"]
    assert (media["hidden"]["state"], media["hidden"]["quarantined_by"] is not None) == ("missing", True)
    assert (items["lostplace"]["state"], items["escape"]["reason"].partition(":")[0]) == ("failed", "unsafe")
    assert media["soon"]["state"] == "pending"


async def test_our_copies_in_the_sources_own_bucket_are_none_of_its_orphans(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path, new_database: Callable[..., Any], whole_bucket: Any
) -> None:
    arguments, address = await new_database(), whole_bucket.address
    for key in [found.key async for found in whole_bucket.store.list("")]:
        await whole_bucket.store.delete([key])
    await mmr.make_database(arguments, later=True)
    await whole_bucket.put(mmr.LONG, mmr.DATA["two"])
    await whole_bucket.put("plainname", mmr.DATA["three"])
    await whole_bucket.put("left/behind", b"an orphan")
    options = {
        "endpoint": address.endpoint_url.removeprefix("http://"),
        "bucketName": address.bucket,
        "region": address.region,
        "accessKeyId": address.access_key_id,
        "accessSecret": address.secret_access_key,
        "ssl": False,
    }
    dsn = f"postgres://{arguments['user']}@/{arguments['database']}?host={arguments['host']}&port={arguments['port']}"
    document = {
        "homeservers": [{"name": "mmr.test"}],
        "database": {"postgres": dsn},
        "datastores": [{"id": "objects", "type": "s3", "opts": options}],
    }
    config = tmp_path / "mmr.yaml"
    config.write_text(yaml.safe_dump(document))
    source = {"kind": "matrix-media-repo", "paths": [str(config)], "remote": "all", "mode": "copy"}
    async with moved(postgres, s3, tmp_path, ["mmr.test"], source, store={"bucket": address.bucket}) as moving:
        await moving.run(status=3)
        await moving.run(status=3)
        items, orphans, _ = await moving.report()
        ours = await moving.own.object_keys()
        plan_status, plan, _ = await moving.command("plan")

    assert items["two"]["mode"] == "copy"
    assert len(ours) >= 2
    assert [orphan.place for orphan in orphans] == [f"objects: s3://{address.bucket}/left/behind"]
    assert (plan_status, re.findall(r"orphan +(\d+)", plan)) == (0, ["1"])


async def test_conduits_media_move_in(postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    conduit.make_database(tmp_path / "db")
    for path, data in conduit.contents().items():
        (tmp_path / "db/media" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "db/media" / path).write_bytes(data)
    source = {"kind": "conduit", "paths": [str(conduit.write_config(tmp_path, ""))], "remote": "all"}
    async with moved(postgres, s3, tmp_path, ["a.test"], source) as moving:
        await moving.run(status=2)
        _, _, summary = await moving.report()
        first = await moving.get("a.test", "first")
        second = await moving.get("a.test", "second")
        media = await moving.media()

    assert summary["balances"]
    assert first.body == conduit.FIRST
    assert media["first"]["created_ts"] == 1_700_000_001_000
    assert media["first"]["uploaded_by"] == "@alice:a.test"
    assert second.status == 404, "the same bytes are blocked under another id"


def block(folder: Path, *addresses: bytes, unblock: bool = False) -> None:
    """Do what Conduit's command block-media does."""
    connection = sqlite3.connect(folder / "db/conduit.db")
    for address in addresses:
        if unblock:
            connection.execute("DELETE FROM blocked_servername_mediaid WHERE key = ?", (address,))
        else:
            row = address, (1).to_bytes(8, "big") + b"spam"
            connection.execute("INSERT INTO blocked_servername_mediaid VALUES (?, ?)", row)
    connection.commit()
    connection.close()


def conduit_source(folder: Path, **more: Any) -> dict[str, Any]:
    (folder / "db").mkdir()
    conduit.make_database(folder / "db")
    for path, data in conduit.contents().items():
        (folder / "db/media" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "db/media" / path).write_bytes(data)
    return {"kind": "conduit", "paths": [str(conduit.write_config(folder, ""))], **more}


@pytest.mark.parametrize("remote", ["all", "none"])
@pytest.mark.parametrize("imported", [True, False], ids=["imported", "read-through"])
async def test_what_conduit_blocks_and_never_fetched_is_served_on_no_way(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path, certificate: Path, remote: str, imported: bool
) -> None:
    source = conduit_source(tmp_path, remote=remote, read_through=not imported)
    allowed = {"outbound": {"allow_networks": ["127.0.0.0/8"], "ca_file": f"{certificate}.crt"}}
    async with (
        remote_server(certificate) as elsewhere,
        moved(postgres, s3, tmp_path, ["a.test"], source, **allowed) as moving,
    ):
        blocked, ours = elsewhere.server_name, b"a.test\xffneverhere"
        block(tmp_path, f"{blocked}\xff".encode("latin-1") + b"bad", ours)
        status = 2 if remote == "all" else 0
        if imported:
            await moving.run(status=status)
        answers = [
            await moving.get(blocked, "bad"),
            await moving.own.get(f"/_matrix/client/v1/media/thumbnail/{blocked}/bad?width=32&height=32&method=crop"),
            await moving.get("a.test", "neverhere"),
        ]
        asked = [request.raw_path for request in elsewhere.requests]
        if imported:
            unchanged = await moving.run(status=status)
            items, _, summary = await moving.report()

    assert [answer.status for answer in answers] == [404, 404, 404]
    assert [path for path in asked if "bad" in path] == []
    if imported:
        assert summary["balances"]
        assert items["bad"]["reason"].startswith("blocked:")
        assert unchanged["unchanged"] == summary["rows"]


async def test_a_block_that_conduit_lifts_is_lifted_here_unless_an_admin_decided_otherwise(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path
) -> None:
    source = conduit_source(tmp_path, remote="all")
    async with moved(postgres, s3, tmp_path, ["a.test"], source) as moving:
        addresses = [f"b.test\xff{name}".encode("latin-1") for name in ("kept", "lifted", "hidden", "shown")]
        block(tmp_path, *addresses)
        await moving.run(status=2)
        await moving.own.mark("hidden", "quarantine", by="@admin:a.test")
        await moving.own.rows("DELETE FROM media_mark WHERE media_id = 'shown'")
        block(tmp_path, *addresses[1:3], unblock=True)
        await moving.run(status=2)
        media = await moving.media()

    assert {name: row["quarantined_by"] for name, row in media.items() if row["server_name"] == "b.test"} == {
        "kept": "conduit",
        "hidden": "@admin:a.test",
        "shown": None,
    }


async def test_a_hosted_synapses_media_move_in_by_http(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path, sqlite_store: Path
) -> None:
    fake = FakeSynapse(sqlite_store)
    for origin, media_id, hidden in [
        ("far.test", "blockedAAAA", True),
        ("far.test", "shownAAAAAA", True),
        ("far.test", "shownAAAAAA", False),
        (None, "deletedAAAA", True),
        (None, "HcFtaDvniAHtPtCKyzAIMQAh", True),
    ]:
        fake.changes.append({"origin": origin, "media_id": media_id, "quarantined": hidden})
    async with running(fake) as hosted:
        url = hosted._getter._base  # type: ignore[attr-defined]
        source = {"kind": "synapse-http", "url": url, "admin_token": TOKEN, "server_name": "fix.test"}
        async with moved(postgres, s3, tmp_path, ["fix.test"], source) as moving:
            figures = await moving.run()
            items, _, summary = await moving.report()
            photo = await moving.get("fix.test", "KHUabRSCxHJxifHTrQWdABGy")
            blocked = await moving.get("far.test", "blockedAAAA")
            again = await moving.run()

    assert (figures["rows"], summary["balances"], again["unchanged"]) == (24, True, 24)
    assert {key for key, item in items.items() if (item["reason"] or "").startswith("blocked")} == {
        "blockedAAAA",
        "deletedAAAA",
    }
    assert blocked.status == 404
    assert photo.body == (sqlite_store / "media_store/local_content/KH/Ua/bRSCxHJxifHTrQWdABGy").read_bytes()
    assert items["KHUabRSCxHJxifHTrQWdABGy"]["mode"] == "upload"
