"""Errors of outbound requests, their targets and timeouts."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

import aiohttp


class OutboundReason(StrEnum):
    """Why an outbound request failed."""

    FORBIDDEN_ADDRESS = "forbidden_address"
    NAME_NOT_FOUND = "name_not_found"
    UNREACHABLE = "unreachable"
    TLS_FAILED = "tls_failed"
    TOO_SLOW = "too_slow"
    TOO_LARGE = "too_large"
    BROKEN_OFF = "broken_off"
    BAD_URL = "bad_url"
    TOO_MANY_REDIRECTS = "too_many_redirects"
    ENCODED = "encoded"
    NOT_JSON = "not_json"
    NOT_HTTP = "not_http"


class OutboundError(Exception):
    """A request to another server failed; the message is for the operator and names the host."""

    def __init__(self, reason: OutboundReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


_MAX_WORDS_CHARS = 100


@contextmanager
def connection_error_text(host: str) -> Iterator[None]:
    """Translate connection errors, up to the response's headers, into OutboundError."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as exc:
        raise OutboundError(OutboundReason.UNREACHABLE, f"{host} could not be connected to in time") from exc
    except TimeoutError as exc:
        raise OutboundError(OutboundReason.TOO_SLOW, f"{host} did not answer in time") from exc
    except aiohttp.ClientConnectorCertificateError as exc:
        raise OutboundError(
            OutboundReason.TLS_FAILED, f"{host} has an invalid certificate: {exc.certificate_error}"
        ) from exc
    except (aiohttp.ClientSSLError, ssl.SSLError) as exc:
        raise OutboundError(OutboundReason.TLS_FAILED, f"no TLS connection to {host}: {exc}") from exc
    except aiohttp.ClientConnectorError as exc:
        raise OutboundError(OutboundReason.UNREACHABLE, f"{host} cannot be reached: {exc.os_error}") from exc
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError) as exc:
        raise OutboundError(OutboundReason.UNREACHABLE, f"{host} closed the connection") from exc
    except (aiohttp.ClientError, ValueError) as exc:
        raise OutboundError(OutboundReason.NOT_HTTP, f"{host} sends an invalid HTTP response: {_what(exc)}") from exc


def _what(exc: Exception) -> str:
    """Tell what went wrong; aiohttp's own words would tell our headers, signature included."""
    if isinstance(exc, aiohttp.ClientResponseError):
        return exc.message.partition("\n")[0][:_MAX_WORDS_CHARS]
    return type(exc).__name__


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to connect over TLS, and the expected identity.

    `host` is a DNS name or an IP address without brackets; `tls_name` is what the certificate must be for.
    """

    host: str
    port: int
    tls_name: str
    host_header: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Timeouts in ms: to connect, for the headers, between two pieces of the body, and in total."""

    connect_ms: int
    headers_ms: int
    idle_ms: int
    total_ms: int
