"""Synthetic stores, after Dendrite's source: its binaries were not run."""

import base64
import hashlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from mediarepo.importers.dendrite import DendriteSource, load_dendrite_config
from mediarepo.importers.errors import SourceConfigError
from mediarepo.importers.source import Source
from mediarepo.model.import_source import MediaKind, ResolutionState, SourceItem, SourceMedia, UnclaimedBytes

SCHEMA = """
CREATE TABLE mediaapi_media_repository (
    media_id TEXT NOT NULL, media_origin TEXT NOT NULL, content_type TEXT NOT NULL, file_size_bytes BIGINT NOT NULL,
    creation_ts BIGINT NOT NULL, upload_name TEXT NOT NULL, base64hash TEXT NOT NULL, user_id TEXT NOT NULL);
CREATE UNIQUE INDEX media_index ON mediaapi_media_repository (media_id, media_origin);
CREATE TABLE mediaapi_thumbnail (
    media_id TEXT NOT NULL, media_origin TEXT NOT NULL, content_type TEXT NOT NULL, file_size_bytes BIGINT NOT NULL,
    creation_ts BIGINT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL, resize_method TEXT NOT NULL);
"""
FIRST, SECOND, LOST, REMOTE = b"first", b"second content", b"lost", b"of another server"


def hash_of(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def rows() -> list[tuple[Any, ...]]:
    def row(number: int, origin: str, data: bytes, size: int, name: str, user: str) -> tuple[Any, ...]:
        return (f"{number:064x}", origin, "text/plain", size, 1_700_000_000_000 + number, name, hash_of(data), user)

    return [
        row(1, "dendrite.test", FIRST, 5, "a%20name%2Fwith%25.txt", "@alice:dendrite.test"),
        row(2, "dendrite.test", FIRST, -1, "", "@bob:dendrite.test"),  # the same content, its length not told
        row(3, "dendrite.test", SECOND, 14, "資.txt", "@bob:dendrite.test"),
        row(4, "dendrite.test", LOST, 4, "lost", "@bob:dendrite.test"),
        row(5, "second.test", SECOND, 99, "x", "@eve:second.test"),
        row(6, "other.test", REMOTE, 17, "remote", ""),
        ("../../etc", "other.test", "", 1, 1, "", "../../../../etc/passwd", ""),
    ]


def fill(folder: Path) -> None:
    for data in (FIRST, SECOND, REMOTE, b"nobody's"):
        name = hash_of(data)
        home = folder / "media_store" / name[0] / name[1] / name[2:]
        home.mkdir(parents=True)
        (home / "file").write_bytes(data)
    name = hash_of(FIRST)
    (folder / "media_store" / name[0] / name[1] / name[2:] / "thumbnail-32x32-crop").write_bytes(b"thumb")
    (folder / "media_store/tmp/1234").mkdir(parents=True)
    (folder / "media_store/tmp/1234/content").write_bytes(b"half an upl")


def write_config(folder: Path, connection: str) -> Path:
    file = folder / "dendrite.yaml"
    file.write_text(f"""
global:
  server_name: dendrite.test
  virtual_hosts: [{{server_name: second.test}}]
  database: {{connection_string: "{connection}"}}
media_api:
  base_path: ./media_store
""")
    return file


@pytest.fixture(params=["sqlite", "postgres"])
async def source(
    request: pytest.FixtureRequest, tmp_path: Path, new_database: Callable[..., Any]
) -> AsyncIterator[DendriteSource]:
    fill(tmp_path)
    thumbnail = (f"{1:064x}", "dendrite.test", "image/png", 5, 1, 32, 32, "crop")
    if request.param == "sqlite":
        database = sqlite3.connect(tmp_path / "mediaapi.db")
        database.executescript(SCHEMA)
        database.executemany("INSERT INTO mediaapi_media_repository VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows())
        database.execute("INSERT INTO mediaapi_thumbnail VALUES (?, ?, ?, ?, ?, ?, ?, ?)", thumbnail)
        database.commit()
        database.close()
        connection = "file:mediaapi.db"
    else:
        arguments = await new_database()
        postgres = await asyncpg.connect(**arguments)
        await postgres.execute(SCHEMA)
        query = "INSERT INTO {} VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
        await postgres.executemany(query.format("mediaapi_media_repository"), rows())
        await postgres.execute(query.format("mediaapi_thumbnail"), *thumbnail)
        await postgres.close()
        connection = (
            f"postgresql://mediarepo@/{arguments['database']}?host={arguments['host']}&port={arguments['port']}"
        )
    async with DendriteSource(load_dendrite_config(write_config(tmp_path, connection))) as source:
        yield source


async def test_every_row_comes_once_in_the_order_of_keys_and_goes_on_behind_any(source: DendriteSource) -> None:
    general: Source = source
    media = [one async for one in general.media()]

    assert len(media) == 7
    assert [one.key.order for one in media] == sorted(one.key.order for one in media)
    for number, one in enumerate(media):
        assert [other async for other in source.media(one.key)] == media[number + 1 :]


async def test_a_row_is_read_with_all_it_says(source: DendriteSource) -> None:
    assert await source.lookup("dendrite.test", f"{1:064x}") == SourceMedia(
        server_name="dendrite.test",
        media_id=f"{1:064x}",
        kind=MediaKind.LOCAL,
        content_type="text/plain",
        created_ts=1_700_000_000_001,
        upload_name="a name/with%.txt",
        user_id="@alice:dendrite.test",
        sha256=hashlib.sha256(FIRST).digest(),
        filesystem_id=hash_of(FIRST),
    )
    remote = await source.lookup("other.test", f"{6:064x}")
    assert remote is not None
    assert (remote.kind, remote.user_id) == (MediaKind.REMOTE, None)
    second = await source.lookup("second.test", f"{5:064x}")
    assert second is not None
    assert second.is_local


async def test_rows_meet_their_files_and_what_is_lost_or_left_over_is_told(source: DendriteSource) -> None:
    met = [one async for one in source.located()]
    states = {(one.media.media_id[-4:], one.resolution.state) for one in met if isinstance(one, SourceItem)}
    orphans = [one for one in met if isinstance(one, UnclaimedBytes)]

    found, missing, unsafe = ResolutionState.FOUND, ResolutionState.MISSING, ResolutionState.UNSAFE
    assert states == {
        ("0001", found),
        ("0002", found),
        ("0003", found),
        ("0004", missing),
        ("0005", found),
        ("0006", found),
        ("/etc", unsafe),
    }
    assert len(orphans) == 1
    for one in met:
        if isinstance(one, SourceItem) and one.resolution.found is not None:
            data = b"".join([piece async for piece in source.open(one.resolution.found)])
            assert hashlib.sha256(data).digest() == one.media.sha256


async def test_thumbnails_lie_beside_their_originals(source: DendriteSource) -> None:
    media = await source.lookup("dendrite.test", f"{1:064x}")
    assert media is not None

    (thumbnail,) = [one async for one in source.thumbnails(media)]

    assert (thumbnail.width, thumbnail.method, thumbnail.content_type) == (32, "crop", "image/png")
    assert (await source.locate_thumbnail(thumbnail)).state is ResolutionState.FOUND


async def test_preflight_counts(source: DendriteSource) -> None:
    findings = await source.preflight()

    assert findings.problems == []
    assert findings.counts == {"local": 5, "remote": 2}


def test_a_configuration_without_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dendrite.yaml").write_text("global: {server_name: x.test}")

    with pytest.raises(SourceConfigError, match="connection_string"):
        load_dendrite_config(tmp_path / "dendrite.yaml")
