"""HTTP spoken by hand, for what no client library would send."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass
class RawAnswer:
    """What came back: all informational statuses, then the final response."""

    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def status(self) -> int:
        return self.statuses[-1]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class RawConnection:
    """One connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator["RawConnection"]:
        parts = urlsplit(url)
        connection = cls(*await asyncio.open_connection(parts.hostname, parts.port))
        try:
            yield connection
        finally:
            await connection.close()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, *, informational: bool = False) -> RawAnswer:
        """Read one response; with `informational`, stop after a 1xx."""
        answer = RawAnswer()
        async with asyncio.timeout(30):
            while True:
                head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.split("\r\n")
                answer.statuses.append(int(first.split(" ")[1]))
                answer.headers = {
                    name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
                }
                if answer.status >= 200 or informational:
                    break
            length = int(answer.headers.get("content-length", 0)) if answer.status >= 200 else 0
            answer.body = await self.reader.readexactly(length)
        return answer

    def abort(self) -> None:
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            return


async def ask_raw(url: str, request: bytes) -> RawAnswer:
    """Send one request as it is and read the answer."""
    async with RawConnection.open(url) as connection:
        await connection.send(request)
        return await connection.answer()
