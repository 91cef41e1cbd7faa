"""A real matrix-media-repo, with a homeserver that knows its users and another server whose media it fetches."""

import asyncio
import io
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
import yaml
from aiohttp import web
from yarl import URL

from tests.support.installation import SERVER_NAME as LEAVING
from tests.support.installation import Answer

VARIABLE = "MATRIX_MEDIA_REPO"
SERVER_NAME, SECOND = "mmr.example", "second.example"
ALICE, BOB, CAROL = f"@alice:{SERVER_NAME}", f"@bob:{SERVER_NAME}", f"@carol:{SECOND}"
_START_TIMEOUT_S = 60


def binary() -> Path:
    """Name the program, or skip: it is built with Go and libheif, outside of here."""
    if not os.environ.get(VARIABLE):
        pytest.skip(f"{VARIABLE} does not name the program media_repo of a built matrix-media-repo 1.3")
    return Path(os.environ[VARIABLE])


@dataclass
class Outside:
    """A homeserver's whoami for tokens `token of USER`, and what the other server has, by media id."""

    url: str = ""
    media: dict[str, tuple[bytes, str, str | None]] = field(default_factory=dict)

    @property
    def server_name(self) -> str:
        return self.url.removeprefix("http://")

    async def whoami(self, request: web.Request) -> web.Response:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not token.startswith("token of "):
            return web.json_response({"errcode": "M_UNKNOWN_TOKEN", "error": "unknown"}, status=401)
        return web.json_response({"user_id": token.removeprefix("token of "), "is_guest": False})

    async def whois(self, _request: web.Request) -> web.Response:
        return web.json_response({"errcode": "M_FORBIDDEN", "error": "no admin"}, status=403)

    async def download(self, request: web.Request) -> web.Response:
        found = self.media.get(request.match_info["media_id"])
        if found is None:
            return web.json_response({"errcode": "M_NOT_FOUND", "error": "not found"}, status=404)
        data, content_type, name = found
        headers = {"Content-Type": content_type}
        if name is not None:
            headers["Content-Disposition"] = f"inline; filename={name}"
        return web.Response(body=data, headers=headers)


@asynccontextmanager
async def outside() -> AsyncIterator[Outside]:
    world, app = Outside(), web.Application()
    app.router.add_get("/_matrix/client/{version}/account/whoami", world.whoami)
    app.router.add_get("/_matrix/client/{version}/admin/whois/{user}", world.whois)
    app.router.add_get("/_matrix/media/{version}/download/{server}/{media_id}", world.download)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    world.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield world
    finally:
        await runner.cleanup()


@dataclass
class MatrixMediaRepo:
    """One that is running."""

    config: Path
    port: int

    async def ask(
        self, path: str, *, user: str | None = ALICE, method: str = "GET", host: str = SERVER_NAME, **arguments: Any
    ) -> Answer:
        headers = {"Host": host, **arguments.pop("headers", {})}
        if user is not None:
            headers["Authorization"] = f"Bearer token of {user}"
        url = URL(f"http://127.0.0.1:{self.port}{path}", encoded=True)
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, url, headers=headers, **arguments) as got,
        ):
            body = await got.read()
            told = json.loads(body) if got.content_type == "application/json" and body else None
            return Answer(got.status, got.headers, body, told)

    async def upload(self, data: bytes, content_type: str, name: str | None = None, *, user: str = ALICE) -> str:
        query = "" if name is None else f"?filename={quote(name, safe='')}"
        answer = await self.ask(
            f"/_matrix/media/v3/upload{query}",
            user=user,
            host=user.partition(":")[2],
            method="POST",
            data=io.BytesIO(data),
            headers={"Content-Type": content_type},
        )
        assert answer.status == 200, answer.body
        return str(answer.json["content_uri"]).rpartition("/")[2]

    async def download(self, server_name: str, media_id: str, **arguments: Any) -> Answer:
        """Ask as a user of one homeserver; it serves what it has to all."""
        return await self.ask(f"/_matrix/client/v1/media/download/{server_name}/{media_id}", **arguments)

    async def thumbnail(self, server_name: str, media_id: str, size: tuple[int, int, str], **arguments: Any) -> Answer:
        query = f"?width={size[0]}&height={size[1]}&method={size[2]}"
        return await self.ask(f"/_matrix/client/v1/media/thumbnail/{server_name}/{media_id}{query}", **arguments)

    async def admin(self, path: str, *, method: str = "POST") -> Answer:
        return await self.ask(f"/_matrix/media/unstable/admin/{path}", method=method, user=ALICE)


def configuration(port: int, world: Outside, dsn: str, datastores: list[dict[str, Any]]) -> dict[str, Any]:
    homeservers = [
        {"name": name, "csApi": world.url, "backoffAt": 10, "adminApiKind": "synapse"}
        for name in (SERVER_NAME, SECOND, LEAVING)
    ]
    return {
        "repo": {"bindAddress": "127.0.0.1", "port": port, "logDirectory": "-", "logLevel": "info"},
        "database": {"postgres": dsn},
        "homeservers": homeservers,
        "admins": [ALICE],
        "datastores": datastores,
        "rateLimit": {"enabled": False},
        "metrics": {"enabled": False},
        "uploads": {"maxBytes": 104857600, "minBytes": 0},
        "thumbnails": {
            "sizes": [
                *({"width": size, "height": size} for size in (32, 96)),
                *({"width": w, "height": h} for w, h in ((320, 240), (640, 480), (768, 240), (800, 600))),
            ],
            "types": ["image/jpeg", "image/png", "image/gif", "image/webp"],
            "allowAnimated": True,
        },
    }


@asynccontextmanager
async def running(folder: Path, document: Mapping[str, Any]) -> AsyncIterator[MatrixMediaRepo]:
    """Start the program with a configuration, and wait until it answers."""
    config = folder / "media-repo.yaml"
    config.write_text(yaml.safe_dump(dict(document)))
    environment = {"PATH": os.environ["PATH"], "MEDIA_REPO_HTTP_ONLY_FEDERATION": "true"}
    environment |= {"MEDIA_REPO_UNSAFE_FEDERATION": "true", "MACHINE_ID": "0", "HOME": str(folder)}
    port = int(document["repo"]["port"])
    with (folder / "mmr.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(str(binary()), "-config", str(config)), cwd=folder, env=environment, stdout=log, stderr=log
        )
    repo = MatrixMediaRepo(config, port)
    try:
        async with asyncio.timeout(_START_TIMEOUT_S):
            while not await _answers(repo):
                assert process.returncode is None, (folder / "mmr.log").read_text()[-3000:]
                await asyncio.sleep(0.1)
        yield repo
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _answers(repo: MatrixMediaRepo) -> bool:
    try:
        return (await repo.ask("/healthz", user=None)).status == 200
    except aiohttp.ClientError:
        return False
