"""Which client a request comes from."""

from collections.abc import Sequence
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from mediarepo.config.server import ListenConfig
from mediarepo.web.proxies import TrustedProxies, origin_form


class Transport:
    """A connection from an address."""

    def __init__(self, peer: str) -> None:
        self._peer = peer

    def get_extra_info(self, name: str, default: object = None) -> object:
        return (self._peer, 1234) if name == "peername" else default


def network(forwarded: Sequence[str], peer: str = "127.0.0.1", **config: Any) -> str:
    headers = CIMultiDict([("X-Forwarded-For", line) for line in forwarded])
    request = make_mocked_request("GET", "/", headers=headers, transport=Transport(peer))
    return TrustedProxies(ListenConfig(**config)).client_network(request)


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        ("198.51.100.7", "198.51.100.7/32"),
        ("198.51.100.7:4321", "198.51.100.7/32"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2:3:4:5:6]", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2:3:4:5:6]:4321", "2001:db8:1:2::/64"),
        ("::ffff:198.51.100.7", "198.51.100.7/32"),
        ("[::ffff:198.51.100.7]:80", "198.51.100.7/32"),
        ("203.0.113.1, 198.51.100.7:4321, 127.0.0.1:99", "198.51.100.7/32"),
        ("198.51.100.7, [::1]:5000", "198.51.100.7/32"),
        ("fe80::1%eth0", "fe80::/64"),
        ("198.51.100.7, unknown", "127.0.0.1/32"),
        ("198.51.100.7:port", "127.0.0.1/32"),
        ("", "127.0.0.1/32"),
    ],
)
def test_addresses_are_read_with_and_without_ports(forwarded: str, expected: str) -> None:
    assert network([forwarded]) == expected


def test_several_header_lines_are_one_list() -> None:
    assert network(["203.0.113.1", "198.51.100.7:1"]) == "198.51.100.7/32"


def test_who_is_no_trusted_proxy_speaks_for_nobody() -> None:
    assert network(["198.51.100.7"], peer="203.0.113.9") == "203.0.113.9/32"


def test_addresses_of_one_network_count_together() -> None:
    assert network(["2001:db8:1:2::1"]) == network(["2001:db8:1:2:ffff::2"])
    assert network(["2001:db8:1:2::1"], client_ipv6_prefix=56) == "2001:db8:1::/56"
    assert network(["198.51.100.7"], client_ipv4_prefix=24) == "198.51.100.0/24"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/a%2Fb?c=http://d/", "/a%2Fb?c=http://d/"),
        ("http://media.example:80/a%2Fb?c", "/a%2Fb?c"),
        ("https://media.example", "/"),
        ("http://media.example?c", "/?c"),
    ],
)
def test_the_path_of_a_whole_url_is_kept_as_it_came(target: str, expected: str) -> None:
    assert origin_form(target) == expected
