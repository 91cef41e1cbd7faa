"""Content of another server's media, as it begins to arrive."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from mediarepo.config.homeservers import HomeserverConfig
from mediarepo.model.mxc import Mxc


class RemoteContent(Protocol):
    """What another server has begun to send.

    `size_bytes` is known for certain or None; `at_most_bytes` is the most it can be, None when nothing was declared.
    """

    content_type: str
    upload_name: str | None
    size_bytes: int | None
    at_most_bytes: int | None

    async def read(self) -> bytes:
        """Wait for the next bytes; empty at the end. FetchError when they stop coming."""
        ...


class Fetcher(Protocol):
    """Asks other servers for their media."""

    def open(
        self, mxc: Mxc, homeserver: HomeserverConfig, *, wait_ms: int
    ) -> AbstractAsyncContextManager[RemoteContent]:
        """Ask for media, signed by one of our homeservers; FetchError when it cannot be had."""
        ...
