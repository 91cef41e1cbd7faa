"""Out to a Synapse's tables and folders, and back in by our own importer."""

import asyncio
import sqlite3
from contextlib import aclosing
from typing import Any

from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.importers.synapse.source import SynapseSource
from mediarepo.model.import_source import ResolutionState, SourceMedia
from mediarepo.services.stores import marker_key
from tests.exporters.conftest import OTHER_USER, USER, Leaving, Target, hash_of
from tests.importers.conftest import SourceBucket
from tests.pictures.drawn import jpeg
from tests.support.installation import SERVER_NAME

REMOTE = "remote.example:8448"
LONG_NAME = "n" * 600


async def read_back(target: Target) -> dict[str, tuple[SourceMedia, bytes | None]]:
    found: dict[str, tuple[SourceMedia, bytes | None]] = {}
    async with SynapseSource(target.config) as source, aclosing(source.media()) as walk:
        async for media in walk:
            resolution = await source.locate(media)
            data = None
            if resolution.state is ResolutionState.FOUND:
                assert resolution.found is not None
                data = b"".join([piece async for piece in source.open(resolution.found)])
            found[media.media_id] = media, data
    return found


async def announce(leaving: Leaving) -> str:
    answer = await leaving.own.request("POST", "/_matrix/media/v1/create")
    return str(answer.json["content_uri"]).rpartition("/")[2]


async def lose(leaving: Leaving, media_id: str) -> None:
    await leaving.own.store.delete([await leaving.object_key(media_id)])


async def make_remote(leaving: Leaving, media_id: str) -> None:
    await leaving.change(media_id, f"server_name = '{REMOTE}', remote = true, uploaded_by = NULL")


async def every_kind(leaving: Leaving) -> dict[str, str]:
    """Media of every kind, by what they are."""
    made = {
        "picture": await leaving.upload(jpeg(700, 500), content_type="image/jpeg", name="holiday photo.jpg"),
        "text": await leaving.upload(b"text", content_type="text/plain; charset=utf-8", name="資料 'q\";\n.txt"),
        "escaping": await leaving.upload(b"passwords", name="../../etc/passwd"),
        "long": await leaving.upload(b"long name", name=LONG_NAME),
        "empty": await leaving.upload(b"", content_type="application/octet-stream"),
        "large": await leaving.upload(bytes(range(256)) * 50_000, content_type="video/mp4"),
        "other user's": await leaving.upload(b"another's", user=OTHER_USER),
        "hidden": await leaving.upload(b"hidden"),
        "protected": await leaving.upload(b"protected"),
        "open": await leaving.upload(b"from before the freeze"),
        "lost": await leaving.upload(b"lost"),
        "lost and hidden": await leaving.upload(b"lost and hidden"),
        "noticed lost": await leaving.upload(b"noticed lost"),
        "trashed": await leaving.upload(b"trashed"),
        "remote": await leaving.upload(jpeg(300, 200), content_type="image/jpeg"),
        "announced": await announce(leaving),
    }
    for hidden in ("hidden", "lost and hidden"):
        await leaving.hide(made[hidden])
    await leaving.own.mark(made["protected"], "protection")
    await leaving.change(made["open"], "authenticated = false")
    for lost in ("lost", "lost and hidden", "noticed lost"):
        await lose(leaving, made[lost])
    await leaving.change(made["noticed lost"], "state = 'missing'")
    await leaving.change(made["trashed"], "state = 'trashed', trashed_ts = 1")
    await make_remote(leaving, made["remote"])
    await leaving.own.rows("INSERT INTO media_access VALUES ($1, $2, 1700000000000)", SERVER_NAME, made["text"])
    return made


_ROWS = """SELECT m.*, (SELECT set_by FROM media_mark k WHERE k.media_id = m.media_id AND kind = 'quarantine')
        AS quarantined_by,
    EXISTS (SELECT FROM media_mark k WHERE k.media_id = m.media_id AND kind = 'protection') AS protected
    FROM media m"""


async def test_what_went_out_comes_back_with_every_byte_and_flag(leaving: Leaving, target: Target) -> None:
    made = await every_kind(leaving)
    ours = {row["media_id"]: row for row in await leaving.own.rows(_ROWS)}

    first = await leaving.export(*target.options(), "--remote")
    found = await read_back(target)
    second = await leaving.export(*target.options(), "--remote")

    assert (first.status, second.status) == (2, 2), first.errors
    assert first.problems == {made[lost]: ("missing", "its content is lost") for lost in ("lost", "noticed lost")}
    gone = {made["lost"], made["noticed lost"], made["trashed"]}
    assert set(found) == set(made.values()) - gone
    for media_id, (media, data) in found.items():
        row = ours[media_id]
        assert media.server_name == row["server_name"]
        assert (media.user_id, media.created_ts) == (row["uploaded_by"], row["created_ts"])
        assert (media.quarantined_by, media.protected) == (row["quarantined_by"], row["protected"])
        assert (media.upload_name, media.authenticated) == (row["upload_name"], row["authenticated"])
        assert media.pending == (media_id == made["announced"])
        if media.pending:
            assert media.content_type is None
            continue
        assert media.content_type == row["content_type"]
        assert media.sha256 == bytes.fromhex(hash_of(leaving.contents[media_id]))
        assert data == (None if media_id == made["lost and hidden"] else leaving.contents[media_id])
    assert found[made["text"]][0].last_access_ts == 1700000000000
    assert found[made["long"]][0].upload_name == LONG_NAME
    assert found[made["escaping"]][0].upload_name == "../../etc/passwd"
    assert found[made["remote"]][0].filesystem_id not in {None, made["remote"]}
    assert (first.done["exported"], first.done["without_content"]) == (11, 3)
    assert (second.done["already_there"], second.done["written_bytes"]) == (13, 0)
    thumbnails = await target.rows("SELECT media_id, thumbnail_type FROM local_media_repository_thumbnails")
    assert [(row["media_id"], row["thumbnail_type"]) for row in thumbnails] == [(made["picture"], "image/jpeg")] * 5
    assert len(await target.rows("SELECT * FROM remote_media_cache_thumbnails")) == 5
    assert not [path for path in target.store.rglob("*") if path.name.startswith(".")]


async def test_without_remote_only_the_homeservers_own_leave(leaving: Leaving, empty_sqlite: Target) -> None:
    own, remote = await leaving.upload(b"own"), await leaving.upload(b"remote")
    await make_remote(leaving, remote)

    assert (await leaving.export(*empty_sqlite.options())).status == 0

    assert set(await read_back(empty_sqlite)) == {own}


async def test_a_selection_by_user_and_time_and_origin(leaving: Leaving, empty_sqlite: Target) -> None:
    old, imported, others = [await leaving.upload(data) for data in (b"old", b"imported", b"other")]
    await leaving.change(old, "created_ts = 1700000000000")
    await leaving.change(others, f"uploaded_by = '{OTHER_USER}'")
    await leaving.own.rows("INSERT INTO import_source (name, kind, created_ts) VALUES ('old', 'synapse', 1)")
    await leaving.change(imported, "import_source_id = (SELECT source_id FROM import_source)")
    options = [*empty_sqlite.options(), "--since-cutover"]

    one = await leaving.export(*options, "--user", USER, "--since", "2024-01-01")
    two = await leaving.export(*options, "--user", USER)
    three = await leaving.export(*options, "--since", "1700000000001")

    assert [one.done["media"], two.done["exported"], three.done["exported"]] == [0, 1, 1]
    assert set(await read_back(empty_sqlite)) == {old, others}


async def test_since_the_cutover_announced_ids_were_filled_and_media_hidden(
    leaving: Leaving, empty_sqlite: Target
) -> None:
    made = {name: await leaving.upload(name.encode()) for name in ("filled", "hidden", "hidden before", "imported")}
    await leaving.own.rows("INSERT INTO import_source (name, kind, created_ts) VALUES ('old', 'synapse', 1)")
    for name, media_id in made.items():
        await leaving.change(media_id, "import_source_id = (SELECT source_id FROM import_source)")
        await leaving.own.rows(
            """INSERT INTO import_item (source_id, server_name, media_id, kind, state, mode, quarantined_by,
                   fingerprint, run_id, seen_run_id, updated_ts)
               SELECT source_id, $1, $2, 'local', 'committed', $3, $4, '', 1, 1, 1 FROM import_source""",
            *(SERVER_NAME, media_id, "pending" if name == "filled" else "uploaded"),
            "@admin:old.example" if name == "hidden before" else None,
        )
        if name.startswith("hidden"):
            await leaving.hide(media_id)
    await put_row(empty_sqlite, made["filled"], media_length=None)
    await put_row(empty_sqlite, made["hidden"], media_length=6)

    exported = await leaving.export(*empty_sqlite.options(), "--since-cutover")

    assert exported.status == 2
    assert set(exported.problems) == {made["hidden"]}
    assert (exported.done["media"], exported.done["exported"]) == (2, 1)
    assert (await read_back(empty_sqlite))[made["filled"]][1] == b"filled"


async def put_row(target: Target, media_id: str, **values: Any) -> None:
    row = {"media_id": media_id, "created_ts": 1, "user_id": USER, **values}
    if "host" not in target.arguments:
        row = {"safe_from_quarantine": False, "authenticated": True, **row}
    quoted = ", ".join("NULL" if value is None else repr(value) for value in row.values())
    await target.rows(f"INSERT INTO local_media_repository ({', '.join(row)}) VALUES ({quoted})")


async def test_rows_that_synapse_has_are_compared_and_never_overwritten(leaving: Leaving, target: Target) -> None:
    names = ["length", "hash", "bytes", "hidden", "taken", "filled", "same", "same bytes"]
    made = {name: await leaving.upload(f"content {name}".encode()) for name in names}
    await leaving.hide(made["hidden"])
    await put_row(target, made["length"], media_length=3)
    await put_row(target, made["hash"], media_length=12, sha256="00" * 32)
    await put_row(target, made["hidden"], media_length=14)
    await put_row(target, made["taken"], media_length=None, user_id="@somebody:else.example")
    await put_row(target, made["filled"], media_length=None)
    await put_row(target, made["same"], media_length=12, media_type="their/own", upload_name="theirs")
    for name, data in (("bytes", b"theirs"), ("same bytes", leaving.contents[made["same bytes"]])):
        media_id = made[name]
        path = target.store / "local_content" / media_id[:2] / media_id[2:4] / media_id[4:]
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    before = await target.rows("SELECT * FROM local_media_repository ORDER BY media_id")

    exported = await leaving.export(*target.options())

    after = {row["media_id"]: row for row in await target.rows("SELECT * FROM local_media_repository")}
    assert exported.status == 2
    assert exported.problems[made["length"]] == ("conflict", "it has 3 bytes there, 14 here")
    assert exported.problems[made["hash"]] == ("conflict", "it has another hash there")
    assert "other bytes lie at local_content/" in exported.problems[made["bytes"]][1]
    assert "quarantine it there too" in exported.problems[made["hidden"]][1]
    assert "@somebody:else.example" in exported.problems[made["taken"]][1]
    assert len(exported.problems) == 5
    for row in before:
        if row["media_id"] != made["filled"]:
            assert after[row["media_id"]] == row
    filled = after[made["filled"]]
    assert (filled["media_length"], filled["sha256"]) == (14, hash_of(leaving.contents[made["filled"]]))
    assert (filled["created_ts"], filled["user_id"]) == (1, USER)
    assert set(after) == set(made.values()) - {made["bytes"]}
    assert exported.done["exported"] == 2
    assert exported.done["already_there"] == 1


async def test_media_that_synapse_cannot_hold_are_named(leaving: Leaving, empty_sqlite: Target) -> None:
    odd, large = await leaving.upload(b"odd"), await leaving.upload(b"large")
    await leaving.change(odd, "media_id = 'we~rd.chars'")
    await leaving.own.rows(
        "UPDATE blob SET size_bytes = 2147483648 WHERE object_key = $1", await leaving.object_key(large)
    )

    exported = await leaving.export(*empty_sqlite.options())

    assert exported.status == 2
    assert {outcome for outcome, _ in exported.problems.values()} == {"refused"}
    assert "2147483648 bytes" in exported.problems[large][1]
    assert "characters that Synapse itself refuses" in exported.problems["we~rd.chars"][1]
    assert await read_back(empty_sqlite) == {}


async def test_damaged_objects_are_not_exported(leaving: Leaving, empty_sqlite: Target) -> None:
    altered, cut, good = [await leaving.upload(data) for data in (b"altered", b"cut off", b"good")]
    for media_id, data in ((altered, b"ALTERED"), (cut, b"cut")):
        await leaving.own.store.put(await leaving.object_key(media_id), [data], size_bytes=len(data), metadata={})

    exported = await leaving.export(*empty_sqlite.options())

    assert exported.status == 2
    assert {media_id: outcome for media_id, (outcome, _) in exported.problems.items()} == {
        altered: "damaged",
        cut: "damaged",
    }
    assert set(await read_back(empty_sqlite)) == {good}
    assert len([path for path in empty_sqlite.store.rglob("*") if path.is_file()]) == 1


async def test_nothing_is_lost_in_a_bucket_that_is_not_ours(leaving: Leaving, empty_sqlite: Target) -> None:
    media_id = await leaving.upload(b"content")
    await leaving.hide(media_id)
    await leaving.own.store.delete([await leaving.object_key(media_id), marker_key(leaving.own.store)])

    exported = await leaving.export(*empty_sqlite.options())

    assert exported.status == 3
    assert exported.problems[media_id][0] == "failed"
    assert "another installation's" in exported.problems[media_id][1]
    assert await read_back(empty_sqlite) == {}


async def test_a_script_does_the_same_as_rows_written_at_once(leaving: Leaving, target: Target) -> None:
    await every_kind(leaving)
    script = target.yaml.with_name("rows.sql")

    scripted = await leaving.export(*target.options(), "--remote", "--sql", str(script))
    before = await target.rows("SELECT * FROM local_media_repository")
    await target.run_script(script)
    after = await read_back(target)
    again = await leaving.export(*target.options(), "--remote")

    assert (scripted.status, again.status, before) == (2, 2, []), again.errors
    assert len(after) == 13
    assert (again.done["already_there"], again.done["exported"], again.done["written_bytes"]) == (13, 0, 0)


async def test_bytes_go_into_synapses_bucket(
    leaving: Leaving, empty_postgres: Target, source_bucket: SourceBucket, s3: EmbeddedS3
) -> None:
    media = [await leaving.upload(data) for data in (b"", b"small", bytes(range(256)) * 70_000)]
    await leaving.own.rows("UPDATE blob SET sha256 = NULL, sha256_state = 'unknown' WHERE size_bytes = 5")
    access = {
        "bucket": s3.bucket,
        "region_name": s3.region,
        "endpoint_url": s3.endpoint_url,
        "access_key_id": s3.access_key_id,
        "secret_access_key": s3.secret_access_key,
        "prefix": f"{source_bucket.prefix}media-",
    }
    module = {"module": "s3_storage_provider.S3StorageProviderBackend", "store_local": True, "config": access}
    none = await leaving.export(*empty_postgres.options(), "--into-bucket")
    empty_postgres.change_config(media_storage_providers=[module])

    first = await leaving.export(*empty_postgres.options(), "--into-bucket")
    found = await read_back(empty_postgres)
    await empty_postgres.rows("TRUNCATE local_media_repository, local_media_repository_thumbnails")
    second = await leaving.export(*empty_postgres.options(), "--into-bucket")

    assert none.status == 1
    assert "no S3 storage provider" in none.errors
    assert (first.status, second.status) == (0, 0), first.errors
    assert {media_id: data for media_id, (_, data) in found.items()} == {one: leaving.contents[one] for one in media}
    assert (second.done["exported"], second.done["written_bytes"]) == (3, 0)
    assert not empty_postgres.store.exists()
    keys = [one.key async for one in source_bucket.store.list(source_bucket.prefix)]
    assert all(key.startswith(f"{source_bucket.prefix}media-local_content/") for key in keys)
    assert len(keys) == 3


async def test_killed_again_and_again_it_leaves_whole_files_and_ends_complete(leaving: Leaving, target: Target) -> None:
    for number in range(60):
        await leaving.upload(f"{number} ".encode() * 100_000, content_type="video/mp4")

    ends = []
    for goal in (5, 25, 45):
        process = await leaving.begin(*target.options(), "--jobs", "2")
        while process.returncode is None and len(list(target.store.glob("local_content/*/*/[!.]*"))) < goal:
            await asyncio.sleep(0.005)
        if process.returncode is None:
            process.kill()
        await process.communicate()
        ends.append(process.returncode)
        await target.rows(
            "SELECT count(*) FROM local_media_repository"
        )  # whoever opens SQLite next rolls back what was not committed
        for path in target.store.glob("local_content/*/*/[!.]*"):
            media_id = "".join(path.parts[-3:])
            assert path.read_bytes() == leaving.contents[media_id]
        for media, data in (await read_back(target)).values():
            assert data == leaving.contents[media.media_id]

    last = await leaving.export(*target.options())

    assert -9 in ends
    assert set(ends) <= {-9, 0}, "one may have been quicker than its end"
    assert last.status == 0, last.errors
    assert last.done["exported"] + last.done["already_there"] == 60
    assert last.done["already_there"] > 20
    assert {one: data for one, (_, data) in (await read_back(target)).items()} == leaving.contents
    assert not list(target.store.rglob(".partial-*"))


async def test_what_keeps_it_from_beginning_is_said(leaving: Leaving, empty_sqlite: Target) -> None:
    options = empty_sqlite.options()
    other = await leaving.export(*options, "--server-name", "other.example")
    no_config = await leaving.export("--to", "synapse")
    no_output = await leaving.export("--to", "files")
    mixed = await leaving.export("--to", "files", "--output", "x", "--into-bucket")
    since = await leaving.export(*options, "--since", "yesterday")
    absent = await leaving.export("--to", "synapse", "--synapse-config", "/nowhere.yaml")
    empty_sqlite.change_config(server_name="third.example")
    stranger = await leaving.export(*options)
    empty_sqlite.change_config(server_name=SERVER_NAME, database={"args": {"database": "/nowhere.db"}})
    no_database = await leaving.export(*options)
    sqlite3.connect(empty_sqlite.yaml.with_name("blank.db")).close()
    empty_sqlite.yaml.with_name("blank.db").touch()
    empty_sqlite.change_config(database={"args": {"database": str(empty_sqlite.yaml.with_name("blank.db"))}})
    no_tables = await leaving.export(*options)
    empty_sqlite.change_config(database={"name": "psycopg2", "args": {"host": "127.0.0.1", "port": 1, "database": "x"}})
    no_postgres = await leaving.export(*options)

    for one, words in (
        (other, "that Synapse is media.example, not other.example"),
        (no_config, "needs --synapse-config"),
        (no_output, "needs --output"),
        (mixed, "need --to synapse"),
        (since, "--since yesterday"),
        (absent, "/nowhere.yaml cannot be read"),
        (stranger, "third.example, which is not configured under homeservers"),
        (no_database, "/nowhere.db cannot be opened"),
        (no_tables, "has no table local_media_repository"),
        (no_postgres, "cannot be read"),
    ):
        assert (one.status, one.output) == (1, b""), one
        assert words in one.errors
        assert "Traceback" not in one.errors
