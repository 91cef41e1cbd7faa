"""An S3 server that misbehaves at random, by a seed: in its lengths, ranges, chunks, and in when it stops."""

import asyncio
import random
import re
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from socket import SO_LINGER, SOL_SOCKET
from typing import Self

from tests.support.ports import free_port, release_port

_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


def content_of(number: int) -> bytes:
    """Make an object's bytes: no two objects, and no two spans of one, are alike."""
    chance = random.Random(number)
    return chance.randbytes(chance.choice((1, 100, 10_000, 70_000, 300_000)) + chance.randrange(50))


@dataclass(slots=True)
class Answer:
    """What an honest server would say; those who spoil it change it."""

    status: int
    headers: dict[str, str]
    body: bytes
    close: bool = False
    reset: bool = False
    stall: bool = False
    before: bytes = b""
    after: bytes = b""
    pieces: int = 1

    def head(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status} Said", *(f"{name}: {value}" for name, value in self.headers.items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n"


Spoil = Callable[[Answer, random.Random], None]


def _cut(answer: Answer, chance: random.Random) -> None:
    answer.body = answer.body[: chance.randrange(len(answer.body) + 1)]
    answer.close = True
    answer.reset = chance.random() < 0.5


def _stall(answer: Answer, chance: random.Random) -> None:
    answer.body = answer.body[: chance.randrange(len(answer.body) + 1)]
    answer.stall = True


def _chunk(answer: Answer, chance: random.Random) -> None:
    """Send chunks, right ones or wrong ones."""
    del answer.headers["Content-Length"]
    answer.headers["Transfer-Encoding"] = "chunked"
    half = chance.randrange(len(answer.body) + 1)
    chunks = [piece for piece in (answer.body[:half], answer.body[half:]) if piece]
    wrong = chance.choice((0, 0, 0, 1, -1))
    coded = b"".join(b"%x\r\n%s\r\n" % (len(piece) + wrong, piece) for piece in chunks)
    answer.body = coded + chance.choice((b"0\r\n\r\n", b"0\r\n\r\n", b"", b"0\r\n", b"-1\r\n", b"zz\r\n\r\n"))
    answer.close = chance.random() < 0.7 or not answer.body.endswith(b"\r\n0\r\n\r\n")


def _say_longer(answer: Answer, chance: random.Random) -> None:
    answer.headers["Content-Length"] = str(len(answer.body) + chance.randrange(1, 20))
    answer.close = True


def _say_shorter(answer: Answer, chance: random.Random) -> None:
    answer.headers["Content-Length"] = str(max(0, len(answer.body) - chance.randrange(1, 20)))


def _say_less(answer: Answer, chance: random.Random) -> None:
    answer.body = answer.body[: max(0, len(answer.body) - chance.randrange(1, 20))]
    answer.headers["Content-Length"] = str(len(answer.body))


def _say_no_length(answer: Answer, chance: random.Random) -> None:
    del answer.headers["Content-Length"]
    if chance.random() < 0.5:
        answer.body = answer.body[: chance.randrange(len(answer.body) + 1)]
    answer.close = True


def _contradict(answer: Answer, chance: random.Random) -> None:
    if chance.random() < 0.5:
        answer.headers["Transfer-Encoding"] = "chunked"
    else:
        answer.headers["content-length"] = str(chance.randrange(1000))


def _repeat(answer: Answer, _: random.Random) -> None:
    answer.after = answer.head() + answer.body


def _add(answer: Answer, chance: random.Random) -> None:
    answer.after = chance.randbytes(chance.randrange(1, 300))


def _welcome(answer: Answer, chance: random.Random) -> None:
    answer.before = b"HTTP/1.1 100 Continue\r\n\r\n" * chance.choice((1, 2, 200))


def _shift(answer: Answer, chance: random.Random) -> None:
    """Send other bytes than asked for, and say so."""
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers.get("Content-Range", ""))
    if found:
        first, last, total = map(int, found.groups())
        by = chance.randrange(1, 5)
        told = chance.choice((f"{first + by}-{last + by}/{total}", f"{first}-{last + by}/{total}", "*/*", f"{first}-"))
        answer.headers["Content-Range"] = f"bytes {told}"
        answer.body = answer.body[::-1]


def _ignore_range(answer: Answer, _: random.Random) -> None:
    if answer.status == 206:
        answer.status = 200


def _talk_nonsense(answer: Answer, chance: random.Random) -> None:
    answer.before = chance.choice((b"\x16\x03\x01", b"HTTP/9.9 200 OK\r\n\r\n", b"220 smtp\r\n", b"X" * 70_000))
    answer.close = True


def _head_without_end(answer: Answer, _: random.Random) -> None:
    answer.headers |= {f"x-{number}": "y" * 1_000 for number in range(100)}
    answer.close = True


def _fail(answer: Answer, chance: random.Random) -> None:
    answer.status = chance.choice((500, 503, 404, 302, 204))
    if answer.status == 204:
        del answer.headers["Content-Length"]
        answer.body = b""


def _say_nothing(answer: Answer, chance: random.Random) -> None:
    answer.before, answer.status, answer.close, answer.reset = b"", 0, True, chance.random() < 0.5


def _switch(answer: Answer, _: random.Random) -> None:
    answer.before = b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"


def _in_pieces(answer: Answer, chance: random.Random) -> None:
    answer.pieces = chance.randrange(2, 6)


def _behave(_: Answer, __: random.Random) -> None:
    pass


SPOILS: tuple[Spoil, ...] = (
    _behave, _cut, _chunk, _say_longer, _say_shorter, _say_less, _say_no_length, _contradict, _repeat, _add, _welcome,
    _shift, _ignore_range, _talk_nonsense, _head_without_end, _fail, _say_nothing, _switch, _in_pieces,
)  # fmt: skip
_STALLS = 0.01


class HostileS3:
    """Holds every object that `content_of` makes, under `PREFIX/NUMBER`; takes any PUT and keeps what came whole."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._tasks: set[asyncio.Task[None]] = set()
        self.spoiled: Counter[str] = Counter()
        self.stored: dict[str, bytes] = {}
        self.endpoint_url = ""

    async def __aenter__(self) -> Self:
        self._port = free_port()
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        self.endpoint_url = f"http://127.0.0.1:{self._port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # for the transports to close
        release_port(self._port)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                while await self._serve(reader, writer):
                    pass
                writer.close()
                await writer.wait_closed()
        finally:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        spoil = _stall if self._chance.random() < _STALLS else self._chance.choice(SPOILS)
        self.spoiled[f"{method} {spoil.__name__}"] += 1
        if method == "GET":
            answer = _honest(int(target.rpartition("/")[2]), headers.get("range"))
            spoil(answer, self._chance)
            return await self._send(answer, writer)
        length = int(headers["content-length"])
        answer = Answer(200, {"Content-Length": "0", "ETag": '"put"'}, b"")
        spoil(answer, self._chance)
        if spoil is _cut:
            await reader.read(self._chance.randrange(length + 1))
            return False
        if spoil is _fail and self._chance.random() < 0.5:  # it answers before the body has come
            answer.close = True
        else:
            self.stored[target] = await reader.readexactly(length)
        return await self._send(answer, writer)

    async def _send(self, answer: Answer, writer: asyncio.StreamWriter) -> bool:
        whole = answer.before + (answer.head() + answer.body + answer.after if answer.status else b"")
        step = len(whole) // answer.pieces + 1
        for start in range(0, len(whole), step):
            writer.write(whole[start : start + step])
            await writer.drain()
            await asyncio.sleep(0)
        if answer.stall:
            await asyncio.Event().wait()
        if answer.reset:
            writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        return not answer.close


def _honest(number: int, span: str | None) -> Answer:
    content = content_of(number)
    etag = {"ETag": f'"{number}"'}
    if span is None:
        return Answer(200, etag | {"Content-Length": str(len(content))}, content)
    found = _RANGE.fullmatch(span)
    assert found is not None
    first, last = int(found[1]), int(found[2])
    body = content[first : last + 1]
    told = {"Content-Length": str(len(body)), "Content-Range": f"bytes {first}-{last}/{len(content)}"}
    return Answer(206, etag | told, body)
