"""Stores of the shape that matrix-media-repo 1.3 gave to one it made itself."""

import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml

from mediarepo.importers.errors import SourceConfigError
from mediarepo.importers.matrix_media_repo.source import (
    FolderDatastore,
    MatrixMediaRepoSource,
    load_matrix_media_repo_config,
)
from mediarepo.importers.source import Source
from mediarepo.model.import_source import (
    FileBytes,
    MediaKind,
    ObjectBytes,
    ResolutionState,
    SourceItem,
    SourceKey,
    SourceMedia,
    UnclaimedBytes,
)

SCHEMA = """
CREATE TABLE media (origin TEXT NOT NULL, media_id TEXT NOT NULL, upload_name TEXT NOT NULL, content_type TEXT NOT NULL,
    user_id TEXT NOT NULL, sha256_hash TEXT NOT NULL, size_bytes BIGINT NOT NULL, location TEXT NOT NULL,
    creation_ts BIGINT NOT NULL, quarantined BOOL NOT NULL DEFAULT FALSE, datastore_id TEXT NOT NULL DEFAULT '');
CREATE TABLE thumbnails (origin TEXT NOT NULL, media_id TEXT NOT NULL, width INT NOT NULL, height INT NOT NULL,
    method TEXT NOT NULL, content_type TEXT NOT NULL, size_bytes BIGINT NOT NULL, location TEXT NOT NULL,
    creation_ts BIGINT NOT NULL, animated BOOL NOT NULL DEFAULT FALSE, sha256_hash TEXT NOT NULL,
    datastore_id TEXT NOT NULL DEFAULT '');
"""
LATER = """
CREATE TABLE last_access (sha256_hash TEXT NOT NULL, last_access_ts BIGINT NOT NULL);
CREATE TABLE media_attributes (origin TEXT NOT NULL, media_id TEXT NOT NULL, purpose TEXT NOT NULL);
CREATE TABLE restricted_media (origin TEXT NOT NULL, media_id TEXT NOT NULL, condition_type TEXT NOT NULL,
    condition_value TEXT NOT NULL);
CREATE TABLE expiring_media (origin TEXT NOT NULL, media_id TEXT NOT NULL, user_id TEXT NOT NULL,
    expires_ts BIGINT NOT NULL);
CREATE TABLE reserved_media (origin TEXT NOT NULL, media_id TEXT NOT NULL, reason TEXT NOT NULL);
"""
OWN_ID = "1aecc6ec1a0a3b7a9ab1b6a8a4f0d2a1c07d1c3f1861297391472279552"
"""An id as matrix-media-repo makes them."""
DATA = {"one": b"content one", "two": b"content two!", "three": b"three", "gone": b"gone"}
FILE_PLACE, LONG = "ab/cd/efghijklmnopqrstuvwxyzidv2fmt", "xY/restoftheobjectsname123idv2fmt"


def sha(name: str) -> str:
    return hashlib.sha256(DATA[name]).hexdigest()


async def make_database(arguments: dict[str, Any], *, later: bool) -> None:
    connection = await asyncpg.connect(**arguments)
    await connection.execute(SCHEMA + (LATER if later else ""))

    async def add(origin: str, media_id: str, name: str, store: str, place: str, *, quarantined: bool = False) -> None:
        size, user = len(DATA[name]), f"@u:{origin}" if "mmr" in origin else ""
        await connection.execute(
            "INSERT INTO media VALUES ($1, $2, $3, 'text/plain', $4, $5, $6, $7, 1700000000001, $8, $9)",
            *(origin, media_id, f"{name}.txt", user, sha(name), size, place, quarantined, store),
        )

    await add("mmr.test", "one", "one", "files", FILE_PLACE)
    await add("second.mmr.test", "copy", "one", "files", FILE_PLACE)
    await add("mmr.test", "two", "two", "objects", LONG)
    await add("remote.test", "three", "three", "objects", "plainname")
    await add("mmr.test", "hidden", "gone", "objects", "gonename", quarantined=True)
    await add("mmr.test", "lostplace", "gone", "elsewhere", "x")
    await add("mmr.test", "escape", "gone", "files", "../../../../etc/passwd")
    await connection.execute(
        "INSERT INTO thumbnails VALUES"
        " ('mmr.test', 'one', 32, 32, 'crop', 'image/png', 5, 'thumbplace', 1, TRUE, 'x', 'objects')"
    )
    for media_id, place, user, name in (
        (OWN_ID, "thumbplace", "", ""),
        ("2" + OWN_ID[1:], "orphanedthumb", "", ""),
        ("taken", "thumbplace", "@u:mmr.test", "."),
        ("imported", "imported", "", ""),
    ):
        await connection.execute(
            "INSERT INTO media VALUES"
            " ('mmr.test', $1, $4, 'image/png', $3, $5, 5, $2, 1700000000001, FALSE, 'objects')",
            *(media_id, place, user, name, hashlib.sha256(b"thumb").hexdigest()),
        )
    if later:
        await connection.execute(
            "INSERT INTO media_attributes VALUES ('mmr.test', 'one', 'pinned'), ('mmr.test', 'two', 'none');"
            "INSERT INTO restricted_media VALUES ('mmr.test', 'two', 'io.t2bot.requires_authentication', 'true');"
            "INSERT INTO expiring_media VALUES ('mmr.test', 'soon', '@u:mmr.test', 1800000000000),"
            " ('mmr.test', 'one', '@u:mmr.test', 1800000000000);"
            "INSERT INTO reserved_media VALUES ('mmr.test', 'never', 'purged')"
        )
        await connection.execute("INSERT INTO last_access VALUES ($1, 1700000000005)", sha("one"))
    await connection.close()


@pytest.fixture(params=["today", "before other tables came"])
async def source(
    request: pytest.FixtureRequest, new_database: Callable[..., Any], whole_bucket: Any, tmp_path: Path
) -> AsyncIterator[MatrixMediaRepoSource]:
    arguments = await new_database()
    await make_database(arguments, later=request.param == "today")
    (tmp_path / "files/ab/cd").mkdir(parents=True)
    (tmp_path / "files" / FILE_PLACE).write_bytes(DATA["one"])
    (tmp_path / "files/ab/cd/orphan").write_bytes(b"nobody's")
    bucket = whole_bucket
    for key in [found.key async for found in bucket.store.list("")]:
        await bucket.store.delete([key])
    await bucket.put(LONG, DATA["two"])
    await bucket.put("plainname", DATA["three"])
    await bucket.put("thumbplace", b"thumb")
    await bucket.put("orphanedthumb", b"thumb")
    await bucket.put("imported", b"thumb")
    await bucket.put("orphan", b"nobody's")
    config = tmp_path / "config"
    config.mkdir()
    address = bucket.address
    options = {
        "endpoint": address.endpoint_url.removeprefix("http://"),
        "bucketName": address.bucket,
        "region": address.region,
        "accessKeyId": address.access_key_id,
        "accessSecret": address.secret_access_key,
        "ssl": False,
        "prefixLength": "2",
    }
    dsn = f"postgres://mediarepo@/{arguments['database']}?host={arguments['host']}&port={arguments['port']}"
    main = {
        "database": {"postgres": "postgres://nobody@nowhere.test/replaced"},
        "homeservers": [{"name": "mmr.test"}],
        "datastores": [{"type": "file", "id": "replaced", "opts": {"path": "/nowhere"}}],
    }
    (config / "main.yaml").write_text(yaml.safe_dump(main))
    files = {"type": "file", "id": "files", "opts": {"path": "./files"}}
    (config / "z").write_text(yaml.safe_dump({"database": {"postgres": dsn}, "datastores": [files]}))
    own = {"homeserver": "second.mmr.test", "datastores": [{"type": "s3", "id": "objects", "opts": options}]}
    (config / "second.yml").write_text(yaml.safe_dump(own))
    (config / "folder.yaml").mkdir()
    async with MatrixMediaRepoSource(load_matrix_media_repo_config(config)) as source:
        yield source


@pytest.fixture
def today(request: pytest.FixtureRequest) -> bool:
    return "today" in request.node.name


async def test_every_row_comes_once_in_the_order_of_keys_and_goes_on_behind_any(
    source: MatrixMediaRepoSource, *, today: bool
) -> None:
    general: Source = source
    media = [one async for one in general.media()]

    assert len(media) == (12 if today else 11)
    assert [one.key.order for one in media] == sorted(one.key.order for one in media)
    for number, one in enumerate(media):
        assert [other async for other in source.media(one.key)] == media[number + 1 :]


async def test_a_row_is_read_with_all_it_says(source: MatrixMediaRepoSource, *, today: bool) -> None:
    assert await source.lookup("mmr.test", "one") == SourceMedia(
        server_name="mmr.test",
        media_id="one",
        kind=MediaKind.LOCAL,
        content_type="text/plain",
        size_bytes=11,
        created_ts=1_700_000_000_001,
        upload_name="one.txt",
        user_id="@u:mmr.test",
        last_access_ts=1_700_000_000_005 if today else None,
        protected=today,
        sha256=hashlib.sha256(DATA["one"]).digest(),
        filesystem_id=f"files/{FILE_PLACE}",
    )
    two, three, hidden = [await source.lookup(*key) for key in KEYS]
    assert two is not None
    assert (two.authenticated, two.protected) == (today, False)
    assert three is not None
    assert (three.kind, three.user_id) == (MediaKind.REMOTE, None)
    assert hidden is not None
    assert hidden.quarantined_by == "matrix-media-repo"
    assert await source.lookup("mmr.test", "nothing") is None


KEYS = (("mmr.test", "two"), ("remote.test", "three"), ("mmr.test", "hidden"))


async def test_announced_media_are_pending_and_used_ids_stay_reserved(
    source: MatrixMediaRepoSource, *, today: bool
) -> None:
    soon = await source.lookup("mmr.test", "soon")

    assert await source.reserved() == ([SourceKey("mmr.test", "never")] if today else [])
    assert (soon is not None) == today
    if soon is not None:
        assert (soon.pending, soon.expires_ts, soon.user_id) == (True, 1_800_000_000_000, "@u:mmr.test")
        assert (await source.locate(soon)).state is ResolutionState.PENDING


async def test_rows_meet_their_bytes_in_the_datastore_they_name(source: MatrixMediaRepoSource, *, today: bool) -> None:
    met = [one async for one in source.located()]
    states = {one.media.media_id: one.resolution.state for one in met if isinstance(one, SourceItem)}
    orphans = [one.found for one in met if isinstance(one, UnclaimedBytes)]

    expected = {
        "one": ResolutionState.FOUND,
        "copy": ResolutionState.FOUND,
        "two": ResolutionState.FOUND,
        "three": ResolutionState.FOUND,
        "hidden": ResolutionState.MISSING,
        "lostplace": ResolutionState.UNREADABLE,
        "escape": ResolutionState.UNSAFE,
        "soon": ResolutionState.PENDING,
        "taken": ResolutionState.FOUND,
        "imported": ResolutionState.FOUND,
        OWN_ID: ResolutionState.FOUND,
        "2" + OWN_ID[1:]: ResolutionState.FOUND,
    }
    assert states == {name: state for name, state in expected.items() if today or name != "soon"}
    assert len([one for one in met if isinstance(one, SourceItem)]) == len(states)
    assert {type(orphan) for orphan in orphans} == {FileBytes, ObjectBytes}
    assert len(orphans) == 2
    for one in met:
        if isinstance(one, SourceItem) and one.resolution.found is not None and one.media.sha256 is not None:
            data = b"".join([piece async for piece in source.open(one.resolution.found)])
            assert hashlib.sha256(data).digest() == one.media.sha256
        if isinstance(one, SourceItem):
            assert (await source.locate(one.media)).state == one.resolution.state


async def test_thumbnails_that_it_keeps_among_media_are_told_from_uploads_of_the_same_bytes(
    source: MatrixMediaRepoSource,
) -> None:
    media = {one.media_id: one async for one in source.media()}

    assert {one.media_id for one in media.values() if one.kind is MediaKind.THUMBNAIL} == {OWN_ID, "2" + OWN_ID[1:]}
    assert media["taken"].upload_name is None
    assert media["imported"].kind is MediaKind.LOCAL


async def test_thumbnails_have_places_of_their_own(source: MatrixMediaRepoSource) -> None:
    media = await source.lookup("mmr.test", "one")
    assert media is not None

    (thumbnail,) = [one async for one in source.thumbnails(media)]

    assert (thumbnail.animated, thumbnail.filesystem_id) == (True, "objects/thumbplace")
    assert (await source.locate_thumbnail(thumbnail)).state is ResolutionState.FOUND


async def test_preflight_names_the_datastore_that_is_not_configured(source: MatrixMediaRepoSource) -> None:
    findings = await source.preflight()

    assert findings.problems == ["1 media lie in the datastore 'elsewhere', which is not configured"]
    assert findings.counts == {"local": 8, "remote": 1, "thumbnail": 2}


def test_a_configuration_without_homeservers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("database: {postgres: 'postgres://x/y'}")

    with pytest.raises(SourceConfigError, match="homeservers"):
        load_matrix_media_repo_config(tmp_path / "config.yaml")


def write(folder: Path, files: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, document in files.items():
        (folder / name).write_text(yaml.safe_dump(document))
    return folder


def test_a_folder_is_read_file_after_file_and_later_keys_replace_earlier_ones_whole(tmp_path: Path) -> None:
    first = {"type": "file", "id": "first", "forKinds": ["all"], "opts": {"path": "/srv/first"}}
    second = {"type": "file", "id": "second", "opts": {"path": "/srv/second"}}
    own = {"type": "file", "id": "own", "opts": {"path": "/srv/own"}}
    config = write(
        tmp_path / "config",
        {
            "10.yaml": {"database": {"postgres": "postgres://a/one"}, "datastores": [first], "homeservers": []},
            "20.yml": {"datastores": [second], "homeservers": [{"name": "a.test"}]},
            "9": {"database": {"postgres": "postgres://a/two"}},
            "Z.conf": {"homeserver": "b.test", "datastores": [own, second], "database": {"postgres": "postgres://b/c"}},
        },
    )

    read = load_matrix_media_repo_config(config)

    assert read.server_names == {"a.test", "b.test"}
    assert [one.datastore_id for one in read.datastores] == ["second", "own"]
    assert "two" in str(read.database)


@pytest.mark.parametrize("base", [None, "elsewhere"])
def test_relative_folders_start_at_the_base_or_at_the_configuration(tmp_path: Path, base: str | None) -> None:
    document = {
        "database": {"postgres": "postgres://a/one"},
        "homeservers": [{"name": "a.test"}],
        "datastores": [{"type": "file", "id": "files", "opts": {"path": "./media"}}],
    }
    config = write(tmp_path / "config", {"media-repo.yaml": document})
    (tmp_path / "media").mkdir()
    given = None if base is None else tmp_path / base

    folders = [
        one.folder
        for path in (config, config / "media-repo.yaml")
        for one in load_matrix_media_repo_config(path, base=given).datastores
        if isinstance(one, FolderDatastore)
    ]

    expected = [tmp_path / "media", config / "media"] if given is None else [given / "media"] * 2
    assert folders == expected
