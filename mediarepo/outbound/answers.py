"""What somebody else's server answers, read within bounds."""

import asyncio
import json
from collections.abc import Mapping

import aiohttp
from aiohttp.http import HttpProcessingError

from mediarepo.outbound.errors import OutboundError, OutboundReason
from mediarepo.outbound.targets import Patience

_MAX_NESTING = 50


class Answer:
    """A status, headers, and a body that is still to be read; `declared_bytes` is its Content-Length."""

    def __init__(self, response: aiohttp.ClientResponse, host: str, *, patience: Patience, until: float) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.url = str(response.url)
        self.declared_bytes = response.content_length
        self._response = response
        self._host = host
        self._idle_s = patience.idle_ms / 1000
        self._until = until

    def check_encoding(self) -> None:
        """Refuse a body that is not sent as it is: OutboundError."""
        encodings = ",".join(self._response.headers.getall("Content-Encoding", []))
        if any(one.strip().lower() not in {"", "identity"} for one in encodings.split(",")):
            raise OutboundError(OutboundReason.ENCODED, f"{self._host} sends a Content-Encoding that nobody asked for")

    async def read(self) -> bytes:
        """Wait for the next bytes; empty at the end."""
        now = asyncio.get_running_loop().time()
        if now >= self._until:  # bytes that are there already would be given without a look at the clock
            raise self._too_slow()
        try:
            async with asyncio.timeout_at(min(now + self._idle_s, self._until)):
                return await self._response.content.readany()
        except TimeoutError as exc:
            raise self._too_slow() from exc
        except (aiohttp.ClientError, HttpProcessingError, OSError) as exc:
            raise OutboundError(OutboundReason.BROKEN_OFF, f"{self._host} broke off its answer") from exc

    def _too_slow(self) -> OutboundError:
        return OutboundError(OutboundReason.TOO_SLOW, f"{self._host} sends its answer too slowly")

    async def read_all(self, max_bytes: int) -> bytes:
        """Read the whole body; OutboundError when it is larger."""
        self._check_size(self.declared_bytes or 0, max_bytes)
        text = bytearray()
        while piece := await self.read():
            text += piece
            self._check_size(len(text), max_bytes)
        return bytes(text)

    def _check_size(self, size_bytes: int, max_bytes: int) -> None:
        if size_bytes > max_bytes:
            raise OutboundError(OutboundReason.TOO_LARGE, f"{self._host} answers more than {max_bytes} bytes")

    async def read_json(self, max_bytes: int) -> dict[str, object]:
        """Read the whole body as a JSON object of bounded depth."""
        text = await self.read_all(max_bytes)
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise OutboundError(OutboundReason.NOT_JSON, f"{self._host} does not answer with JSON") from exc
        if not isinstance(value, dict) or _nesting(value) > _MAX_NESTING:
            raise OutboundError(OutboundReason.NOT_JSON, f"{self._host} does not answer with a plain JSON object")
        return value


def _nesting(value: object) -> int:
    """Count how deep lists and objects lie within each other, without recursion."""
    deepest, open_values = 0, [(value, 1)]
    while open_values:
        found, depth = open_values.pop()
        inner = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
        deepest = max(deepest, depth)
        if depth > _MAX_NESTING:
            break
        open_values += [(one, depth + 1) for one in inner if isinstance(one, dict | list)]
    return deepest
