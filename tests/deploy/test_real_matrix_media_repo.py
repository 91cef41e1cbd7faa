"""A real matrix-media-repo fills a store of its own; its media move in, in every way, and back out."""

import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.deploy.matrix_media_repo import (
    ALICE,
    BOB,
    CAROL,
    SECOND,
    SERVER_NAME,
    MatrixMediaRepo,
    Outside,
    configuration,
    outside,
    running,
)
from tests.exporters.conftest import Leaving, leaving
from tests.importers.conftest import new_database, whole_bucket
from tests.pictures.drawn import animated, corners, encoded, jpeg
from tests.support.installation import SERVER_NAME as LEAVING
from tests.support.installation import homeserver
from tests.support.moving_in import moving_in
from tests.support.ports import free_port

__all__ = ["leaving", "new_database", "whole_bucket"]
pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]

SIZES = [(32, 32, "crop"), (96, 96, "crop"), (320, 240, "scale"), (640, 480, "scale"), (800, 600, "scale")]


@dataclass
class Made:
    """What the program was given; `hidden` and `purged` are media ids, `thumbnails` what it made."""

    repo: MatrixMediaRepo
    arguments: dict[str, Any]
    document: dict[str, Any]
    address: Any
    folder: Path
    world: Outside
    kept: dict[tuple[str, str], tuple[bytes, str | None, str | None]] = field(default_factory=dict)
    thumbnails: dict[tuple[str, tuple[int, int, str]], bytes] = field(default_factory=dict)
    hidden: dict[str, bytes] = field(default_factory=dict)
    purged: list[str] = field(default_factory=list)

    async def rows(self, query: str, *arguments: object) -> list[Any]:
        connection = await asyncpg.connect(**self.arguments)
        try:
            return list(await connection.fetch(query, *arguments))
        finally:
            await connection.close()

    async def upload(self, data: bytes, content_type: str, name: str | None = None, user: str = ALICE) -> str:
        media_id = await self.repo.upload(data, content_type, name, user=user)
        self.kept[user.partition(":")[2], media_id] = (data, name, user)
        return media_id


@pytest.fixture
async def made(new_database: Callable[..., Any], whole_bucket: Any, tmp_path: Path) -> AsyncIterator[Made]:
    arguments, address, folder = await new_database(), whole_bucket.address, tmp_path / "mmr"
    folder.mkdir()
    for key in [found.key async for found in whole_bucket.store.list("")]:
        await whole_bucket.store.delete([key])
    where = f"host={arguments['host']}&port={arguments['port']}&sslmode=disable"
    dsn = f"postgres://{arguments['user']}@/{arguments['database']}?{where}"
    options = {
        "tempPath": "",
        "endpoint": address.endpoint_url.removeprefix("http://"),
        "bucketName": address.bucket,
        "region": address.region,
        "accessKeyId": address.access_key_id,
        "accessSecret": address.secret_access_key,
        "ssl": "false",
        "prefixLength": "2",
    }
    stores = [
        {"id": "objects", "type": "s3", "forKinds": ["local_media", "thumbnails"], "opts": options},
        {"id": "files", "type": "file", "forKinds": ["remote_media"], "opts": {"path": "./files"}},
    ]
    async with outside() as world:
        document = configuration(free_port(), world, dsn, stores)
        async with running(folder, document) as repo:
            yield Made(repo, arguments, document, address, folder, world)


async def fill(made: Made) -> None:
    """Use it as people do: pictures and files, equal ones too, looked at, hidden and purged."""
    photo = jpeg(1000, 700)
    for number in range(6):
        picture = encoded(corners(900 + number, 700), "PNG")
        media_id = await made.upload(picture, "image/png", f"picture {number}.png")
        await look(made, SERVER_NAME, media_id)
    for user, name in ((ALICE, "photo.jpg"), (BOB, None), (CAROL, "their.jpg")):
        media_id = await made.upload(photo, "image/jpeg", name, user)
        await look(made, user.partition(":")[2], media_id)
    await made.upload(secrets.token_bytes(9_000_000), "application/octet-stream", "large.bin")
    await made.upload(b"words", "text/plain; charset=utf-8", "資料.txt", BOB)
    moving = await made.upload(animated("GIF", 400, 300, 4), "image/gif", "moving.gif")
    await look(made, SERVER_NAME, moving)
    for number in range(4):
        hidden = encoded(corners(500 + number, 400), "PNG")
        media_id = await made.repo.upload(hidden, "image/png", "bad.png")
        made.hidden[media_id] = hidden
        await look(made, SERVER_NAME, media_id, keep=False)
        assert (await made.repo.admin(f"quarantine/{SERVER_NAME}/{media_id}")).status == 200
        if number % 2:
            assert (await made.repo.admin(f"purge/{SERVER_NAME}/{media_id}")).status == 200
            made.purged.append(media_id)
    gone = await made.repo.upload(b"gone", "text/plain", "gone.txt")
    assert (await made.repo.admin(f"purge/{SERVER_NAME}/{gone}")).status == 200
    made.world.media = {
        "named": (b"remote content", "text/plain", "remote.txt"),
        "nameless": (b"other remote content", "text/plain", None),
        "picture": (encoded(corners(700, 500), "PNG"), "image/png", "far.png"),
    }
    for media_id, (data, _, name) in made.world.media.items():
        assert (await made.repo.download(made.world.server_name, media_id)).body == data
        made.kept[made.world.server_name, media_id] = (data, name, None)
    await look(made, made.world.server_name, "picture")


async def look(made: Made, server_name: str, media_id: str, *, keep: bool = True) -> None:
    for size in SIZES:
        answer = await made.repo.thumbnail(server_name, media_id, size)
        assert answer.status == 200, (size, answer.body)
        if keep:
            made.thumbnails[media_id, size] = answer.body


@pytest.mark.parametrize("mode", ["adopt", "copy", "stream"])
async def test_its_media_move_in(
    made: Made, postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path, mode: str
) -> None:
    await fill(made)
    fitting = {row["kind"]: row["count"] for row in await made.rows(_FITTING)}
    counts = {row["kind"]: row["count"] for row in await made.rows(_KINDS, [SERVER_NAME, SECOND])}
    config = {"kind": "matrix-media-repo", "paths": [str(made.repo.config)], "remote": "all", "thumbnails": True}
    stores: dict[str, Any] = {}
    if mode == "adopt":
        stores = {"theirs": {**_store(made.address), "read_only": True}}
    homeservers = [homeserver(name, f"token-{name}") for name in (SERVER_NAME, SECOND)]
    async with moving_in(
        postgres,
        s3,
        tmp_path,
        SERVER_NAME,
        {**config, "mode": "auto" if stores else mode},
        homeservers=homeservers,
        **({"stores": _with_main(s3, stores)} if stores else {}),
    ) as moving:
        moving.own.token = f"token-{SERVER_NAME}"
        figures = await moving.run()
        again = await moving.run()
        items, orphans, summary = await moving.report()
        media = await moving.media()
        for (server_name, media_id), (data, name, user) in made.kept.items():
            answer = await moving.get(server_name, media_id)
            assert (answer.status, answer.body) == (200, data)
            assert (media[media_id]["upload_name"], media[media_id]["uploaded_by"]) == (name, user)
        for media_id in made.hidden:
            assert (await moving.get(SERVER_NAME, media_id)).status == 404
        for row in await made.rows("SELECT media_id FROM media WHERE user_id = '' AND origin = $1", SERVER_NAME):
            assert (await moving.get(SERVER_NAME, row["media_id"])).status == 404
            assert items[row["media_id"]]["reason"].startswith("thumbnail")
        same = 0
        for (media_id, size), data in made.thumbnails.items():
            server = next(name for name, known in made.kept if known == media_id)
            path = f"/_matrix/client/v1/media/thumbnail/{server}/{media_id}?width={size[0]}&height={size[1]}"
            answer = await moving.own.get(f"{path}&method={size[2]}&animated=false")
            assert answer.status == 200
            same += answer.body == data

    assert summary["balances"]
    assert (summary["missing"], summary["failed"], summary["mismatched"], orphans) == (0, 0, 0, [])
    assert figures["thumbnails"]["taken"] + figures["thumbnails"].get("here", 0) == sum(fitting.values())
    assert set(again["thumbnails"]) == {"here"}
    assert same >= len(made.thumbnails) - 2  # of a moving picture it shows larger sizes itself
    assert summary["rows"] == sum(counts.values())
    assert figures["lists"] <= 4


async def test_they_move_out_into_an_empty_one_that_serves_them(made: Made, leaving: Leaving) -> None:
    user = f"@bridge:{LEAVING}"
    photo = jpeg(1000, 700)
    named = await leaving.upload(photo, content_type="image/jpeg", name="photo.jpg", user=user)
    same = await leaving.upload(photo, content_type="image/jpeg", name="again.jpg", user=user)
    nameless = await leaving.upload(b"words", user=user)
    large = await leaving.upload(secrets.token_bytes(3_000_000), content_type="video/mp4", name="a b.mp4", user=user)
    hidden = await leaving.upload(b"hidden", user=user)
    remote = await leaving.upload(b"remote", user=user)
    open_one = await leaving.upload(b"from before the freeze", user=user)
    await leaving.change(remote, "server_name = 'remote.example', remote = true, uploaded_by = NULL")
    await leaving.change(open_one, "authenticated = false")
    await leaving.hide(hidden)
    options = ["--to", "matrix-media-repo", "--matrix-media-repo-config", str(made.repo.config), "--remote", "--json"]
    options += ["--base", str(made.folder)]

    done = await leaving.export(*options)
    again = await leaving.export(*options)

    assert (done.status, done.done["exported"]) == (0, 7), (done.errors, done.output)
    assert (again.status, again.done["already_there"], again.done["written_bytes"]) == (0, 7, 0)
    for media_id in (named, same, nameless, large, open_one):
        answer = await made.repo.download(LEAVING, media_id)
        assert (answer.status, answer.body) == (200, leaving.contents[media_id])
    names = [(await made.repo.download(LEAVING, one)).headers["Content-Disposition"] for one in (named, nameless)]
    far = await made.repo.download("remote.example", remote)
    legacy = [
        (await made.repo.ask(f"/_matrix/media/v3/download/{LEAVING}/{one}", user=None)).status
        for one in (named, open_one)
    ]
    shown = await made.repo.thumbnail(LEAVING, named, SIZES[1])
    usage = await made.repo.admin(f"usage/{LEAVING}/users", method="GET")
    equal = await made.rows("SELECT DISTINCT datastore_id, location FROM media WHERE media_id = ANY($1)", [named, same])

    assert (await made.repo.download(LEAVING, hidden)).status == 404
    assert ("photo.jpg" in names[0], far.body, legacy) == (True, b"remote", [404, 200])
    assert (shown.status, shown.headers["Content-Type"].startswith("image/")) == (200, True)
    assert usage.json[user]["raw_counts"]["media"] == 6
    assert len(equal) == 1


_FITTING = """SELECT 'all' AS kind, count(*) FROM thumbnails t WHERE (method, width, height) IN (('crop', 32, 32),
    ('crop', 96, 96), ('scale', 320, 240), ('scale', 640, 480), ('scale', 800, 600))"""
_KINDS = """SELECT CASE WHEN origin = ANY($1::text[]) THEN CASE WHEN user_id = '' THEN 'thumbnail' ELSE 'local' END
    ELSE 'remote' END AS kind, count(*) FROM media GROUP BY 1"""


def _store(address: Any) -> dict[str, Any]:
    return {
        "endpoint_url": address.endpoint_url,
        "region": address.region,
        "bucket": address.bucket,
        "access_key_id": address.access_key_id,
        "secret_access_key": address.secret_access_key,
    }


def _with_main(s3: EmbeddedS3, stores: dict[str, Any]) -> dict[str, Any]:
    main = {
        "endpoint_url": s3.endpoint_url,
        "region": s3.region,
        "bucket": s3.bucket,
        "prefix": f"tests/m{secrets.token_hex(4)}",
        "access_key_id": s3.access_key_id,
        "secret_access_key": s3.secret_access_key,
    }
    return {"main": main, **stores}
