"""A web server that answers with the very bytes that a test gives it, and ends every connection."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

FALLBACK = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


@dataclass
class RawSite:
    """Answers by request target: each list's next bytes, its last ones for ever; `asked` are whole request heads."""

    url: str = ""
    answers: dict[str, list[bytes]] = field(default_factory=dict)
    asked: list[bytes] = field(default_factory=list)
    holds: bool = False
    """Whether connections are left open after the answer."""

    @property
    def targets(self) -> list[str]:
        return [head.split(b" ")[1].decode("latin-1") for head in self.asked]

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.asked.append(head)
            answers = self.answers.get(self.targets[-1], [FALLBACK])
            writer.write(answers.pop(0) if len(answers) > 1 else answers[0])
            await writer.drain()
            if self.holds:
                await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def raw_site(tls: ssl.SSLContext | None = None, *, host: str = "127.0.0.1") -> AsyncIterator[RawSite]:
    """Run one; `host` is how its URL names it."""
    site = RawSite()
    server = await asyncio.start_server(site.connected, "127.0.0.1", 0, ssl=tls, limit=2**20)
    site.url = f"{'https' if tls else 'http'}://{host}:{server.sockets[0].getsockname()[1]}"
    try:
        yield site
    finally:
        server.close()


def answer(*headers: str | bytes, body: bytes = b"", first: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """Spell an answer; nothing is added but line ends."""
    lines = [line if isinstance(line, bytes) else line.encode() for line in headers]
    return b"\r\n".join([first, *lines, b"", body])
