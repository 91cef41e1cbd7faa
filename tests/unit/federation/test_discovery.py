import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from time import time

import pytest

from mediarepo.config.federation import OutboundConfig
from mediarepo.federation.client import FederationClient
from mediarepo.federation.discovery import Delegation, Discovery, WellKnown
from mediarepo.federation.srv import SrvRecord, order_by_priority
from mediarepo.model.concurrency import SingleFlight
from mediarepo.outbound.client import Outbound
from mediarepo.outbound.errors import OutboundError, OutboundReason
from tests.support.origin import PATIENCE, Authority, Handler, Origin, answering, origin, redirecting

PATH = "/.well-known/matrix/server"
DAY_S = 86_400


@dataclass
class World:
    """A clock that is set by hand, names that all lead to one server, and SRV records."""

    discovery: Discovery
    outbound: Outbound
    server: Origin
    records: dict[str, list[SrvRecord]]
    now_s: float = 1_000.0
    srv_asked: list[str] = field(default_factory=list)
    dns_fails: bool = False

    def delegate(self, text: str, **headers: str) -> None:
        self.server.handlers[PATH] = answering(f'{{"m.server": "{text}"}}', headers=headers)

    async def targets(self, server_name: str) -> list[tuple[str, int, str, str]]:
        return [
            (one.host, one.port, one.tls_name, one.host_header) for one in await self.discovery.targets(server_name)
        ]

    async def srv(self, name: str) -> Sequence[SrvRecord]:
        self.srv_asked.append(name)
        if self.dns_fails:
            raise OSError("DNS does not answer")
        return self.records.get(name, [])


async def _local(host: str) -> Sequence[str]:
    return ["10.0.0.1"] if host == "inside.example" else ["127.0.0.1"]


@asynccontextmanager
async def _world(authority: Authority) -> AsyncIterator[World]:
    config = OutboundConfig(allow_networks=["127.0.0.0/8"], ca_file=str(authority.ca_file))
    async with (
        origin(authority, "a.example", "b.example", "127.0.0.1") as server,
        Outbound(config, lookup=_local) as outbound,
        SingleFlight[Delegation]() as remote_fetches,
    ):
        well_known = WellKnown(
            outbound, remote_fetches, clock_s=lambda: made.now_s, url_of=lambda host: server.url(PATH, host)
        )
        discovery = Discovery(well_known, clock_s=lambda: made.now_s, lookup=lambda name: made.srv(name))  # noqa: PLW0108 - made below
        made = World(discovery, outbound, server, {})
        yield made


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def world(authority: Authority) -> AsyncIterator[World]:
    async with _world(authority) as running:
        yield running


FED, OLD = "_matrix-fed._tcp.", "_matrix._tcp."


def srv(host: str, port: int, priority: int = 0, ttl_s: int = 300) -> SrvRecord:
    return SrvRecord(host, port, priority, 0, ttl_s)


@pytest.mark.parametrize(
    ("server_name", "expected"),
    [
        ("1.2.3.4", ("1.2.3.4", 8448, "1.2.3.4", "1.2.3.4")),
        ("1.2.3.4:5", ("1.2.3.4", 5, "1.2.3.4", "1.2.3.4:5")),
        ("[2600::1]", ("2600::1", 8448, "2600::1", "[2600::1]")),
        ("[2600::1]:5", ("2600::1", 5, "2600::1", "[2600::1]:5")),
        ("a.example:5", ("a.example", 5, "a.example", "a.example:5")),
        ("a.example:443", ("a.example", 443, "a.example", "a.example:443")),
    ],
)
async def test_addresses_and_ports_are_taken_as_they_are(
    world: World, server_name: str, expected: tuple[str, int, str, str]
) -> None:
    world.delegate("other.example")
    world.records = {f"{FED}a.example": [srv("srv.example", 1)]}

    assert await world.targets(server_name) == [expected]
    assert (world.server.requests, world.srv_asked) == ([], [])


@pytest.mark.parametrize(
    ("delegated", "records", "expected"),
    [
        ("1.2.3.4", {}, ("1.2.3.4", 8448, "1.2.3.4", "1.2.3.4")),
        ("1.2.3.4:5", {}, ("1.2.3.4", 5, "1.2.3.4", "1.2.3.4:5")),
        ("[2600::1]", {}, ("2600::1", 8448, "2600::1", "[2600::1]")),
        ("[2600::1]:5", {}, ("2600::1", 5, "2600::1", "[2600::1]:5")),
        ("d.example:5", {f"{FED}d.example": [srv("x.example", 1)]}, ("d.example", 5, "d.example", "d.example:5")),
        ("d.example", {f"{FED}d.example": [srv("x.example", 1)]}, ("x.example", 1, "d.example", "d.example")),
        ("d.example", {f"{OLD}d.example": [srv("x.example", 1)]}, ("x.example", 1, "d.example", "d.example")),
        (
            "d.example",
            {f"{OLD}d.example": [srv("o.example", 1)], f"{FED}d.example": [srv("n.example", 2)]},
            ("n.example", 2, "d.example", "d.example"),
        ),
        ("d.example", {}, ("d.example", 8448, "d.example", "d.example")),
        ("d.example", {f"{FED}a.example": [srv("x.example", 1)]}, ("d.example", 8448, "d.example", "d.example")),
    ],
)
async def test_delegations_are_followed_once(
    world: World, delegated: str, records: dict[str, list[SrvRecord]], expected: tuple[str, int, str, str]
) -> None:
    world.delegate(delegated)
    world.records = records

    assert await world.targets("a.example") == [expected]
    assert world.server.asked() == [PATH]


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ({f"{FED}a.example": [srv("x.example", 1)]}, ("x.example", 1, "a.example", "a.example")),
        ({f"{OLD}a.example": [srv("x.example", 1)]}, ("x.example", 1, "a.example", "a.example")),
        ({}, ("a.example", 8448, "a.example", "a.example")),
    ],
)
async def test_without_a_delegation_the_name_itself_leads_on(
    world: World, records: dict[str, list[SrvRecord]], expected: tuple[str, int, str, str]
) -> None:
    world.records = records

    assert await world.targets("a.example") == [expected]


@pytest.mark.parametrize(
    "handler",
    [
        answering(b"", status=500),
        answering(b'{"m.server": "d.example"}', status=404),
        answering(b"<html>"),
        answering(b"[]"),
        answering(b"{}"),
        answering(b'{"m.server": 1}'),
        answering(b'{"m.server": ""}'),
        answering(b'{"m.server": "d.example/x"}'),
        answering(b'{"m.server": "d.example:0"}'),
        answering(b'{"m.server": "d.example:99999"}'),
        answering(b'{"m.server": "[1.2.3.4]"}'),
        answering(b'{"m.server": "[:::::]"}'),
        answering(b'{"m.server": "https://d.example"}'),
        answering(b'{"m.server": "d.example", "a": "' + b"x" * 51_200 + b'"}'),
        answering(b'{"m.server": "d.example"}', headers={"Content-Encoding": "gzip"}),
        redirecting(PATH),
        redirecting("https://inside.example/"),
        redirecting("https://169.254.169.254/"),
        redirecting("http://a.example/"),
        redirecting("//[::1"),
    ],
)
async def test_a_delegation_that_is_none_is_as_good_as_no_answer(world: World, handler: Handler) -> None:
    world.server.handlers[PATH] = handler

    assert await world.targets("a.example") == [("a.example", 8448, "a.example", "a.example")]


async def test_redirects_of_a_delegation_are_followed_and_types_ignored(world: World) -> None:
    world.server.handlers[PATH] = redirecting("/there")
    world.server.handlers["/there"] = answering(b'{"m.server": "d.example:1"}', headers={"Content-Type": "image/png"})

    assert await world.targets("a.example") == [("d.example", 1, "d.example", "d.example:1")]


@pytest.mark.parametrize(
    ("headers", "good_s"),
    [
        ({"Cache-Control": "public, max-age=7200"}, 7200),
        ({"Cache-Control": 'MAX-AGE="7200"'}, 7200),
        ({"Cache-Control": "max-age=1"}, 300),
        ({"Cache-Control": "no-store"}, 300),
        ({"Cache-Control": "max-age=999999999999"}, 2 * DAY_S),
        ({"Expires": "in two hours"}, 7200),
        ({"Expires": "Thu, 01 Jan 1970 00:00:00 GMT"}, 300),
        ({"Expires": "0"}, DAY_S),
        ({"Cache-Control": "s-maxage=5", "Expires": "soon"}, DAY_S),
        ({}, DAY_S),
    ],
)
async def test_delegations_are_remembered_as_long_as_they_say(
    world: World, headers: dict[str, str], good_s: int
) -> None:
    if headers.get("Expires") == "in two hours":
        headers = {"Expires": formatdate(time() + 7200, usegmt=True)}
    world.delegate("d.example:1", **headers)
    await world.targets("a.example")
    world.delegate("e.example:1")

    world.now_s += good_s * 0.89
    before = await world.targets("a.example")
    world.now_s += good_s * 0.12
    after = await world.targets("a.example")

    assert (before[0][0], after[0][0]) == ("d.example", "e.example")


async def test_a_delegation_outlives_an_outage_but_not_for_ever(world: World) -> None:
    world.delegate("d.example:1", **{"Cache-Control": "max-age=600"})
    await world.targets("a.example")
    world.server.handlers[PATH] = answering(b"", status=503)

    world.now_s += 700
    during = await world.targets("a.example")
    world.now_s += 3 * DAY_S
    after = await world.targets("a.example")

    assert (during[0][0], after[0][0]) == ("d.example", "a.example")


async def test_a_delegation_that_is_withdrawn_is_forgotten(world: World) -> None:
    world.delegate("d.example:1", **{"Cache-Control": "max-age=600"})
    await world.targets("a.example")
    del world.server.handlers[PATH]

    world.now_s += 700

    assert await world.targets("a.example") == [("a.example", 8448, "a.example", "a.example")]


async def test_outages_are_asked_about_ever_more_rarely_and_at_least_hourly(world: World) -> None:
    world.server.handlers[PATH] = answering(b"", status=503)
    pauses, last = [], world.now_s
    for _ in range(60 * 6):
        asked = len(world.server.requests)
        await world.targets("a.example")
        if len(world.server.requests) > asked:
            pauses.append(world.now_s - last)
            last = world.now_s
        world.now_s += 60

    assert pauses[1:6] == sorted(pauses[1:6])
    assert pauses[1] == 60
    assert 3_200 < pauses[-1] <= 3_600

    world.delegate("d.example:1")
    world.now_s += 3_600
    assert (await world.targets("a.example"))[0][0] == "d.example"


async def test_refusals_are_remembered_for_an_hour_at_most(world: World) -> None:
    await world.targets("a.example")
    world.now_s += 3000
    await world.targets("a.example")
    assert len(world.server.requests) == 1

    world.now_s += 700
    await world.targets("a.example")
    assert len(world.server.requests) == 2


async def test_srv_records_are_remembered_as_long_as_they_say(world: World) -> None:
    world.delegate("d.example")
    world.records = {f"{FED}d.example": [srv("x.example", 1, ttl_s=1000), srv("y.example", 1, 1, ttl_s=2000)]}
    for _ in range(3):
        assert [one[0] for one in await world.targets("a.example")] == ["x.example", "y.example"]
    assert world.srv_asked == [f"{FED}d.example"]

    world.now_s += 1001
    world.records = {f"{FED}d.example": [srv("z.example", 1)]}
    assert [one[0] for one in await world.targets("a.example")] == ["z.example"]


async def test_srv_records_outlive_an_outage_of_dns(world: World) -> None:
    world.delegate("d.example")
    world.records = {f"{FED}d.example": [srv("x.example", 1)]}
    await world.targets("a.example")

    world.now_s += 400
    world.dns_fails = True

    assert [one[0] for one in await world.targets("a.example")] == ["x.example"]


async def test_an_outage_of_dns_is_not_remembered_for_long(world: World) -> None:
    world.delegate("d.example")
    world.dns_fails = True
    assert await world.targets("a.example") == [("d.example", 8448, "d.example", "d.example")]

    world.dns_fails = False
    world.records = {f"{FED}d.example": [srv("x.example", 1)]}
    world.now_s += 61

    assert [one[0] for one in await world.targets("a.example")] == ["x.example"]


async def test_a_service_that_is_expressly_not_there_is_said_so(world: World) -> None:
    world.records = {f"{FED}a.example": [srv("", 0)]}

    with pytest.raises(OutboundError, match="no such service"):
        await world.targets("a.example")


@pytest.mark.parametrize("server_name", ["", "a.example/x", "a.example:0", "a b", "[::1", "[1.2.3.4]", "[x]", "\u00e4"])
async def test_what_is_no_server_name_is_refused(world: World, server_name: str) -> None:
    with pytest.raises(OutboundError) as caught:
        await world.targets(server_name)
    assert caught.value.reason == OutboundReason.BAD_URL


@pytest.mark.parametrize("server_name", ["127.1", "0x7f000001", "2130706433", "a..example", "300.1.1.1"])
async def test_names_that_could_be_taken_for_addresses_lead_nowhere(world: World, server_name: str) -> None:
    client = FederationClient(discovery=world.discovery, outbound=world.outbound)

    with pytest.raises(OutboundError) as caught:
        async with client.open(server_name, "/", headers={}, timeouts=PATIENCE):
            pass
    assert caught.value.reason == OutboundReason.BAD_URL
    assert world.server.requests == []


async def test_the_way_is_told_step_by_step(world: World) -> None:
    world.delegate("d.example")
    world.records = {f"{OLD}d.example": [srv("x.example", 1)]}

    steps = (await world.discovery.find("a.example")).steps

    assert steps == [
        f"{world.server.url(PATH, 'a.example')} delegates to d.example",
        f"{OLD}d.example points to x.example:1",
    ]


async def test_what_was_remembered_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mediarepo.federation.discovery._MAX_ENTRIES", 2)
    monkeypatch.setattr("mediarepo.federation.discovery._MAX_ENTRIES", 2)
    for number in range(5):
        await world.targets(f"{number}.a.example")

    assert len(world.discovery._records) == 2
    assert len(world.discovery._well_known._known) == 2


async def test_the_next_place_is_tried_while_connecting_fails(world: World) -> None:
    world.server.handlers["/x"] = answering(b"here")
    world.records = {
        f"{FED}a.example": [
            srv("inside.example", world.server.port, 0),
            srv("127.1", world.server.port, 1),
            srv("b.example", 1, 2),
            srv("b.example", world.server.port, 3),
        ]
    }
    client = FederationClient(discovery=world.discovery, outbound=world.outbound)

    async with client.open("a.example", "/x", headers={}, timeouts=PATIENCE) as answer:
        assert await answer.read_all(10) == b"here"
    assert world.server.requests[-1].host == "a.example"


async def test_who_refuses_is_not_asked_elsewhere(world: World) -> None:
    world.records = {
        f"{FED}a.example": [srv("b.example", world.server.port, 0), srv("a.example", world.server.port, 1)]
    }
    client = FederationClient(discovery=world.discovery, outbound=world.outbound)

    async with client.open("a.example", "/x", headers={}, timeouts=PATIENCE) as answer:
        assert answer.status == 404
    assert world.server.asked().count("/x") == 1


async def test_when_nobody_can_be_reached_the_last_one_is_named(world: World) -> None:
    world.records = {f"{FED}a.example": [srv("b.example", 1, 0), srv("inside.example", 1, 1)]}
    client = FederationClient(discovery=world.discovery, outbound=world.outbound)

    with pytest.raises(OutboundError, match=r"inside\.example") as caught:
        async with client.open("a.example", "/x", headers={}, timeouts=PATIENCE):
            pass
    assert caught.value.reason == OutboundReason.FORBIDDEN_ADDRESS


def test_srv_records_come_by_priority_and_heavier_ones_rather_first() -> None:
    random.seed(1)
    records = [SrvRecord("late", 1, 2, 100), SrvRecord("heavy", 1, 1, 90), SrvRecord("light", 1, 1, 10)]

    orders = [[one.host for one in order_by_priority(records)] for _ in range(1000)]

    assert {order[2] for order in orders} == {"late"}
    assert 850 < sum(order[0] == "heavy" for order in orders) < 950
