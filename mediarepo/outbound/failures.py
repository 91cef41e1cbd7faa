"""From a failed connection to words."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp

from mediarepo.outbound.errors import OutboundError, OutboundReason

_MAX_WORDS_CHARS = 100


@contextmanager
def explained(host: str) -> Iterator[None]:
    """Turn what can go wrong up to an answer's head into OutboundError."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as exc:
        raise OutboundError(OutboundReason.UNREACHABLE, f"{host} cannot be connected to in time") from exc
    except TimeoutError as exc:
        raise OutboundError(OutboundReason.TOO_SLOW, f"{host} did not answer in time") from exc
    except aiohttp.ClientConnectorCertificateError as exc:
        raise OutboundError(
            OutboundReason.TLS_FAILED, f"{host} is not who it should be: {exc.certificate_error}"
        ) from exc
    except (aiohttp.ClientSSLError, ssl.SSLError) as exc:
        raise OutboundError(OutboundReason.TLS_FAILED, f"no TLS connection to {host}: {exc}") from exc
    except aiohttp.ClientConnectorError as exc:
        raise OutboundError(OutboundReason.UNREACHABLE, f"{host} cannot be reached: {exc.os_error}") from exc
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError) as exc:
        raise OutboundError(OutboundReason.UNREACHABLE, f"{host} closed the connection") from exc
    except (aiohttp.ClientError, ValueError) as exc:
        raise OutboundError(OutboundReason.NOT_HTTP, f"{host} does not answer as HTTP should: {_what(exc)}") from exc


def _what(exc: Exception) -> str:
    """Tell what went wrong; aiohttp's own words would tell our headers, signature included."""
    if isinstance(exc, aiohttp.ClientResponseError):
        return exc.message.partition("\n")[0][:_MAX_WORDS_CHARS]
    return type(exc).__name__
