import asyncio
from collections.abc import AsyncIterator
from typing import cast

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from mediarepo.federation.srv import SrvRecord, lookup_srv, srv_lifetime_s

NAME = "_matrix-fed._tcp.a.example"


class Dns(asyncio.DatagramProtocol):
    """A name server that answers with these records, or with this code, or not at all."""

    def __init__(self) -> None:
        self.records: list[str] = []
        self.rcode: dns.rcode.Rcode | None = dns.rcode.NOERROR
        self.ttl_s = 1_000
        self.asked: list[str] = []
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        self.asked.append(query.question[0].to_text())
        if self.rcode is None:
            return
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        answer.set_rcode(self.rcode)
        if self.records:
            name = query.question[0].name
            answer.answer.append(dns.rrset.from_text_list(name, self.ttl_s, "IN", "SRV", self.records))
        assert self._transport is not None
        self._transport.sendto(answer.to_wire(), addr)


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Dns]:
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(Dns, ("127.0.0.1", 0))
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = ["127.0.0.1"]
    resolver.port = transport.get_extra_info("sockname")[1]
    monkeypatch.setattr(dns.asyncresolver, "default_resolver", resolver)
    monkeypatch.setattr("mediarepo.federation.srv._LIFETIME_S", 0.3)
    yield server
    transport.close()


async def test_records_are_read_with_the_time_they_are_good(server: Dns) -> None:
    server.records = ["10 5 8448 matrix.a.example.", "20 0 443 b.example."]

    found = await lookup_srv(NAME)

    assert sorted(found, key=lambda one: one.priority) == [
        SrvRecord("matrix.a.example", 8448, 10, 5, 1_000),
        SrvRecord("b.example", 443, 20, 0, 1_000),
    ]
    assert server.asked == [f"{NAME}. IN SRV"]


async def test_a_dot_is_an_empty_host(server: Dns) -> None:
    server.records = ["0 0 0 ."]

    assert [one.host for one in await lookup_srv(NAME)] == [""]


@pytest.mark.parametrize("rcode", [dns.rcode.NOERROR, dns.rcode.NXDOMAIN])
async def test_no_records_are_no_failure(server: Dns, rcode: dns.rcode.Rcode) -> None:
    server.rcode = rcode

    assert await lookup_srv(NAME) == []


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, None])
async def test_an_outage_is_a_failure(server: Dns, rcode: dns.rcode.Rcode | None) -> None:
    server.rcode = rcode

    with pytest.raises(OSError, match="cannot be looked up"):
        await lookup_srv(NAME)
    assert server.asked


@pytest.mark.parametrize("name", ["_matrix-fed._tcp.a..example", f"_matrix-fed._tcp.{'a' * 64}.example"])
async def test_names_that_dns_cannot_have_are_failures(server: Dns, name: str) -> None:
    with pytest.raises(OSError, match="cannot be looked up"):
        await lookup_srv(name)
    assert server.asked == []


@pytest.mark.parametrize(("ttl_s", "expected"), [(0, 60), (61, 61), (3_600, 3_600), (999_999, 3_600)])
def test_records_are_kept_within_bounds(ttl_s: int, expected: int) -> None:
    assert srv_lifetime_s([SrvRecord("a.example", 1, 0, 0, ttl_s), SrvRecord("b.example", 1, 0, 0, 10**6)]) == expected
