"""A door before a real S3 server: it streams both ways, names each operation, and spoils what it is told to."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from tests.support.barrier import Barrier
from tests.support.ports import free_port, release_port
from tests.support.s3_operations import Seen, operation_of

ANY = "*"
_KEPT_BYTES = 65_536
_CHUNK_BYTES = 65_536
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "te", "upgrade"}


Step = Callable[["S3Wire", Seen, web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class _Plan:
    op: str
    step: Step
    times: int


@dataclass(frozen=True, slots=True)
class _Hold:
    op: str
    after: bool
    barrier: Barrier


class S3Wire:
    """Forwards to the server at `server_url`; what clients sign for `endpoint_url` stays valid, Host included."""

    def __init__(self, server_url: str) -> None:
        self.endpoint_url = ""
        self.seen: list[Seen] = []
        self.server_url = server_url
        self._plans: list[_Plan] = []
        self._holds: list[_Hold] = []
        self._port = free_port()

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        timeout = aiohttp.ClientTimeout(total=None)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False, timeout=timeout)
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        await self._session.close()
        release_port(self._port)

    async def start(self) -> None:
        """Listen, at the same address as before a stop."""
        self._runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()
        self.endpoint_url = f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        """Refuse connections from now on, and drop those there are."""
        for hold in self._holds:
            hold.barrier.release()
        await self._runner.cleanup()

    @property
    def ops(self) -> list[str]:
        """The operations so far, in order of arrival."""
        return [one.op for one in self.seen]

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.ops)

    def of(self, op: str) -> list[Seen]:
        return [one for one in self.seen if op in {one.op, ANY}]

    def clear(self) -> None:
        """Forget requests and plans."""
        self.seen.clear()
        self._plans.clear()

    def do_next(self, op: str, step: Step, *, times: int = 1) -> None:
        """Follow a step instead of forwarding, the next few times."""
        self._plans.append(_Plan(op, step, times))

    def fail_next(
        self, op: str, *, status: int = 500, code: str = "InternalError", times: int = 1, forward: bool = False
    ) -> None:
        """Answer with an error (with status 200: one in the body), the server unasked, or asked and not heard."""

        async def step(wire: "S3Wire", seen: Seen, request: web.BaseRequest) -> web.StreamResponse:
            if forward:
                async with wire.asked(seen, request) as answer:
                    await answer.read()
            seen.status = status
            xml = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>no</Message></Error>"
            return web.Response(status=status, body=xml.encode(), content_type="application/xml")

        self.do_next(op, step, times=times)

    def drop_next(self, op: str, *, times: int = 1, after_bytes: int | None = None) -> None:
        """Reset the connection, the server unasked: at once, or when so much of the request has come."""

        async def step(_: "S3Wire", seen: Seen, request: web.BaseRequest) -> web.StreamResponse:
            while after_bytes is not None and seen.received_bytes < after_bytes:
                chunk = await request.content.readany()
                if not chunk:
                    break
                seen.received_bytes += len(chunk)
            return reset(request)

        self.do_next(op, step, times=times)

    def lose_answer(self, op: str, *, times: int = 1) -> None:
        """Let the server do it, and reset the connection instead of answering."""

        async def step(wire: "S3Wire", seen: Seen, request: web.BaseRequest) -> web.StreamResponse:
            async with wire.asked(seen, request) as answer:
                await answer.read()
            return reset(request)

        self.do_next(op, step, times=times)

    def cut_answer(self, op: str, *, after_bytes: int, times: int = 1) -> None:
        """Reset the connection when so much of the answer's body has gone out."""

        async def step(wire: "S3Wire", seen: Seen, request: web.BaseRequest) -> web.StreamResponse:
            return await wire.forwarded(seen, request, at_most_bytes=after_bytes)

        self.do_next(op, step, times=times)

    @asynccontextmanager
    async def holding(self, op: str, *, after: bool = False) -> AsyncIterator[Barrier]:
        """Hold requests before they reach the server, or with `after` when it has answered."""
        hold = _Hold(op, after, Barrier())
        self._holds.append(hold)
        try:
            yield hold.barrier
        finally:
            hold.barrier.release()
            self._holds.remove(hold)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path, query = request.rel_url.path, dict(request.rel_url.query)
        op = operation_of(request.method, path, query, request.headers)
        seen = Seen(op, request.method, path, query, request.headers)
        self.seen.append(seen)
        await self._wait(op, after=False)
        try:
            await _welcome(request)
            return await self._next_step(op)(self, seen, request)
        except (aiohttp.ClientError, ConnectionError):
            return reset(request)

    def _next_step(self, op: str) -> Step:
        for plan in self._plans:
            if plan.op in {op, ANY}:
                plan.times -= 1
                if not plan.times:
                    self._plans.remove(plan)
                return plan.step
        return S3Wire.forwarded

    async def _wait(self, op: str, *, after: bool) -> None:
        for hold in [one for one in self._holds if one.op in {op, ANY} and one.after == after]:
            await hold.barrier.wait()

    @asynccontextmanager
    async def asked(self, seen: Seen, request: web.BaseRequest) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask the server; leave once it has begun to answer and nobody holds the answer."""
        headers = CIMultiDict((name, value) for name, value in request.headers.items() if _goes_on(name))
        async with self._session.request(
            request.method,
            URL(self.server_url + request.raw_path, encoded=True),
            headers=headers,
            data=_counted(seen, request) if request.body_exists else None,
            skip_auto_headers={"Accept", "Accept-Encoding", "User-Agent", "Content-Type"},
            allow_redirects=False,
        ) as answer:
            await self._wait(seen.op, after=True)
            seen.status = answer.status
            yield answer

    async def forwarded(
        self, seen: Seen, request: web.BaseRequest, *, at_most_bytes: int | None = None
    ) -> web.StreamResponse:
        async with self.asked(seen, request) as answer:
            headers = CIMultiDict((name, value) for name, value in answer.headers.items() if _goes_on(name))
            response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
            await response.prepare(request)
            async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
                left = len(chunk) if at_most_bytes is None else at_most_bytes - seen.sent_bytes
                await response.write(chunk[:left])
                seen.sent_bytes += len(chunk[:left])
                if left < len(chunk):
                    return await _reset_when_sent(request, response)
            await response.write_eof()
            return response


async def _welcome(request: web.BaseRequest) -> None:
    """Ask for the body, for which clients of S3 wait."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


async def _counted(seen: Seen, request: web.BaseRequest) -> AsyncIterator[bytes]:
    async for chunk in request.content.iter_any():
        seen.received_bytes += len(chunk)
        seen.body += chunk[: _KEPT_BYTES - len(seen.body)]
        yield chunk


def _goes_on(name: str) -> bool:
    return name.lower() not in _HOP_BY_HOP


def reset(request: web.BaseRequest) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=503)


async def _reset_when_sent(request: web.BaseRequest, response: web.StreamResponse) -> web.StreamResponse:
    transport = request.transport
    while transport is not None and not transport.is_closing() and transport.get_write_buffer_size():
        await asyncio.sleep(0.001)
    reset(request)
    return response
