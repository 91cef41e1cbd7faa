"""A homeserver, as far as a media repository sees one: a real HTTP server that answers whoami."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.support.barrier import Barrier
from tests.support.ports import free_port, release_port

WHOAMI = "/_matrix/client/v3/account/whoami"
VERSIONS = "/_matrix/client/versions"


LOGIN = "/_matrix/client/v3/login"
LOGOUT = "/_matrix/client/v3/logout"


async def _let_browsers_in(_: web.Request, response: web.StreamResponse) -> None:
    """Send the headers that the specification asks of the client-server API."""
    response.headers["Access-Control-Allow-Origin"] = "*"
    response.headers["Access-Control-Allow-Methods"] = "GET, POST, PUT, DELETE, OPTIONS"
    response.headers["Access-Control-Allow-Headers"] = "X-Requested-With, Content-Type, Authorization"


@dataclass
class FakeHomeserver:
    """Knows tokens; can be told to misbehave."""

    url: str = ""
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    refusals: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    admins: set[str] = field(default_factory=set)
    rooms: dict[str, list[str]] = field(default_factory=dict)
    avatars: dict[str, str] = field(default_factory=dict)
    silent_profiles: set[str] = field(default_factory=set)
    passwords: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The password and the access token of a user name, for signing in from a browser."""
    logged_out: list[str] = field(default_factory=list)
    reports: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Reported events by the number of the report, as Synapse's admin API shows them."""
    sign_ons: dict[str, str] = field(default_factory=dict)
    calls: list[dict[str, str]] = field(default_factory=list)
    answer_instead: web.Response | None = None
    hold: asyncio.Event | None = None
    _next: list[tuple[int, bytes]] = field(default_factory=list)
    _barriers: list[Barrier] = field(default_factory=list)
    _runner: web.AppRunner | None = None
    _port: int = field(default_factory=free_port)

    def register(self, token: str, user_id: str, **facts: Any) -> None:
        """Make a token known; facts go into the answer as they are: device_id, is_guest."""
        self.tokens[token] = {"user_id": user_id, **facts}

    def refuse(self, token: str, status: int, errcode: str, **facts: Any) -> None:
        self.refusals[token] = (status, {"errcode": errcode, "error": f"says the homeserver: {errcode}", **facts})

    def lock(self, token: str) -> None:
        self.refuse(token, 401, "M_USER_LOCKED", soft_logout=True)

    def log_out(self, token: str, *, soft: bool = False) -> None:
        self.refuse(token, 401, "M_UNKNOWN_TOKEN", soft_logout=soft)

    def answer_next(self, status: int, body: bytes = b"", *, times: int = 1) -> None:
        """Answer so instead, whatever is asked: an outage, or garbage."""
        self._next += [(status, body)] * times

    @asynccontextmanager
    async def holding(self) -> AsyncIterator[Barrier]:
        """Hold requests until they are released; never releasing them is a homeserver that hangs."""
        barrier = Barrier()
        self._barriers.append(barrier)
        try:
            yield barrier
        finally:
            barrier.release()
            self._barriers.remove(barrier)

    async def start(self) -> None:
        """Listen, at the same address as before a stop."""
        app = web.Application()
        app.router.add_get(WHOAMI, self.whoami)
        app.router.add_get(VERSIONS, self.versions)
        app.router.add_get("/_synapse/admin/v1/users/{user_id}/admin", self.is_admin)
        app.router.add_get("/_synapse/admin/v2/users/{user_id}", self.user)
        app.router.add_get("/_synapse/admin/v2/users", self.users)
        app.router.add_get("/_synapse/admin/v1/room/{room_id}/media", self.room_media)
        app.router.add_get("/_synapse/admin/v1/rooms", self.room_list)
        app.router.add_get("/_synapse/admin/v1/rooms/{room_id}", self.room)
        app.router.add_get("/_matrix/client/v3/profile/{user_id}/avatar_url", self.profile)
        app.router.add_get("/_matrix/client/v3/profile/{user_id}/displayname", self.displayname)
        for method, path, handler in (
            ("GET", LOGIN, self.login_flows),
            ("POST", LOGIN, self.log_in),
            ("POST", LOGOUT, self.log_out_session),
            ("GET", f"{LOGIN}/sso/redirect", self.sign_on),
            ("GET", "/_synapse/admin/v1/event_reports", self.report_list),
            ("GET", "/_synapse/admin/v1/event_reports/{id}", self.report),
            ("DELETE", "/_synapse/admin/v1/event_reports/{id}", self.delete_report),
        ):
            app.router.add_route(method, path, handler)
        app.router.add_route("OPTIONS", "/{path:.*}", self.preflight)
        app.on_response_prepare.append(_let_browsers_in)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()
        self.url = f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        """Be down: connections are refused."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def login_flows(self, _: web.Request) -> web.Response:
        return web.json_response({"flows": [{"type": "m.login.password"}, {"type": "m.login.sso"}]})

    async def log_in(self, request: web.Request) -> web.Response:
        """Give the token of who knows the password, or of who comes back from single sign-on."""
        body = await request.json()
        if body["type"] == "m.login.token" and body["token"] in self.sign_ons:
            return web.json_response({"access_token": self.sign_ons.pop(body["token"])})
        password, token = self.passwords.get(body.get("identifier", {}).get("user", ""), ("", ""))
        if body["type"] != "m.login.password" or not password or password != body["password"]:
            return web.json_response({"errcode": "M_FORBIDDEN", "error": "Invalid username or password"}, status=403)
        return web.json_response({"access_token": token})

    async def sign_on(self, request: web.Request) -> web.Response:
        """Send the browser back, as the first who has a password."""
        self.sign_ons["once"] = next(iter(self.passwords.values()))[1]
        location = f"{request.query['redirectUrl']}?loginToken=once"
        return web.Response(status=302, headers={"Location": location})

    async def report_list(self, request: web.Request) -> web.Response:
        newest_first = [self.reports[number] for number in sorted(self.reports, reverse=True)]
        without_events = [{name: one[name] for name in one if name != "event_json"} for one in newest_first]
        return self._for_admins(request, {"event_reports": without_events, "total": len(without_events)})

    async def report(self, request: web.Request) -> web.Response:
        return self._of_report(request, self.reports.get(int(request.match_info["id"])))

    async def delete_report(self, request: web.Request) -> web.Response:
        found = self.reports.get(int(request.match_info["id"]))
        if found is not None and self._is_admins(request):
            del self.reports[found["id"]]
        return self._of_report(request, None if found is None else {})

    def _of_report(self, request: web.Request, body: dict[str, Any] | None) -> web.Response:
        if body is None:
            return self._for_admins(request, {"errcode": "M_NOT_FOUND", "error": "Event report not found"}, 404)
        return self._for_admins(request, body)

    async def log_out_session(self, request: web.Request) -> web.Response:
        self.logged_out.append(request.headers.get("Authorization", "").removeprefix("Bearer "))
        return web.json_response({})

    async def preflight(self, _: web.Request) -> web.Response:
        return web.Response()

    async def versions(self, _: web.Request) -> web.Response:
        return web.json_response({"versions": ["v1.11", "v1.15"]})

    def _is_admins(self, request: web.Request) -> bool:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return self.tokens.get(token, {}).get("user_id") in self.admins

    def _for_admins(self, request: web.Request, body: dict[str, Any], status: int = 200) -> web.Response:
        if not self._is_admins(request):
            return web.json_response({"errcode": "M_FORBIDDEN", "error": "You are not a server admin"}, status=403)
        return web.json_response(body, status=status)

    async def is_admin(self, request: web.Request) -> web.Response:
        return self._for_admins(request, {"admin": request.match_info["user_id"] in self.admins})

    async def user(self, request: web.Request) -> web.Response:
        known = request.match_info["user_id"] in {one["user_id"] for one in self.tokens.values()}
        return self._for_admins(request, {"name": "x"} if known else {"errcode": "M_NOT_FOUND"}, 200 if known else 404)

    async def users(self, request: web.Request) -> web.Response:
        """List users two at a time."""
        start, names = int(request.query.get("from", 0)), sorted(self.avatars)
        page = [{"name": name, "avatar_url": self.avatars[name]} for name in names[start : start + 2]]
        more = {"next_token": str(start + 2)} if start + 2 < len(names) else {}
        return self._for_admins(request, {"users": page, "total": len(names), **more})

    async def room_media(self, request: web.Request) -> web.Response:
        uris = self.rooms.get(request.match_info["room_id"], [])
        return self._for_admins(request, {"local": uris[:1], "remote": uris[1:]})

    async def room_list(self, request: web.Request) -> web.Response:
        return self._for_admins(request, {"rooms": [{"room_id": name} for name in self.rooms]})

    async def room(self, request: web.Request) -> web.Response:
        return self._for_admins(request, {"avatar": self.avatars.get(request.match_info["room_id"])})

    async def displayname(self, request: web.Request) -> web.Response:
        user_id = request.match_info["user_id"]
        if user_id in self.silent_profiles:
            return web.json_response({"errcode": "M_NOT_FOUND", "error": "no"}, status=404)
        return web.json_response({"displayname": user_id[1:].partition(":")[0].title()})

    async def profile(self, request: web.Request) -> web.Response:
        user_id = request.match_info["user_id"]
        if user_id in self.silent_profiles:
            return web.json_response({"errcode": "M_FORBIDDEN", "error": "no"}, status=403)
        if user_id not in self.avatars:
            return web.json_response({"errcode": "M_NOT_FOUND", "error": "no"}, status=404)
        return web.json_response({"avatar_url": self.avatars[user_id]})

    async def whoami(self, request: web.Request) -> web.Response:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.calls.append({"token": token, **request.query})
        if self.hold is not None:
            await self.hold.wait()
        for barrier in self._barriers:
            await barrier.wait()
        if self.answer_instead is not None:
            answer, self.answer_instead = self.answer_instead, None
            return answer
        if self._next:
            status, body = self._next.pop(0)
            return web.Response(status=status, body=body)
        return self._verdict(token, dict(request.query))

    def _verdict(self, token: str, query: dict[str, str]) -> web.Response:
        if token in self.refusals:
            status, body = self.refusals[token]
            return web.json_response(body, status=status)
        if token not in self.tokens:
            return web.json_response({"errcode": "M_UNKNOWN_TOKEN", "error": "no", "soft_logout": False}, status=401)
        asserted = {name: query[name] for name in ("user_id", "device_id") if name in query}
        return web.json_response(self.tokens[token] | asserted)


@asynccontextmanager
async def fake_homeserver() -> AsyncIterator[FakeHomeserver]:
    homeserver = FakeHomeserver()
    await homeserver.start()
    try:
        yield homeserver
    finally:
        await homeserver.stop()
        release_port(homeserver._port)
