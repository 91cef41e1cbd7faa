"""What the S3 client asks of the HTTP client that transfers bytes; two of them fit: our own, and aiohttp's."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

import aiohttp

TRANSPORT_ERRORS = (aiohttp.ClientError, OSError)
"""What a transport raises: that no answer came, or none that can be read. TimeoutError is one of them."""


class ConnectTimeoutError(TimeoutError):
    """No connection came about in time, or none was free."""


class TruncatedResponseError(ConnectionError):
    """The connection ended within the body."""


class MalformedResponseError(ConnectionError):
    """What came is no answer in HTTP."""


class Body:
    """A request's body of known size; raises ValueError when the chunks do not add up to it."""

    __slots__ = ("chunks", "size_bytes")

    def __init__(self, chunks: Sequence[bytes | memoryview], *, size_bytes: int) -> None:
        if sum(map(len, chunks)) != size_bytes:
            raise ValueError("the chunks do not add up to size_bytes")
        self.chunks = chunks
        self.size_bytes = size_bytes


class Response(Protocol):
    """An answer whose head has come; `content_length` is None when the server does not tell it."""

    @property
    def status(self) -> int:
        """The status code."""
        ...

    @property
    def content_length(self) -> int | None:
        """The length of the body in bytes, as the server announces it."""
        ...

    @property
    def resumable(self) -> bool:
        """Whether all bytes that were taken are certain to be the body's, so that a rest can be put to them.

        Not so within a chunk, whose length may turn out to be wrong (RFC 9112, 7.1).
        """
        ...

    def header(self, name: str) -> str | None:
        """Return a header's value; `name` is lower-case."""
        ...

    async def readany(self) -> bytes:
        """Wait for the next bytes of the body; empty at its end. Raises one of TRANSPORT_ERRORS."""
        ...

    def close(self) -> None:
        """Give the connection back, to be used again if the whole answer has come; may be called again."""
        ...


class Transport(Protocol):
    """Sends requests to one server over connections that are kept open; open it before use, with `async with`."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    @property
    def in_use(self) -> int:
        """How many connections serve a request."""
        ...

    async def send(self, method: str, target: str, headers: Mapping[str, str], body: Body | None = None) -> Response:
        """Send a request whose `target` is path and query, encoded; gives the answer, which is the caller's to close.

        `headers` are whole but for Content-Length. Raises one of TRANSPORT_ERRORS.
        """
        ...
