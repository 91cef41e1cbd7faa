"""A homeserver stops using mediarepo, as docs/exporting.md says: a stock Synapse serves all that was kept here."""

import asyncio
import json
import secrets
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import aiohttp
import asyncpg
import pytest
import yaml
from PIL import Image
from yarl import URL

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.deploy.synapse import SERVER_NAME, Synapse, make_environment, running_synapse
from tests.exporters.conftest import Exit, Leaving
from tests.pictures.drawn import animated, corners, encoded, jpeg
from tests.support.installation import Answer, document_for, installed, settings_for

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]

DRIVER = "psycopg2-binary==2.9.13"
REMOTE = "remote.example"
ALICE, BOB = f"@alice:{SERVER_NAME}", f"@bob:{SERVER_NAME}"
SIZES = [
    *[(32, 32, "crop"), (96, 96, "crop"), (47, 47, "crop"), (320, 240, "scale"), (640, 480, "scale")],
    *[(800, 600, "scale"), (800, 240, "scale"), (640, 240, "scale"), (1200, 1200, "scale")],
]
NAMES = [None, "holiday photo.jpg", "資料 \u202e.txt", "../../etc/passwd", "n" * 600, 'quo"ted; name=x', "new\nline"]


@dataclass
class Kept:
    """What was uploaded to mediarepo."""

    data: bytes
    content_type: str
    name: str | None


@dataclass
class World:
    """A homeserver without media, mediarepo beside it, and what users have put there."""

    synapse: Synapse
    leaving: Leaving
    tokens: dict[str, str]
    kept: dict[str, Kept] = field(default_factory=dict)

    async def upload(self, user: str, data: bytes, content_type: str, name: str | None = None) -> str:
        query = "" if name is None else f"?filename={quote(name, safe='')}"
        own = replace(self.leaving.own, token=self.tokens[user])
        media_id = await own.upload(data, query=query, content_type=content_type)
        self.kept[media_id] = Kept(data, content_type, name)
        return media_id

    async def ask(self, path: str, *, user: str | None = ALICE, method: str = "GET", **arguments: Any) -> Answer:
        headers = {} if user is None else {"Authorization": f"Bearer {self.tokens[user]}"}
        url = URL(self.synapse.url + path, encoded=True)
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.request(method, url, **arguments) as answer,
        ):
            body = await answer.read()
            told = json.loads(body) if answer.content_type == "application/json" and body else None
            return Answer(answer.status, answer.headers, body, told)

    async def download(self, media_id: str, server_name: str = SERVER_NAME, **arguments: Any) -> Answer:
        return await self.ask(f"/_matrix/client/v1/media/download/{server_name}/{media_id}", **arguments)

    async def thumbnail(self, media_id: str, size: tuple[int, int, str], server_name: str = SERVER_NAME) -> Answer:
        query = f"?width={size[0]}&height={size[1]}&method={size[2]}"
        return await self.ask(f"/_matrix/client/v1/media/thumbnail/{server_name}/{media_id}{query}")

    async def legacy(self, media_id: str) -> Answer:
        return await self.ask(f"/_matrix/media/v3/download/{SERVER_NAME}/{media_id}", user=None)

    async def export(self, *more: str) -> Exit:
        config = str(self.synapse.folder / "homeserver.yaml")
        return await self.leaving.export("--to", "synapse", "--synapse-config", config, "--remote", "--json", *more)


async def synapse_changes(folder: Path, postgres: EmbeddedPostgres, cache: Path, *, kind: str) -> dict[str, Any]:
    changes: dict[str, Any] = {"federation_domain_whitelist": [REMOTE], "media_store_path": str(folder / "media_store")}
    if kind == "postgres":
        name = f"synapse_{secrets.token_hex(6)}"
        connection = await asyncpg.connect(postgres.dsn)
        try:
            await connection.execute(
                f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'"
            )
        finally:
            await connection.close()
        query = URL(postgres.dsn).query
        arguments = {"host": query["host"], "port": int(query["port"]), "user": "mediarepo", "database": name}
        changes["database"] = {"name": "psycopg2", "args": {**arguments, "cp_min": 2, "cp_max": 5}}
        python = make_environment(cache)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", DRIVER], check=True)
    return changes


@pytest.fixture(params=["sqlite", "postgres"])
async def world(
    request: pytest.FixtureRequest, postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path
) -> AsyncIterator[World]:
    assert request.config.cache is not None
    cache, home = request.config.cache.mkdir("synapse"), tmp_path / "synapse"
    home.mkdir()
    changes = await synapse_changes(home, postgres, cache, kind=request.param)
    async with AsyncExitStack() as stack:
        synapse = await stack.enter_async_context(running_synapse(cache, home, changes=changes))
        homeserver = {"server_name": SERVER_NAME, "hosts": ["127.0.0.1"], "client_api_url": synapse.url}
        document = document_for(postgres, s3, homeservers=[homeserver])
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
        own = await stack.enter_async_context(installed(settings_for(postgres, s3, **document)))
        tokens = {ALICE: await synapse.register("alice"), BOB: await synapse.register("bob")}
        tokens["admin"] = await synapse.register("admin", admin=True)
        leaving = Leaving(replace(own, server_name=SERVER_NAME), tmp_path / "config.yaml")
        yield World(synapse, leaving, tokens)


async def fill(world: World) -> dict[str, list[str]]:
    """Let users put a hundred media there."""
    pictures = [(jpeg(1200 + number, 900), "image/jpeg") for number in range(8)]
    pictures += [(encoded(corners(300, 500 + number), "PNG"), "image/png; x=y") for number in range(4)]
    pictures += [(animated("GIF", 200, 100, 5), "image/gif"), (encoded(corners(500, 400), "WEBP"), "image/webp")]
    made = {"pictures": [await world.upload(ALICE, data, kind, "picture") for data, kind in pictures]}
    made["texts"] = [
        await world.upload(
            (ALICE, BOB)[number % 2], f"text {number}".encode(), "text/plain", NAMES[number % len(NAMES)]
        )
        for number in range(70)
    ]
    made["texts"].append(await world.upload(BOB, b"", "application/octet-stream"))
    made["texts"].append(await world.upload(BOB, bytes(range(256)) * 60_000, "video/mp4"))
    made["hidden"] = [await world.upload(BOB, f"hidden {number}".encode(), "text/plain") for number in range(5)]
    made["open"] = [await world.upload(BOB, f"open {number}".encode(), "text/plain") for number in range(5)]
    made["protected"] = [await world.upload(BOB, b"protected", "text/plain")]
    made["remote"] = [await world.upload(BOB, jpeg(700, 500), "image/jpeg", "theirs.jpg")]
    own = replace(world.leaving.own, token=world.tokens[ALICE])
    announced = await own.request("POST", "/_matrix/media/v1/create")
    made["announced"] = [announced.json["content_uri"].rpartition("/")[2]]
    for media_id in made["hidden"]:
        await world.leaving.hide(media_id)
    for media_id in made["open"]:
        await world.leaving.change(media_id, "authenticated = false")
    await world.leaving.own.mark(made["protected"][0], "protection")
    await world.leaving.change(made["remote"][0], f"server_name = '{REMOTE}', remote = true, uploaded_by = NULL")
    return made


async def test_a_stock_synapse_serves_everything_that_was_exported(world: World) -> None:
    made = await fill(world)
    world.synapse.changes["enable_media_repo"] = True
    world.synapse.configure()
    await world.synapse.stop()
    await world.synapse.start()
    before = [(await world.download(media_id)).status for media_id in made["texts"][:3]]

    exported = await world.export()
    again = await world.export()
    print(exported.done)

    assert before == [404, 404, 404]
    assert (exported.status, again.status) == (0, 0), exported.errors
    assert again.done["already_there"] == again.done["media"] == sum(map(len, made.values()))
    for what in ("pictures", "texts", "open", "protected"):
        for media_id in made[what]:
            await check_download(world, media_id, SERVER_NAME)
    await check_download(world, made["remote"][0], REMOTE)
    for media_id in made["pictures"]:
        await check_thumbnails(world, media_id, SERVER_NAME)
    await check_thumbnails(world, made["remote"][0], REMOTE)
    await check_flags(world, made)


async def check_download(world: World, media_id: str, server_name: str) -> None:
    kept, answer = world.kept[media_id], await world.download(media_id, server_name)
    assert (answer.status, answer.body) == (200, kept.data), media_id
    assert answer.headers["Content-Type"].partition(";")[0] == kept.content_type.partition(";")[0]
    assert (kept.name or "") in unquote(answer.headers["Content-Disposition"])


async def check_thumbnails(world: World, media_id: str, server_name: str) -> None:
    for _ in ("made", "kept"):
        for size in SIZES:
            answer = await world.thumbnail(media_id, size, server_name)
            assert answer.status == 200, (size, answer.body)
            assert answer.headers["Content-Type"].startswith("image/")
            path = world.synapse.folder / "thumbnail"
            path.write_bytes(answer.body)
            with Image.open(path) as picture:
                picture.load()
                assert picture.width > 10


async def check_flags(world: World, made: dict[str, list[str]]) -> None:
    for media_id in made["hidden"]:
        assert (await world.download(media_id)).status == 404
        assert (await world.legacy(media_id)).status == 404
    for media_id in made["open"]:
        answer = await world.legacy(media_id)
        assert (answer.status, answer.body) == (200, world.kept[media_id].data)
    for media_id in made["texts"][:5]:
        assert (await world.legacy(media_id)).status == 404
    uploads = await world.synapse.ask(
        "GET", f"/_synapse/admin/v1/users/{BOB}/media?limit=1000", token=world.tokens["admin"]
    )
    by_id = {one["media_id"]: one for one in uploads["media"]}
    assert by_id[made["protected"][0]]["safe_from_quarantine"]
    assert {media_id for media_id, one in by_id.items() if one["quarantined_by"]} == set(made["hidden"])
    assert len(by_id) == 35 + 2 + 5 + 5 + 1
    path = f"/_matrix/media/v3/upload/{SERVER_NAME}/{made['announced'][0]}"
    filled = await world.ask(path, method="PUT", data=b"late", headers={"Content-Type": "text/plain"})
    refused = await world.ask(path, method="PUT", data=b"again", user=BOB)
    assert filled.status == 200, filled.body
    assert refused.status in {403, 409}
    assert (await world.download(made["announced"][0])).body == b"late"


async def test_what_was_hidden_stays_hidden_when_uploaded_again(world: World) -> None:
    hidden = await world.upload(BOB, b"known to be bad", "text/plain")
    await world.leaving.hide(hidden)
    world.synapse.changes["enable_media_repo"] = True
    world.synapse.configure()
    await world.synapse.stop()

    exported = await world.export("--since-cutover")
    await world.synapse.start()
    async with asyncio.timeout(60):  # a new Synapse makes the index that it needs for this in the background
        while not await is_hidden_when_uploaded(world, b"known to be bad"):
            await asyncio.sleep(1)

    assert exported.status == 0
    assert (await world.download(hidden)).status == 404


async def is_hidden_when_uploaded(world: World, data: bytes) -> bool:
    answer = await world.ask("/_matrix/media/v3/upload", method="POST", data=data)
    assert answer.status == 200
    return (await world.download(answer.json["content_uri"].rpartition("/")[2])).status == 404
