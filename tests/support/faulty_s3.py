"""A door before a real S3 server: it records every request, and spoils answers as told."""

import asyncio
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from tests.support.ports import free_port, release_port


@dataclass(frozen=True, slots=True)
class Seen:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes = field(repr=False)
    head: bytes = field(repr=False)


Step = Callable[["FaultyS3", Seen, asyncio.StreamWriter], Awaitable[bool]]
"""Answers one request; True: the connection stays open."""


def reply(status: int, body: bytes = b"", *, headers: str = "") -> Step:
    """Answer in the server's place."""

    async def step(_: "FaultyS3", __: Seen, client: asyncio.StreamWriter) -> bool:
        client.write(f"HTTP/1.1 {status} Said\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body)
        return True

    return step


async def hang_up(_: "FaultyS3", __: Seen, ___: asyncio.StreamWriter) -> bool:
    """Close the connection, the server unasked."""
    return False


async def forward(faulty: "FaultyS3", seen: Seen, client: asyncio.StreamWriter) -> bool:
    """Let the server answer."""
    client.write(await faulty.ask_server(seen))
    return False


async def lose_answer(faulty: "FaultyS3", seen: Seen, _: asyncio.StreamWriter) -> bool:
    """Let the server do it, and close the connection instead of answering."""
    await faulty.ask_server(seen)
    return False


async def stay_silent(faulty: "FaultyS3", _: Seen, __: asyncio.StreamWriter) -> bool:
    """Never answer."""
    await faulty.closing.wait()
    return False


async def answer_without_a_length(_: "FaultyS3", __: Seen, client: asyncio.StreamWriter) -> bool:
    """Answer without a length, as old servers do, and close."""
    client.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc")
    return False


def without_length(*, chunked: bool, more: bytes = b"", fewer: int = 0) -> Step:
    """Send the server's answer without its Content-Length, in chunks or up to the end of the connection."""

    async def step(faulty: "FaultyS3", seen: Seen, client: asyncio.StreamWriter) -> bool:
        head, _, body = (await faulty.ask_server(seen)).partition(b"\r\n\r\n")
        lines = [
            line for line in head.split(b"\r\n") if not line.lower().startswith((b"content-length", b"connection"))
        ]
        body = body[: len(body) - fewer] + more
        if chunked:
            lines.append(b"Transfer-Encoding: chunked")
            half = len(body) // 2
            pieces = [piece for piece in (body[:half], body[half:]) if piece]
            body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        client.write(b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n" + body)
        return False

    return step


def truncate(body_bytes: int) -> Step:
    """Send the server's head and only so much of its body."""

    async def step(faulty: "FaultyS3", seen: Seen, client: asyncio.StreamWriter) -> bool:
        head, _, body = (await faulty.ask_server(seen)).partition(b"\r\n\r\n")
        client.write(head + b"\r\n\r\n" + body[:body_bytes])
        return False

    return step


def stall(body_bytes: int) -> Step:
    """Send the server's head and so much of its body, then nothing more."""

    async def step(faulty: "FaultyS3", seen: Seen, client: asyncio.StreamWriter) -> bool:
        head, _, body = (await faulty.ask_server(seen)).partition(b"\r\n\r\n")
        client.write(head + b"\r\n\r\n" + body[:body_bytes])
        await faulty.closing.wait()
        return False

    return step


class FaultyS3:
    """Follows its plan, one step a request; forwards when the plan is used up."""

    def __init__(self, server_url: str, *, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        server = urlsplit(server_url)
        self._server = (server.hostname, server.port)
        self._plan: deque[Step] = deque()
        self._plans_for: list[tuple[str, str, Step]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.seen: list[Seen] = []
        self.connections = 0
        self.hung_up_on = 0
        self.closing = asyncio.Event()
        self.endpoint_url = ""

    def plan(self, *steps: Step) -> None:
        self._plan.extend(steps)

    def clear_plan(self) -> None:
        self._plan.clear()

    def plan_for(self, method: str, within_target: str, step: Step) -> None:
        """Follow a step at the next request of a kind, whatever comes before it."""
        self._plans_for.append((method, within_target, step))

    def _next_step(self, seen: Seen) -> Step:
        for plan in self._plans_for:
            if plan[0] == seen.method and plan[1] in seen.target:
                self._plans_for.remove(plan)
                return plan[2]
        return self._plan.popleft() if self._plan else forward

    async def __aenter__(self) -> Self:
        self.port = free_port()
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", self.port, ssl=self._tls)
        scheme = "https" if self._tls else "http"
        self.endpoint_url = f"{scheme}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.closing.set()
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        release_port(self.port)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        self.connections += 1
        try:
            while seen := await _read_request(reader):
                self.seen.append(seen)
                if not await self._next_step(seen)(self, seen, writer):
                    break
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.hung_up_on += 1
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def ask_server(self, seen: Seen) -> bytes:
        reader, writer = await asyncio.open_connection(*self._server)
        try:
            first, rest = seen.head.split(b"\r\n", 1)
            writer.write(first + b"\r\nConnection: close\r\n" + rest + seen.body)
            return await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()


async def _read_request(reader: asyncio.StreamReader) -> Seen | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as exc:
        if exc.partial:
            raise
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Seen(method, target, headers, body, head)
