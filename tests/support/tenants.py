"""Two homeservers that share a repository and need not trust one another, an admin of each, and the operator."""

import json
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mediarepo.config.settings import Settings
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.web.admin.api.endpoints import PREFIX
from tests.support.homeserver import FakeHomeserver, fake_homeserver
from tests.support.installation import Answer, Installation, document_for, installed
from tests.support.serving import serving

A, B, REMOTE = "a.test", "b.test", "remote.test"
OPERATOR = "operators-token"
SYNAPSE = "/_synapse/admin/v1"


def admin_of(server_name: str) -> str:
    return f"admins-token-{server_name}"


def user_of(server_name: str) -> str:
    return f"users-token-{server_name}"


@dataclass
class Tenants:
    """What the two homeservers and the operator do; `processes` serve them, `document` is their configuration."""

    processes: list[Installation]
    homeserver: FakeHomeserver
    document: dict[str, Any]

    @property
    def own(self) -> Installation:
        return self.processes[0]

    async def upload(self, server_name: str, data: bytes | None = None) -> str:
        data = secrets.token_bytes(64) if data is None else data
        headers = {"Content-Type": "image/png"}
        answer = await self.own.request(
            "POST", "/_matrix/media/v3/upload", token=user_of(server_name), host=server_name, data=data, headers=headers
        )
        assert answer.status == 200, answer
        return str(answer.json["content_uri"]).removeprefix("mxc://")

    async def remote(self, data: bytes | None = None) -> str:
        """Keep media of another server, as if they had been fetched."""
        media_id = (await self.upload(A, data)).partition("/")[2]
        await self.own.rows(
            "UPDATE media SET server_name = $2, remote = true, uploaded_by = NULL WHERE media_id = $1", media_id, REMOTE
        )
        return f"{REMOTE}/{media_id}"

    async def status(self, media: str, *, at: str, process: int = 0, query: str = "", admin: bool = False) -> int:
        """Download as a homeserver's user, or as its admin."""
        token = admin_of(at) if admin else user_of(at)
        path = f"/_matrix/client/v1/media/download/{media}{query}"
        return (await self.processes[process].get(path, token=token, host=at)).status

    async def seen(self, media: str) -> tuple[int, int]:
        """Download as the users of both homeservers."""
        return await self.status(media, at=A), await self.status(media, at=B)

    async def ask(self, who: str, method: str, path: str, body: Any = None, *, host: str | None = None) -> Answer:
        """Ask our own admin API, as the operator (""), or as a homeserver's admin."""
        token = admin_of(who) if who else OPERATOR
        data = None if body is None else json.dumps(body).encode()
        return await self.own.request(method, PREFIX + path, token=token, host=host or who or A, data=data)

    async def synapse(self, who: str, method: str, path: str, *, host: str | None = None) -> Answer:
        """Ask Synapse's admin API."""
        token = admin_of(who) if who else OPERATOR
        return await self.own.request(method, SYNAPSE + path, token=token, host=host or who or A)

    async def do(self, who: str, action: str, media: str, reason: str | None = None) -> Answer:
        """Do something to media through our own API."""
        return await self.ask(who, "POST", f"/media/{media}/{action}", {"reason": reason})

    async def audit(self, who: str) -> list[dict[str, Any]]:
        answer = await self.ask(who, "GET", "/audit")
        assert answer.status == 200, answer
        return list(reversed(answer.json["entries"]))


@asynccontextmanager
async def two_tenants(
    postgres: EmbeddedPostgres,
    s3: EmbeddedS3,
    *,
    real: int = 0,
    folder: Path | None = None,
    only: int = 2,
    homeserver: dict[str, Any] | None = None,
    **overrides: Any,
) -> AsyncIterator[Tenants]:
    """Run a repository for two homeservers: in this process, or in `real` server processes besides.

    `homeserver` is what stands in the configuration of each.
    """
    async with AsyncExitStack() as stack:
        homeservers, fakes = [], []
        for server_name in (A, B):
            running = await stack.enter_async_context(fake_homeserver())
            running.register(user_of(server_name), f"@user:{server_name}")
            running.register(admin_of(server_name), f"@admin:{server_name}")
            running.register(f"guest-{server_name}", f"@guest:{server_name}", is_guest=True)
            running.admins = {f"@admin:{server_name}"}
            api = {"client_api_url": running.url, "freeze_legacy": False}
            homeservers.append({"server_name": server_name, **api, **(homeserver or {})})
            fakes.append(running)
        chosen = {"homeservers": homeservers[:only], "admin": {"token": OPERATOR, "trash_ms": 0}, **overrides}
        document = document_for(postgres, s3, **chosen)
        own = await stack.enter_async_context(installed(Settings.model_validate(document)))
        processes = [own]
        if folder is not None:
            started = [await stack.enter_async_context(serving(document, folder, migrated=True)) for _ in range(real)]
            processes = [Installation(own.settings, own.repository, one.url, one.session) for one in started]
        yield Tenants(processes, fakes[0], document)
