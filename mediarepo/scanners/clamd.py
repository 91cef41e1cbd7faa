"""ClamAV's daemon: INSTREAM and VERSION, as clamd(8) describes them."""

import asyncio
from dataclasses import dataclass

from mediarepo.config.scanners import ScannerConfig
from mediarepo.model.scans import ScanResult, ScanSubject, SendContent, Verdict
from mediarepo.scanners.scanner import Connection, ScannerError, connected, pieces_of, printable, send_and_receive

_PORT = 3310
_TOO_LARGE = "size limit exceeded"


class _Instream:
    """A sink that sends chunks, each after its length (four bytes, network order)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def write(self, data: bytes) -> None:
        """Send a piece as chunks."""
        for piece in pieces_of(data):
            await self._connection.write(len(piece).to_bytes(4), piece)

    async def end(self) -> None:
        """Send the empty chunk that ends the stream."""
        await self._connection.write(bytes(4))


@dataclass(frozen=True, slots=True)
class Clamd:
    """A clamd, over TCP or a unix socket."""

    config: ScannerConfig

    async def check(self) -> str:
        """Return what VERSION says: program, database and its date. Raises ScannerError."""
        async with connected(self.config.address, _PORT, self.config.connect_timeout_ms) as connection:
            await connection.write(b"zVERSION\0")
            version = printable((await connection.read_until(b"\0")).decode("utf-8", "replace"))
        if not version.startswith("ClamAV"):
            raise ScannerError(f"this is no clamd: {version!r}")
        return version

    async def scan(self, _subject: ScanSubject, send: SendContent) -> ScanResult:
        """Have content scanned; the result's signatures are left empty. Raises ScannerError."""
        async with connected(self.config.address, _PORT, self.config.connect_timeout_ms) as connection:
            await connection.write(b"zINSTREAM\0")
            sending = asyncio.create_task(_send(connection, send), name="clamd sending")
            answer = asyncio.create_task(_answer(connection), name="clamd answer")
            return await send_and_receive(sending, answer)


async def _send(connection: Connection, send: SendContent) -> None:
    sink = _Instream(connection)
    await send(sink)
    await sink.end()


async def _answer(connection: Connection) -> ScanResult:
    return parse_answer((await connection.read_until(b"\0")).decode("utf-8", "replace"))


def parse_answer(answer: str) -> ScanResult:
    """Read `stream: OK`, `stream: NAME FOUND`, or an error. Raises ScannerError for errors but that of a size limit."""
    words = printable(answer.removeprefix("stream: "))
    if words == "OK":
        return ScanResult(Verdict.CLEAN, "")
    if words.endswith(" FOUND"):
        return ScanResult(Verdict.INFECTED, "", words.removesuffix(" FOUND"))
    if _TOO_LARGE in words:
        return ScanResult(Verdict.UNSCANNABLE, "", "larger than clamd's StreamMaxLength")
    raise ScannerError(f"clamd says {words!r}")
