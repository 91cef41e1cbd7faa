"""A whole mediarepo of its own for one test: own schema, own prefix, own port, real Postgres and S3."""

import io
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from yarl import URL

from mediarepo.app.repository import Repository, open_repository
from mediarepo.app.server import make_web_app
from mediarepo.config.settings import Settings
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.model.concurrency import Shutdown
from mediarepo.storage.store import Store
from mediarepo.web.listening import address_of, bind
from mediarepo.web.server import serving
from tests.support.idle import idle, watched
from tests.support.schemas import make_schema

SERVER_NAME = "media.example"
OTHER_SERVER_NAME = "other.example"
TOKEN = "token-of-the-bridge"
OTHER_TOKEN = "token-of-the-other-bridge"


def fresh_name() -> str:
    return f"t_{secrets.token_hex(6)}"


def homeserver(server_name: str, token: str, **overrides: object) -> dict[str, object]:
    appservice = {
        "id": "bridge",
        "as_token": token,
        "sender": f"@bridge:{server_name}",
        "namespaces": {"users": [{"regex": f"@_bridge_.*:{server_name}"}]},
    }
    return {"server_name": server_name, "appservices": [appservice], **overrides}


def settings_for(postgres: EmbeddedPostgres, s3: EmbeddedS3, **overrides: Any) -> Settings:
    """Make settings with a fresh schema and prefix; a dict among `overrides` is merged into its section."""
    return Settings.model_validate(document_for(postgres, s3, **overrides))


def document_for(postgres: EmbeddedPostgres, s3: EmbeddedS3, **overrides: Any) -> dict[str, Any]:
    """Make the same as a configuration file has it."""
    store = {
        "endpoint_url": s3.endpoint_url,
        "region": s3.region,
        "bucket": s3.bucket,
        "prefix": f"tests/{fresh_name()}",
        "access_key_id": s3.access_key_id,
        "secret_access_key": s3.secret_access_key,
    }
    document: dict[str, Any] = {
        "listen": {"addresses": ["127.0.0.1:0"], "workers": 1, "shutdown_delay_ms": 0, "shutdown_timeout_ms": 1000},
        "database": {"url": postgres.dsn, "schema": fresh_name()},
        "homeservers": [homeserver(SERVER_NAME, TOKEN), homeserver(OTHER_SERVER_NAME, OTHER_TOKEN)],
        "stores": {"main": store},
        # what scheduled jobs do, tests ask for: none may run in the middle of one that takes a minute on a busy machine
        "admin": {"trash_interval_ms": 3_600_000},
        "retention": {"interval_ms": 3_600_000},
        "sweep": {"enabled": False, "outbox_interval_ms": 3_600_000},
        "thumbnails": {"workers": 1},
    }
    for name, value in overrides.items():
        if name == "store":
            store.update(value)
        elif isinstance(value, dict) and name in document:
            document[name] = {**document[name], **value}
        else:
            document[name] = value
    return document


@dataclass
class Answer:
    """A response, read whole."""

    status: int
    headers: Any
    body: bytes
    json: Any = None


@dataclass
class Installation:
    """A running mediarepo, and a client for it."""

    settings: Settings
    repository: Repository
    url: str
    session: aiohttp.ClientSession
    token: str = TOKEN
    server_name: str = SERVER_NAME
    seen: list[Answer] = field(default_factory=list)

    @property
    def store(self) -> Store:
        return self.repository.foundation.stores.by_name["main"]

    async def request(
        self,
        method: str,
        path: str,
        *,
        token: str | None = "",
        host: str | None = None,
        headers: Mapping[str, str] | None = None,
        data: Any = None,
        **arguments: Any,
    ) -> Answer:
        """Ask; `token` "" means the installation's own, None means none."""
        sent: dict[str, str] = {"Host": host or self.server_name}
        if token is not None:
            sent["Authorization"] = f"Bearer {token or self.token}"
        sent.update(headers or {})
        if isinstance(data, bytes):
            data = io.BytesIO(data)
        url = URL(self.url + path, encoded=True)
        async with self.session.request(method, url, headers=sent, data=data, **arguments) as response:
            answer = Answer(response.status, response.headers, await response.read())
            if response.content_type == "application/json" and answer.body:
                answer.json = await response.json()
            return answer

    async def get(self, path: str, **arguments: Any) -> Answer:
        return await self.request("GET", path, **arguments)

    async def upload(
        self, data: Any, *, content_type: str | None = "image/png", query: str = "", **arguments: Any
    ) -> str:
        """Upload and give the media id."""
        headers = {"Content-Type": content_type} if content_type is not None else {}
        answer = await self.request(
            "POST",
            f"/_matrix/media/v3/upload{query}",
            data=data,
            headers=headers,
            skip_auto_headers={"Content-Type"},
            **arguments,
        )
        assert answer.status == 200, answer
        uri: str = answer.json["content_uri"]
        assert uri.startswith(f"mxc://{self.server_name}/")
        return uri.rpartition("/")[2]

    def download_path(self, media_id: str, *, server_name: str | None = None) -> str:
        return f"/_matrix/client/v1/media/download/{server_name or self.server_name}/{media_id}"

    def legacy_path(self, media_id: str) -> str:
        return f"/_matrix/media/v3/download/{self.server_name}/{media_id}"

    def thumbnail_path(
        self, media_id: str, width: int = 32, height: int = 32, method: str = "crop", *, query: str = ""
    ) -> str:
        base = f"/_matrix/client/v1/media/thumbnail/{self.server_name}/{media_id}"
        return f"{base}?width={width}&height={height}&method={method}{query}"

    async def rows(self, query: str, *arguments: object) -> list[Any]:
        """Run a statement; what it changes holds in every process when this returns."""
        foundation = self.repository.foundation
        async with foundation.database.connection() as connection:
            found = list(await connection.fetch(query, *arguments))
        if not query.lstrip().upper().startswith("SELECT"):
            await foundation.invalidation.settle()
        return found

    async def restore_schema(self, statement: str) -> None:
        """Undo what was done to the schema, which is not served from meanwhile."""
        async with self.repository.foundation.database._open() as connection:
            await connection.execute(statement)

    async def value(self, query: str, *arguments: object) -> Any:
        return (await self.rows(query, *arguments))[0][0]

    async def mark(self, media_id: str, kind: str, *, by: str = "@admin:a", owner: str = "") -> None:
        """Hide, protect, hold or pin media, in the name of the operator or of a homeserver."""
        await self.rows(
            """INSERT INTO media_mark (server_name, media_id, kind, owner, scope, set_by, created_ts)
               SELECT server_name, media_id, $2, $3, $3, $4, 1 FROM media WHERE media_id = $1""",
            media_id,
            kind,
            owner,
            by,
        )

    async def object_keys(self) -> set[str]:
        """List what lies in the bucket under our prefix, marker and journal aside."""
        return {
            found.key
            async for found in self.store.list(f"{self.store.prefix}/")
            if not found.key.endswith("/installation") and "/journal/" not in found.key
        }


@asynccontextmanager
async def installed(settings: Settings, *, migrate: bool = True) -> AsyncIterator[Installation]:
    """Run a mediarepo with these settings in this process; it must hold nothing once its client has left."""
    if migrate:
        await make_schema(settings.database)
    async with open_repository(settings) as repository:
        app = make_web_app(repository, Shutdown(), matrix=True, operators=True)

        async def in_use() -> dict[str, float]:
            return repository.foundation.in_use.read()

        listeners = bind(settings.listen.addresses, settings.listen.socket_mode)
        address = address_of(listeners[0])
        async with serving(app, listeners, settings.listen):
            with watched(in_use):
                async with aiohttp.ClientSession(auto_decompress=False) as session:
                    yield Installation(settings, repository, f"http://{address}", session)
            await idle(in_use)
