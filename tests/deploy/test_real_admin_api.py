"""The same questions to a real Synapse with its own media repository and to mediarepo: the same shapes of answers."""

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.deploy.fronting import fronted
from tests.deploy.synapse import SERVER_NAME, Synapse, running_synapse
from tests.pictures.drawn import corners, encoded
from tests.support.installation import installed, settings_for

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]

BASE = "/_synapse/admin/v1"
PATIENT = {"per_second": 1000, "burst_count": 1000}
REPOSITORY = {"enable_media_repo": True, "rc_media_create": PATIENT}


@dataclass
class Side:
    """A homeserver with media, by whoever serves them; names stand for what it gave out."""

    url: str
    tokens: dict[str, str]
    names: dict[str, str] = field(default_factory=dict)

    async def ask(self, method: str, path: str, *, by: str | None = "admin", **arguments: Any) -> tuple[int, Any]:
        headers = {} if by is None else {"Authorization": f"Bearer {self.tokens[by]}"}
        for name, value in self.names.items():
            path = path.replace(f"<{name}>", value)
        async with (
            aiohttp.ClientSession(self.url, headers=headers) as session,
            session.request(method, path, **arguments) as answer,
        ):
            return answer.status, await answer.json() if answer.content_type == "application/json" else None

    async def upload(self, name: str, data: bytes, *, by: str = "alice", query: str = "", kind: str) -> None:
        path = f"/_matrix/media/v3/upload{query}"
        status, body = await self.ask("POST", path, by=by, data=data, headers={"Content-Type": kind})
        assert status == 200, body
        self.names[name] = body["content_uri"].rpartition("/")[2]
        self.names[f"{name}_uri"] = body["content_uri"]


@pytest.fixture(scope="module")
async def sides(
    request: pytest.FixtureRequest,
    postgres: EmbeddedPostgres,
    s3: EmbeddedS3,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[list[Side]]:
    """A Synapse with its own media, and one whose media are with mediarepo."""
    assert request.config.cache is not None
    cache, folder = request.config.cache.mkdir("synapse"), tmp_path_factory.mktemp("sides")
    store = {"media_store_path": str(folder / "media_store"), **REPOSITORY}
    (folder / "own").mkdir()
    (folder / "without").mkdir()
    async with AsyncExitStack() as stack:
        own = await stack.enter_async_context(running_synapse(cache, folder / "own", changes=store))
        without = await stack.enter_async_context(running_synapse(cache, folder / "without"))
        homeserver = {"server_name": SERVER_NAME, "hosts": ["127.0.0.1"], "client_api_url": without.url}
        settings = settings_for(postgres, s3, homeservers=[homeserver], admin={"trash_ms": 0})
        behind = await stack.enter_async_context(installed(settings))
        front = await stack.enter_async_context(fronted("nginx", folder, behind.url, without.url))
        yield [Side(own.url, await tokens(own)), Side(front.url, await tokens(without))]


async def tokens(synapse: Synapse) -> dict[str, str]:
    names = {"admin": True, "alice": False, "bob": False}
    return {name: await synapse.register(name, admin=admin) for name, admin in names.items()}


FLAGS = {"authenticated", "safe_from_quarantine", "quarantined"}
"""Synapse over SQLite, as here, gives 0 and 1 for them; over Postgres false and true."""


def shape(value: Any) -> Any:
    """Forget values, keep names, kinds of values, and what lists hold; which order they have is tested elsewhere."""
    if isinstance(value, dict):
        plain = {name: bool(inner) if name in FLAGS and inner is not None else inner for name, inner in value.items()}
        return {name: shape(inner) for name, inner in sorted(plain.items())}
    if isinstance(value, list):
        return sorted((shape(inner) for inner in value), key=repr)
    return type(value).__name__


def told(status: int, body: Any) -> tuple[int, Any, Any]:
    """What a tool goes by: the status, the errcode, the shape."""
    return status, body.get("errcode") if isinstance(body, dict) else None, shape(body)


ALICE, BOB = f"@alice:{SERVER_NAME}", f"@bob:{SERVER_NAME}"
LATER = 2_000_000_000_000
ORDERS = [
    "media_id",
    "upload_name",
    "created_ts",
    "last_access_ts",
    "media_length",
    "media_type",
    "quarantined_by",
    "safe_from_quarantine",
]
MEDIA = f"{BASE}/media"
QUESTIONS: list[tuple[str, str]] = [
    ("GET", f"{MEDIA}/{SERVER_NAME}/<picture>"),
    ("GET", f"{MEDIA}/{SERVER_NAME}/<text>"),
    ("GET", f"{MEDIA}/{SERVER_NAME}/unknownunknownunknown"),
    ("GET", f"{MEDIA}/elsewhere.test/unknownunknownunknown"),
    ("POST", f"{MEDIA}/quarantine/{SERVER_NAME}/<picture>"),
    ("GET", f"{MEDIA}/{SERVER_NAME}/<picture>"),
    ("GET", f"/_matrix/client/v1/media/download/{SERVER_NAME}/<picture>"),
    ("GET", f"{MEDIA}/quarantine_changes"),
    ("POST", f"{MEDIA}/unquarantine/{SERVER_NAME}/<picture>"),
    ("POST", f"{MEDIA}/quarantine/{SERVER_NAME}/unknownunknownunknown"),
    ("POST", f"{MEDIA}/protect/<picture>"),
    ("GET", f"{MEDIA}/{SERVER_NAME}/<picture>"),
    ("POST", f"{MEDIA}/unprotect/<picture>"),
    ("GET", f"{BASE}/users/{ALICE}/media"),
    ("GET", f"{BASE}/users/{BOB}/media"),
    ("GET", f"{BASE}/users/@nobody:{SERVER_NAME}/media"),
    ("GET", f"{BASE}/users/@a:elsewhere.test/media"),
    ("GET", f"{BASE}/users/alice/media"),
    ("GET", f"{BASE}/users/{ALICE}/media?limit=1"),
    ("GET", f"{BASE}/users/{ALICE}/media?limit=1&from=1"),
    ("GET", f"{BASE}/users/{ALICE}/media?limit=1&from=2"),
    ("GET", f"{BASE}/users/{ALICE}/media?from=-1"),
    ("GET", f"{BASE}/users/{ALICE}/media?limit=-1"),
    ("GET", f"{BASE}/users/{ALICE}/media?limit=x"),
    ("GET", f"{BASE}/users/{ALICE}/media?order_by=nonsense"),
    ("GET", f"{BASE}/users/{ALICE}/media?dir=x"),
    *(("GET", f"{BASE}/users/{ALICE}/media?order_by={order}&dir={way}") for order in ORDERS for way in "fb"),
    ("GET", f"{BASE}/statistics/users/media"),
    ("GET", f"{BASE}/statistics/users/media?limit=1"),
    ("GET", f"{BASE}/statistics/users/media?limit=1&from=1"),
    ("GET", f"{BASE}/statistics/users/media?search_term=ali"),
    ("GET", f"{BASE}/statistics/users/media?search_term="),
    ("GET", f"{BASE}/statistics/users/media?order_by=media_length&dir=b"),
    ("GET", f"{BASE}/statistics/users/media?order_by=media_count"),
    ("GET", f"{BASE}/statistics/users/media?order_by=displayname"),
    ("GET", f"{BASE}/statistics/users/media?order_by=nonsense"),
    ("GET", f"{BASE}/statistics/users/media?from_ts=5&until_ts=4"),
    ("GET", f"{BASE}/statistics/users/media?from_ts=-1"),
    ("GET", f"{BASE}/statistics/users/media?until_ts=1"),
    ("GET", f"{BASE}/statistics/users/media?limit=-1"),
    ("POST", f"{BASE}/user/{BOB}/media/quarantine"),
    ("POST", f"{BASE}/user/@nobody:{SERVER_NAME}/media/quarantine"),
    ("POST", f"{BASE}/room/<room>/media/quarantine"),
    ("POST", f"{BASE}/quarantine_media/<room>"),
    ("POST", f"{BASE}/room/!nowhere:{SERVER_NAME}/media/quarantine"),
    ("POST", f"{MEDIA}/delete"),
    ("POST", f"{MEDIA}/delete?before_ts=1"),
    ("POST", f"{MEDIA}/delete?before_ts=-1"),
    ("POST", f"{MEDIA}/delete?before_ts=x"),
    ("POST", f"{MEDIA}/delete?before_ts={LATER}&size_gt=-1"),
    ("POST", f"{MEDIA}/delete?before_ts={LATER}&keep_profiles=x"),
    ("POST", f"{MEDIA}/delete?before_ts={LATER}&size_gt=999999"),
    ("POST", f"{MEDIA}/{SERVER_NAME}/delete?before_ts={LATER}&size_gt=999999"),
    ("DELETE", f"{MEDIA}/{SERVER_NAME}/<text>"),
    ("DELETE", f"{MEDIA}/{SERVER_NAME}/<text>"),
    ("DELETE", f"{MEDIA}/elsewhere.test/abcabcabcabc"),
    ("GET", f"{MEDIA}/{SERVER_NAME}/<text>"),
    ("POST", f"{BASE}/purge_media_cache"),
    ("POST", f"{BASE}/purge_media_cache?before_ts=-1"),
    ("POST", f"{BASE}/purge_media_cache?before_ts=5"),
    ("POST", f"{BASE}/purge_media_cache?before_ts={LATER}"),
    ("POST", f"{MEDIA}/delete?before_ts={LATER}&keep_profiles=false"),
    ("DELETE", f"{BASE}/users/{ALICE}/media"),
    ("DELETE", f"{BASE}/users/@nobody:{SERVER_NAME}/media"),
    ("GET", f"{BASE}/users/{ALICE}/media"),
]


async def filled(side: Side) -> None:
    """Give a homeserver some media, and a room that mentions two of them."""
    picture = encoded(corners(64, 64), "PNG") + secrets.token_bytes(4)
    await side.upload("picture", picture, query="?filename=a%20b.png", kind="image/png")
    await side.upload("text", b"some text", kind="text/plain")
    await side.upload("bobs", b"bob's", by="bob", kind="application/pdf")
    await side.upload("in_room", b"in a room", kind="image/gif")
    await side.ask("GET", f"/_matrix/client/v1/media/thumbnail/{SERVER_NAME}/<picture>?width=32&height=32", by="alice")
    status, room = await side.ask("POST", "/_matrix/client/v3/createRoom", by="alice", json={})
    assert status == 200, room
    side.names["room"] = room["room_id"]
    content = {"msgtype": "m.image", "body": "x", "url": side.names["in_room_uri"]}
    status, _ = await side.ask("PUT", "/_matrix/client/v3/rooms/<room>/send/m.room.message/1", by="alice", json=content)
    assert status == 200


async def test_each_answer_has_the_status_and_the_shape_of_synapses(sides: list[Side]) -> None:
    for side in sides:
        await filled(side)
    different = []
    for method, path in QUESTIONS:
        synapses, ours = [await side.ask(method, path) for side in sides]
        if told(*synapses) != told(*ours):
            different.append((method, path, synapses, ours))

    assert different == []


@pytest.mark.parametrize("by", [None, "alice"])
async def test_those_who_are_no_admins_get_synapses_refusals(sides: list[Side], by: str | None) -> None:
    refusals = []
    paths = [(method, path.partition("?")[0]) for method, path in QUESTIONS if path.startswith(BASE)]
    for side in sides:
        answers = [await side.ask(method, path, by=by) for method, path in paths]
        refusals.append([(status, body.get("errcode")) for status, body in answers])

    assert refusals[0] == refusals[1]
