"""An object whose bytes are on their way."""

from collections.abc import Awaitable

import aiohttp

from mediarepo.model.sinks import Sink
from mediarepo.storage.errors import StorageUnavailableError
from mediarepo.storage.explain import Place, error_of_failure


class StoredObject:
    """What S3 has begun to send: `size_bytes` bytes, of the span asked for or of the whole object.

    S3 may leave out the length (a chunked answer); then the bytes are counted: fewer or more of them are an error.
    """

    __slots__ = ("_left", "_place", "_response", "size_bytes")

    def __init__(self, response: aiohttp.ClientResponse, place: Place, *, size_bytes: int) -> None:
        self._response = response
        self._place = place
        self._left = size_bytes
        self.size_bytes = size_bytes

    async def send_to(self, sink: Sink) -> None:
        """Push every byte; the sink's own errors pass unchanged.

        Raises StorageUnavailableError when S3 stops before `size_bytes`; what came until then has been pushed.
        """
        while data := await self._next():
            await sink.write(data)

    async def read(self) -> bytes:
        """Take everything into memory; for small objects."""
        pieces = []
        while data := await self._next():
            pieces.append(data)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _next(self) -> bytes:
        try:
            data = await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as exc:
            raise error_of_failure(exc, self._place) from exc
        self._left -= len(data)
        if self._left < 0 or (self._left and not data):
            raise StorageUnavailableError(
                f"{self._place.endpoint_url} sent {'more' if self._left < 0 else 'fewer'} bytes than it should have",
                transient=True,
            )
        return data


class Opening:
    """An object that is being asked for; a context of its own, since a generator's costs each download a tenth."""

    __slots__ = ("_answer", "_response")

    def __init__(self, answer: Awaitable[tuple[aiohttp.ClientResponse, StoredObject]]) -> None:
        self._answer = answer

    async def __aenter__(self) -> StoredObject:
        self._response, stored = await self._answer
        return stored

    async def __aexit__(self, *_: object) -> None:
        self._response.close()
