import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediarepo.outbound.ssrf_guard import AddressPolicy

FORBIDDEN_IPV4 = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
]
FORBIDDEN_IPV6 = [
    "::",
    "::1",
    "::2",
    "100::1",
    "2001::1",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
    "4000::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "febf::1",
    "fec0::1",
    "feff::1",
    "ff00::1",
    "ff02::1",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:4860:4860::8888",
    "2600::1",
    "2a00:1450::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
]
NOTHING_SPECIAL = AddressPolicy(allow=list, deny=list)


def permitted(text: str, *, allow: list[str] | None = None, deny: list[str] | None = None) -> bool:
    return AddressPolicy(allow=lambda: allow or [], deny=lambda: deny or []).permits(ipaddress.ip_address(text))


def hiding(ipv4: str) -> dict[str, str]:
    """Give every IPv6 address that leads to an IPv4 address."""
    number = int(ipaddress.IPv4Address(ipv4))
    high, low = f"{number >> 16:x}", f"{number & 0xFFFF:x}"
    upper, middle, lower = number >> 24, number >> 8 & 0xFFFF, number & 0xFF
    return {
        "mapped": f"::ffff:{ipv4}",
        "compatible": f"::{ipv4}",
        "translated": f"::ffff:0:{ipv4}",
        "6to4": f"2002:{high}:{low}::1",
        "NAT64": f"64:ff9b::{ipv4}",
        "local NAT64, /96": f"64:ff9b:1::{ipv4}",
        "local NAT64, /64": f"64:ff9b:1:0:{upper:x}:{middle:x}:{lower << 8:x}:0",
        "local NAT64, /48": f"64:ff9b:1:{high}:{int(low, 16) >> 8:x}:{(int(low, 16) & 0xFF) << 8:x}::",
        "Teredo server": f"2001:0:{high}:{low}::f7f7:f7f7",
        "Teredo client": f"2001:0:808:808::{int(high, 16) ^ 0xFFFF:x}:{int(low, 16) ^ 0xFFFF:x}",
        "ISATAP": f"2600::5efe:{high}:{low}",
        "ISATAP, global": f"2600::200:5efe:{high}:{low}",
    }


@pytest.mark.parametrize("text", [*FORBIDDEN_IPV4, *FORBIDDEN_IPV6])
def test_what_is_not_public_is_not_connected_to(text: str) -> None:
    assert not permitted(text)


@pytest.mark.parametrize("text", PUBLIC)
def test_what_is_public_is_connected_to(text: str) -> None:
    assert permitted(text)


@pytest.mark.parametrize("ipv4", FORBIDDEN_IPV4)
def test_an_ipv4_address_hidden_in_an_ipv6_address_is_judged(ipv4: str) -> None:
    assert [kind for kind, text in hiding(ipv4).items() if permitted(text)] == []


@pytest.mark.parametrize("kind", [kind for kind in hiding("10.0.0.1") if kind != "mapped"])
def test_allowing_a_gateways_network_allows_nothing_hidden_behind_it(kind: str) -> None:
    assert not permitted(hiding("10.1.2.3")[kind], allow=["::/0"])
    assert permitted(hiding("10.1.2.3")[kind], allow=["::/0", "10.0.0.0/8", "0.0.0.0/8", "1.0.0.0/8", "2.0.0.0/8"])


def test_a_local_nat64_prefix_can_be_allowed_for_public_addresses() -> None:
    assert permitted("64:ff9b:1::8.8.8.8", allow=["64:ff9b:1::/48"])
    assert not permitted("64:ff9b:1::192.168.0.1", allow=["64:ff9b:1::/48"])


@pytest.mark.parametrize("text", ["fe80::1%eth0", "fe80::1%1", "2600::1%eth0", "::1%lo"])
def test_zones_are_never_connected_to(text: str) -> None:
    assert not permitted(text, allow=["::/0", "0.0.0.0/0"])


@pytest.mark.parametrize("text", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "fd00::1", "10.1.2.3"])
def test_exceptions_are_connected_to(text: str) -> None:
    assert permitted(text, allow=["127.0.0.0/8", "::1/128", "fd00::/8", "10.1.0.0/16"])


@pytest.mark.parametrize("text", ["8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1", "2600::1"])
def test_what_is_denied_is_so_even_where_it_is_allowed(text: str) -> None:
    assert not permitted(text, allow=["0.0.0.0/0", "::/0"], deny=["8.8.8.0/24", "2600::/16"])


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6, network="2000::/3") | st.ip_addresses(v=6))
def test_nothing_is_permitted_that_python_takes_for_special(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if NOTHING_SPECIAL.permits(address):
        plain = getattr(address, "ipv4_mapped", None) or address
        assert plain.is_global
        assert not plain.is_multicast
