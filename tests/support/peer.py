"""A server that asks us: it signs its requests, and publishes the keys to check them with."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from mediarepo.federation.request_auth import sign_request
from mediarepo.federation.signing import SigningKey, canonical_json, encode_base64, new_signing_key
from tests.support.installation import Answer, Installation
from tests.support.remote_server import RemoteServer

HOUR_MS = 3_600_000


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class Peer:
    """`published` is what its key endpoint says; None: the proper thing."""

    server: RemoteServer
    key: SigningKey = field(default_factory=new_signing_key)
    valid_for_ms: int = HOUR_MS
    published: Any = None
    key_fetches: int = 0

    def __post_init__(self) -> None:
        self.server.elsewhere = self._answer

    @property
    def name(self) -> str:
        return self.server.server_name

    def key_document(self, *keys: SigningKey, **changes: Any) -> dict[str, Any]:
        keys = keys or (self.key,)
        document: dict[str, Any] = {
            "server_name": self.name,
            "verify_keys": {key.key_id: {"key": encode_base64(key.public_key)} for key in keys},
            "old_verify_keys": {},
            "valid_until_ts": now_ms() + self.valid_for_ms,
            **changes,
        }
        signatures = {key.key_id: key.sign(canonical_json(document)) for key in keys}
        return {**document, "signatures": {self.name: signatures}}

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path != "/_matrix/key/v2/server":
            return web.Response(status=404)
        self.key_fetches += 1
        if callable(self.published):
            answer: web.StreamResponse = await self.published(request)
            return answer
        document = self.key_document() if self.published is None else self.published
        return web.Response(body=json.dumps(document), content_type="application/json")

    async def get(
        self,
        asked: Installation,
        path: str,
        *,
        destination: str | None = None,
        signed: str | None = None,
        key: SigningKey | None = None,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        **arguments: Any,
    ) -> Answer:
        """Ask with a signature, which may be for another path (`signed`) or another destination."""
        authorization = sign_request(
            key or self.key,
            method=method,
            request_target=signed or path,
            origin=self.name,
            destination=destination or asked.server_name,
        )
        sent = {"Authorization": authorization, **(headers or {})}
        return await asked.request(method, path, token=None, headers=sent, **arguments)
