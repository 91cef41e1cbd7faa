"""A homeserver, as far as a media repository sees one: a real HTTP server that answers whoami."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

WHOAMI = "/_matrix/client/v3/account/whoami"


@dataclass
class FakeHomeserver:
    """Knows tokens; can be told to misbehave."""

    url: str = ""
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    refusals: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    calls: list[dict[str, str]] = field(default_factory=list)
    answer_instead: web.Response | None = None
    hold: asyncio.Event | None = None

    def register(self, token: str, user_id: str, **facts: Any) -> None:
        self.tokens[token] = {"user_id": user_id, **facts}

    def refuse(self, token: str, status: int, errcode: str, **facts: Any) -> None:
        self.refusals[token] = (status, {"errcode": errcode, "error": f"says the homeserver: {errcode}", **facts})

    async def whoami(self, request: web.Request) -> web.Response:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.calls.append({"token": token, **request.query})
        if self.hold is not None:
            await self.hold.wait()
        if self.answer_instead is not None:
            answer, self.answer_instead = self.answer_instead, None
            return answer
        if token in self.refusals:
            status, body = self.refusals[token]
            return web.json_response(body, status=status)
        if token not in self.tokens:
            return web.json_response({"errcode": "M_UNKNOWN_TOKEN", "error": "no", "soft_logout": False}, status=401)
        facts = dict(self.tokens[token])
        if "user_id" in request.query:
            facts["user_id"] = request.query["user_id"]
        return web.json_response(facts)


@asynccontextmanager
async def fake_homeserver() -> AsyncIterator[FakeHomeserver]:
    homeserver = FakeHomeserver()
    app = web.Application()
    app.router.add_get(WHOAMI, homeserver.whoami)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    homeserver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield homeserver
    finally:
        await runner.cleanup()
