"""Server names taken apart (Matrix appendices, "Server Name")."""

import ipaddress
from dataclasses import dataclass

from mediarepo.errors import InvalidParamError
from mediarepo.model.mxc import parse_server_name
from mediarepo.outbound.urls import address_of

DEFAULT_PORT = 8448
_MAX_PORT = 65_535


@dataclass(frozen=True, slots=True)
class ServerName:
    """`host` is a DNS name or an IP address without brackets; `text` is the name as written."""

    text: str
    host: str
    port: int | None

    @property
    def is_address(self) -> bool:
        """Whether the host is an IP address."""
        return address_of(self.host) is not None

    @property
    def bare(self) -> str:
        """The name without its port."""
        return f"[{self.host}]" if ":" in self.host else self.host


def split_server_name(text: str) -> ServerName:
    """Take a server name apart; InvalidParamError when it is none."""
    parse_server_name(text)
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
        _check_ipv6(host)
    else:
        host, _, port = text.partition(":")
    if port and not 1 <= int(port) <= _MAX_PORT:
        raise InvalidParamError("the server name has no valid port")
    return ServerName(text, host, int(port) if port else None)


def _check_ipv6(host: str) -> None:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        raise InvalidParamError("the server name has brackets, but no IPv6 address in them") from None
