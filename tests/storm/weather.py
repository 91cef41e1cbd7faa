"""The door before the S3 server, and the weather in it."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable

from aiohttp import web

from tests.support.s3_operations import Seen
from tests.support.s3_wire import S3Wire, Step, reset

_WRITES = {
    "PutObject",
    "UploadPart",
    "CreateMultipartUpload",
    "CompleteMultipartUpload",
    "CopyObject",
    "UploadPartCopy",
    "DeleteObjects",
    "DeleteObject",
    "AbortMultipartUpload",
}
_DELETES = {"DeleteObjects", "DeleteObject", "AbortMultipartUpload"}


def refusing(status: int, code: str) -> Step:
    async def step(_: S3Wire, seen: Seen, __: web.BaseRequest) -> web.StreamResponse:
        seen.status = status
        xml = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>storm</Message></Error>"
        return web.Response(status=status, body=xml.encode(), content_type="application/xml")

    return step


async def _reset(_: S3Wire, __: Seen, request: web.BaseRequest) -> web.StreamResponse:
    return reset(request)


async def _lose_answer(wire: S3Wire, seen: Seen, request: web.BaseRequest) -> web.StreamResponse:
    async with wire.asked(seen, request) as answer:
        await answer.read()
    return reset(request)


async def _cut(wire: S3Wire, seen: Seen, request: web.BaseRequest) -> web.StreamResponse:
    return await wire.forwarded(seen, request, at_most_bytes=3000)


async def _delay(wire: S3Wire, seen: Seen, request: web.BaseRequest) -> web.StreamResponse:
    await asyncio.sleep(1.5)
    return await wire.forwarded(seen, request)


def lying(change: Callable[[bytes], bytes]) -> Step:
    """Answer a download with a body and a length that fit each other, and not the object."""

    async def step(wire: S3Wire, seen: Seen, request: web.BaseRequest) -> web.StreamResponse:
        async with wire.asked(seen, request) as answer:
            body = change(await answer.read())
            headers = {name: value for name, value in answer.headers.items() if name in {"ETag", "Content-Range"}}
            return web.Response(status=answer.status, body=body, headers=headers)

    return step


class S3Door(S3Wire):
    """An S3 server in all weathers: `weather` says what happens to each request, by a seed."""

    def __init__(self, server_url: str, seed: int) -> None:
        super().__init__(server_url)
        self.weather = "fair"
        self.spoiled: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._clear = asyncio.Event()

    def turn(self, weather: str) -> None:
        self.weather = weather
        self._clear.set()
        self._clear = asyncio.Event()

    def _next_step(self, op: str) -> Step:
        if len(self.seen) > 1000:
            self.seen.clear()
        kinds = WEATHERS.get(self.weather)
        if kinds is None or (kinds[0] is not None and op not in kinds[0]) or self._random.random() > kinds[1]:
            return S3Wire.forwarded
        self.spoiled[self.weather] += 1
        return kinds[2]

    async def stall(self, seen: Seen, request: web.BaseRequest) -> web.StreamResponse:
        """Answer nothing, or half a body and no more, until the weather changes; then break off."""
        over = self._clear
        if seen.op == "GetObject" and self._random.random() < 0.5:
            response = await self.halfway(seen, request)
            await over.wait()
            reset(request)
            return response
        await over.wait()
        return reset(request)

    async def halfway(self, seen: Seen, request: web.BaseRequest) -> web.StreamResponse:
        async with self.asked(seen, request) as answer:
            headers = {name: value for name, value in answer.headers.items() if name in {"ETag", "Content-Range"}}
            response = web.StreamResponse(status=answer.status, headers=headers)
            response.content_length = answer.content_length
            await response.prepare(request)
            body = await answer.content.read(65_536)
            await response.write(body[: len(body) // 2])
            return response


async def _stall(wire: S3Wire, seen: Seen, request: web.BaseRequest) -> web.StreamResponse:
    assert isinstance(wire, S3Door)
    return await wire.stall(seen, request)


# What is spoiled (None: everything), how likely it is, and how.
WEATHERS: dict[str, tuple[set[str] | None, float, Step]] = {
    "s3 503": (None, 0.9, refusing(503, "ServiceUnavailable")),
    "s3 500": (None, 0.6, refusing(500, "InternalError")),
    "s3 SlowDown": (None, 0.7, refusing(503, "SlowDown")),
    "s3 delay": (None, 0.5, _delay),
    "s3 stall": (None, 0.7, _stall),
    "s3 reset": (None, 0.7, _reset),
    "s3 cut": ({"GetObject"}, 0.8, _cut),
    "s3 answer lost": (_WRITES, 0.5, _lose_answer),
    "s3 read-only": (_WRITES, 1.0, refusing(403, "AccessDenied")),
    "s3 full": (_WRITES - _DELETES, 1.0, refusing(507, "InsufficientStorage")),
    "s3 quota": (_WRITES - _DELETES, 1.0, refusing(403, "QuotaExceeded")),
    "s3 short": ({"GetObject"}, 0.7, lying(lambda body: body[: len(body) // 2])),
    "s3 long": ({"GetObject"}, 0.7, lying(lambda body: body + b"\0" * 100)),
}
