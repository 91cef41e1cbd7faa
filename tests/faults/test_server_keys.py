import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web

from mediarepo.config.federation import OutboundConfig
from mediarepo.config.storage import DatabaseConfig
from mediarepo.db.database import Database
from mediarepo.db.migrations import upgrade
from mediarepo.db.remote_media import ServerKeyTable
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.errors import LimitExceededError
from mediarepo.federation.client import FederationClient
from mediarepo.federation.discovery import Delegation, Discovery, WellKnown
from mediarepo.federation.server_keys import KeyProblem, ServerKeyError, ServerKeys
from mediarepo.federation.signing import SigningKey, canonical_json, encode_base64, new_signing_key
from mediarepo.model.concurrency import SingleFlight
from mediarepo.model.remote_media import KeysOfServer
from mediarepo.model.requester import begin_request
from mediarepo.outbound.client import Outbound
from mediarepo.outbound.ssrf_guard import Lookup
from tests.support.installation import settings_for
from tests.support.origin import Authority, Origin, answering, origin, redirecting, saying, speaking

PATH = "/_matrix/key/v2/server"
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
START_MS = 1_700_000_000_000


@dataclass
class Asker:
    """Finds keys by a clock that is set by hand."""

    keys: ServerKeys
    now_ms: int = START_MS

    async def refusal(self, server_name: str, key_id: str) -> KeyProblem:
        with pytest.raises(ServerKeyError) as caught:
            await self.keys.find(server_name, key_id)
        return caught.value.problem


@dataclass
class Publisher:
    """Publishes keys at a real server."""

    server: Origin
    key: SigningKey

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    @property
    def fetches(self) -> int:
        return len(self.server.requests)

    def document(self, *keys: SigningKey, valid_until_ts: object = START_MS + DAY_MS, **changes: Any) -> dict[str, Any]:
        keys = keys or (self.key,)
        document: dict[str, Any] = {
            "server_name": self.name,
            "verify_keys": {key.key_id: {"key": encode_base64(key.public_key)} for key in keys},
            "old_verify_keys": {},
            "valid_until_ts": valid_until_ts,
            **changes,
        }
        return self.signed(document, *keys)

    def signed(self, document: dict[str, Any], *keys: SigningKey) -> dict[str, Any]:
        return {
            **document,
            "signatures": {self.name: {key.key_id: key.sign(canonical_json(document)) for key in keys}},
        }

    def publish(self, document: object) -> None:
        self.server.handlers[PATH] = answering(json.dumps(document))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
async def database(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> AsyncIterator[Database]:
    settings = settings_for(postgres, s3)
    await upgrade(settings.database)
    async with Database(settings.database) as opened:
        yield opened


@asynccontextmanager
async def asking(
    authority: Authority,
    database: Database,
    known: Mapping[str, Mapping[str, bytes]] | None = None,
    lookup: Lookup | None = None,
    **config: Any,
) -> AsyncIterator[Asker]:
    settings = {"allow_networks": ["127.0.0.0/8"], "ca_file": str(authority.ca_file), **config}
    async with (
        Outbound(OutboundConfig(**settings), lookup=lookup) as outbound,
        SingleFlight[Delegation]() as delegations,
        SingleFlight[KeysOfServer]() as remote_fetches,
    ):
        discovery = Discovery(WellKnown(outbound, delegations, clock_s=lambda: 0.0), clock_s=lambda: 0.0)
        client = FederationClient(discovery=discovery, outbound=outbound)
        keys = ServerKeys(
            client, ServerKeyTable(database), remote_fetches, known=known or {}, now_ms=lambda: made.now_ms
        )
        made = Asker(keys)
        yield made


@pytest.fixture
async def asker(authority: Authority, database: Database) -> AsyncIterator[Asker]:
    async with asking(authority, database) as running:
        yield running


@pytest.fixture
async def publisher(authority: Authority) -> AsyncIterator[Publisher]:
    async with origin(authority) as server:
        one = Publisher(server, new_signing_key("a"))
        one.publish(one.document())
        yield one


async def test_keys_are_fetched_once_however_many_ask(asker: Asker, publisher: Publisher) -> None:
    found = await asyncio.gather(*[asker.keys.find(publisher.name, "ed25519:a") for _ in range(50)])

    assert set(found) == {publisher.key.public_key}
    assert (publisher.fetches, publisher.server.requests[0].host) == (1, publisher.name)


async def test_other_processes_find_them_in_the_database(
    authority: Authority, database: Database, asker: Asker, publisher: Publisher
) -> None:
    await asker.keys.find(publisher.name, "ed25519:a")
    async with asking(authority, database) as another:
        assert await another.keys.find(publisher.name, "ed25519:a") == publisher.key.public_key
    assert publisher.fetches == 1


async def test_our_own_keys_need_no_network(authority: Authority, database: Database) -> None:
    async with asking(authority, database, {"ours.example": {"ed25519:o": b"o" * 32}}) as asker:
        assert await asker.keys.find("ours.example", "ed25519:o") == b"o" * 32


@pytest.mark.parametrize("valid_for_ms", [HOUR_MS, 6 * DAY_MS, 30 * DAY_MS])
async def test_keys_are_good_until_they_say_and_a_week_at_most(
    asker: Asker, publisher: Publisher, valid_for_ms: int
) -> None:
    publisher.publish(publisher.document(valid_until_ts=START_MS + valid_for_ms))
    await asker.keys.find(publisher.name, "ed25519:a")
    publisher.server.handlers[PATH] = answering(b"", status=503)

    asker.now_ms = START_MS + min(valid_for_ms, 7 * DAY_MS)
    assert await asker.keys.find(publisher.name, "ed25519:a") == publisher.key.public_key
    asker.now_ms += 1
    assert await asker.refusal(publisher.name, "ed25519:a") == KeyProblem.UNREACHABLE


async def test_keys_that_ran_out_are_fetched_anew(asker: Asker, publisher: Publisher) -> None:
    await asker.keys.find(publisher.name, "ed25519:a")
    asker.now_ms += 2 * DAY_MS
    publisher.publish(publisher.document(valid_until_ts=asker.now_ms + DAY_MS))

    assert await asker.keys.find(publisher.name, "ed25519:a") == publisher.key.public_key
    assert publisher.fetches == 2


async def test_keys_that_ran_out_before_they_came_are_not_used(asker: Asker, publisher: Publisher) -> None:
    publisher.publish(publisher.document(valid_until_ts=START_MS - 1))

    assert await asker.refusal(publisher.name, "ed25519:a") == KeyProblem.EXPIRED
    assert await asker.refusal(publisher.name, "ed25519:a") == KeyProblem.EXPIRED
    assert publisher.fetches == 1


async def test_an_unknown_key_is_asked_for_once_a_minute(asker: Asker, publisher: Publisher) -> None:
    await asker.keys.find(publisher.name, "ed25519:a")
    newer = new_signing_key("b")
    publisher.publish(publisher.document(publisher.key, newer))

    problems = [await asker.refusal(publisher.name, f"ed25519:{number}") for number in range(20)]
    assert (set(problems), publisher.fetches) == ({KeyProblem.UNKNOWN_KEY}, 1)

    asker.now_ms += MINUTE_MS
    assert await asker.keys.find(publisher.name, "ed25519:b") == newer.public_key
    assert await asker.refusal(publisher.name, "ed25519:c") == KeyProblem.UNKNOWN_KEY
    assert publisher.fetches == 2


async def test_old_keys_prove_nothing(asker: Asker, publisher: Publisher) -> None:
    old = {"ed25519:old": {"key": encode_base64(b"k" * 32), "expired_ts": START_MS + DAY_MS}}
    publisher.publish(publisher.document(old_verify_keys=old))

    assert await asker.refusal(publisher.name, "ed25519:old") == KeyProblem.UNKNOWN_KEY


async def test_a_server_that_fails_is_left_alone_for_a_minute(asker: Asker, publisher: Publisher) -> None:
    publisher.server.handlers[PATH] = answering(b"", status=503)
    problems = [await asker.refusal(publisher.name, "ed25519:a") for _ in range(20)]
    assert (set(problems), publisher.fetches) == ({KeyProblem.UNREACHABLE}, 1)

    publisher.publish(publisher.document())
    asker.now_ms += MINUTE_MS
    assert await asker.keys.find(publisher.name, "ed25519:a") == publisher.key.public_key


async def test_padded_keys_and_other_algorithms_are_understood(asker: Asker, publisher: Publisher) -> None:
    keys = {
        "ed25519:a": {"key": encode_base64(publisher.key.public_key) + "="},
        "curve25519:x": {"key": "AAAA"},
        "ed25519:\x00": {"key": "AAAA"},
        "ed25519:" + "x" * 300: {"key": "AAAA"},
    }
    publisher.publish(publisher.document(verify_keys=keys))

    assert await asker.keys.find(publisher.name, "ed25519:a") == publisher.key.public_key


Spoil = Callable[[Publisher], object]

NOT_UNDERSTOOD: list[Spoil] = [
    lambda one: [one.document()],
    lambda one: {**one.document(), "server_name": None},
    lambda one: one.document(server_name="other.example"),
    lambda one: one.document(server_name=one.name.upper() + "x"),
    lambda one: {**one.document(), "signatures": {}},
    lambda one: {**one.document(), "signatures": {"other.example": one.document()["signatures"][one.name]}},
    lambda one: {**one.document(), "signatures": {one.name: {"ed25519:a": "AAAA"}}},
    lambda one: {**one.document(), "signatures": {one.name: {"ed25519:a": 1}}},
    lambda one: {**one.document(), "valid_until_ts": START_MS + 2 * DAY_MS},
    lambda one: one.document(valid_until_ts=None),
    lambda one: one.document(valid_until_ts="1"),
    lambda one: one.document(valid_until_ts=True),
    lambda one: {**one.document(), "valid_until_ts": -(2**70)},
    lambda one: {**one.document(), "valid_until_ts": 1.5},
    lambda one: {**one.document(), "extra": "\ud800"},
    lambda one: {**one.document(), "extra": 2**60},
    lambda one: one.document(verify_keys={}),
    lambda one: one.document(verify_keys=[]),
    lambda one: one.document(verify_keys={"ed25519:a": None}),
    lambda one: one.document(verify_keys={"ed25519:a": {"key": "AAAA"}}),
    lambda one: one.document(verify_keys={"ed25519:a": {"key": "!" * 43}}),
    lambda one: one.document(verify_keys={"ed25519:a": {"key": 1}}),
    lambda one: one.document(verify_keys={"ed25519:\x00": {"key": encode_base64(one.key.public_key)}}),
    lambda one: one.signed(
        {name: value for name, value in one.document(one.key, new_signing_key("b")).items() if name != "signatures"},
        one.key,
    ),
]


@pytest.mark.parametrize("spoil", NOT_UNDERSTOOD)
async def test_what_is_not_published_as_it_should_be_is_not_used(
    asker: Asker, publisher: Publisher, spoil: Spoil
) -> None:
    publisher.publish(spoil(publisher))

    assert await asker.refusal(publisher.name, "ed25519:a") == KeyProblem.NOT_UNDERSTOOD


@pytest.mark.parametrize("body", [b"", b"<html>", b"{" * 60_000, b'{"a":' * 60 + b"1" + b"}" * 60, b" " * 70_000])
async def test_what_is_no_bounded_json_is_not_understood(asker: Asker, publisher: Publisher, body: bytes) -> None:
    publisher.server.handlers[PATH] = answering(body)

    assert await asker.refusal(publisher.name, "ed25519:a") == KeyProblem.NOT_UNDERSTOOD


async def test_keys_are_not_fetched_from_where_a_redirect_leads(asker: Asker, publisher: Publisher) -> None:
    publisher.server.handlers[PATH] = redirecting("/there")
    publisher.server.handlers["/there"] = answering(json.dumps(publisher.document()))

    assert await asker.refusal(publisher.name, "ed25519:a") == KeyProblem.UNREACHABLE
    assert publisher.fetches == 1


@pytest.mark.parametrize(
    "server_name",
    ["10.0.0.1", "169.254.169.254:80", "[::1]:1", "[::ffff:127.0.0.1]", "127.0.0.1:1", "127.1:1", "0x7f.1:1"],
)
async def test_keys_are_not_fetched_from_forbidden_addresses(
    authority: Authority, database: Database, server_name: str
) -> None:
    async with asking(authority, database, allow_networks=[]) as asker:
        assert await asker.refusal(server_name, "ed25519:a") == KeyProblem.BLOCKED


async def test_nobody_there_is_unreachable(asker: Asker) -> None:
    assert await asker.refusal("127.0.0.1:1", "ed25519:a") == KeyProblem.UNREACHABLE


async def test_who_is_too_slow_is_told_so_and_holds_up_nobody(
    authority: Authority, asker: Asker, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mediarepo.federation.server_keys._TOTAL_S", 0.5)
    gate = asyncio.Event()

    async def hanging(_request: web.Request) -> web.StreamResponse:
        await gate.wait()
        return web.Response()

    async with origin(authority) as slow:
        slow.handlers[PATH] = hanging
        waiting = asyncio.create_task(asker.refusal(f"127.0.0.1:{slow.port}", "ed25519:a"))
        assert await asker.keys.find(publisher.name, "ed25519:a") == publisher.key.public_key

        assert await waiting == KeyProblem.TOO_SLOW
        gate.set()


@asynccontextmanager
async def silent_server(host: str = "127.0.0.1") -> AsyncIterator[tuple[int, asyncio.Semaphore]]:
    """Accept connections and say nothing; gives the port, and what is released with each connection."""
    accepted, gate = asyncio.Semaphore(0), asyncio.Event()

    async def stay_silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.release()
        await gate.wait()
        writer.close()

    server = await asyncio.start_server(stay_silent, host, 0)
    async with server:
        yield server.sockets[0].getsockname()[1], accepted
        gate.set()


async def anywhere(_host: str) -> list[str]:
    """Resolve every name to this machine."""
    return ["127.0.0.1"]


async def test_made_up_names_that_lead_to_a_silent_host_hold_up_nobody_else(
    authority: Authority, database: Database, publisher: Publisher
) -> None:
    async with silent_server() as (port, accepted):
        async with asking(authority, database, lookup=anywhere) as asker:
            floods = [
                asyncio.create_task(asker.keys.find(f"made-up-{number}.of{number}.example:{port}", "ed25519:a"))
                for number in range(300)
            ]
            for _ in range(10):
                await accepted.acquire()

            assert await asker.keys.find(publisher.name, "ed25519:a") == publisher.key.public_key
            assert asker.keys.fetches.in_use == 10
            assert not any(task.done() for task in floods)
            for task in floods:
                task.cancel()
        assert (asker.keys.fetches.in_use, asker.keys.fetches.waiting) == (0, 0)


async def test_hosts_of_many_addresses_leave_places_for_other_clients(
    authority: Authority, database: Database, publisher: Publisher
) -> None:
    async def elsewhere(host: str) -> list[str]:
        return [f"127.1.0.{int(host.partition('.')[0].removeprefix('n'))}"]

    async with (
        silent_server("0.0.0.0") as (port, _),  # loopback has many addresses
        asking(authority, database, lookup=elsewhere) as asker,
    ):
        begin_request("198.51.100.0/24")
        floods = [
            asyncio.create_task(asker.keys.find(f"n{number}.example{number}:{port}", "ed25519:a"))
            for number in range(1, 201)
        ]
        while asker.keys.fetches.waiting < 150:
            await asyncio.sleep(0.01)
        begin_request("203.0.113.0/24")

        assert await asker.keys.find(publisher.name, "ed25519:a") == publisher.key.public_key
        assert asker.keys.fetches.in_use == 50
        for task in floods:
            task.cancel()


async def test_an_address_that_stayed_silent_is_remembered_whatever_name_leads_there(
    authority: Authority, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mediarepo.federation.server_keys._TOTAL_S", 0.2)
    async with silent_server() as (port, accepted), asking(authority, database, lookup=anywhere) as asker:
        assert await asker.refusal(f"a.example:{port}", "ed25519:a") == KeyProblem.TOO_SLOW
        monkeypatch.setattr("mediarepo.federation.server_keys._TOTAL_S", 60.0)
        await accepted.acquire()
        probes = [asyncio.create_task(asker.keys.find(f"{name}.example:{port}", "ed25519:a")) for name in "bc"]
        for _ in probes:
            await accepted.acquire()

        with pytest.raises(LimitExceededError):
            await asker.keys.find(f"d.example:{port}", "ed25519:a")
        for probe in probes:
            probe.cancel()


async def test_an_outage_of_the_database_does_not_matter(authority: Authority, publisher: Publisher) -> None:
    config = {"url": "postgresql://nobody@127.0.0.1:1/none", "connect_timeout_ms": 300, "acquire_timeout_ms": 300}
    async with (
        Database(DatabaseConfig.model_validate(config)) as down,
        asking(authority, down) as asker,
    ):
        assert await asker.keys.find(publisher.name, "ed25519:a") == publisher.key.public_key
        assert await asker.keys.find(publisher.name, "ed25519:a") == publisher.key.public_key
    assert publisher.fetches == 1


async def test_garbage_instead_of_http_is_no_crash(authority: Authority, asker: Asker) -> None:
    async with speaking(authority, saying(b"\x00\xff" * 1000 + b"\r\n\r\n")) as server:
        assert await asker.refusal(f"127.0.0.1:{server.port}", "ed25519:a") == KeyProblem.UNREACHABLE
